"""The records of a delimited text, by Python's csv module, and a reason for each line without a record."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tfpipe.data.block import Rejection, excerpt
from tfpipe.data.readers.escapes import hidden, shown

# csv stops at 128 KiB a field by default, which real documents pass. A limit remains: without one, a quote that is
# never closed would draw the rest of a large file into a single field.
LONGEST_FIELD_CHARACTERS = 1 << 24
_SHORT_LABEL = 12


@dataclass(frozen=True)
class Dialect:
    """The way in which a file separates, quotes and names its columns; the same for all of its blocks."""

    separator: str
    quoting: bool | None
    """None: no line with a quote has been met, so that both readings are equal"""
    escape: bool
    columns: tuple[str, ...]
    label: int
    """index of the label's column"""
    labels: frozenset[str] | None = None
    """labels by which rows are known that a quoted field has swallowed; None: quotes are believed"""
    longest_label: int = 0


@dataclass
class Records:
    """The records of a text that have the right number of columns."""

    rows: list[list[str]]
    numbers: list[int]
    """line on which each starts"""
    rejections: list[Rejection] = field(default_factory=list)


def csv_reader(lines: Iterable[str], dialect: Dialect) -> Any:
    """Returns a reader of records; escaped characters in its cells are hidden (see `escapes`)."""
    if dialect.escape:
        lines = (hidden(line, dialect.separator, dialect.quoting is not False) for line in lines)
    csv.field_size_limit(LONGEST_FIELD_CHARACTERS)
    return csv.reader(
        lines,
        delimiter=dialect.separator,
        quoting=csv.QUOTE_NONE if dialect.quoting is False else csv.QUOTE_MINIMAL,
        escapechar="\\" if dialect.escape else None,
        strict=True,
    )


def records(text: str, dialect: Dialect, name: str, first: int) -> Records:
    """Returns the records of a text; blank lines are no records.

    Args:
      text: whole records.
      dialect: of the file.
      name: of the file.
      first: number of the text's first line.
    """
    width = len(dialect.columns)
    try:
        reader = csv_reader(io.StringIO(text, newline=""), dialect)
        rows = list(reader)
        if set(map(len, rows)) == {width}:
            if reader.line_num == len(rows):
                return Records(rows, list(range(first, first + len(rows))))
            found = _of_several_lines(rows, text, dialect, name, first)
            if found is not None:
                return found
    except csv.Error:
        pass
    return _one_by_one(list(io.StringIO(text, newline="")), dialect, name, first)


def _of_several_lines(rows: list[list[str]], text: str, dialect: Dialect, name: str, first: int) -> Records | None:
    """Does what `_one_by_one` does, for a text without errors; None where lines end in other ways."""
    if text.count("\r") != text.count("\r\n"):
        return None
    found, lines, end = Records([], []), text.split("\n"), 0
    for row in rows:
        start = end
        end += 1 + "".join(row).count("\n")
        if end - start == 1 or dialect.labels is None or not swallowed(lines[start:end], row, dialect):
            found.rows.append(row)
            found.numbers.append(first + start)
        else:
            found.rejections += _rejections(row, None, lines[start:end], dialect, name, first + start)
    return found


def _one_by_one(lines: list[str], dialect: Dialect, name: str, first: int) -> Records:
    """Returns the records of lines of which some are malformed, or some records take several."""
    width, reader, found, end = len(dialect.columns), csv_reader(lines, dialect), Records([], []), 0
    while True:
        start, error = end, None
        try:
            row = next(reader, None)
        except csv.Error as raised:
            row, error = [], raised
        end = reader.line_num
        if row is None:
            return found
        if len(row) == width and (
            end - start == 1 or dialect.labels is None or not swallowed(lines[start:end], row, dialect)
        ):
            found.rows.append(row)
            found.numbers.append(first + start)
        elif row or error:
            found.rejections += _rejections(row, error, lines[start:end], dialect, name, first + start)


def _rejections(
    row: list[str], error: csv.Error | None, lines: list[str], dialect: Dialect, name: str, first: int
) -> list[Rejection]:
    """Explains why there is no record in some lines."""
    width = len(dialect.columns)
    if error is None and len(row) != width:
        reason = f"wrong number of columns ({len(row)}, expected {width}){_advice_on_width(lines, dialect)}"
        return [Rejection(name, first, reason, excerpt(dialect.separator.join(shown(row))))]
    if error is not None:
        reason = f"malformed CSV ({error}); {_advice(lines, dialect)}"
    else:
        reason = "in a quoted field that holds whole rows; set data.quoting: false, or true to believe the quotes"
    # A stray quote draws the lines after it into its record: each of them counts as a row that was lost.
    where = f"in the record of lines {first} to {first + len(lines) - 1}"
    return [Rejection(name, line, reason, where) for line in range(first, first + len(lines))]


def swallowed(lines: list[str], row: list[str], dialect: Dialect) -> bool:
    """Tells whether a record of several lines is rather many records, enclosed by two stray quotes.

    Most of its lines then have the right number of columns without regard to quotes, and a label in the column of
    labels. It must be a label that the file has elsewhere, or as short a text, where no space follows a separator, as
    in prose.
    """
    separator, separators = dialect.separator, len(dialect.columns) - 1
    whole = [line for line in lines if line.count(separator) == separators]
    if len(whole) < 2 or not separators:
        return False
    half = len([line for line in lines if line.strip()]) / 2
    if len(whole) <= half:
        return False
    if separator == "\t" and len(whole) > 2:  # no text has tabs at these places
        return True
    likely, space, own = 0, f"{separator} ", row[dialect.label].strip()
    longest = max(dialect.longest_label, len(own))
    longest = max(longest, min(2 * longest, _SHORT_LABEL))
    for line in whole:
        cells = line.rstrip("\r\n").split(separator)
        label = cells[dialect.label].strip().strip('"')
        if not label or len(label) > longest or '"' in cells or (separators == 1 and "" in cells):
            continue  # alone, a quote is the end of a text
        likely += space not in line or label in dialect.labels or label == own
    return likely >= 2 and likely > half


def _advice(lines: list[str], dialect: Dialect) -> str:
    if not dialect.escape and any('\\"' in line for line in lines):
        return r"where \" stands for a quote, set data.escape: backslash"
    return "where quotes are characters like any other, set data.quoting: false"


def _advice_on_width(lines: list[str], dialect: Dialect) -> str:
    if not any('"' in line for line in lines):
        return ""
    if dialect.quoting is False:
        return "; where fields stand in quotes, set data.quoting: true"
    plain = {line.count(dialect.separator) for line in lines} == {len(dialect.columns) - 1}
    return "; where quotes are characters like any other, set data.quoting: false" if plain else ""
