"""Raw rows of a CSV file.

Enters: a source as the configuration names it (a path, or `package:NAME/PATH`) and the names of its columns. Leaves:
one record per row, with the line on which it starts: a `RawRow`, a `Rejection` with its reason, or a `Filtered` row.
Python's own csv module reads the file because it gives an exact line and a reason for each row that is unusable.
"""

from __future__ import annotations

import csv
import difflib
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO

from tfpipe import config
from tfpipe.errors import InputError

PACKAGE = "package:"
EXCERPT_CHARACTERS = 80
LISTED_VALUES = 10

# csv stops at 128 KiB a field by default, which real documents pass. A limit remains: without one, a quote that is
# never closed would draw the rest of a large file into a single field.
_LONGEST_FIELD_CHARACTERS = 1 << 24

_UNDECODABLE = re.compile("[\udc80-\udcff]")  # how errors="surrogateescape" marks bytes that are not UTF-8


@dataclass(frozen=True, slots=True)
class RawRow:
    """A usable row, its texts as they stand in the file, its label without surrounding white space."""

    line: int
    """line on which the record starts; the header is line 1"""
    text: str
    text_pair: str | None
    label: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that cannot be used, and why."""

    line: int
    reason: str
    excerpt: str
    """the row's beginning, printable"""


@dataclass(frozen=True, slots=True)
class Filtered:
    """A row that the filter leaves out: no error, but counted."""

    line: int


def resolve(source: str) -> Path:
    """Finds the file or directory that a source names.

    Args:
      source: a path, or `package:NAME/PATH` for a file inside an installed package, which is not imported.

    Raises:
      InputError: it is not there, its package is not installed, or PATH leaves the package's directory.
    """
    if not source.startswith(PACKAGE):
        if "://" in source:
            raise InputError(f"{source}: only local files are read; copy it to a local disk and give that path")
        path = Path(source).expanduser()
        if not path.exists():
            raise InputError(f"{source}: no such file in {Path.cwd()}; give the path of an existing file")
        return path
    name, _, inside = source.removeprefix(PACKAGE).partition("/")
    if not name.isidentifier() or not inside:
        raise InputError(f"{source}: expected package:NAME/PATH, where NAME is what Python imports")
    if inside.startswith("/") or ".." in PurePosixPath(inside).parts:
        raise InputError(f"{source}: the path leaves the package; give one inside it, without '..'")
    # find_spec reads the package's location without running its code. A path is checked as written, not resolved:
    # some installers link a package's files to a cache that lies elsewhere.
    spec = importlib.util.find_spec(name)
    if spec is None:
        pip_name = name.replace("_", "-")
        raise InputError(f"{source}: package {name} is not installed; install it with: pip install {pip_name}")
    directories = [Path(directory) for directory in spec.submodule_search_locations or ()]
    for directory in directories:
        if (directory / inside).exists():
            return directory / inside
    where = ", ".join(str(directory) for directory in directories) or f"{name}, which is a single module"
    raise InputError(f"{source}: no {inside} in {where}; check the path, or install the version that holds it")


def read_csv(path: Path, data: config.Data, *, label_required: bool = True) -> Iterator[RawRow | Rejection | Filtered]:
    """Reads a CSV file in UTF-8 (RFC 4180, with a header), one record at a time; blank lines are no rows.

    Args:
      path: the file.
      data: names of the columns and the filter.
      label_required: whether a row without a label is rejected; a multi-label row may have none.

    Raises:
      InputError: the file is missing, empty, not UTF-8 text, without a column that `data` names, ends inside a
        quoted field, or holds no row that passes the filter.
    """
    try:
        file = open(path, encoding="utf-8-sig", errors="surrogateescape", newline="")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"{path}: can't read it ({error.strerror}); give the path of a readable CSV file") from error
    with file:
        yield from _read(file, path, data, label_required)


def printable(text: str) -> str:
    """Undecodable bytes as `\\xff`, so that the text can be printed and written as UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def excerpt(text: str) -> str:
    """The beginning of a text, on one line."""
    shortened = " ".join(printable(text[: 4 * EXCERPT_CHARACTERS]).split())
    return shortened if len(shortened) <= EXCERPT_CHARACTERS else shortened[: EXCERPT_CHARACTERS - 1] + "…"


def _read(file: TextIO, path: Path, data: config.Data, label_required: bool) -> Iterator[RawRow | Rejection | Filtered]:
    csv.field_size_limit(_LONGEST_FIELD_CHARACTERS)
    reader = csv.reader(file, strict=True)
    columns = _read_header(reader, path)
    text_at = _column(columns, data.text_column, "data.text_column", path)
    label_at = _column(columns, data.label_column, "data.label_column", path)
    pair_at = None
    if data.text_pair_column is not None:
        pair_at = _column(columns, data.text_pair_column, "data.text_pair_column", path)
    wanted = {_column(columns, column, "data.filter", path): set(values) for column, values in data.filter.items()}
    found: dict[int, dict[str, None]] = {at: {} for at in wanted}  # a dictionary keeps the order of the file
    any_row = any_passed = False
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise InputError(
                    f"{path}, line {line}: a quoted field that begins in this row is never closed; "
                    "close the quote, or write the file again if it was cut short"
                ) from error
            any_row = any_passed = True
            # A stray quote draws the lines after it into its record: each of them counts as a row that was lost.
            for lost in range(line, reader.line_num + 1):
                yield Rejection(lost, f"malformed CSV ({error})", f"in the record of lines {line} to {reader.line_num}")
            continue
        if cells is None:
            break
        if not cells:
            continue
        any_row = True
        if len(cells) != len(columns):
            any_passed = True
            reason = f"wrong number of columns ({len(cells)}, expected {len(columns)})"
            yield Rejection(line, reason, excerpt(",".join(cells)))
            continue
        for at, values in found.items():
            if len(values) <= LISTED_VALUES:
                values[cells[at]] = None
        if not all(cells[at] in values for at, values in wanted.items()):
            yield Filtered(line)
            continue
        any_passed = True
        text, label = cells[text_at], cells[label_at].strip()
        text_pair = None if pair_at is None else cells[pair_at]
        reason = _reason_to_reject(text, text_pair, label, label_required)
        yield Rejection(line, reason, excerpt(text)) if reason else RawRow(line, text, text_pair, label)
    if not any_row:
        raise InputError(f"{path}: a header and no row; expected at least one row of each label")
    if not any_passed:
        there = "; ".join(f"column {columns[at]!r} holds {_listed(values)}" for at, values in found.items())
        raise InputError(f"{path}: no row passes data.filter {data.filter!r}; {there}; change data.filter")


def _read_header(reader: Iterator[list[str]], path: Path) -> list[str]:
    try:
        columns = next(reader, None)
    except csv.Error as error:
        raise InputError(f"{path}, line 1: not a CSV header ({error}); expected the names of the columns") from error
    if columns is None:
        raise InputError(f"{path}: the file is empty; expected a CSV file with a header and rows")
    if any(_UNDECODABLE.search(name) or "\0" in name for name in columns):
        raise InputError(f"{path}, line 1: not UTF-8 text; convert it, for example with iconv -t UTF-8")
    return columns


def _column(columns: list[str], name: str, setting: str, path: Path) -> int:
    if columns.count(name) == 1:
        return columns.index(name)
    if name in columns:
        raise InputError(f"{path}: column {name!r} ({setting}) occurs {columns.count(name)} times; rename all but one")
    nearest = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
    if len(columns) == 1 and re.search("[;\t|]", columns[0]):
        hint = "the columns must be separated by commas; write the file again with commas"
    elif nearest:
        hint = f"did you mean {nearest[0]!r}?"
    else:
        hint = f"set {setting} to one of them"
    there = ", ".join(repr(column) for column in columns) or "none: the first line is blank"
    raise InputError(f"{path}: no column {name!r} ({setting}); columns in the file: {there}; {hint}")


def _reason_to_reject(text: str, text_pair: str | None, label: str, label_required: bool) -> str | None:
    for part, value in (("text", text), ("second text", text_pair), ("label", label)):
        if value is not None and _UNDECODABLE.search(value):
            return f"undecodable bytes in the {part} (not UTF-8)"
    if not text.strip():
        return "empty text"
    if text_pair is not None and not text_pair.strip():
        return "empty second text"
    return "empty label" if label_required and not label else None


def _listed(values: dict[str, None]) -> str:
    shown = ", ".join(repr(excerpt(value)) for value in list(values)[:LISTED_VALUES])
    return f"{shown} and more" if len(values) > LISTED_VALUES else shown or "nothing"
