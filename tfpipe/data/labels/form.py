"""The choice of the form of the label cells, from some of them and the settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tfpipe.config.run import Config
from tfpipe.data.block import as_text, excerpt, is_null
from tfpipe.data.labels.cells import OFF, ON, LabelForm, looks_like_list
from tfpipe.data.labels.lists import CHOICES, listed
from tfpipe.errors import InputError
from tfpipe.tasks import task_of

SEPARATOR = "|"
SHOWN = 3
NULL = r"\N"
"""stands for no label where PostgreSQL, MySQL, Hive or Snowflake wrote the file"""
_INTEGER = re.compile("-?[0-9]+", re.ASCII)
_NO_AGREEMENT = {"gold_label": "-"}
"""label column of SNLI and MultiNLI -> what it holds where the annotators did not agree"""


def missing_words(config: Config) -> frozenset[str]:
    """Returns the texts that stand for no label: `data.missing`, else those of known producers; -1 also as -1.0."""
    if config.data.missing is not None:
        floats = {f"{word}.0" for word in config.data.missing if _INTEGER.fullmatch(word)}
        return frozenset(config.data.missing) | (floats if config.data.label_spellings != "keep" else set())
    column = config.data.label_column
    known = _NO_AGREEMENT.get(column.split(".")[-1]) if isinstance(column, str) else None
    return frozenset({NULL} if known is None else {NULL, known})


def form_of(
    cells: Iterable[Any], config: Config, *, null_is_missing: bool = False, empty_is_missing: bool = False
) -> LabelForm:
    """Chooses the form of the label cells.

    Args:
      cells: some of them, of all files.
      config: names the task, and the form where it is set.
      null_is_missing: whether a null is known to stand for no label, as in files that name their classes.
      empty_is_missing: whether an empty text stands for no label too, as in exports of annotation tools.

    Raises:
      InputError: the form is in doubt, or needs a setting.
    """
    data, one_label, missing = config.data, task_of(config.task).one_label, missing_words(config)
    missing |= {""} if empty_is_missing and data.missing is None else set()
    kind, names, bare, own_lists = "columns", (), True, False
    if isinstance(data.label_column, str):
        labeled = [cell for cell in cells if not is_null(cell) and as_text(cell) not in missing | {""}]
        kind = _kind(labeled, config)
        bare = data.label_form == "list" or any(isinstance(cell, str) and CHOICES in cell for cell in labeled)
        own_lists = _are_lists(labeled)
        width = _width(labeled) if data.label_form == "auto" and (kind == "list" or own_lists) else None
        if width is not None or kind == "multi_hot":
            kind, names = "multi_hot", _classes(config, width)
    else:
        names = data.label_column
    usual = "#" if data.format == "doccano" else SEPARATOR
    separator = None if one_label else data.label_separator or usual
    return LabelForm(
        kind=kind,
        column=str(data.label_column),
        one_label=one_label,
        separator=separator,
        names=names,
        missing=missing,
        null_is_missing=null_is_missing or "" in missing,
        bare=bare,
        own_lists=own_lists,
    )


def _kind(cells: Sequence[Any], config: Config) -> str:
    """Returns the form that is set, or that all cells which are texts have."""
    if config.data.label_form != "auto":
        return config.data.label_form
    texts = list(dict.fromkeys(as_text(cell) for cell in cells if not isinstance(cell, list | tuple | dict)))
    lists = [text for text in texts if listed(text) is not None]
    if (texts and len(lists) == len(texts)) or any(CHOICES in text for text in lists):
        return "list"
    if 2 * len(lists) > len(texts):
        other = next(text for text in texts if text not in lists)
        raise InputError(
            f"{_where(config)}: most labels are lists, such as {excerpt(lists[0])!r}, and some are not, such as "
            f"{excerpt(other)!r}; set data.label_form: list, or plain to take each as it stands"
        )
    return "plain"


def _are_lists(cells: Sequence[Any]) -> bool:
    return bool(cells) and all(isinstance(cell, list | tuple) for cell in cells)


def _width(cells: Sequence[Any]) -> int | None:
    """Returns the length that all lists share if they hold only zeros and ones, and so are vectors."""
    lists = [listed(as_text(cell)) if isinstance(cell, str) else cell for cell in cells]
    if not _are_lists(lists) or len(set(map(len, lists))) != 1 or len(lists[0]) < 2:
        return None
    numbers = (ON | OFF) - {"yes", "no", "y", "n"}
    return len(lists[0]) if all(as_text(one).lower() in numbers for each in lists for one in each) else None


def _classes(config: Config, width: int | None) -> tuple[str, ...]:
    """Returns the class of each position of a vector: the values that `data.label_names` lists, in its order."""
    names = tuple(config.data.label_names or ())
    if names and width in (None, len(names)):
        return names
    count = width or 2
    listing = "{" + ", ".join(f'"{n}": NAME' for n in range(min(count, SHOWN))) + (", …}" if count > SHOWN else "}")
    there = f"lists {len(names)} names" if names else "is not set"
    raise InputError(
        f"{_where(config)} holds vectors of {width or 'several'} zeros and ones, and data.label_names {there}; "
        f"name the class of each position, in order: data.label_names: {listing}"
    )


def check_values(values: Iterable[str], form: LabelForm, config: Config) -> None:
    """Checks that each plain label is one label, not several in a form that the first rows did not show.

    Raises:
      InputError: labels look like lists, or hold a separator that is not the one set.
    """
    values = list(values)
    if form.kind != "plain" or form.own_lists or config.data.label_form == "plain":
        return
    lists = [value for value in values if looks_like_list(value)]
    if len(lists) > len(values) / 2:
        raise InputError(
            f"{_where(config)}: labels such as {_shown(lists)} look like lists that tfpipe can't read; write them as "
            "JSON lists, or set data.label_form: plain if each is one label"
        )
    if mixed := [value for value in lists if _holds_labels(value, set(values))]:
        raise InputError(
            f"{_where(config)}: labels such as {_shown(mixed)} are lists, and most are not; set data.label_form: list, "
            "or plain to take each as it stands"
        )
    if form.separator is not None and len(values) > 1 and {value.lower() for value in values} <= ON | OFF:
        raise InputError(
            f"{_where(config)}: the labels are {_shown(sorted(values))}: a column that says of one class whether a row "
            "has it; list the columns of all classes in data.label_column, set task: single_label, or set "
            "data.label_form: plain if they are names of classes"
        )
    if form.separator is None or config.data.label_separator is not None:
        return
    for separator in (",", ";", "#", "\t", "/", " "):
        joined = [value for value in values if separator in value]
        if joined and _are_combinations(joined, values, separator):
            raise InputError(
                f"{_where(config)}: labels such as {_shown(joined)} look like several labels with {separator!r} "
                f"between them; set data.label_separator: {separator!r}, or {SEPARATOR!r} if each is one label"
            )


def _holds_labels(value: str, values: set[str]) -> bool:
    """Tells whether a label is a list: of no element or several, or of one that is a label by itself."""
    elements = listed(value)
    return elements is not None and (len(elements) != 1 or as_text(elements[0]) in values)


def _are_combinations(joined: list[str], values: list[str], separator: str) -> bool:
    """Tells whether the parts of labels are labels, too, or occur again: then the labels are combinations."""
    parts = [{part.strip() for part in value.split(separator)} - {""} for value in joined]  # C# and F# have no parts
    if separator in "/ " and not all(part in ON | OFF for each in parts for part in each):
        return False  # "not toxic" beside "toxic" is an ordinary name; 0 1 0 is a vector
    alone = set(values) - set(joined)
    occurring = [part for each in parts for part in each]
    return any(part in alone for part in occurring) or len(set(occurring)) < len(occurring)


def _shown(values: list[str]) -> str:
    return ", ".join(repr(excerpt(value)) for value in values[:SHOWN])


def _where(config: Config) -> str:
    return f"{config.data.source}: column {config.data.label_column!r}"
