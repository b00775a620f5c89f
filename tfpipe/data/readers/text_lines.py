"""Texts a line: `data.line` and `data.file_name` place the columns; and fastText's lines, `__label__a text`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tfpipe.config.data import Data
from tfpipe.data.block import Block, Cells, NoRows, Rejection, cells_of_records, check_columns, excerpt, label_columns
from tfpipe.data.files.line_patterns import file_values, line_columns, line_expression, proposed_file_name
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.readers.line_stream import whole_lines

_FASTTEXT_FIRST = re.compile(r"(?:__label__\S*\s*)*")
_FASTTEXT_LABEL = re.compile(r"(?:^|(?<=\s))__label__(\S*)\s*")


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields blocks of whole lines; their payload is the values in the file's name, and the lines' bytes.

    Raises:
      InputError: the file can't be read, is empty, or lacks a column.
    """
    if file.format == "fasttext":
        named: dict[str, str] = {}
        check_columns((data.text_column, *label_columns(data)), data, f"{file.name} (fastText)")
    else:
        named = file_values(file.path, file.name, data)
        hint = (
            f'set data.line, such as "{{{data.label_column}}} {{{data.text_column}}}", or data.file_name, such as '
            f'"{proposed_file_name(file.path)}"'
        )
        check_columns((*line_columns(data), *named), data, file.name, hint)
    first, number = 1, 0
    for content in whole_lines(file, "a text a line"):
        yield Block(file, number, first, (named, content), len(content))
        first, number = first + content.count(b"\n"), number + 1
    if not number:
        raise NoRows(f"{file.name}: the file is empty; expected a text a line")


def cells(block: Block, data: Data) -> Cells:
    """Reads the lines of a block; blank lines are no records."""
    return cells_of_records(block.file, data, whole_records(block, data))


def names(block: Block, data: Data) -> list[str]:
    """Lists the columns: those of fastText, or those that the settings find in a line and in a file's name."""
    named, _ = block.payload
    if block.file.format == "fasttext":
        return [data.text_column, *label_columns(data)]
    return list(dict.fromkeys((*line_columns(data), *named)))


def whole_records(block: Block, data: Data) -> Iterator[tuple[int, dict[str, Any] | Rejection, str]]:
    """Yields the number, the columns, or the reason for none, and the content of each line."""
    named, content = block.payload
    expression, columns = line_expression(data), line_columns(data)
    # Not splitlines(): U+2028 and its like may stand in a text.
    for number, raw in enumerate(content.split(b"\n"), start=block.first):
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape").removesuffix("\r")
        if not line.strip():
            continue
        if block.file.format == "fasttext":
            yield number, _fasttext(line, number, block, data), line
        elif match := expression.fullmatch(line):
            yield number, {**dict(zip(columns, match.groups(), strict=True)), **named}, line
        else:
            reason = f"does not fit data.line {data.line!r}"
            yield number, Rejection(block.file.name, number, reason, excerpt(line)), line


def _fasttext(line: str, number: int, block: Block, data: Data) -> dict[str, Any] | Rejection:
    end = _FASTTEXT_FIRST.match(line).end()
    labels, text = [label.removeprefix("__label__") for label in line[:end].split()], line[end:]
    if "__label__" in text:  # a label is one wherever it stands
        labels += _FASTTEXT_LABEL.findall(text)
        text = _FASTTEXT_LABEL.sub("", text)
    if not labels:  # fastText leaves such a line out when it trains, and does not say so
        return Rejection(block.file.name, number, "no __label__ in the line", excerpt(line))
    return {data.text_column: text} | dict.fromkeys(label_columns(data), labels)
