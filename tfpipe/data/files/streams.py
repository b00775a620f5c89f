"""Files as streams of bytes: local or remote, decompressed, or a member of a zip archive.

The member of an archive has the path `ARCHIVE.zip/MEMBER`. It is decompressed as it is read, and never written to disk.
"""

from __future__ import annotations

import io
import lzma
import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from tfpipe.errors import InputError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
READ_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile)
# RuntimeError: a member with a password; NotImplementedError: a compression that Python has not.
_ZIP_ERRORS = (*READ_ERRORS, RuntimeError, NotImplementedError, KeyError, ValueError, OverflowError)
_IN_ZIP = re.compile(r"(?i)(.*?\.zip)/(.+)", re.DOTALL)


def open_bytes(path: str) -> BinaryIO:
    """Opens a local or remote file, or a member of a zip archive, for reading, decompressed.

    Raises:
      InputError: it can't be read.
    """
    try:
        stream = _open_raw(path)
        compression = COMPRESSIONS.get(Path(path).suffix)
        if compression == "xz":
            return lzma.open(stream)
        if compression is None:
            return stream
        import pyarrow

        # Arrow's stream alone has no readline().
        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), compression))
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in ("tensorflow", "pyarrow"):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: can't read it ({reason}); give the path of a readable file") from error


def open_raw(path: str) -> BinaryIO:
    """Opens a file as it lies, compressed or not.

    Raises:
      OSError: it can't be read.
    """
    return io.BufferedReader(_Remote(path), 1 << 20) if is_remote(path) else open(path, "rb")


def zip_and_member(path: str) -> tuple[str, str] | None:
    """Splits `ARCHIVE.zip/MEMBER`; None where the path names a file of its own."""
    parts = _IN_ZIP.fullmatch(path)
    if parts is None or os.path.isdir(parts[1]) or os.path.isfile(path):
        return None
    return parts[1], parts[2]


def zip_members(path: str) -> list[str]:
    """Returns the files in a zip archive, in its order, without those that macOS and editors add.

    Raises:
      InputError: the archive is not whole.
    """
    try:
        with open_raw(path) as stream, zipfile.ZipFile(stream) as archive:
            return [name for name in archive.namelist() if not _is_no_data(name)]
    except _ZIP_ERRORS as error:
        raise InputError(f"{path}: not a whole zip archive ({_reason(error)}); fetch or write it again") from error


def _is_no_data(member: str) -> bool:
    hidden = any(part.startswith(".") for part in member.split("/"))
    return member.endswith("/") or hidden or member.startswith("__MACOSX/")


def _open_raw(path: str) -> BinaryIO:
    parts = zip_and_member(path)
    if parts is None:
        return open_raw(path)
    try:
        with zipfile.ZipFile(open_raw(parts[0]) if is_remote(path) else parts[0]) as archive:
            return archive.open(parts[1])  # the archive's file stays open until the member is closed
    except _ZIP_ERRORS as error:
        raise InputError(
            f"{path}: can't read it in the archive ({_reason(error)}); unpack it and give the path of the file"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _Remote(io.RawIOBase):
    """A file of TensorFlow's file systems as Python's readers expect one."""

    def __init__(self, path: str):
        self._file, self._size = gfile().GFile(path, "rb"), gfile().stat(path).length

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        try:
            content = self._file.read(len(buffer))
        except Exception as error:  # TensorFlow's own kinds
            raise OSError(" ".join(str(error).split())) from error
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._file.tell(), io.SEEK_END: self._size}[whence]
        self._file.seek(start + offset)
        return self._file.tell()

    def tell(self) -> int:
        return self._file.tell()


def is_remote(path: str) -> bool:
    """Tells whether TensorFlow's file systems are needed to read a path."""
    return "://" in path


def gfile():
    """Gives TensorFlow's file systems, imported where one is needed."""
    import tensorflow as tf

    return tf.io.gfile
