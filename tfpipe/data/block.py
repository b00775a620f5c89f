"""The data that readers exchange with the rest: a block of a file, and the cells of its records."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfpipe.config.data import Data
from tfpipe.config.template import parse_template
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.nested import names_in, value_at
from tfpipe.errors import InputError

BLOCK_BYTES = 2 << 20
BLOCK_RECORDS = 8192
EXCERPT_CHARACTERS = 80
_LISTED_NAMES, _MOST_NAMES = 10, 200
OF_SLICES = "report.slices"
"""the setting whose columns a record may lack: such a row is of the slice without a value"""


@dataclass(frozen=True)
class Block:
    """Some whole records of a file, one after the other; cheap to send to another process."""

    file: SourceFile
    number: int
    """position in its file, from 0 on"""
    first: int
    """number of its first record, or of its first line"""
    payload: Any
    """what the format's `cells` reads"""
    size_bytes: int
    """of the file, for progress"""

    @property
    def name(self) -> str:
        """Names the results of this block, unique over all files and in their order."""
        return f"{self.file.number:05d}-{self.number:05d}"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that can't be used, and why."""

    name: str
    """the file, as it is shown"""
    line: int
    """line on which the record starts, or the record's number where there are no lines"""
    reason: str
    excerpt: str
    """the row's beginning, printable"""
    unit: str = "line"
    """what `line` counts: lines, or records where a record has no line of its own"""
    label: str | None = None
    """its label, where that was read"""


@dataclass
class Cells:
    """The records of a block, column by column."""

    columns: dict[str, list[Any]]
    """wanted column -> a value for each record: text, number, list, or None"""
    numbers: list[int]
    """of each record: its line, or its position in the file from 1 on; with the file it identifies the record"""
    rejections: list[Rejection]
    """records of which no cells are to be had"""
    names: list[str] | None = None
    """file of each record, where that is not the block's file"""
    unit: str = "line"
    """what `numbers` counts: lines, or records"""


def as_text(value: Any) -> str:
    """Returns a cell as CSV would have it, without surrounding white space."""
    if isinstance(value, str):
        return value.strip()
    return "" if value is None else scalar_as_text(value)


def scalar_as_text(value: Any) -> str:
    """Returns a number, truth value or date as CSV would have it: 1.0 (an integer beside missing values) as 1."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    return str(value)


def is_null(value: Any) -> bool:
    """Tells whether a cell is null, which an empty text is not."""
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def label_columns(data: Data) -> tuple[str, ...]:
    """Returns the label column, or several label columns."""
    return (data.label_column,) if isinstance(data.label_column, str) else data.label_column


def wanted_columns(data: Data) -> dict[str, str]:
    """Lists the columns that are read, each -> the setting that asks for it."""
    columns = () if data.text is None else parse_template(data.text).columns
    asked = (
        *(("data.text", column) for column in columns),
        ("data.text_column", None if columns else data.text_column),
        ("data.text_pair_column", data.text_pair_column),
        *(("data.label_column", column) for column in label_columns(data)),
        ("data.split.column", data.split.column),
        ("data.split.group_column", data.split.group_column),
        *(("data.filter", column) for column in data.filter),
        *((OF_SLICES, column) for column in data.slice_columns),
    )
    wanted: dict[str, str] = {}
    for setting, column in asked:
        if column is not None:
            wanted.setdefault(column, setting)
    return wanted


class NoRows(InputError):
    """A file without a row, as there may be among several that Spark writes."""


class MissingColumn(InputError):
    """A file without a wanted column."""

    def __init__(self, message: str, there: list[str]):
        super().__init__(message)
        self.there = there
        """names of the columns that it has, dotted names of what is nested in them"""
        self.whole: list[str] | None = None
        """names of the columns of a file with types, nested ones as a whole"""


def check_columns(
    there: Iterable[str],
    data: Data,
    name: str,
    hint: str = "",
    nested: Callable[[str], bool] = lambda column: False,
) -> None:
    """Checks that a file has each wanted column once.

    Args:
      there: the columns that the file has; nested ones by dotted names.
      data: names the wanted columns.
      name: the file's.
      hint: advice where a column is missing, if there is any.
      nested: whether a name that `there` lacks means a nested value all the same.

    Raises:
      InputError: it does not; names the columns that are there and the nearest one.
    """
    there = list(there)
    answers = next((column for column in label_columns(data) if {column, f"{column}.users"} <= set(there)), None)
    if answers is not None:  # of Argilla's `to_datasets`; two answers are not two labels
        raise InputError(
            f"{name}: column {answers!r} (data.label_column) holds the answers of several annotators; export the "
            "records with dataset.records.to_json, and set data.label_column to the name of the question"
        )
    check_answers(there, name, data)
    for column, setting in wanted_columns(data).items():
        if there.count(column) == 1 or (column not in there and nested(column)):
            continue
        if column in there:
            raise InputError(
                f"{name}: column {column!r} ({setting}) occurs {there.count(column)} times; rename all but one"
            )
        nearest = difflib.get_close_matches(column, there, n=1, cutoff=0.5)
        advice = hint or (f"did you mean {nearest[0]!r}?" if nearest else f"set {setting} to one of them")
        listed = ", ".join(map(repr, there)) or "none: the first line is blank"
        raise MissingColumn(f"{name}: no column {column!r} ({setting}); columns in the file: {listed}; {advice}", there)


def check_answers(there: Collection[str], name: str, data: Data) -> None:
    """Checks that the settings decide about rows that annotators rejected or ignored in Prodigy.

    Args:
      there: the columns of a table, or the fields of a record.
      name: of the file.
      data: names the columns that are read.

    Raises:
      InputError: they do not.
    """
    prodigy, wanted = "answer" in there and ("_task_hash" in there or data.format == "prodigy"), wanted_columns(data)
    if prodigy and "answer" not in wanted and "data.label_column" in wanted.values():
        raise InputError(
            f"{name}: rows of Prodigy, and those whose answer is reject or ignore bear a label, too; set data.filter: "
            "{answer: [accept]}, or name a JSON file as Prodigy writes it with data.format: prodigy"
        )


def cells_of_records(
    file: SourceFile, data: Data, records: Iterable[tuple[int, dict[str, Any] | Rejection, bytes | str | None]]
) -> Cells:
    """Collects the cells of records that each name their own fields.

    Args:
      file: the records' file.
      data: names the wanted columns.
      records: number, fields (or the reason for none), and the record as it stands, for excerpts (None: as JSON).
    """
    wanted, known = wanted_columns(data), file.tool is not None or data.format != "auto"
    cells, names = Cells({column: [] for column in wanted}, [], []), wanted.keys()
    for number, fields, raw in records:
        if isinstance(fields, Rejection):
            cells.rejections.append(fields)
            continue
        if not known and "_task_hash" in fields:
            check_answers(fields, file.name, data)
        if not names <= fields.keys():
            whole = fields
            fields = {column: whole[column] if column in whole else _nested(whole, column) for column in wanted}
            absent = [column for column, value in fields.items() if value is _MISSING]
            fields |= {column: None for column in absent if wanted[column] == OF_SLICES}
            missing = next((column for column in absent if wanted[column] != OF_SLICES), None)
            if missing is not None:
                reason = f"no field {missing!r} ({wanted[missing]}); fields: {_listed(whole, missing)}"
                raw = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
                excerpted = excerpt(as_json(whole) if raw is None else raw)
                cells.rejections.append(Rejection(file.name, number, reason, excerpted))
                continue
        cells.numbers.append(number)
        for column, values in cells.columns.items():
            values.append(fields[column])
    return cells


_MISSING = object()


def _nested(fields: dict[str, Any], column: str) -> Any:
    try:
        return value_at(fields, column)
    except KeyError:
        return _MISSING


def _listed(fields: dict[str, Any], missing: str) -> str:
    """Lists the names of the fields, first those that end like the missing one."""
    names = sorted(itertools.islice(names_in(fields), _MOST_NAMES), key=lambda name: not name.endswith(f".{missing}"))
    return ", ".join(repr(excerpt(name)) for name in names[:_LISTED_NAMES]) or "none"


def as_json(value: Any) -> str:
    """Returns a value as JSON, for excerpts."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):  # nested deeper than can be written
        return type(value).__name__


def batches_as_blocks(file: SourceFile, batches: Iterator[tuple[Any, int, int]]) -> Iterator[Block]:
    """Yields blocks of batches that a library cut: each comes with its number of records and its bytes."""
    first = 1
    for number, (payload, records, size) in enumerate(batches):
        yield Block(file, number, first, payload, size)
        first += records


def printable(text: str) -> str:
    """Writes undecodable bytes as `\\xff`, so that the text can be printed and written as UTF-8."""
    raw = b"".join(
        bytes([ord(character) - 0xDC00])
        if "\udc80" <= character <= "\udcff"  # how errors="surrogateescape" marks bytes that are not UTF-8
        else character.encode("utf-8", "backslashreplace")
        for character in text
    )
    return raw.decode("utf-8", "backslashreplace")


def excerpt(text: str) -> str:
    """Returns the beginning of a text, on one line."""
    shortened = " ".join(printable(text[: 4 * EXCERPT_CHARACTERS]).split())
    return shortened if len(shortened) <= EXCERPT_CHARACTERS else shortened[: EXCERPT_CHARACTERS - 1] + "…"
