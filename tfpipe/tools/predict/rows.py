"""Rows to answer: any file that `prepare` reads, with all its columns.

Enters: the value of `--input`. Leaves: blocks of its files and, of each block, the texts and all other columns. The
readers are those of `prepare`. A file whose name ends in .txt holds a text a line, every line of it; so does a file of
no other known format.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import pyarrow as pa

from tfpipe.config.data import Data
from tfpipe.config.file import config_of
from tfpipe.config.template import parse_template
from tfpipe.console import say
from tfpipe.data import readers
from tfpipe.data.block import Block, Cells, Rejection, excerpt
from tfpipe.data.files.annotations import INSIDE
from tfpipe.data.files.formats import has_known_name
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.sources import source_files
from tfpipe.data.files.streams import COMPRESSIONS
from tfpipe.data.nested import names_in, value_at
from tfpipe.data.rows import UNDECODABLE, reason_to_reject_text
from tfpipe.data.texts import texts_of
from tfpipe.errors import InputError
from tfpipe.escaping import SURROGATES

LINES = "lines"
_READING = tuple(
    f"data.{name}"
    for name in (
        *("format", "encoding", "separator", "columns", "quoting", "escape"),
        *("line", "file_name", "sheet", "query", "records", "text"),
    )
)
_MISSING = object()


@dataclass(frozen=True)
class Columns:
    """The columns that hold the texts, as settings of `data` name them."""

    text_column: str = "text"
    text: str | None = None
    """a template of several columns, in place of `text_column`"""
    text_pair_column: str | None = None


@dataclass
class Rows:
    """The rows of a block that can be answered, in the order of the file."""

    texts: list[str]
    text_pairs: list[str] | None
    records: list[dict[str, Any]] | None
    """all fields of each row, where rows have fields of their own"""
    columns: dict[str, list[Any]] | None
    """else, all columns"""
    arrow: pa.RecordBatch | None
    """the same columns with their types, where the file has types"""
    rejections: list[Rejection]

    def __len__(self) -> int:
        return len(self.texts)

    def names(self) -> list[str]:
        """Lists the columns: of records, every field that one of them has."""
        if self.columns is not None:
            return list(self.columns)
        return list(dict.fromkeys(itertools.chain.from_iterable(self.records)))


@dataclass(frozen=True)
class Input:
    """Files to answer, with the settings of their readers; picklable."""

    files: tuple[SourceFile, ...]
    data: Data
    """names the columns of the texts; its label column is one of them, as there may be no label"""
    every_column: dict[int, tuple[str, ...]]
    """number of a file -> its columns; of a file of records, none"""
    inside: dict[int, str]
    """number of a file that an annotation tool wrote -> the field of a record that holds what annotators were shown"""

    def blocks(self) -> Iterator[Block]:
        """Yields the blocks of the files, in order.

        Raises:
          InputError: a file can't be read, or lacks a column.
        """
        for file in self.files:
            yield from self.blocks_of(file)

    def blocks_of(self, file: SourceFile) -> Iterator[Block]:
        """Yields the blocks of one file."""
        return readers.blocks(file, self._data(file))

    def _data(self, file: SourceFile) -> Data:
        """Makes the settings by which a file is read with all its columns."""
        label = self.every_column.get(file.number) or self.data.label_column
        if file.format == "fasttext":  # whose labels are a column of their own
            label = "labels" if self.data.text_column == "label" else "label"
        return self.data.model_copy(update={"label_column": label})

    def columns(self) -> list[str]:
        """Lists the columns of all files that have columns."""
        return list(dict.fromkeys(itertools.chain.from_iterable(self.every_column.values())))

    def read(self, block: Block) -> Rows:
        """Reads a block, and sorts out the rows that can't be answered."""
        data, file = self.data, block.file
        found = _lines(block, data) if _is_every_line(block, data) else readers.whole_records(block, self._data(file))
        if found is not None:
            return _rows_of_records(
                found, block, data, self.every_column[file.number], self.inside.get(file.number, "")
            )
        cells = readers.cells(block, self._data(file))
        arrow = block.payload if isinstance(block.payload, pa.RecordBatch) else None
        if arrow is not None:
            if len(cells.numbers) < arrow.num_rows:  # a row could not be read
                arrow = arrow.take(pa.array([number - block.first for number in cells.numbers], pa.int64()))
            for name, value in file.columns:
                if name not in arrow.schema.names:
                    arrow = arrow.append_column(name, pa.array([value] * arrow.num_rows, pa.string()))
        return _rows_of_columns(cells, arrow, block, data, self.every_column[file.number])


def open_input(source: list[str], columns: Columns, overrides: list[str]) -> Input:
    """Finds the files and their columns.

    Args:
      source: as `data.source` has it.
      columns: that hold the texts.
      overrides: `data.a=VALUE`, how the files are read.

    Raises:
      InputError: there is no file, its format can't be told, or a column is missing.
    """
    if wrong := next((each for each in overrides if each.partition("=")[0] not in _READING), None):
        raise InputError(f"--set {wrong}: expected a setting of how files are read: {', '.join(_READING)}")
    given = {"source": source[0] if len(source) == 1 else source, "label_column": "\0"}
    given |= {name: value for name, value in vars(columns).items() if value is not None}
    if columns.text is not None:
        del given["text_column"]
    of_format = any(each.startswith("data.format=") for each in overrides)
    # Lines that are texts hold no second column.
    if not of_format and columns.text is None and columns.text_pair_column is None and all(map(_is_text_file, source)):
        given["format"] = LINES
    data = config_of({"name": "predict", "data": given, "encoder": {"source": "none"}}, overrides, "--input").data
    texts = (data.text_column,) if data.text is None else parse_template(data.text).columns
    files, data, inside = _files(data.model_copy(update={"label_column": texts[0]}))
    if given.get("format") == files[0].format:
        _say_what_lines_look_like(files[0], data)
    found = Input(tuple(files), data, {}, inside)
    for file in files:  # whether it has the columns is said before a model is loaded
        next(iter(found.blocks_of(file)), None)
    return replace(found, every_column={file.number: _columns(file, data) for file in files})


def _is_text_file(source: str) -> bool:
    path = PurePath(source)
    return PurePath(path.stem if path.suffix in COMPRESSIONS else path.name).suffix.lower() == ".txt"


def _say_what_lines_look_like(file: SourceFile, data: Data) -> None:
    """Prints how else a .txt file could be read, where its first line looks like that of another format."""
    line = _first_line(file).decode("utf-8-sig", "replace").rstrip("\r")
    names = next(([name.strip('" ') for name in line.split(each)] for each in "\t,;|" if each in line), [])
    other = "csv" if data.text_column in names else "fasttext" if line.startswith("__label__") else None
    if other is not None:
        what = "a header of columns" if other == "csv" else "a line of fastText"
        say(f"  {file.name}: each line is read as a text, and the first looks like {what} (--set data.format={other})")


def _files(data: Data) -> tuple[list[SourceFile], Data, dict[int, str]]:
    """Lists the files, and `Input.inside`.

    A file whose format neither its name nor its content shows holds a text a line.
    """
    try:
        files = source_files(data)
        inside = {file.number: INSIDE[file.tool] for file in files if file.tool in INSIDE}
        # What an annotation tool wrote is carried through as it stands.
        return [replace(file, tool=None) for file in files], data, inside
    except InputError:
        one = isinstance(data.source, str) and data.format == "auto" and not has_known_name(data.source)
        if not one:
            raise
        lines = data.model_copy(update={"format": LINES})
        try:
            files = source_files(lines)
        except InputError:
            files = []
        if len(files) != 1 or files[0].format != LINES or set(b",;|\t") & set(_first_line(files[0])):
            raise  # the first reason
        say(f"  {files[0].name}: read as a text a line")
        return files, lines, {}


def _first_line(file: SourceFile) -> bytes:
    from tfpipe.data.readers.line_stream import whole_lines

    return next(whole_lines(file, "a text a line"), b"").partition(b"\n")[0]


def _columns(file: SourceFile, data: Data) -> tuple[str, ...]:
    """Lists all columns of a file, nested ones as a whole; for a file of records, none."""
    if file.format in (LINES, "fasttext", "tfrecord"):
        return ()
    if file.format == "json_lines":
        from tfpipe.data.readers import json_documents, json_shapes

        block = next(iter(readers.blocks(file, data)), None)
        of_columns = block is not None and isinstance(block.payload, json_documents.Columns)
        return json_shapes.document_columns(file, next(iter(block.payload.columns))) if of_columns else ()
    names = readers.columns(file, data, whole=True)
    if names.count("") > 1:  # of a sheet with empty columns; one alone is the index that pandas writes
        say(f"  {file.name}: {names.count('')} columns without a name are left out")
        names = [name for name in names if name]
    return tuple(names)


def _is_every_line(block: Block, data: Data) -> bool:
    """Tells whether each line of a file is a text, an empty one too."""
    return block.file.format == LINES and data.line is None


def _lines(block: Block, data: Data) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Yields every line, empty ones too: the answers stand at the same lines."""
    named, content = block.payload
    lines = content.split(b"\n")
    for number, raw in enumerate(lines[: len(lines) - (not lines[-1])], start=block.first):
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape").removesuffix("\r")
        yield number, {data.text_column: text, **named}, text


def _rows_of_records(
    found: Iterator[tuple[int, Any, Any]], block: Block, data: Data, columns: tuple[str, ...], inside: str
) -> Rows:
    """Sorts out records; if a document has columns, they come in its order."""
    rejections, numbers, records = [], [], []
    own = dict(block.file.columns)
    wanted = _text_columns(data)
    cells: dict[str, list[Any]] = {name: [] for name in wanted}
    for number, fields, raw in found:
        if isinstance(fields, Rejection):
            rejections.append(fields)
            continue
        fields = {name: fields[name] for name in columns} if columns else fields
        fields = own | fields if own else fields
        values = {name: _value(fields, name, inside) for name in wanted}
        missing = next((name for name, value in values.items() if value is _MISSING), None)
        if missing is not None:
            shown = excerpt(raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else str(raw or fields))
            there = ", ".join(map(repr, map(excerpt, itertools.islice(fields, 10)))) or "none"
            known = [str(name) for name in itertools.islice(names_in(fields), 200)]
            inner = [name for name in known if name.endswith(f".{missing}")]
            nearest = inner or difflib.get_close_matches(missing, known, n=1, cutoff=0.5)
            hint = f"; did you mean {excerpt(nearest[0])!r}?" if nearest else ""
            reason = f"no field {missing!r}; fields: {there}{hint}"
            rejections.append(Rejection(block.file.name, number, reason, shown))
            continue
        numbers.append(number)
        records.append(fields)
        for name, value in values.items():
            cells[name].append(value)
    unit = "line" if isinstance(block.payload, bytes | tuple) else "record"
    read = Cells(cells, numbers, rejections, unit=unit)
    texts, pairs, kept = _usable(read, block, data, lambda at: _undecodable((*records[at], *records[at].values())))
    return Rows(texts, pairs, [records[at] for at in kept], None, None, read.rejections)


def _rows_of_columns(
    cells: Cells, arrow: pa.RecordBatch | None, block: Block, data: Data, names: tuple[str, ...]
) -> Rows:
    """Sorts out rows; `names` are the columns that are carried through; a text may be part of one."""
    # Bytes of a column of bytes need not be text.
    columns = [cells.columns[name] for name in names if arrow is None or _is_text(arrow, name)]
    texts, pairs, kept = _usable(cells, block, data, lambda at: _undecodable(column[at] for column in columns))
    found = {name: cells.columns[name] for name in names}
    if len(kept) < len(cells.numbers):
        found = {name: [values[at] for at in kept] for name, values in found.items()}
        arrow = None if arrow is None else arrow.take(pa.array(kept, pa.int64()))
    return Rows(texts, pairs, None, found, arrow, cells.rejections)


def _is_text(arrow: pa.RecordBatch, name: str) -> bool:
    kind = arrow.schema.field(name).type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _text_columns(data: Data) -> tuple[str, ...]:
    texts = (data.text_column,) if data.text is None else parse_template(data.text).columns
    return tuple(dict.fromkeys((*texts, *filter(None, (data.text_pair_column,)))))


def _value(fields: dict[str, Any], name: str, inside: str) -> Any:
    """Returns the value of a name in a record, or in the field of it that annotators were shown."""
    for place in (fields, fields.get(inside)):
        if isinstance(place, dict):
            with suppress(KeyError):
                return place[name] if name in place else value_at(place, name)
    return _MISSING


def _usable(
    cells: Cells, block: Block, data: Data, undecodable: Callable[[int], str | None]
) -> tuple[list[str], list[str] | None, list[int]]:
    """Returns the texts that can be answered, and the places of their rows; adds to the rejections of the others."""
    texts, _ = texts_of(cells.columns.__getitem__, data)
    paired = data.text_pair_column is not None
    pairs = [None] * len(texts)
    if paired:
        pairs, _ = texts_of(
            cells.columns.__getitem__, data.model_copy(update={"text": None, "text_column": data.text_pair_column})
        )
    kept: list[int] = []
    for at, (text, pair) in enumerate(zip(texts, pairs, strict=True)):
        reason = reason_to_reject_text(text, pair, paired)
        if reason is None or (reason == "empty text" and _is_every_line(block, data)):
            reason = undecodable(at)
        if reason is None:
            kept.append(at)
            continue
        name = block.file.name if cells.names is None else cells.names[at]
        cells.rejections.append(Rejection(name, cells.numbers[at], reason, excerpt(str(text or "")), cells.unit))
    cells.rejections.sort(key=lambda each: each.line)
    if len(kept) < len(texts):
        texts, pairs = [texts[at] for at in kept], [pairs[at] for at in kept]
    return texts, pairs if paired else None, kept


def _undecodable(values: Any) -> str | None:
    """Tells whether a text among some cells is not UTF-8: no output could hold it."""
    for value in values:
        if isinstance(value, str) and not value.isascii() and SURROGATES.search(value):
            return f"{UNDECODABLE} in the row (not UTF-8)"
    return None
