"""Usable rows: the cells of a block, filtered and judged.

Enters: the cells that a reader found. Leaves: `Rows`, columns of the rows that can be used, and for each other one its
file, line and reason. A pure function over one block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfpipe.config.data import SPLITS
from tfpipe.config.run import Config
from tfpipe.data import readers
from tfpipe.data.block import Block, Rejection, excerpt
from tfpipe.data.labels import Labels, separator_of
from tfpipe.data.split import split_name
from tfpipe.errors import InputError
from tfpipe.escaping import SURROGATES
from tfpipe.tasks import task_of
from tfpipe.tokens.table import FILE_SHIFT

LISTED_VALUES = 10
_NO_LABEL = (bytes, dict, list, tuple)


@dataclass
class Rows:
    """The usable rows of a block, column by column, in the order of the file."""

    texts: list[str]
    text_pairs: list[str] | None
    labels: list[str]
    """the label cells, without surrounding white space"""
    groups: list[str] | None
    """of `data.split.group_column`"""
    given: np.ndarray
    """`[rows] int8`, place in `SPLITS` where the source gives the split, else -1"""
    row_ids: np.ndarray
    """`[rows] int64`, number of the file and of the row in it (see `row_id`)"""
    lines: list[int]
    names: list[str]
    """file of each row, as it is shown"""
    rejections: list[Rejection]
    filtered: int
    filter_values: dict[str, list[str]] = field(default_factory=dict)
    """column of the filter -> the first values found there"""

    def __len__(self) -> int:
        return len(self.texts)


def read_rows(block: Block, config: Config, labels: Labels | None) -> Rows:
    """Reads a block and judges its records.

    Args:
      block: the block.
      config: names the columns; the filter.
      labels: known labels, or None to take any; a row with another one is rejected.
    """
    data, cells = config.data, readers.cells(block, config.data)
    columns, name = cells.columns, block.file.name
    one_line = block.file.format == "folder"  # a file a row
    filters = {column: set(values) for column, values in data.filter.items()}
    filter_values: dict[str, dict[str, None]] = {column: {} for column in filters}
    texts, pairs, marks, groups = [], [], [], []
    given, numbers, names = [], [], []
    rejections, filtered = list(cells.rejections), 0
    text_cells = columns[data.text_column]
    label_cells = columns[data.label_column]
    pair_cells = columns[data.text_pair_column] if data.text_pair_column is not None else None
    group_cells = columns[data.split.group_column] if data.split.group_column is not None else None
    split_cells = columns[data.split.column] if data.split.column is not None else None
    separator = separator_of(config)
    given_by_file = SPLITS.index(block.file.split) if block.file.split is not None else -1
    verdicts: dict[str, str | None] = {}
    for at, number in enumerate(cells.numbers):
        passes = True
        for column, wanted in filters.items():
            value = _as_text(columns[column][at])
            if len(filter_values[column]) <= LISTED_VALUES:
                filter_values[column][value] = None
            passes = passes and value in wanted
        if not passes:
            filtered += 1
            continue
        text = text_cells[at]
        pair = None if pair_cells is None else pair_cells[at]
        label, reason = _label(label_cells[at], separator)
        split = given_by_file
        if reason is None:
            reason = _reason_to_reject(text, pair, pair_cells is not None)
        if reason is None:
            if label not in verdicts:
                verdicts[label] = _reason_to_reject_label(label, labels, config.task)
            reason = verdicts[label]
        if reason is None and split_cells is not None and (value := _as_text(split_cells[at])):
            found = split_name(value)
            reason = None if found else f"unknown split {excerpt(value)!r} (expected train, validation or test)"
            split = SPLITS.index(found) if found else -1
        group = None if group_cells is None else _as_text(group_cells[at])
        if reason is None and group_cells is not None and (not group or SURROGATES.search(group)):
            reason = "undecodable bytes in the group (not UTF-8)" if group else "empty group"
        record_name = name if cells.names is None else cells.names[at]
        if reason is not None:
            line = 1 if one_line else number
            rejections.append(Rejection(record_name, line, reason, excerpt(text) if isinstance(text, str) else ""))
            continue
        texts.append(text)
        pairs.append(pair)
        marks.append(label)
        groups.append(group)
        given.append(split)
        numbers.append(number)
        names.append(record_name)
    rejections.sort(key=lambda rejection: rejection.line)
    return Rows(
        texts=texts,
        text_pairs=None if pair_cells is None else pairs,
        labels=marks,
        groups=None if group_cells is None else groups,
        given=np.array(given, np.int8),
        row_ids=row_id(block.file.number, np.array(numbers, np.int64)),
        lines=[1] * len(numbers) if one_line else numbers,
        names=names,
        rejections=rejections,
        filtered=filtered,
        filter_values={column: list(values) for column, values in filter_values.items()},
    )


def row_id(file_number: int, numbers: np.ndarray) -> np.ndarray:
    """What identifies rows among those of all files: the file's number times 2**40, plus the row's in its file."""
    return (np.int64(file_number) << FILE_SHIFT) + numbers


def check_filter(config: Config, filter_values: dict[str, list[str]]) -> None:
    """Called where no row passed.

    Raises:
      InputError: always; says what the filter's columns hold.
    """
    there = "; ".join(f"column {column!r} holds {_listed(values)}" for column, values in filter_values.items())
    raise InputError(
        f"{config.data.source}: no row passes data.filter {config.data.filter!r}; {there}; change data.filter"
    )


def _listed(values: list[str]) -> str:
    shown = ", ".join(repr(excerpt(value)) for value in values[:LISTED_VALUES])
    return f"{shown} and more" if len(values) > LISTED_VALUES else shown or "nothing"


def _as_text(value: Any) -> str:
    """A cell as CSV would have it: numbers as digits, 1.0 (an integer beside missing values) as 1."""
    if isinstance(value, str):
        return value.strip()
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    return str(value)


def _label(value: Any, separator: str | None) -> tuple[str, str | None]:
    """The label cell as text, and why it can't be one."""
    if separator is not None and _is_null(value):
        return "", "no label (null); a row that has none of the labels has an empty list or an empty text"
    if isinstance(value, list | tuple) and separator is None:
        if len(value) != 1:
            return "", f"{len(value)} labels (task: single_label expects one)"
        (value,) = value
    elif isinstance(value, list | tuple):
        if any(_is_null(one) for one in value):
            return "", "a label in the list is null"
        if any(isinstance(one, _NO_LABEL) for one in value):
            return "", "a label in the list is not text or a number"
        parts = [_as_text(one) for one in value]
        holding = next((part for part in parts if separator in part), None)
        if holding is not None:
            return "", f"label {excerpt(holding)!r} holds data.label_separator {separator!r}; set another one"
        return separator.join(parts), None
    if isinstance(value, _NO_LABEL):
        return "", f"the label is not text or a number but {type(value).__name__}"
    return _as_text(value), None


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _reason_to_reject(text: Any, pair: Any, paired: bool) -> str | None:
    for part, value in (("text", text), ("second text", pair)) if paired else (("text", text),):
        if value is not None and not isinstance(value, str):
            return f"the {part} is not text but {type(value).__name__}"
        # isascii reads a flag; only what is longer in UTF-8 can hold a surrogate.
        if value and not value.isascii() and SURROGATES.search(value):
            return f"undecodable bytes in the {part} (not UTF-8)"
        if not value or value.isspace():
            return f"empty {part}"
    return None


def _reason_to_reject_label(label: str, labels: Labels | None, task: str) -> str | None:
    if SURROGATES.search(label):
        return "undecodable bytes in the label (not UTF-8)"
    if not label and task_of(task).one_label:
        return "empty label"
    return None if labels is None else labels.reason_to_reject(label)
