"""The labels, in their order, and each row's labels as a vector.

Enters: the values that the label cells hold, with the number of rows of each. Leaves: names in the order of the model's
outputs, and a float32 vector for each row, one-hot (`single_label`) or multi-hot (`multi_label`).

A label may be spelled in several ways. `data.label_spellings` decides which spellings are one label:

    auto   numbers where all labels are whole numbers (1 and 1.0), truth values where all are (True, true, also 1)
    fold   these, and texts that differ in case, in white space or in Unicode's compatibility forms
    keep   none
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.data.block import excerpt
from tfpipe.data.labels.form import missing_words
from tfpipe.errors import InputError

MOST_LABELS_FOUND = 1000  # as found in the file; more than these must be meant, and so be listed in data.label_names
_LISTED_VALUES = 10
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.0+)?", re.ASCII)
_INTEGER = re.compile("-?[0-9]+", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?", re.ASCII)
_NO_LABEL_WORDS = {"", "-", "?", ".", "na", "n/a", "#n/a", "<na>", "nan", "nat", "null", "none", "undefined", r"\n"}


@dataclass(frozen=True)
class Labels:
    """The labels of a run."""

    names: tuple[str, ...]
    """in the order of the model's outputs"""
    index: dict[str, int]
    """value in the file -> index in `names`; several values may share a name"""
    key: Callable[[str], str] = field(default=str)
    """spelling of a value -> what it has in common with the other spellings of it; the keys of `index` are such"""

    def of(self, values: Iterable[str]) -> tuple[int, ...]:
        """Returns the indices of a row's labels, rising, each once.

        Raises:
          KeyError: a value that is no label; ask `reason_to_reject` first.
        """
        return tuple(sorted({self.index[self.key(value)] for value in values}))

    def reason_to_reject(self, values: Iterable[str]) -> str | None:
        """Returns None for values that can be encoded, else the reason why they can't."""
        unknown = next((value for value in values if self.key(value) not in self.index), None)
        if unknown is None:
            return None
        expected = list(self.index)
        listed = ", ".join(map(excerpt, expected[:_LISTED_VALUES])) + (", …" if len(expected) > _LISTED_VALUES else "")
        return f"unknown label {excerpt(unknown)!r} (expected one of {listed})"

    def encode(self, values: Iterable[str]) -> np.ndarray:
        """Returns the label vector of a row.

        Returns:
          `[num_labels] float32` of zeros and ones.

        Raises:
          KeyError: see `of`.
        """
        vector = np.zeros(len(self.names), np.float32)
        vector[list(self.of(values))] = 1.0
        return vector


def whole_number(value: str) -> str:
    """Returns a whole number without its decimals, so that 1.0 is 1; another text as it is."""
    return str(int(value.partition(".")[0])) if _WHOLE.fullmatch(value) else value


def truth_value(value: str) -> str:
    """Returns a truth value in lower case; another text as it is."""
    return value.lower() if value.lower() in ("true", "false") else value


def zero_or_one(value: str) -> str:
    """Returns a truth value, or 0 or 1, as 0 or 1; another text as it is."""
    return {"true": "1", "false": "0"}.get(value.lower(), whole_number(value))


def folded(value: str) -> str:
    """Returns a text without the usual differences between spellings of one label."""
    if _NUMBER.fullmatch(value):
        number = float(value)
        return str(int(number)) if number.is_integer() else str(number)
    shown = (char for char in unicodedata.normalize("NFKC", value) if unicodedata.category(char) != "Cf")
    return " ".join("".join(shown).casefold().split())


def named_labels(config: Config, declared: tuple[str, ...] | None = None) -> Labels | None:
    """Returns the labels of `data.label_names`, else those that the files declare; None where the rows decide.

    Args:
      config: the settings.
      declared: the classes that the files name, in their order.

    Raises:
      InputError: fewer than two names, or a blank one.
    """
    given = config.data.label_names
    if given is None:
        return None if declared is None else in_order(dict.fromkeys(declared))
    names = tuple(dict.fromkeys(given.values()))
    for value, name in given.items():
        if not name.strip():
            raise InputError(f"data.label_names: the name of {value!r} is blank; name it, as an answer shows the name")
    if len(names) < 2:
        raise InputError(f"data.label_names: {len(names)} label ({', '.join(names)}); a classifier needs at least two")
    values = {value.strip(): name for value, name in given.items()}
    if declared is not None and not set(values) <= set(declared) and all(map(_INTEGER.fullmatch, values)):
        # The file has names for its numbers, and so have the settings.
        outside = next((value for value in values if not 0 <= int(value) < len(declared)), None)
        if outside is not None:
            raise InputError(
                f"data.label_names: {outside} is no class of the file, which has {len(declared)}, from 0 on "
                f"({', '.join(declared[:_LISTED_VALUES])}); correct it"
            )
        values = {declared[int(value)]: name for value, name in values.items()}
    key = _key(values, config)
    index: dict[str, int] = {}
    for value, name in values.items():
        if index.setdefault(key(value), names.index(name)) != names.index(name):
            raise InputError(
                f"data.label_names: {value!r} is another spelling of a value with another name; correct one of them, "
                "or set data.label_spellings: keep"
            )
    return Labels(names, index, key)


def in_order(names: Iterable[str]) -> Labels:
    """Makes labels whose names are their values."""
    names = tuple(names)
    return Labels(names, {name: index for index, name in enumerate(names)})


def found_labels(counts: Mapping[str, int], config: Config) -> Labels:
    """Returns the labels that the files hold, sorted; as numbers, if all are whole numbers.

    Args:
      counts: value found -> rows that have it.
      config: names the column, in errors.

    Raises:
      InputError: fewer than two labels, or so many that the column can hardly be one of labels.
    """
    key = _key(counts, config)
    spellings: dict[str, Counter[str]] = {}
    for value, count in counts.items():
        spellings.setdefault(key(value), Counter())[value] = count
    named = {each: _name(each, found, key) for each, found in spellings.items()}
    names = tuple(sorted(named.values()))
    if all(map(_INTEGER.fullmatch, names)):
        names = tuple(sorted(names, key=int))  # stable: 1 before 01
    where = f"{config.data.source}: column {config.data.label_column!r}"
    if len(names) < 2:
        there = f"only the label {names[0]!r}" if names else "no label"
        raise InputError(
            f"{where} holds {there} in the rows used; a classifier needs at least two: "
            "check data.label_column and data.filter"
        )
    if len(names) > MOST_LABELS_FOUND:
        raise InputError(
            f"{where} holds {len(names):,} different values, such as {names[0]!r}; more than {MOST_LABELS_FOUND:,} "
            "labels must be listed in data.label_names: check data.label_column"
        )
    positions = {name: index for index, name in enumerate(names)}
    index = sorted(((each, positions[name]) for each, name in named.items()), key=lambda entry: entry[1])
    return Labels(names, dict(index), key)


def _key(values: Iterable[str], config: Config) -> Callable[[str], str]:
    """Returns the function that gives spellings of one label the same result."""
    values, spellings = list(values), config.data.label_spellings
    if spellings == "fold":
        return folded
    if spellings == "auto" and values:
        if all(map(_WHOLE.fullmatch, values)):
            return whole_number
        if all(value.lower() in ("true", "false") for value in values):
            return truth_value
        if {whole_number(value.lower()) for value in values} <= {"0", "1", "true", "false"}:
            return zero_or_one
    return str


def _name(key: str, spellings: Counter[str], function: Callable[[str], str]) -> str:
    """Returns the name of a label: its key where that is a number or a truth value, else its commonest spelling."""
    if function is not folded or _NUMBER.fullmatch(key):
        return key
    return min(spellings, key=lambda value: (-spellings[value], value))


def announce_doubts(counts: Mapping[str, int], labels: Labels, config: Config) -> None:
    """Warns of labels that may be spellings of one label, and of names that often stand for no label."""
    if config.data.label_spellings == "auto":
        alike: dict[str, list[str]] = {}
        for name in labels.names:
            alike.setdefault(folded(name), []).append(name)
        for group in [group for group in alike.values() if len(group) > 1][:_LISTED_VALUES]:
            listed = ", ".join(f"{name!r} ({counts.get(name, 0):,} rows)" for name in group)
            say(f"warning: {listed} are labels of their own; data.label_spellings: fold makes them one, keep is silent")
    if config.data.missing is not None or config.data.label_names is not None:
        return
    doubtful = [name for name in labels.names if name.lower() in _NO_LABEL_WORDS]
    whole = [name for name in labels.names if _INTEGER.fullmatch(name)]
    if len(whole) == len(labels.names) > 2 and whole[0] == "-1" and whole[1] == "0":
        doubtful.append("-1")
    if doubtful:
        listed = ", ".join(f"{name!r} ({counts.get(name, 0):,} rows)" for name in doubtful)
        words = ", ".join(f"'{name}'" for name in sorted({*doubtful, *missing_words(config)}))
        say(
            f"warning: {listed} is a label, and often stands for none; data.missing: [{words}] leaves its rows out, "
            "data.missing: [] is silent"
        )
