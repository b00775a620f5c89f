"""CSV (RFC 4180, UTF-8, with a header) and TSV.

Python's own csv module reads the records because it gives an exact line and a reason for each one that is unusable. It
runs twice: over bytes taken one by one as characters, to find where records end, and over the decoded block.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data.block import Block, Cells, Rejection, check_columns, excerpt, wanted_columns
from tfpipe.data.encodings import not_utf8, open_utf8
from tfpipe.data.source_file import SourceFile
from tfpipe.data.streams import READ_ERRORS
from tfpipe.errors import InputError

# csv stops at 128 KiB a field by default, which real documents pass. A limit remains: without one, a quote that is
# never closed would draw the rest of a large file into a single field.
_LONGEST_FIELD_CHARACTERS = 1 << 24
_UNDECODABLE = re.compile("[\udc80-\udcff]")


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Blocks of whole records; their payload is the header's names and the records' bytes.

    Raises:
      InputError: the file is missing, empty, not UTF-8 text, without a column that `data` names, holds no row, or ends
        inside a quoted field.
    """
    csv.field_size_limit(_LONGEST_FIELD_CHARACTERS)
    with open_utf8(file, data) as stream:
        lines = _Lines(stream, file)
        reader = _reader(lines, file, data)
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{file.name}, line 1: not a CSV header ({error}); expected the names of columns"
            ) from error
        if header is None:
            raise InputError(f"{file.name}: the file is empty; expected a CSV file with a header and rows")
        columns = _columns(lines.taken(), file, data)
        number, first = 0, 1 + reader.line_num
        while True:
            content = lines.ahead(blocks_module.BLOCK_BYTES)
            if not content:
                break
            count = _whole_records(content, file, data)
            if count is None:
                content, count = _up_to_a_record_end(lines, first, file, data)
            else:
                lines.skip(content)
            yield Block(file, number, first, (columns, content), len(content))
            number, first = number + 1, first + count
        if not number:
            raise InputError(f"{file.name}: a header and no row; expected at least one row of each label")


class _Lines:
    """The lines of a stream of bytes, as characters of one byte each, and what was taken of them."""

    def __init__(self, stream: BinaryIO, file: SourceFile):
        self._stream, self._file = stream, file
        start = self._read(len(codecs.BOM_UTF8))  # it would hide a quote that follows it
        self._ahead = b"" if start == codecs.BOM_UTF8 else start  # read, not taken
        self._lines: Iterator[str] = iter(())  # of what was last read, some of it taken
        self._taken: list[str] = []
        self.size_bytes = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines, None)
        if line is None:
            content, self._ahead = self._ahead or self._read(1 << 16), b""
            # A line end may be two characters, which must not come apart.
            content += self._stream.readline() if content and not content.endswith(b"\n") else b""
            self._lines = io.StringIO(content.decode("latin-1"), newline="")
            line = next(self._lines)  # StopIteration at the end of the stream
        self._taken.append(line)
        self.size_bytes += len(line)
        return line

    def taken(self) -> bytes:
        """What the lines since the last call held."""
        content = "".join(self._taken).encode("latin-1")
        self._taken, self.size_bytes = [], 0
        return content

    def ahead(self, size: int) -> bytes:
        """So many bytes of what comes next, and on to the end of the line; fewer at the end of the stream."""
        self._ahead = "".join(self._lines).encode("latin-1") + self._ahead
        self._lines = iter(())
        while len(self._ahead) < size and (more := self._read(size - len(self._ahead))):
            self._ahead += more
        end = self._ahead.find(b"\n", size - 1) + 1
        if end:
            return self._ahead[:end]
        if self._ahead and not self._ahead.endswith(b"\n"):
            self._ahead += self._stream.readline()
        return self._ahead

    def skip(self, content: bytes) -> None:
        """Takes what `ahead` gave."""
        self._ahead = self._ahead[len(content) :]

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except READ_ERRORS as error:  # a compressed file that was cut short
            raise InputError(f"{self._file.name}: can't read it to its end ({error}); fetch the file again") from error


def _whole_records(content: bytes, file: SourceFile, data: Data) -> int | None:
    """How many lines there are in a text that is seen at a glance to be whole, well-formed records; else None.

    Its quotes open and close by turns: one that opens must begin a field, or follow the quote that it is doubled with,
    and one that closes must end a field, or be doubled. Then, and only then, all of them are what csv takes them for.
    """
    if b"\r" in content and content.count(b"\r") != content.count(b"\r\n"):
        return None
    if data.quoting:
        characters = np.frombuffer(content, np.uint8)
        quotes = np.flatnonzero(characters == ord('"'))
        if len(quotes) % 2:
            return None
        bounds = np.zeros(256, bool)
        bounds[[ord(character) for character in (_delimiter(file), "\n", "\r", '"')]] = True
        opening, closing = quotes[::2], quotes[1::2]
        begins = bounds[characters[opening - 1]] | (opening == 0)
        ends = bounds[characters[(closing + 1) % len(characters)]] | (closing == len(characters) - 1)
        if not (begins.all() and ends.all()):
            return None
    return content.count(b"\n") + (not content.endswith(b"\n"))


def _up_to_a_record_end(lines: _Lines, first: int, file: SourceFile, data: Data) -> tuple[bytes, int]:
    """The next records, one by one, up to the end of one: their bytes and lines."""
    reader = _reader(lines, file, data)
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
    """The records of a block; blank lines are no records."""
    csv.field_size_limit(_LONGEST_FIELD_CHARACTERS)
    columns, content = block.payload
    wanted = {column: columns.index(column) for column in wanted_columns(data)}
    text = content.decode("utf-8", "surrogateescape")
    rows, numbers, rejections = _records(text, block, len(columns), data)
    return Cells({column: [row[at] for row in rows] for column, at in wanted.items()}, numbers, rejections)


def _records(text: str, block: Block, width: int, data: Data) -> tuple[list[list[str]], list[int], list[Rejection]]:
    """The records of the right width, their lines, and why the others are none."""
    try:
        reader = _reader(io.StringIO(text, newline=""), block.file, data)
        rows = list(reader)
        if reader.line_num == len(rows) and set(map(len, rows)) == {width}:
            return rows, list(range(block.first, block.first + len(rows))), []
    except csv.Error:
        pass
    # One by one, as some are malformed or have several lines.
    name, before = block.file.name, block.first - 1
    reader = _reader(io.StringIO(text, newline=""), block.file, data)
    rows, numbers, rejections = [], [], []
    while True:
        line = before + reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            last = before + reader.line_num
            # A stray quote draws the lines after it into its record: each of them counts as a row that was lost.
            for lost in range(line, last + 1):
                where = f"in the record of lines {line} to {last}"
                rejections.append(Rejection(name, lost, f"malformed CSV ({error})", where))
            continue
        if row is None:
            return rows, numbers, rejections
        if len(row) == width:
            rows.append(row)
            numbers.append(line)
        elif row:
            reason = f"wrong number of columns ({len(row)}, expected {width})"
            rejections.append(Rejection(name, line, reason, excerpt(",".join(row))))


def _reader(lines: Any, file: SourceFile, data: Data) -> Any:
    return csv.reader(
        lines,
        delimiter=_delimiter(file),
        quoting=csv.QUOTE_MINIMAL if data.quoting else csv.QUOTE_NONE,
        strict=True,
    )


def _delimiter(file: SourceFile) -> str:
    return "\t" if file.format == "tsv" else ","


def _columns(line: bytes, file: SourceFile, data: Data) -> tuple[str, ...]:
    header = line.decode("utf-8", "surrogateescape")
    columns = next(_reader(io.StringIO(header, newline=""), file, data), [])
    if any(_UNDECODABLE.search(name) or "\0" in name for name in columns):
        raise InputError(f"{file.name}, line 1: not UTF-8 text; {not_utf8([file], data)}")
    hint = ""
    if len(columns) == 1 and re.search("[;\t|,]", columns[0]):
        between = "tabs" if file.format == "tsv" else "commas"
        hint = f"the columns must be separated by {between}: set data.format, or write the file again"
    check_columns(columns, data, file.name, hint)
    return tuple(columns)
