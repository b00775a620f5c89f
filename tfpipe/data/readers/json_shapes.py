"""The shape of a JSON file: its content decides, whatever its name is.

Enters: a file. Leaves: the blocks of a document (`json_documents.py`), or None for JSON Lines. tfpipe prints its choice
among several readings, unless `data.records` made it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from tfpipe.config.data import Data
from tfpipe.console import say_once
from tfpipe.data.block import Block, NoRows, check_columns, excerpt, wanted_columns
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.streams import COMPRESSIONS
from tfpipe.data.nested import splits, value_at
from tfpipe.data.readers.json_documents import column_blocks, element_blocks, object_blocks, parsed_value
from tfpipe.data.readers.json_outline import Member, Outline, chunks_from, outline_of
from tfpipe.data.split import split_name
from tfpipe.errors import InputError

_LINES_TRIED = 100  # of a file whose first line is no object
_MARK = b"\xef\xbb\xbf"
_EXAMPLE = "{text: .[0], label: .[1]}"
_KINDS = {b"[": "arrays", b'"': "texts", b"t": "truth values", b"f": "truth values", b"n": "nulls"}


def document_blocks(file: SourceFile, data: Data) -> Iterator[Block] | None:
    """Returns the blocks of a file that is a JSON document; None where it is JSON Lines.

    Raises:
      InputError: no rows of the document can be read; says what it holds and what to write.
    """
    head, start = _start(file)
    opening = head[start : start + 1]
    if opening not in (b"[", b"{") or _is_lines(head[start:], len(head)):
        return _lines(file, data)
    if opening == b"[":
        found = _array(file, data, start, head[start + 1 :].lstrip()[:1])
    else:
        found = _object(file, data, start, head[start:])
    name = PurePosixPath(file.name)
    suffix = PurePosixPath(name.stem).suffix if name.suffix in COMPRESSIONS else name.suffix
    if found is not None and suffix in (".jsonl", ".ndjson"):
        say_once(f"  {file.name}: a JSON document, not JSON Lines")
    return _lines(file, data) if found is None else found


def document_columns(file: SourceFile, like: str) -> tuple[str, ...]:
    """Lists the columns of a document of columns: the members whose values begin as that of a column does."""
    _, start = _start(file)
    outline = outline_of(file, start)
    kind = outline.named(like).begins[:1]
    return tuple(member.name for member in outline.members if member.begins[:1] == kind)


def _start(file: SourceFile) -> tuple[bytes, int]:
    """Returns the beginning of a file, and the place where the document begins."""
    head = next(chunks_from(file, 0), b"")
    return head, len(head) - len(head.removeprefix(_MARK).lstrip())


def _lines(file: SourceFile, data: Data) -> None:
    if data.records is not None:
        raise InputError(f"{file.name}: JSON Lines, so data.records {data.records!r} has no effect; leave it out")


def _is_lines(head: bytes, read: int) -> bool:
    """Tells whether the first line is a value of its own, and another line follows."""
    line, _, rest = head.partition(b"\n")
    if not rest.strip():
        return False
    return _parsed(line) is not None


def _parsed(line: bytes) -> dict[str, Any] | list[Any] | None:
    try:
        value = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _array(file: SourceFile, data: Data, start: int, inside: bytes) -> Iterator[Block]:
    if data.records is not None:
        raise InputError(f"{file.name}: a JSON array, so data.records {data.records!r} has no effect; leave it out")
    if inside == b"]":
        raise NoRows(f"{file.name}: an empty JSON array; expected at least one row of each label")
    if inside and inside != b"{":
        advice = "an object for each row"
        if inside == b"[":
            advice = f"objects, for example with jq -c '.[] | {_EXAMPLE}' {file.name} > rows.jsonl"
        raise InputError(
            f"{file.name}: a JSON array of {_KINDS.get(inside, 'numbers')}, not of objects; write {advice}"
        )
    return element_blocks(file, start, alone=True)


def _object(file: SourceFile, data: Data, start: int, head: bytes) -> Iterator[Block] | None:
    outline = outline_of(file, start)
    if outline.follows:
        # One object a line is JSON Lines; objects over several lines are, if the first line is damaged.
        return None if outline.lines == 1 or _has_object_lines(head) else _objects(file, data, start)
    if not outline.whole:
        if _has_object_lines(head) or (outline.lines == 1 and b"[" not in head and b"{" not in head[1:]):
            return None
        where = f", in {excerpt(outline.members[-1].name)!r}" if outline.members else ""
        raise InputError(f"{file.name}: ends within a JSON object{where}; fetch or write it again")
    return _document(file, data, outline) or (None if outline.lines == 1 else _objects(file, data, start))


def _objects(file: SourceFile, data: Data, start: int) -> Iterator[Block]:
    if data.records is not None:
        raise InputError(f"{file.name}: JSON objects, so data.records {data.records!r} has no effect; leave it out")
    return object_blocks(file, start)


def _has_object_lines(head: bytes) -> bool:
    """Tells whether a line below the first is an object. Within an object over several lines, only `{}` is one."""
    lines = head.split(b"\n")[1 : _LINES_TRIED + 1]
    return any(_parsed(line) not in (None, {}) for line in lines if line.startswith(b"{"))


def _document(file: SourceFile, data: Data, outline: Outline) -> Iterator[Block] | None:
    """Returns the blocks of an object that holds rows; None for an object that is itself a row."""
    if data.records is not None:
        return _chosen(file, data.records, outline)
    wanted = wanted_columns(data)
    members = [outline.named(name) for name in wanted]
    if all(members):
        if len(kinds := {member.begins[:1] for member in members}) == 1 and kinds <= {b"[", b"{"}:
            say_once(f"  {file.name}: a JSON object of columns ({_listed(outline)})")
            return column_blocks(file, members)
        return None
    if all(outline.named(name) or any(outline.named(head) for head, _ in splits(name)) for name in wanted):
        return None
    columns, rows = outline.named("columns"), outline.named("data")
    if columns and rows and rows.begins in (b"[[", b"[]") and columns.begins[:1] == b"[":
        names = tuple(map(str, parsed_value(file, columns)))
        check_columns(names, data, file.name)
        say_once(f"  {file.name}: a JSON object of columns and rows, as pandas writes with orient='split'")
        return element_blocks(file, rows.start, names=names)
    arrays = [member for member in outline.members if member.begins == b"[{"]
    arrays = arrays or [member for member in outline.members if member.begins == b"[]"]
    if len(arrays) == 1:
        say_once(f"  {file.name}: its rows are those of {excerpt(arrays[0].name)!r}")
        return element_blocks(file, arrays[0].start)
    if arrays:
        return _of_splits(file, arrays)
    objects = outline.members and all(member.begins[:1] == b"{" for member in outline.members)
    if objects and _is_row(parsed_value(file, outline.members[0]), wanted):
        say_once(f"  {file.name}: a JSON object of {outline.count:,} rows, each with a name")
        return element_blocks(file, outline.start, named=True)
    return _without_rows(file, outline, wanted)


def _is_row(value: Any, wanted: dict[str, str]) -> bool:
    try:
        for name in wanted:
            value_at(value, name)
    except KeyError:
        return False
    return isinstance(value, dict)


def _of_splits(file: SourceFile, arrays: list[Member]) -> Iterator[Block]:
    found = [split_name(member.name) for member in arrays]
    names = ", ".join(repr(excerpt(member.name)) for member in arrays[:10])
    if None in found or len(set(found)) < len(found):
        raise InputError(f"{file.name}: several arrays of objects ({names}); set data.records to one of them")
    if file.split is not None:
        raise InputError(
            f"{file.name}: data.source gives its rows to {file.split}, but it holds the splits {names}; give the file "
            "alone as data.source, or set data.records to one of them"
        )
    say_once(f"  {file.name}: its rows are those of {names}, which give the splits")
    return _arrays_of_splits(file, dict(zip(found, arrays, strict=True)))


def _arrays_of_splits(file: SourceFile, arrays: dict[str, Member]) -> Iterator[Block]:
    first, number = 1, 0
    for split, member in arrays.items():
        for block in element_blocks(replace(file, split=split), member.start, first, number):
            yield block
            first, number = block.first + block.payload.count, block.number + 1


def _chosen(file: SourceFile, path: str, outline: Outline) -> Iterator[Block]:
    """Returns the blocks of the array that `data.records` names."""
    member = outline.named(path)
    for head, rest in () if member else splits(path):
        below = outline.named(head)
        if below is not None and below.begins[:1] == b"{":
            return _chosen(file, rest, outline_of(file, below.start))
    if member is None:
        raise InputError(
            f"{file.name}: nothing is named {path!r} (data.records); there are {_listed(outline)}; name the array of "
            "the records"
        )
    if member.begins not in (b"[{", b"[]"):
        raise InputError(
            f"{file.name}: {path!r} (data.records) is not an array of objects; there are {_listed(outline)}"
        )
    return element_blocks(file, member.start)


def _without_rows(file: SourceFile, outline: Outline, wanted: dict[str, str]) -> None:
    """Returns None for an object that is a row.

    Raises:
      InputError: nothing in the object can be a value of a row; says how to get rows.
    """
    deeper = [
        f"{member.name}.{inner.name}"
        for member in outline.members[:_LINES_TRIED]
        if member.begins[:1] == b"{"
        for inner in outline_of(file, member.start).members
        if inner.begins == b"[{"
    ]
    if deeper:
        listed = ", ".join(repr(excerpt(name)) for name in deeper[:10])
        raise InputError(f"{file.name}: a JSON object with arrays of objects below it; set data.records to {listed}")
    if not outline.members or any(member.begins[:1] not in (b"[", b"{") for member in outline.members):
        return
    first = outline.members[0]
    where = f"{file.name}: a JSON object with the names {_listed(outline)}"
    if first.begins == b"[[":
        first = next((member for member in outline.members if split_name(member.name) == "train"), first)
        raise InputError(
            f"{where}, whose rows are arrays; write objects, for example with "
            f"jq -c '.{json.dumps(first.name)}[] | {_EXAMPLE}' {file.name} > rows.jsonl"
        )
    if first.begins[:1] == b"{":
        where += f", and below {excerpt(first.name)!r} {_listed(outline_of(file, first.start))}"
    column, setting = next((name, setting) for name, setting in wanted.items() if outline.named(name) is None)
    raise InputError(f"{where}: no column {column!r} ({setting}); set {setting} to one that is there")


def _listed(outline: Outline) -> str:
    listed = ", ".join(repr(excerpt(member.name)) for member in outline.members[:10])
    return f"{listed}, …" if outline.count > 10 else listed or "no names"
