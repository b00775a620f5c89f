"""The format of a file: by its name, else by its content; otherwise tfpipe refuses the file and says what to write."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tfpipe.config.data import TOOLS, Data
from tfpipe.console import say_once
from tfpipe.data.block import excerpt, wanted_columns
from tfpipe.data.files.annotations import wrote
from tfpipe.data.files.encodings import decoded_head, guessed
from tfpipe.data.files.hubs import HUBS
from tfpipe.data.files.line_patterns import matching_pattern, proposed_file_name
from tfpipe.data.files.sniff import TEXT_FORMATS, is_json, read_head, seen
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.streams import COMPRESSIONS, zip_and_member
from tfpipe.errors import InputError

_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".jsonlines": "json_lines",
    ".json": "json_lines",
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".duckdb": "duckdb",
    ".ddb": "duckdb",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
    ".tfrec": "tfrecord",
}
_SHARD_OF_MANY = re.compile(r"-\d{5}-of-\d{5}$")
_DATABASES = ("sqlite", "duckdb")
_DELIMITED = ("csv", "tsv")
_READ_BY = {
    "encoding": (*TEXT_FORMATS, "folder"),
    "sheet": ("excel",),
    "query": _DATABASES,
    **dict.fromkeys(("separator", "columns", "quoting", "escape"), _DELIMITED),
}


def format_of(name: str, path: str, data: Data) -> str:
    """Returns the format of a file.

    Raises:
      InputError: neither its name nor its content shows it.
    """
    if data.format == "folder":
        raise InputError(f"{name}: a file, not a directory with a folder per class (data.format: folder)")
    if data.format not in ("auto", *TOOLS):
        return data.format
    found = _by_name(name, path) or _by_content(name, path, data)
    if data.format != "auto" and found not in ("json_lines", "csv", "tsv"):
        raise InputError(f"{name}: {found}, and data.format is {data.format}, whose exports are JSON, CSV or TSV")
    return found


def tool_of(path: str, format_name: str, data: Data) -> str | None:
    """Returns the annotation tool that wrote a file; None for another file, and for rows that are read as others."""
    if format_name not in ("json_lines", "csv", "tsv") or data.format not in ("auto", *TOOLS):
        return None
    if data.format != "auto":
        return data.format
    return wrote(decoded_head(read_head(path), data), delimited=format_name != "json_lines")


def say_what_was_found(files: Iterable[SourceFile], data: Data) -> None:
    """Reports the formats of files whose content decided."""
    files = list(files)
    if data.format == "auto" and (tool := next((file.tool for file in files if file.tool), None)):
        say_once(
            f"  {tool} wrote the records, and they are read so (data.format: json_lines or csv takes their fields)"
        )
    found: dict[str, list[str]] = {}
    for file in files if data.format == "auto" else ():
        if file.format not in ("folder", *HUBS) and _by_name(file.name, file.path) is None:
            found.setdefault(file.format, []).append(file.name)
    for format_name, names in found.items():
        more, content = (f" and {len(names) - 1:,} more files", "their") if len(names) > 1 else ("", "its")
        say_once(f"  {names[0]}{more}: read as {format_name}, by {content} content (data.format)")


def check_effects(files: list[SourceFile], data: Data) -> None:
    """Refuses settings of formats that no file has.

    Raises:
      InputError: names the setting.
    """
    for setting, formats in _READ_BY.items():
        if getattr(data, setting) is not None and not any(file.format in formats for file in files):
            there = ", ".join(sorted({file.format for file in files}))
            raise InputError(
                f"data.{setting} has no effect on files of format {there}, only on {', '.join(formats)}; leave it out"
            )


def has_known_name(name: str) -> bool:
    """Tells whether the name of a file says its format."""
    return _by_name(name, name) is not None


def _by_name(name: str, path: str) -> str | None:
    plain = _SHARD_OF_MANY.sub("", path if zip_and_member(path) else name)
    if Path(plain).suffix in COMPRESSIONS:
        plain = str(PurePosixPath(plain).with_suffix(""))
    return _FORMATS.get(Path(_SHARD_OF_MANY.sub("", plain)).suffix.lower())


def _by_content(name: str, path: str, data: Data) -> str:
    head = read_head(path)
    found = seen(head, path)
    if found is not None and found.format is not None:
        return found.format
    if found is not None:
        raise InputError(f"{name}: {found.what}; {found.advice}")
    lines = [line for line in re.split(r"\r?\n", decoded_head(head, data)) if line.strip()]
    if not lines:
        raise InputError(f"{name}: the file is empty; expected rows of text and label")
    if sum(re.search(r"(^|\s)__label__", line) is not None for line in lines) * 2 > len(lines):
        return "fasttext"
    if is_json("\n".join(lines[:1]).encode("utf-8", "replace")):
        return "json_lines"
    return _delimited(lines[0], data) or _refuse(name, path, head, lines, data)


def _delimited(header: str, data: Data) -> str | None:
    """Returns the format of a text whose first line names the wanted columns."""
    for separator, format_name in {"\t": "tsv", ",": "csv", ";": "csv", "|": "csv"}.items():
        try:
            names = next(csv.reader([header], delimiter=separator), [])
        except csv.Error:
            continue
        if set(wanted_columns(data)) <= set(names):
            return format_name
    return None


def _refuse(name: str, path: str, head: bytes, lines: list[str], data: Data) -> str:
    encoding = ""
    try:
        head[: head.rfind(b"\n") + 1].decode()
    except UnicodeDecodeError:
        if data.encoding is None and (guess := guessed(head)) is not None:
            encoding = f", and data.encoding: {guess} (a guess)"
    begins = f"its name does not say what it holds, and it begins with {excerpt(lines[0])!r}"
    if (pattern := matching_pattern(lines, data)) is not None:
        advice = f"if a line is label and text, set data.format: lines and data.line: {pattern!r}{encoding}"
    else:
        where = proposed_file_name(path)
        advice = (
            f"if a line is a text and the file's name says its label, set data.format: lines and "
            f"data.file_name: {where!r}{encoding}"
        )
    raise InputError(f"{name}: {begins}; {advice}; else set data.format to csv, tsv, json_lines, parquet or tfrecord")
