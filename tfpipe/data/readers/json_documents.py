"""JSON documents: a file that is one JSON value, or several that are written over lines.

Shapes that are read, found by the content, not by the file's name:

    [{…}, …]                                        an array of objects
    {"data": [{…}, …], …}                           the only array of objects in an object, or that of `data.records`
    {"train": [{…}, …], "test": [{…}, …]}           several whose names are splits: the rows' splits
    {"columns": […], "index": […], "data": [[…]]}   pandas' orient=split
    {"text": {"0": …}, "label": {"0": …}}           columns, as pandas' to_json and to_dict write them
    {"text": […], "label": […]}                     columns, as lists
    {"0": {…}, "1": {…}}                            an object a row, pandas' orient=index
    {…} {…}                                         objects one after the other, each over several lines, as jq writes

Arrays are cut into blocks of whole records by their brackets and commas (`json_structure.py`), and parsed by the
process that works on the block. Columns are read whole, one after the other, up to `_LARGEST_COLUMN_BYTES`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfpipe.data import block as block_module
from tfpipe.data.block import Block, NoRows, Rejection, as_json, excerpt
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.readers.json_outline import Member, chunks_from
from tfpipe.data.readers.json_structure import COMMA, Scanner
from tfpipe.errors import InputError

_LONGEST_RECORD_BYTES = 64 << 20
_LARGEST_COLUMN_BYTES = 512 << 20

Records = Iterator[tuple[int, dict[str, Any] | Rejection, str | None]]


@dataclass(frozen=True)
class Elements:
    """Some elements of an array, or members of an object: the content between two of its commas."""

    content: bytes
    count: int
    names: tuple[str, ...] | None = None
    """of the fields, where an element is an array of their values"""
    named: bool = False
    """whether an element has a name before it, as the members of an object have"""


@dataclass(frozen=True)
class Objects:
    """Some objects, one after the other."""

    content: bytes


@dataclass(frozen=True)
class Columns:
    """Some rows of columns, as lists of one length."""

    columns: dict[str, list[Any]]


# Cutting.


def element_blocks(
    file: SourceFile, start: int, first: int = 1, number: int = 0, *, alone: bool = False, **kind: Any
) -> Iterator[Block]:
    """Cuts an array, or an object of rows, into blocks of whole elements.

    Args:
      file: the file; its split is that of the rows.
      start: offset of the opening bracket.
      first: number of the first element.
      number: of the first block.
      alone: whether nothing may follow the array.
      kind: further fields of `Elements`.

    Raises:
      InputError: the array does not end, one of its records is too long, or more follows.
    """
    scanner, left = Scanner(depth=1), b""
    chunks = chunks_from(file, start + 1, block_module.BLOCK_BYTES)
    for chunk in chunks:
        places, characters, depths = scanner.feed(chunk)
        (ends,) = np.nonzero(depths == 0)
        commas = places[(characters == COMMA) & (depths == 1)]
        if len(ends):
            end = int(places[ends[0]])
            commas = commas[commas < end]
            count, content = len(commas), left + chunk[:end]
            if chunk[int(commas[-1]) + 1 : end].strip() if len(commas) else content.strip():
                count += 1
            elif count:  # a comma behind the last element
                content = left + chunk[: int(commas[-1])]
            if not count and not number:
                raise NoRows(f"{file.name}: no row; expected at least one row of each label")
            if count:
                yield Block(file, number, first, Elements(content, count, **kind), len(content))
            rest = next((rest for rest in (chunk[end + 1 :].strip(), *chunks) if rest.strip()), b"") if alone else b""
            if rest:
                raise InputError(
                    f"{file.name}: more follows the end of the JSON array, behind record {first + count - 1} "
                    f"({_shown(rest)!r}); write one array, or an object a line"
                )
            return
        if len(commas):
            cut = int(commas[-1])
            content, left = left + chunk[:cut], chunk[cut + 1 :]
            yield Block(file, number, first, Elements(content, len(commas), **kind), len(content))
            first, number = first + len(commas), number + 1
        else:
            left += chunk
        _check_length(file, first, left)
    raise InputError(
        f"{file.name}: ends within record {first} ({_shown(left)!r}), without the "
        "bracket that closes the records; fetch or write it again"
    )


def object_blocks(file: SourceFile, start: int) -> Iterator[Block]:
    """Cuts a file of objects, one after the other, into blocks of whole objects.

    Raises:
      InputError: the last object does not end, or an object is too long.
    """
    scanner, left, first, number = Scanner(), b"", 1, 0
    for chunk in chunks_from(file, start, block_module.BLOCK_BYTES):
        places, characters, depths = scanner.feed(chunk)
        ends = places[(depths == 0) & (characters != COMMA)]
        if len(ends):
            cut = int(ends[-1]) + 1
            yield Block(file, number, first, Objects(left + chunk[:cut]), len(left) + cut)
            first, number, left = first + len(ends), number + 1, chunk[cut:]
        else:
            left += chunk
        _check_length(file, first, left)
    if left.strip():
        raise InputError(f"{file.name}: ends within record {first} ({_shown(left)!r}); fetch or write it again")


def _shown(content: bytes) -> str:
    return excerpt(content[:1000].decode("utf-8", "surrogateescape"))


def _check_length(file: SourceFile, first: int, left: bytes) -> None:
    if len(left) > _LONGEST_RECORD_BYTES:
        raise InputError(
            f"{file.name}: record {first} does not end within {_LONGEST_RECORD_BYTES >> 20} MB "
            f"({_shown(left)!r}); a quote or a bracket is missing in it or before it"
        )


def column_blocks(file: SourceFile, members: list[Member]) -> Iterator[Block]:
    """Reads columns, each an array or an object of all its values, and cuts them into blocks of rows.

    Raises:
      InputError: a column is too large, not JSON, or does not have the rows of the others.
    """
    rows: list[Any] | None = None
    columns: dict[str, list[Any]] = {}
    for member in members:
        values = _column(file, member)
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        if rows is not None and (len(keys) != len(rows) or set(keys) != set(rows)):
            raise InputError(
                f"{file.name}: column {member.name!r} has not the rows of {members[0].name!r} ({len(keys)} and "
                f"{len(rows)} values); write it again, an object a line"
            )
        rows = keys if rows is None else rows
        columns[member.name] = [values[row] for row in rows]
    if not rows:
        raise NoRows(f"{file.name}: no row; expected at least one row of each label")
    size = sum(member.end - member.start for member in members)
    step = max(1, min(block_module.BLOCK_RECORDS, len(rows) * block_module.BLOCK_BYTES // size))
    for number, first in enumerate(range(0, len(rows), step)):
        part = {name: values[first : first + step] for name, values in columns.items()}
        yield Block(file, number, first + 1, Columns(part), min(step, len(rows) - first) * size // len(rows))


def _column(file: SourceFile, member: Member) -> dict[str, Any] | list[Any]:
    size = member.end - member.start
    if size > _LARGEST_COLUMN_BYTES:
        raise InputError(
            f"{file.name}: column {member.name!r} has {size >> 20} MB, and columns are read whole, up to "
            f"{_LARGEST_COLUMN_BYTES >> 20} MB; write an object a line, such as with pandas: "
            'df.to_json("rows.jsonl", orient="records", lines=True)'
        )
    return parsed_value(file, member)


def parsed_value(file: SourceFile, member: Member) -> Any:
    """Reads and parses the value of a member.

    Raises:
      InputError: it is not JSON, or an object in it has a name twice.
    """
    content, size = bytearray(), member.end - member.start
    for chunk in chunks_from(file, member.start):
        content += chunk[: size - len(content)]
        if len(content) >= size:
            break
    try:
        return json.loads(content.decode("utf-8", "surrogateescape"), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{file.name}: {excerpt(member.name)!r} is not JSON ({excerpt(str(error))}); write the file again"
        ) from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the name {twice!r} occurs twice")
    return found


# Parsing.


def records(block: Block) -> Records:
    """Yields the records of a block: number, fields or the reason for none, and None for the text."""
    payload = block.payload
    if isinstance(payload, Columns):
        names = list(payload.columns)
        for number, values in enumerate(zip(*payload.columns.values(), strict=True), start=block.first):
            yield number, dict(zip(names, values, strict=True)), None
        return
    values = _parsed(payload) if isinstance(payload, Elements) else None
    if values is None:
        yield from _one_by_one(block)
        return
    for number, value in enumerate(values, start=block.first):
        yield number, _fields(block, number, value), None


def _parsed(payload: Elements) -> list[Any] | None:
    """Parses all elements at once; None if one is malformed, or if their number is not the counted one."""
    content = payload.content.decode("utf-8", "surrogateescape")
    try:
        values = json.loads(f"{{{content}}}" if payload.named else f"[{content}]")
    except (ValueError, RecursionError):
        return None
    values = list(values.values()) if payload.named else values
    return values if len(values) == payload.count else None


def _one_by_one(block: Block) -> Records:
    named = isinstance(block.payload, Elements) and block.payload.named
    for number, raw in enumerate(_texts(block.payload), start=block.first):
        try:
            values = list(json.loads(f"{{{raw}}}").values()) if named else [json.loads(raw)]
            reason = None if values else "not JSON (a comma without a row)"
        except (ValueError, RecursionError) as error:
            reason = f"not JSON ({error})"
        rejection = None if reason is None else Rejection(block.file.name, number, reason, excerpt(raw))
        yield number, rejection or _fields(block, number, values[0]), raw


def _texts(payload: Elements | Objects) -> Iterator[str]:
    content, at = payload.content, 0
    of_array = isinstance(payload, Elements)
    places, characters, depths = Scanner(depth=int(of_array)).feed(content)
    if of_array:
        ends = [*places[(characters == COMMA) & (depths == 1)].tolist(), len(content)]
    else:
        ends = (places[(depths == 0) & (characters != COMMA)] + 1).tolist()
    for end in ends:
        yield content[at:end].decode("utf-8", "surrogateescape").strip()
        at = end + of_array  # a comma belongs to no element


def _fields(block: Block, number: int, value: Any) -> dict[str, Any] | Rejection:
    names = block.payload.names if isinstance(block.payload, Elements) else None
    if names is not None and isinstance(value, list):
        if len(value) == len(names):
            return dict(zip(names, value, strict=True))
        reason = f"{len(value)} values for {len(names)} columns"
    elif names is None and isinstance(value, dict):
        return value
    else:
        reason = f"not a JSON {'object' if names is None else 'array'} but {type(value).__name__}"
    return Rejection(block.file.name, number, reason, excerpt(as_json(value)))
