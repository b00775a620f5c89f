"""The dialect of a delimited file, found in its first lines: separator, header, names of rows.

The first line must name the columns that are read. If the usual separator does not give them, another separator is
taken if it does, and if each of the first rows has as many columns. tfpipe prints the result, and a setting overrides
it.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from typing import NamedTuple

from tfpipe.config.data import Data
from tfpipe.console import say_once
from tfpipe.data.block import NoRows, check_columns, label_columns
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.readers.header import (
    check_named,
    check_readable,
    has_wanted,
    no_header,
    recurs,
    refuse,
    with_row_names,
)
from tfpipe.data.readers.line_stream import Lines
from tfpipe.data.readers.quotes import SAMPLE_BYTES, settled
from tfpipe.data.readers.records import Dialect, csv_reader
from tfpipe.errors import InputError

HEAD_BYTES = 1 << 16
_SEPARATORS = ",;\t|"
_NAMED_SEPARATOR = re.compile(r'"?sep=([!#-/:-@[\]^`{-~\t ])"?\r?\n?', re.IGNORECASE)  # by Excel, for itself
_TYPE = "#TYPE "  # by PowerShell


class _Reading(NamedTuple):
    """The first line of a file under some dialect."""

    dialect: Dialect
    cells: list[str]
    lines: int
    """of the record, from the first line on"""
    error: str | None


def find(lines: Lines, file: SourceFile, data: Data) -> tuple[Dialect, int]:
    """Finds the dialect of a file; takes the lines before its first row.

    Returns:
      The dialect, and the number of the first row's line.

    Raises:
      InputError: the file is empty, or its first line does not name the columns that are read.
    """
    content = list(io.StringIO(lines.text_ahead(HEAD_BYTES), newline=""))
    if not content:
        raise NoRows(f"{file.name}: the file is empty; expected a CSV file with a header and rows")
    usual = data.separator or ("\t" if file.format == "tsv" else ",")
    told, named = _before_header(content)
    separators = [usual] if data.separator else [named] if named else [usual, *_SEPARATORS.replace(usual, "")]
    content = content[len(told) :]
    if data.columns is None:
        dialect, taken = _with_header(content, separators, file, data)
    else:
        dialect, taken = _without_header(content, separators, file, data)
    dialect = replace(dialect, label=dialect.columns.index(label_columns(data)[0]))
    lines.skip("".join([*told, *content[:taken]]).encode("utf-8", "surrogateescape"))
    first = 1 + len(told) + taken
    if dialect.quoting is None and (dialect.escape or any('"' in line for line in content[taken:])):
        dialect = settled(dialect, lines.text_ahead(SAMPLE_BYTES), first, file)
    if dialect.separator != separators[0]:
        _check_certain(_rows(content[taken:], dialect), dialect, file)
    if dialect.separator != usual:
        _say_separator(dialect.separator, file)
    return dialect, first


def _before_header(content: list[str]) -> tuple[list[str], str | None]:
    """Returns the first line, if it describes the file instead of its columns, and the separator that it names."""
    named = _NAMED_SEPARATOR.fullmatch(content[0])
    return content[: named is not None or content[0].startswith(_TYPE)], named[1] if named else None


def _with_header(content: list[str], separators: list[str], file: SourceFile, data: Data) -> tuple[Dialect, int]:
    readings = [reading for separator in separators for reading in _readings(content, separator, data)]
    fitting = next((reading for reading in readings if has_wanted(reading.cells, data)), None)
    if fitting is None:
        raise _refused(content, readings, file, data)
    dialect, names, taken, _ = fitting
    check_readable(names, file, data)
    rows = _rows(content[taken:], dialect)
    if recurs(names, rows):
        raise no_header(names, data, file.name)
    if with_row_names(names, rows, dialect.separator):
        message = "each row has a column before those of the header, as R writes the names of rows"
        say_once(f"  {file.name}: {message}", kind=message)
        dialect = replace(dialect, columns=("", *dialect.columns))
    return dialect, taken


def _check_certain(rows: list[list[str]], dialect: Dialect, file: SourceFile) -> None:
    """Checks that each of the first rows has all columns, where the separator was found."""
    wrong = next((len(row) for row in rows if len(row) != len(dialect.columns)), None)
    if wrong is not None:
        separator = _yaml(dialect.separator)
        raise InputError(
            f"{file.name}: the names of its columns are separated by {separator}, but a row has {wrong} of "
            f"{len(dialect.columns)} columns; set data.separator: {separator}, or write the file again"
        )


def _without_header(content: list[str], separators: list[str], file: SourceFile, data: Data) -> tuple[Dialect, int]:
    """Finds the dialect of a file whose columns `data.columns` names. A first line of these names is skipped."""
    columns = tuple(data.columns)
    check_columns(columns, data, "data.columns")
    label = columns.index(label_columns(data)[0])
    for separator in separators:
        dialect = Dialect(separator, data.quoting, data.escape is not None, columns, label)
        rows = _rows(content, dialect)
        if rows and all(len(row) == len(columns) for row in rows):
            break
    else:
        dialect = replace(dialect, separator=separators[0])
        rows = _rows(content, dialect)
    check_named(columns, rows, label, file.name)
    reading = _readings(content, dialect.separator, data)[0]
    return dialect, reading.lines if reading.cells == list(columns) else 0


def _readings(content: list[str], separator: str, data: Data) -> list[_Reading]:
    """Returns the first line by a separator; where tabs may hide stray quotes, also without quoting."""
    found = []
    for quoting in (None, False) if data.quoting is None and separator == "\t" else (data.quoting,):
        dialect = Dialect(separator, quoting, data.escape is not None, (), 0)
        reader = csv_reader(content, dialect)
        try:
            cells, error = next(reader, []), None
        except csv.Error as raised:
            cells, error = [], str(raised)
        if quoting is None and any('"' in line for line in content[: reader.line_num]):
            dialect = replace(dialect, quoting=True)
        found.append(_Reading(replace(dialect, columns=tuple(cells)), cells, reader.line_num, error))
    return found


def _rows(content: list[str], dialect: Dialect) -> list[list[str]]:
    """Returns the first rows, of any width, without malformed ones."""
    reader, rows = csv_reader(content, dialect), []
    while True:
        try:
            for row in reader:
                rows += [row] if row else []
            return rows
        except csv.Error:
            continue


def _refused(content: list[str], readings: list[_Reading], file: SourceFile, data: Data) -> InputError:
    """Returns the error for a first line that does not name the columns that are read."""
    usual = readings[0]
    reading = max(readings, key=lambda reading: len(reading.cells)) if len(usual.cells) < 2 else usual
    if usual.error is not None and len(reading.cells) < 2:
        return InputError(f"{file.name}, line 1: not a CSV header ({usual.error}); expected the names of columns")
    hint = ""
    if reading.dialect.separator != usual.dialect.separator:
        hint = f"they are separated by {_yaml(reading.dialect.separator)}; name those that are meant"
    try:
        refuse(reading.cells, _rows(content[reading.lines :], reading.dialect), data, file, hint)
    except InputError as error:
        return error
    raise AssertionError("a header that names all columns")


def _say_separator(separator: str, file: SourceFile) -> None:
    shown = _yaml(separator)
    message = f"columns are separated by {shown} (data.separator: {shown} says so)"
    say_once(f"  {file.name}: {message}", kind=message)


def _yaml(separator: str) -> str:
    return f'"{separator.encode("unicode_escape").decode()}"'
