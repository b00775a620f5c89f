"""The lines of a file: in parts of about a block, or of a stream in which a reader can look ahead."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO

from tfpipe.data import block as blocks_module
from tfpipe.data.files.encodings import open_utf8
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.streams import READ_ERRORS
from tfpipe.errors import InputError

LONGEST_LINE_BYTES = 64 << 20


def whole_lines(file: SourceFile, expected: str) -> Iterator[bytes]:
    """Yields a file in parts of whole lines, each of about a block's bytes.

    Args:
      file: a file of text.
      expected: the expected content of a line, for the message on a line that is too long.

    Raises:
      InputError: the file can't be read to its end, or a line is longer than 64 MB.
    """
    left = b""
    with open_utf8(file) as stream:
        while True:
            try:
                read = stream.read(blocks_module.BLOCK_BYTES)
            except READ_ERRORS as error:
                raise InputError(f"{file.name}: can't read it to its end ({error}); fetch the file again") from error
            content = left + read
            end = content.rfind(b"\n") + 1 if read else len(content)
            whole, left = content[:end], content[end:]
            if len(left) > LONGEST_LINE_BYTES:
                raise InputError(f"{file.name}: a line of more than 64 MB; expected {expected}")
            if whole:
                yield whole
            if not read:
                return


class Lines:
    """The lines of a stream of bytes, as characters of one byte each, and the lines that were taken."""

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
        """Returns the content of the lines since the last call."""
        content = "".join(self._taken).encode("latin-1")
        self._taken, self.size_bytes = [], 0
        return content

    def ahead(self, size: int) -> bytes:
        """Returns so many of the next bytes, up to the end of the line; fewer at the end of the stream."""
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

    def text_ahead(self, size: int) -> str:
        """Returns the next bytes as characters."""
        return self.ahead(size).decode("utf-8", "surrogateescape")

    def skip(self, content: bytes) -> None:
        """Takes the result of `ahead`, or its beginning."""
        self._ahead = self._ahead[len(content) :]

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except READ_ERRORS as error:  # a compressed file that was cut short
            raise InputError(f"{self._file.name}: can't read it to its end ({error}); fetch the file again") from error
