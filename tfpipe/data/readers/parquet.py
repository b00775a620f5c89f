"""Parquet, by pyarrow, a few thousand rows at a time: of nested columns the fields of dotted names, bytes as UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data.block import (
    Block,
    Cells,
    MissingColumn,
    NoRows,
    Rejection,
    batches_as_blocks,
    check_columns,
    label_columns,
    wanted_columns,
)
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.streams import open_bytes
from tfpipe.data.nested_arrow import names_of, parquet_columns, steps_to, value_of
from tfpipe.data.readers.class_labels import declared, with_names
from tfpipe.errors import InputError

# Text that is not UTF-8; dates and times that Python has not.
_UNREADABLE = (ValueError, OverflowError, KeyError, pa.ArrowException)  # a KeyError for an unknown time zone
_KINDS_OF_BYTES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)
_BYTES_AT_ONCE = 64 << 20
_IN_PIECES = {"buffer_size": 4 << 20, "pre_buffer": False}
"""else pyarrow holds the whole file"""
_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields blocks whose payload is an Arrow record batch of the wanted columns."""
    return batches_as_blocks(file, _batches(file, data))


def cells(block: Block, data: Data) -> Cells:
    """Reads the rows of a block."""
    batch = block.payload
    numbers = list(range(block.first, block.first + batch.num_rows))
    columns = {column: batch.column(column) for column in wanted_columns(data)}
    try:
        return Cells({column: _listed(values) for column, values in columns.items()}, numbers, [])
    except _UNREADABLE:
        return _one_by_one(columns, numbers, block.file)


def classes(file: SourceFile, data: Data) -> tuple[str, ...] | None:
    """Returns the classes of the label column that Hugging Face datasets wrote into the file's metadata."""
    try:
        with open_bytes(file.path) as stream, pa.parquet.ParquetFile(stream) as reader:
            return declared(reader.schema_arrow, label_columns(data)).get(data.label_column)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return None  # `blocks` says what is wrong with it


def _one_by_one(columns: dict[str, pa.Array], numbers: list[int], file: SourceFile) -> Cells:
    cells = Cells({column: [] for column in columns}, [], [])
    for at, number in enumerate(numbers):
        row: dict[str, Any] = {}
        for column, values in columns.items():
            try:
                row[column] = _value(values.slice(at, 1))
            except _UNREADABLE as error:
                cells.rejections.append(Rejection(file.name, number, f"unreadable value in {column!r} ({error})", ""))
                break
        else:
            cells.numbers.append(number)
            for column, value in row.items():
                cells.columns[column].append(value)
    return cells


def _value(values: pa.Array) -> Any:
    """Returns the only value of an array; of a text that is not UTF-8, its bytes as `surrogateescape` marks them."""
    try:
        return _listed(values)[0]
    except UnicodeDecodeError:
        if values.type not in _BYTES:
            raise
        return _listed(values.view(_BYTES[values.type]))[0]


def _listed(values: pa.Array) -> list[Any]:
    """Returns an array as Python's values, bytes as text, in lists too; bytes that are not UTF-8 are marked."""
    listed = values.to_pylist()
    return list(map(_decoded, listed)) if _holds_bytes(values.type) else listed


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or hasattr(kind, "value_field"):
        return _holds_bytes(kind.value_type)
    return any(is_bytes(kind) for is_bytes in _KINDS_OF_BYTES)


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_decoded, value))
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def wanted_batch(batch: pa.RecordBatch, data: Data) -> pa.RecordBatch:
    """Returns the wanted columns of a batch; a dotted name is taken out of its struct or list."""
    wanted = {column: steps_to(batch.schema, column) for column in wanted_columns(data)}
    return pa.record_batch({column: value_of(batch, steps) for column, steps in wanted.items()})


def check_schema(schema: pa.Schema, data: Data, name: str) -> None:
    """Checks that a table has each wanted column: see `check_columns`."""
    try:
        check_columns(names_of(schema), data, name, nested=lambda column: steps_to(schema, column) is not None)
    except MissingColumn as error:
        error.whole = schema.names
        raise


def slices(batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    """Yields a batch in parts of about a block's bytes, each with its rows and bytes."""
    step = max(1, batch.num_rows * blocks_module.BLOCK_BYTES // max(batch.nbytes, blocks_module.BLOCK_BYTES))
    for first in range(0, batch.num_rows, step):
        part = batch.slice(first, step)
        if step < batch.num_rows:  # a part of its own, as the whole batch would go to another process with each
            part = pa.RecordBatch.from_arrays(
                [pa.concat_arrays([column]) for column in part.columns], part.schema.names
            )
        yield part, part.num_rows, part.nbytes


def _batches(file: SourceFile, data: Data) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    try:
        with open_bytes(file.path) as stream, pa.parquet.ParquetFile(stream, **_IN_PIECES) as reader:
            schema = reader.schema_arrow
            check_schema(schema, data, file.name)
            expected, read = reader.metadata.num_rows, 0
            if not expected:
                raise NoRows(f"{file.name}: no row; expected at least one row of each label")
            leaves = [reader.schema.column(number).path for number in range(len(reader.schema))]
            wanted = [steps_to(schema, column) for column in wanted_columns(data)]
            columns = list(dict.fromkeys(leaf for steps in wanted for leaf in parquet_columns(leaves, steps)))
            names = declared(schema, wanted_columns(data))
            every = len(columns) == len(leaves)  # else the large column may be one that is not read
            size = sum(max(0, reader.metadata.row_group(at).total_byte_size) for at in range(reader.num_row_groups))
            step = _BYTES_AT_ONCE * expected // max(size, 1) if every else expected
            for batch in reader.iter_batches(max(1, min(blocks_module.BLOCK_RECORDS, step)), columns=columns):
                yield from slices(with_names(wanted_batch(batch, data), names, file.name))
                read += batch.num_rows
            if read != expected:  # what its row groups say need not add up to what the file says
                raise InputError(f"{file.name}: {read} rows in a file that has {expected}; fetch or write it again")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last for names of columns
        reason = " ".join(str(error).split())
        raise InputError(f"{file.name}: not a whole Parquet file ({reason}); fetch or write it again") from error
