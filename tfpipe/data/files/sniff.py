"""The kind of a file, by its first bytes.

Enters: the beginning of a file. Leaves: its kind, in words, and whether tfpipe reads it; else advice. tfpipe refuses a
file whose content contradicts its name or `data.format`, before a reader stumbles over it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.streams import COMPRESSIONS, READ_ERRORS, open_bytes, open_raw, zip_and_member, zip_members
from tfpipe.errors import InputError

HEAD_BYTES = 1 << 16
_CHECKED_BYTES = 4096
TEXT_FORMATS = ("csv", "tsv", "json_lines", "lines", "fasttext")
"""formats of text in any encoding"""

_AS_PARQUET = "write the rows as Parquet or CSV"
_SHEET = "save the sheet as CSV (UTF-8)"


class Seen(NamedTuple):
    """A kind of file."""

    what: str
    """with its article, such as `an Avro file`"""
    format: str | None
    """as `data.format` has it; None: not read"""
    advice: str
    """what to do where the kind isn't read, or isn't what was expected"""


def _read_as(format_name: str, what: str) -> Seen:
    return Seen(what, format_name, f"set data.format: {format_name}")


# The first bytes of files that are no text; some of them could begin a text as well.
_MAGIC: tuple[tuple[int, bytes, Seen], ...] = (
    (0, b"PAR1", _read_as("parquet", "a Parquet file")),
    (0, b"PARE", Seen("an encrypted Parquet file", None, "write it without encryption")),
    (0, b"ARROW1\0\0", _read_as("arrow", "an Arrow file")),
    (0, b"FEA1", Seen("a Feather file of version 1", None, "write it again as version 2, with pandas' to_feather")),
    (0, b"SQLite format 3\0", _read_as("sqlite", "an SQLite database")),
    (8, b"DUCK", _read_as("duckdb", "a DuckDB database")),
    (0, b"Obj\x01", Seen("an Avro file", None, _AS_PARQUET)),
    (0, b"ORC", Seen("an ORC file", None, _AS_PARQUET)),
    (0, b"\x89HDF\r\n\x1a\n", Seen("an HDF5 file", None, _AS_PARQUET)),
    (0, b"\x93NUMPY", Seen("a NumPy array", None, _AS_PARQUET)),
    (0, b"RDX", Seen("an R workspace", None, "write the data frame with write.csv(…, row.names = FALSE)")),
    (0, b"<stata_dta>", Seen("a Stata file", None, _AS_PARQUET)),
    (0, b"$FL2", Seen("an SPSS file", None, _AS_PARQUET)),
    (0, b"7z\xbc\xaf\x27\x1c", Seen("a 7z archive", None, "unpack it, and give the path of the file in it")),
    (0, b"Rar!\x1a\x07", Seen("a RAR archive", None, "unpack it, and give the path of the file in it")),
    (257, b"ustar", Seen("a tar archive", None, "unpack it, and give the path of the file in it")),
    (0, b"\x1f\x8b", Seen("gzip data", None, "give it a name that ends in .gz")),
    (0, b"\xfd7zXZ\0", Seen("xz data", None, "give it a name that ends in .xz")),
    (0, b"\x28\xb5\x2f\xfd", Seen("Zstandard data", None, "give it a name that ends in .zst")),
    (0, b"\x04\x22\x4d\x18", Seen("LZ4 data", None, "unpack it")),
)
_TEXT_MAGIC: tuple[tuple[bytes, Seen], ...] = (
    (b"%PDF-", Seen("a PDF document", None, "give the file that holds the rows")),
    (b"{\\rtf", Seen("an RTF document", None, "save it as plain text")),
    (
        b"version https://git-lfs.github.com/spec/",
        Seen("a pointer of Git LFS, not the file itself", None, "fetch the file with: git lfs pull"),
    ),
)
_BZIP2 = re.compile(rb"BZh[1-9]1AY&SY")
_PICKLE = re.compile(rb"\x80[\x02-\x05](\x95.{7}\0|[(\]})cXK\x8c\x8f])", re.DOTALL)
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(!doctype html|html|\?xml)\b", re.IGNORECASE)
_ARFF = re.compile(rb"(?:\s*%[^\n]*\n|\s)*@relation\s", re.IGNORECASE)
_FEATURES = re.compile(rb"([-+]?\d+(\.\d+)?( (qid|\d+):[-+.\de]+){2,}[ \t]*\r?\n){3}")
_JSON = re.compile(rb'(?:\xef\xbb\xbf)?\s*(\[\s*[\[{"]|\{\s*")')
_COMPRESSED = {"gzip": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0", "zstd": b"\x28\xb5\x2f\xfd"}

# Member of a zip archive -> what the archive is.
_ZIPPED: tuple[tuple[str, Seen], ...] = (
    (r"xl/workbook\.xml", _read_as("excel", "an Excel file")),
    (r"xl/workbook\.bin", Seen("a binary Excel file (.xlsb)", None, f"save it as .xlsx, or {_SHEET}")),
    (r"word/document\.xml", Seen("a Word document", None, "save it as plain text")),
    (r"content\.xml", Seen("an OpenDocument file", None, f"save it as .xlsx, or {_SHEET}")),
    (r".*\.npy", Seen("an archive of NumPy arrays", None, _AS_PARQUET)),
    (r"(.*/)?data\.pkl", Seen("a PyTorch file", None, f"{_AS_PARQUET}: tfpipe loads no pickle, which can run code")),
)
_PICKLED = Seen("a Python pickle", None, f"{_AS_PARQUET}: tfpipe loads none, as a pickle can run code")
_OLD_EXCEL = Seen("an old Office file (.xls), or one with a password", None, f"save it as .xlsx, or {_SHEET}")


def read_head(path: str, size: int = HEAD_BYTES) -> bytes:
    """Reads the beginning of a file, decompressed.

    Raises:
      InputError: it can't be read, or its name promises a compression that it does not have.
    """
    try:
        with open_bytes(path) as stream:
            return stream.read(size)
    except READ_ERRORS as error:
        compression = COMPRESSIONS.get(Path(path).suffix)
        if compression and not zip_and_member(path):
            with open_raw(path) as stream:
                raw = stream.read(_CHECKED_BYTES)
            if raw and not raw.startswith(_COMPRESSED[compression]):
                found = seen(raw, path)
                holds = found.what if found else "no compressed data"
                raise InputError(
                    f"{path}: its name ends in {Path(path).suffix}, and it holds {holds}; rename it"
                ) from error
        raise InputError(f"{path}: can't read it to its end ({error}); fetch the file again") from error


def seen(head: bytes, path: str) -> Seen | None:
    """Recognizes a file that is not plain text; None for what may be text, or anything else.

    Args:
      head: its first bytes, at least 4096 where there are as many.
      path: of the file, whose members tell one kind of zip archive from the other.
    """
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(path)
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return _OLD_EXCEL
    for at, magic, kind in (*((0, *each) for each in _TEXT_MAGIC), *(() if _is_text(head) else _MAGIC)):
        if head.startswith(magic, at):
            return kind
    if _BZIP2.match(head):
        return Seen("bzip2 data", None, "give it a name that ends in .bz2")
    if _PICKLE.match(head):
        return _PICKLED
    if markup := _MARKUP.match(head):
        if markup[1] == b"?xml":
            return Seen("an XML document", None, _AS_PARQUET)
        return Seen("an HTML page", None, "fetch the file itself: servers answer so where a login is needed")
    if _ARFF.match(head):
        return Seen("an ARFF file (Weka)", None, _AS_PARQUET)
    if _FEATURES.match(head):
        return Seen("numbers in place of texts (svmlight, LIBSVM)", None, "give the file that holds the texts")
    if _is_arrow_stream(head):
        return _read_as("arrow", "an Arrow stream")
    return _read_as("tfrecord", "a TFRecord file") if _is_tfrecord(head) else None


def _zip(path: str) -> Seen:
    if zip_and_member(path):
        return Seen("a zip archive in an archive", None, "unpack it, and give the path of the file in it")
    members = zip_members(path)
    for pattern, kind in _ZIPPED:
        if any(re.fullmatch(pattern, member) for member in members):
            return kind
    advice = "give it a name that ends in .zip, and write NAME.zip/MEMBER" if members else "fetch it again"
    return Seen(f"a zip archive of {len(members)} {'file' if len(members) == 1 else 'files'}", None, advice)


def _is_arrow_stream(head: bytes) -> bool:
    """Tells whether a file begins with a message of Arrow: mark, length of a flat buffer, place of its table."""
    length, root = (int.from_bytes(head[start : start + 4], "little") for start in (4, 8))
    return head[:4] == b"\xff\xff\xff\xff" and 0 < length < 1 << 26 and length % 8 == 0 and 0 < root < length


def _is_tfrecord(head: bytes) -> bool:
    """Tells whether the first record can be a `tf.train.Example`: one field that is as long as the record says."""
    length = int.from_bytes(head[:8], "little")
    if len(head) < 14 or head[12] != 0x0A:
        return False
    value, shift = 0, 0
    for at, byte in enumerate(head[13:18], start=1):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return 1 + at + value == length
    return False


def is_json(head: bytes) -> bool:
    """Tells whether a text begins as JSON objects or arrays do."""
    return _JSON.match(head) is not None


def check_content(file: SourceFile) -> None:
    """Refuses a file whose content is clearly not of its format.

    Raises:
      InputError: names the kind of the file, and what to write.
    """
    head = read_head(file.path, _CHECKED_BYTES)
    found = seen(head, file.path)
    text = file.format in TEXT_FORMATS
    if found is None:
        if file.format in ("csv", "tsv") and is_json(head):
            found = _read_as("json_lines", "JSON")
        elif text or not head:
            return
        elif _is_text(head):
            found = Seen("text", None, "set data.format to what it holds: csv, tsv, json_lines, lines or fasttext")
        else:
            return  # its reader says what is wrong
    if found.format == file.format or (file.format == "lines" and found.what in ("an XML document", "an HTML page")):
        return
    raise InputError(f"{file.name}: {found.what}, not {_named(file.format)}; {found.advice}")


def _named(format_name: str) -> str:
    names = {"csv": "CSV", "tsv": "TSV", "json_lines": "JSON Lines", "lines": "lines of text", "fasttext": "fastText"}
    return names.get(format_name, f"data.format {format_name}")


def _is_text(head: bytes) -> bool:
    return not re.search(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]", head)
