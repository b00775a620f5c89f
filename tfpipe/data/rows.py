"""Usable rows: the cells of a block, filtered and checked.

Enters: the cells that a reader found. Leaves: `Rows`, columns of the rows that can be used, and for each other one its
file, line and reason. A pure function over one block.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tfpipe.config.data import SPLITS
from tfpipe.config.run import Config
from tfpipe.data import readers
from tfpipe.data.block import Block, Cells, Rejection, excerpt
from tfpipe.data.labels import Labels, separator_of
from tfpipe.data.split import split_name
from tfpipe.data.texts import NoText, as_texts, reason_of_nested, scalar_as_text, texts_of
from tfpipe.errors import InputError
from tfpipe.escaping import SURROGATES
from tfpipe.tasks import task_of
from tfpipe.tokens.table import FILE_SHIFT

T = TypeVar("T")

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
    """`[rows] int8`, index in `SPLITS` where the source gives the split, else -1"""
    row_ids: np.ndarray
    """`[rows] int64`, number of the file and of the row in it (see `row_id`)"""
    lines: list[int]
    names: list[str]
    """file of each row, as it is shown"""
    rejections: list[Rejection]
    filtered: int
    filter_values: dict[str, list[str]]
    """column of the filter -> the first values found there"""
    kinds: Counter[str]
    """type of the cells that were read as text, where that is another type -> cells"""

    def __len__(self) -> int:
        return len(self.texts)


def read_rows(block: Block, config: Config, labels: Labels | None) -> Rows:
    """Reads a block and checks its records.

    Args:
      block: the block.
      config: names the columns; the filter.
      labels: known labels, or None to take any; a row with another one is rejected.
    """
    cells, data = readers.cells(block, config.data), config.data
    passing, filter_values = _passing(cells, data.filter)
    records, kinds = _records(block, cells, passing, config)
    reasons = _reasons(records, config, labels)
    usable = [index for index, reason in enumerate(reasons) if reason is None]
    rejected = [records.rejection(index, reason) for index, reason in enumerate(reasons) if reason is not None]

    def kept(column: list[T]) -> list[T]:
        return [column[index] for index in usable] if rejected else column

    return Rows(
        texts=kept(records.texts),
        text_pairs=None if data.text_pair_column is None else kept(records.pairs),
        labels=[label for label, _ in kept(records.labels)],
        groups=None if data.split.group_column is None else [group for group, _ in kept(records.groups)],
        given=np.array([split for split, _ in kept(records.given)], np.int8),
        row_ids=row_id(block.file.number, np.array(kept(records.numbers), np.int64)),
        lines=kept(records.lines),
        names=kept(records.names),
        rejections=sorted(cells.rejections + rejected, key=lambda rejection: rejection.line),
        filtered=len(cells.numbers) - len(passing),
        filter_values=filter_values,
        kinds=kinds,
    )


@dataclass
class _Records:
    """The records of a block that pass the filter, column by column; what was parsed has a reason to reject it."""

    numbers: list[int]
    lines: list[int]
    names: list[str]
    texts: list[Any]
    pairs: list[Any]
    labels: list[tuple[str, str | None]]
    groups: list[tuple[str | None, str | None]]
    given: list[tuple[int, str | None]]
    unit: str
    """what `lines` counts"""

    def rejection(self, index: int, reason: str) -> Rejection:
        """Describes a record that can't be used."""
        text = self.texts[index]
        return Rejection(self.names[index], self.lines[index], reason, excerpt(str(text or "")), self.unit)


def _passing(cells: Cells, filters: dict[str, list[str]]) -> tuple[Sequence[int], dict[str, list[str]]]:
    """Lists the records that pass `data.filter`, and the first values in each of its columns."""
    passing, found = range(len(cells.numbers)), {}
    for column, listed in filters.items():
        values, wanted = [_as_text(value) for value in cells.columns[column]], set(listed)
        found[column] = list(itertools.islice(dict.fromkeys(values), LISTED_VALUES + 1))
        passing = [index for index in passing if values[index] in wanted]
    return passing, found


def _records(block: Block, cells: Cells, passing: Sequence[int], config: Config) -> tuple[_Records, Counter[str]]:
    """Parses the cells of some records; counts what was read as text and is not."""
    data, nothing = config.data, [None] * len(passing)

    def column(name: str | None) -> list[Any]:
        return nothing if name is None else [cells.columns[name][index] for index in passing]

    numbers = [cells.numbers[index] for index in passing]
    file_split = -1 if block.file.split is None else SPLITS.index(block.file.split)
    separator, group_column, split_column = separator_of(config), data.split.group_column, data.split.column
    label_column = data.label_column
    texts, kinds = texts_of(column, data)
    pairs = column(data.text_pair_column)
    if data.text_pair_column is not None:
        pairs = as_texts(pairs, "second text", "data.text_pair_column", data.text_pair_column, kinds)
    records = _Records(
        numbers=numbers,
        lines=[1] * len(numbers) if block.file.format == "folder" else numbers,  # there a file is a row
        names=[block.file.name if cells.names is None else cells.names[index] for index in passing],
        texts=texts,
        pairs=pairs,
        labels=[_label(cell, separator, label_column) for cell in column(label_column)],
        groups=[(None, None)] * len(passing) if group_column is None else _parsed(column(group_column), _group),
        given=[(file_split, None)] * len(passing)
        if split_column is None
        else _parsed(column(split_column), lambda value: _given(value, file_split)),
        unit=cells.unit,
    )
    return records, kinds


def _reasons(records: _Records, config: Config, labels: Labels | None) -> list[str | None]:
    """Tells for each record why it can't be used, the first reason that there is; None where it can."""
    paired, one_label = config.data.text_pair_column is not None, task_of(config.task).one_label
    of_label = {
        label: _reason_to_reject_label(label, labels, one_label) for label in {label for label, _ in records.labels}
    }
    columns = (records.texts, records.pairs, records.labels, records.given, records.groups)
    return [
        no_label or _reason_to_reject(text, pair, paired) or of_label[label] or no_split or no_group
        for text, pair, (label, no_label), (_, no_split), (_, no_group) in zip(*columns, strict=True)
    ]


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
    """A cell as CSV would have it, without surrounding white space."""
    if isinstance(value, str):
        return value.strip()
    if value is None:
        return ""
    return scalar_as_text(value)


def _parsed(cells: list[Any], parse: Callable[[str], T]) -> list[T]:
    """Parses the texts of cells, each text that occurs once."""
    texts = list(map(_as_text, cells))
    found = {text: parse(text) for text in set(texts)}
    return [found[text] for text in texts]


def _given(value: str, file_split: int) -> tuple[int, str | None]:
    """The split that a cell names, as its index in `SPLITS`, or that of the file; and why it can't be one."""
    if not value:
        return file_split, None
    split = split_name(value)
    if split is None:
        return -1, f"unknown split {excerpt(value)!r} (expected train, validation or test)"
    return SPLITS.index(split), None


def _group(value: str) -> tuple[str, str | None]:
    """A group, and why it can't be one."""
    if SURROGATES.search(value):
        return value, "undecodable bytes in the group (not UTF-8)"
    return value, None if value else "empty group"


def _label(value: Any, separator: str | None, column: str) -> tuple[str, str | None]:
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
        if isinstance(value, dict):
            return "", reason_of_nested(value, "label", "data.label_column", column)
        return "", f"the label is not text or a number but {type(value).__name__}"
    return _as_text(value), None


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _reason_to_reject(text: Any, pair: Any, paired: bool) -> str | None:
    for part, value in (("text", text), ("second text", pair)) if paired else (("text", text),):
        if type(value) is NoText:
            return value.reason
        # isascii reads a flag; only what is longer in UTF-8 can hold a surrogate.
        if value and not value.isascii() and SURROGATES.search(value):
            return f"undecodable bytes in the {part} (not UTF-8)"
        if not value or value.isspace():
            return f"empty {part}"
    return None


def _reason_to_reject_label(label: str, labels: Labels | None, one_label: bool) -> str | None:
    if SURROGATES.search(label):
        return "undecodable bytes in the label (not UTF-8)"
    if not label and one_label:
        return "empty label"
    return None if labels is None else labels.reason_to_reject(label)
