"""Which labels exist, in which order, and each row's label as a vector.

Enters: the value of the label column. Leaves: a float32 vector with an element for each label, one-hot
(`single_label`) or multi-hot (`multi_label`). The order of the labels is the order of the model's outputs, so it is
fixed here, once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tfpipe.config.run import Config
from tfpipe.data.block import excerpt
from tfpipe.errors import InputError
from tfpipe.tasks import task_of

MOST_LABELS_FOUND = 1000  # as found in the file; more than these must be meant, and so be listed in data.label_names
_LISTED_VALUES = 10


@dataclass(frozen=True)
class Labels:
    """The labels of a run."""

    names: tuple[str, ...]
    """in the order of the model's outputs"""
    index: dict[str, int]
    """value in the file -> index in `names`; several values may share a name"""
    separator: str | None
    """between the values of one row; None: one value a row"""

    def split(self, cell: str) -> list[str]:
        """The values in one cell of the label column; none for an empty cell of a multi-label row."""
        return split_cell(cell, self.separator)

    def reason_to_reject(self, cell: str) -> str | None:
        """None for a cell that can be encoded, else why it can't."""
        unknown = next((value for value in self.split(cell) if value not in self.index), None)
        if unknown is None:
            return None
        expected = list(self.index)
        listed = ", ".join(map(excerpt, expected[:_LISTED_VALUES])) + (", …" if len(expected) > _LISTED_VALUES else "")
        return f"unknown label {excerpt(unknown)!r} (expected one of {listed})"

    def encode(self, cell: str) -> np.ndarray:
        """The label vector of one cell.

        Returns:
          `[num_labels] float32` of zeros and ones.

        Raises:
          KeyError: a value that is no label; ask `reason_to_reject` first.
        """
        vector = np.zeros(len(self.names), np.float32)
        vector[[self.index[value] for value in self.split(cell)]] = 1.0
        return vector


def separator_of(config: Config) -> str | None:
    """What stands between the values of one cell; None where a cell is one value."""
    return config.data.label_separator if not task_of(config.task).one_label else None


def split_cell(cell: str, separator: str | None) -> list[str]:
    """The values in one cell, without surrounding white space and without empty ones."""
    parts = [cell] if separator is None else cell.split(separator)
    return [value for part in parts if (value := part.strip())]


def named_labels(config: Config) -> Labels | None:
    """The labels of `data.label_names` in its order; None where the file decides.

    Raises:
      InputError: fewer than two names, or a blank one.
    """
    if config.data.label_names is None:
        return None
    names = tuple(dict.fromkeys(config.data.label_names.values()))
    for value, name in config.data.label_names.items():
        if not name.strip():
            raise InputError(f"data.label_names: the name of {value!r} is blank; name it, as an answer shows the name")
    if len(names) < 2:
        raise InputError(f"data.label_names: {len(names)} label ({', '.join(names)}); a classifier needs at least two")
    index = {value.strip(): names.index(name) for value, name in config.data.label_names.items()}
    return Labels(names, index, separator_of(config))


def found_labels(values: Iterable[str], config: Config) -> Labels:
    """The labels that the file holds, sorted; as numbers, if all are whole numbers.

    Args:
      values: the values found, each taken from a cell with `split_cell`.
      config: names the column, in errors.

    Raises:
      InputError: fewer than two labels, or so many that the column can hardly be one of labels.
    """
    names = tuple(sorted(set(values)))
    if all(re.fullmatch("-?[0-9]+", name, re.ASCII) for name in names):
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
    return Labels(names, {name: index for index, name in enumerate(names)}, separator_of(config))
