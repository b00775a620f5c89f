"""Usable rows: the cells of a block, filtered and checked.

Enters: the cells that a reader found. Leaves: `Rows`, columns of the rows that can be used, and for each other row its
file, line and reason. It is a pure function over one block.
"""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tfpipe.config.data import SPLITS
from tfpipe.config.run import Config
from tfpipe.data import readers
from tfpipe.data.block import EXCERPT_CHARACTERS, Block, Cells, Rejection, as_text, excerpt, label_columns
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.labels.cells import UNLABELED, WITHOUT_LABEL, LabelCell, LabelForm
from tfpipe.data.labels.names import Labels
from tfpipe.data.slices import slice_value
from tfpipe.data.split import split_name
from tfpipe.data.texts import NoText, as_texts, texts_of
from tfpipe.errors import InputError
from tfpipe.escaping import SURROGATES
from tfpipe.tokens.table import FILE_SHIFT

T = TypeVar("T")

LISTED_VALUES = 10
UNDECODABLE = "undecodable bytes"
"""how each reason begins to reject a row of another encoding"""


@dataclass
class Rows:
    """The usable rows of a block, column by column, in the order of the file."""

    texts: list[str]
    text_pairs: list[str] | None
    labels: list[tuple[str, ...]]
    """the values of each row's labels, as the file spells them"""
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
    without_label: np.ndarray
    """`[n] int8`: the given split, or -1, of each row without a label, left out or rejected"""
    unlabeled: int
    """rows that are left out as they have no label"""
    kinds: Counter[str]
    """type of the cells that were read as text, where that is another type -> cells"""
    slices: dict[str, list[str | None]]
    """column of `report.slices` -> the value of each row; None: it has none"""

    def __len__(self) -> int:
        return len(self.texts)


def read_rows(block: Block, config: Config, form: LabelForm, labels: Labels | None) -> Rows:
    """Reads a block and checks its records.

    Args:
      block: the block.
      config: names the columns; the filter.
      form: of the label cells.
      labels: known labels, or None to take any; a row with another label is rejected.
    """
    cells, data = readers.cells(block, config.data), config.data
    passing, filter_values = _passing(cells, data.filter)
    records, kinds = _records(block, cells, passing, config, form)
    reasons = _reasons(records, config, labels)
    usable = [index for index, reason in enumerate(reasons) if reason is None]
    given = zip(records.given, reasons, strict=True)
    without_label = [split for (split, _), reason in given if reason in WITHOUT_LABEL]
    rejected = [
        records.rejection(index, reason) for index, reason in enumerate(reasons) if reason not in (None, UNLABELED)
    ]

    def kept(column: list[T]) -> list[T]:
        return [column[index] for index in usable] if len(usable) < len(reasons) else column

    return Rows(
        texts=kept(records.texts),
        text_pairs=None if data.text_pair_column is None else kept(records.pairs),
        labels=[values for values, _ in kept(records.labels)],
        groups=None if data.split.group_column is None else [group for group, _ in kept(records.groups)],
        given=np.array([split for split, _ in kept(records.given)], np.int8),
        row_ids=row_id(block.file.number, np.array(kept(records.numbers), np.int64)),
        lines=kept(records.lines),
        names=kept(records.names),
        rejections=sorted(cells.rejections + rejected, key=lambda rejection: rejection.line),
        filtered=len(cells.numbers) - len(passing),
        filter_values=filter_values,
        without_label=np.array(without_label, np.int8),
        unlabeled=reasons.count(UNLABELED),
        kinds=kinds,
        slices={
            column: [slice_value(cells.columns[column][passing[index]]) for index in usable]
            for column in config.data.slice_columns
        },
    )


def label_cells(block: Block, config: Config) -> list[Any]:
    """Reads the label cells of the records that pass the filter; of several columns, a tuple for each record."""
    cells = readers.cells(block, config.data)
    passing, _ = _passing(cells, config.data.filter)
    return _label_column(cells, passing, config)


@dataclass
class _Records:
    """The records of a block that pass the filter, column by column; a parsed cell has its reason to be rejected."""

    numbers: list[int]
    lines: list[int]
    names: list[str]
    texts: list[Any]
    pairs: list[Any]
    labels: list[LabelCell]
    groups: list[tuple[str | None, str | None]]
    given: list[tuple[int, str | None]]
    unit: str
    """what `lines` counts"""

    def rejection(self, index: int, reason: str) -> Rejection:
        """Describes a record that can't be used."""
        text, label = str(self.texts[index] or ""), self.labels[index]
        if reason.startswith(UNDECODABLE) and (found := SURROGATES.search(text)):
            text = text[max(0, found.start() - EXCERPT_CHARACTERS // 2) :]  # what is around them
        named = None if label.reason else excerpt(", ".join(label.values))
        return Rejection(self.names[index], self.lines[index], reason, excerpt(text), self.unit, named)


def _passing(cells: Cells, filters: dict[str, list[str]]) -> tuple[Sequence[int], dict[str, list[str]]]:
    """Lists the records that pass `data.filter`, and the first values in each of its columns."""
    passing, found = range(len(cells.numbers)), {}
    for column, listed in filters.items():
        values, wanted = [as_text(value) for value in cells.columns[column]], set(listed)
        found[column] = list(itertools.islice(dict.fromkeys(values), LISTED_VALUES + 1))
        passing = [index for index in passing if values[index] in wanted]
    return passing, found


def _label_column(cells: Cells, passing: Sequence[int], config: Config) -> list[Any]:
    columns = [[cells.columns[name][index] for index in passing] for name in label_columns(config.data)]
    return columns[0] if isinstance(config.data.label_column, str) else list(zip(*columns, strict=True))


def _records(
    block: Block, cells: Cells, passing: Sequence[int], config: Config, form: LabelForm
) -> tuple[_Records, Counter[str]]:
    """Parses the cells of some records; counts the cells that were read as text but are not."""
    data, nothing = config.data, [None] * len(passing)

    def column(name: str | None) -> list[Any]:
        return nothing if name is None else [cells.columns[name][index] for index in passing]

    numbers = [cells.numbers[index] for index in passing]
    file_split = -1 if block.file.split is None else SPLITS.index(block.file.split)
    group_column, split_column = data.split.group_column, data.split.column
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
        labels=form.read(_label_column(cells, passing, config)),
        groups=[(None, None)] * len(passing) if group_column is None else _parsed(column(group_column), _group),
        given=[(file_split, None)] * len(passing)
        if split_column is None
        else _parsed(column(split_column), lambda value: _given(value, file_split)),
        unit=cells.unit,
    )
    return records, kinds


def _reasons(records: _Records, config: Config, labels: Labels | None) -> list[str | None]:
    """Tells for each record the first reason why it can't be used; None where it can."""
    paired = config.data.text_pair_column is not None
    of_label = {values: _reason_to_reject_label(values, labels) for values in {values for values, _ in records.labels}}
    columns = (records.texts, records.pairs, records.labels, records.given, records.groups)
    return [
        no_label or reason_to_reject_text(text, pair, paired) or of_label[values] or no_split or no_group
        for text, pair, (values, no_label), (_, no_split), (_, no_group) in zip(*columns, strict=True)
    ]


def row_id(file_number: int, numbers: np.ndarray) -> np.ndarray:
    """Makes ids of rows among those of all files: the file's number times 2**40, plus the row's in its file."""
    return (np.int64(file_number) << FILE_SHIFT) + numbers


def check_filter(config: Config, filter_values: dict[str, list[str]]) -> None:
    """Raises an error; called where no row passed.

    Raises:
      InputError: always; lists the values in the filter's columns.
    """
    there = "; ".join(f"column {column!r} holds {_listed(values)}" for column, values in filter_values.items())
    raise InputError(
        f"{config.data.source}: no row passes data.filter {config.data.filter!r}; {there}; change data.filter"
    )


def _listed(values: list[str]) -> str:
    shown = ", ".join(repr(excerpt(value)) for value in values[:LISTED_VALUES])
    return f"{shown} and more" if len(values) > LISTED_VALUES else shown or "nothing"


def _parsed(cells: list[Any], parse: Callable[[str], T]) -> list[T]:
    """Parses the texts of cells, each distinct text once."""
    texts = list(map(as_text, cells))
    found = {text: parse(text) for text in set(texts)}
    return [found[text] for text in texts]


def _given(value: str, file_split: int) -> tuple[int, str | None]:
    """Parses the split that a cell names, as its index in `SPLITS`, or that of the file; and why it can't be one."""
    if not value:
        return file_split, None
    split = split_name(value)
    if split is None:
        return -1, f"unknown split {excerpt(value)!r} (expected train, validation or test)"
    return SPLITS.index(split), None


def _group(value: str) -> tuple[str, str | None]:
    """Checks a group: returns it, and why it can't be one."""
    if SURROGATES.search(value):
        return value, f"{UNDECODABLE} in the group (not UTF-8)"
    return value, None if value else "empty group"


def reason_to_reject_text(text: Any, pair: Any, paired: bool) -> str | None:
    """Tells why a row's texts, as `texts.as_texts` gives them, can't be used; None where they can."""
    for part, value in (("text", text), ("second text", pair)) if paired else (("text", text),):
        if type(value) is NoText:
            return value.reason
        # isascii reads a flag; only what is longer in UTF-8 can hold a surrogate.
        if value and not value.isascii() and SURROGATES.search(value):
            return f"{UNDECODABLE} in the {part} (not UTF-8)"
        if not value or value.isspace():
            return f"empty {part}"
    return None


def _reason_to_reject_label(values: tuple[str, ...], labels: Labels | None) -> str | None:
    if any(map(SURROGATES.search, values)):
        return f"{UNDECODABLE} in the label (not UTF-8)"
    return None if labels is None else labels.reason_to_reject(values)


def check_sliced(config: Config, files: list[SourceFile], sliced: Collection[str]) -> None:
    """Checks that each column of `report.slices` has a value in some row.

    Readers of tables refuse a missing column. A record names its own fields, and may lack one.

    Args:
      config: names the columns.
      files: the files.
      sliced: the columns that have a value.

    Raises:
      InputError: a column has none; names the columns that are there and the nearest one.
    """
    for column in config.report.slices:
        if column not in sliced:
            there = [name for name in readers.columns(files[0], config.data) if name != column]
            nearest = difflib.get_close_matches(column, there, n=1, cutoff=0.5)
            advice = f"did you mean {nearest[0]!r}?" if nearest else "leave it out"
            raise InputError(
                f"{config.data.source}: no row has a value in column {column!r} (report.slices); columns in "
                f"{files[0].name}: {', '.join(map(repr, there))}; {advice}"
            )
