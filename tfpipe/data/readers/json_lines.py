"""JSON: JSON Lines, an object a line, UTF-8; other documents are left to `json_shapes.py` and `json_documents.py`."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tfpipe.config.data import Data
from tfpipe.data.block import Block, Cells, NoRows, Rejection, cells_of_records, excerpt
from tfpipe.data.files.annotations import answered
from tfpipe.data.files.annotations import names as answers
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.nested import names_in
from tfpipe.data.readers.json_documents import records
from tfpipe.data.readers.json_shapes import document_blocks
from tfpipe.data.readers.line_stream import whole_lines

_RECORDS_NAMED = 1000  # whose fields are looked at
_TWO_OBJECTS = re.compile(rb"\}[ \t\r]*,[ \t\r]*\{")


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields blocks of a document, or of whole lines, whose payload is the lines' bytes."""
    return document_blocks(file, data) or _line_blocks(file)


def _line_blocks(file: SourceFile) -> Iterator[Block]:
    first, number = 1, 0
    for content in whole_lines(file, "a JSON object a line, not an array"):
        yield Block(file, number, first, content, len(content))
        first, number = first + content.count(b"\n"), number + 1
    if not number:
        raise NoRows(f"{file.name}: the file is empty; expected a JSON object a line")


def cells(block: Block, data: Data) -> Cells:
    """Reads the records of a block; blank lines are no records."""
    cells = cells_of_records(block.file, data, whole_records(block, data))
    if isinstance(block.payload, bytes):
        return cells
    cells.unit = "record"
    cells.rejections = [replace(rejection, unit="record") for rejection in cells.rejections]
    return cells


def whole_records(block: Block, data: Data) -> Iterator[tuple[int, dict[str, Any] | Rejection, bytes | str | None]]:
    """Yields the number, the fields, or the reason for none, and the content of each record."""
    found = _records(block)
    return found if block.file.tool is None else answered(found, block.file, data)


def names(block: Block, data: Data) -> list[str]:
    """Lists the fields of a block's first records, by dotted names where they are nested."""
    found = _records(block)
    fields = [each for _, each, _ in itertools.islice(found, _RECORDS_NAMED) if isinstance(each, dict)]
    tool = block.file.tool
    return list(dict.fromkeys(name for each in fields for name in (answers(each, tool) if tool else names_in(each))))


def _records(block: Block) -> Iterator[tuple[int, dict[str, Any] | Rejection, bytes | str | None]]:
    return _of_lines(block) if isinstance(block.payload, bytes) else records(block)


def _of_lines(block: Block) -> Iterator[tuple[int, dict[str, Any] | Rejection, bytes | str]]:
    # Not splitlines(): U+2028 and its like may stand in a string.
    lines = block.payload.split(b"\n")
    if block.first == 1:
        lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
    at_once = _parsed_at_once(block.payload, lines)
    if at_once is not None:
        yield from zip(range(block.first, block.first + len(at_once)), at_once, lines, strict=False)
        return
    for number, raw in enumerate(lines, start=block.first):
        line = raw.decode("utf-8", "surrogateescape").strip()
        if not line:
            continue
        try:
            fields = json.loads(line)
            reason = None if isinstance(fields, dict) else f"not a JSON object but {type(fields).__name__}"
        except (ValueError, RecursionError) as error:
            reason = f"not JSON ({error})"
        yield number, Rejection(block.file.name, number, reason, excerpt(line)) if reason else fields, line


def _parsed_at_once(payload: bytes, lines: list[bytes]) -> list[dict[str, Any]] | None:
    """Parses lines as one array, in half the time; None where a line may not be one object.

    There must be as many objects as lines, and no two objects with a comma of the file's own between them. Then only
    the commas put between the lines separate the objects, so that each line is one object.
    """
    if _TWO_OBJECTS.search(payload):
        return None
    content = b",".join(lines if lines[-1] else lines[:-1])
    try:
        values = json.loads(f"[{content.decode('utf-8', 'surrogateescape')}]")
    except (ValueError, RecursionError):
        return None
    whole = len(values) == len(lines) - (not lines[-1]) and all(isinstance(value, dict) for value in values)
    return values if whole else None
