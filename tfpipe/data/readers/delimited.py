"""CSV (RFC 4180, UTF-8, with a header), TSV, and other files with columns between separators.

Python's own csv module reads the records because it gives an exact line and a reason for each unusable record. It runs
twice: over bytes taken one by one as characters, to find where records end, and over the decoded block. The first lines
(`dialect.py`), and those with the first quotes (`quotes.py`), decide how a file is read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

import numpy as np

from tfpipe.config.data import Data
from tfpipe.console import say_once
from tfpipe.data import block as blocks_module
from tfpipe.data.block import Block, Cells, NoRows, Rejection, excerpt, label_columns, wanted_columns
from tfpipe.data.files.encodings import open_utf8
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.readers.dialect import find
from tfpipe.data.readers.escapes import look_escaped, shown, without_escapes
from tfpipe.data.readers.line_stream import Lines
from tfpipe.data.readers.quotes import SAMPLE_BYTES, settled
from tfpipe.data.readers.records import Dialect, Records, csv_reader, records
from tfpipe.errors import InputError


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields blocks of whole records; their payload is the dialect and the records' bytes.

    Raises:
      InputError: the file is missing, empty, not UTF-8 text, without a column that `data` names, holds no row, or ends
        inside a quoted field.
    """
    with open_utf8(file) as stream:
        lines = Lines(stream, file)
        dialect, first = find(lines, file, data)
        number = 0
        while content := lines.ahead(blocks_module.BLOCK_BYTES):
            if dialect.quoting is None and b'"' in content:
                before, sample = _from_the_first(b'"', content, lines)
                dialect = settled(dialect, sample, first + before, file)
            if data.escape is None and dialect.separator == "\t" and b"\\" in content:
                _say_escapes(_from_the_first(b"\\", content, lines)[1], dialect, file)
            count = _whole_records(content, dialect)
            if count is None:
                content, count = _up_to_a_record_end(lines, first, file, dialect)
            else:
                lines.skip(content)
            yield Block(file, number, first, (dialect, content), len(content))
            number, first = number + 1, first + count
        if not number:
            raise NoRows(f"{file.name}: a header and no row; expected at least one row of each label")


def _from_the_first(character: bytes, content: bytes, lines: Lines) -> tuple[int, str]:
    """Returns the lines ahead from the first one that holds a character, and the number of lines before it."""
    start = content.rfind(b"\n", 0, content.index(character)) + 1
    sample = lines.ahead(start + SAMPLE_BYTES)[start:]
    return content.count(b"\n", 0, start), sample.decode("utf-8", "surrogateescape")


def _say_escapes(sample: str, dialect: Dialect, file: SourceFile) -> None:
    if look_escaped(sample, dialect.quoting):
        say_once(
            rf"  {file.name}: it holds \N, \n, \\ or \", as databases write text; data.escape: backslash reads "
            "them as what they stand for",
            kind="data.escape",
        )


def _whole_records(content: bytes, dialect: Dialect) -> int | None:
    """Counts the lines of a text whose records are clearly whole and well-formed; None for any other text.

    Its quotes open and close by turns. An opening quote must begin a field, or follow the quote that it is doubled
    with. A closing quote must end a field, or be doubled. Then, and only then, csv reads all quotes this way.
    """
    if b"\r" in content and content.count(b"\r") != content.count(b"\r\n"):
        return None
    count = content.count(b"\n") + (not content.endswith(b"\n"))
    if dialect.escape:
        content = without_escapes(content)
        if content.endswith(b"_"):  # a line end that is escaped
            return None
    if dialect.quoting:
        characters = np.frombuffer(content, np.uint8)
        marks = np.flatnonzero(characters == ord('"'))
        if len(marks) % 2:
            return None
        bounds = np.zeros(256, bool)
        bounds[[ord(character) for character in (dialect.separator, "\n", "\r", '"')]] = True
        opening, closing = marks[::2], marks[1::2]
        begins = bounds[characters[opening - 1]] | (opening == 0)
        ends = bounds[characters[(closing + 1) % len(characters)]] | (closing == len(characters) - 1)
        if not (begins.all() and ends.all()):
            return None
    return count


def _up_to_a_record_end(lines: Lines, first: int, file: SourceFile, dialect: Dialect) -> tuple[bytes, int]:
    """Takes the next records, one by one, up to the end of one: their bytes and lines."""
    reader = csv_reader(lines, dialect)
    while True:
        line = first + reader.line_num
        try:
            record = next(reader, None)
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise InputError(
                    f"{file.name}, line {line}: a quoted field that begins in this row is never closed; close the "
                    "quote, write the file again if it was cut short, or set data.quoting: false"
                ) from error
            record = []  # `cells` will say which lines are lost
        if record is None or lines.size_bytes >= blocks_module.BLOCK_BYTES:
            return lines.taken(), reader.line_num


def cells(block: Block, data: Data) -> Cells:
    """Reads the records of a block; blank lines are no records."""
    dialect, content = block.payload
    found = records(content.decode("utf-8", "surrogateescape"), dialect, block.file.name, block.first)
    columns = _columns(found.rows, dialect, data)
    if not set(dialect.columns).isdisjoint(columns[label_columns(data)[0]]):
        _leave_out_headers(found, dialect, block.file)
        columns = _columns(found.rows, dialect, data)
    return Cells(columns, found.numbers, found.rejections)


def _columns(rows: list[list[str]], dialect: Dialect, data: Data) -> dict[str, list[str]]:
    places = {column: dialect.columns.index(column) for column in wanted_columns(data)}
    columns = {column: [row[at] for row in rows] for column, at in places.items()}
    return {column: shown(values) for column, values in columns.items()} if dialect.escape else columns


def _leave_out_headers(found: Records, dialect: Dialect, file: SourceFile) -> None:
    """Rejects rows that repeat the header, as in files that were put together.

    Raises:
      InputError: a row has the same names in another order, so that the rows after it have another order of columns.
    """
    names = list(dialect.columns)
    for row, number in zip(found.rows, found.numbers, strict=True):
        if row != names and len(names) > 1 and sorted(row) == sorted(names):
            raise InputError(
                f"{file.name}, line {number}: a second header, with the columns in another order "
                f"({excerpt(', '.join(row))}); split the file there"
            )
    for at in reversed([at for at, row in enumerate(found.rows) if row == names]):
        row, reason = found.rows.pop(at), "the header again, as in files put together"
        shown_row = excerpt(dialect.separator.join(row))
        found.rejections.append(Rejection(file.name, found.numbers.pop(at), reason, shown_row))
