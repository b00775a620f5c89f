"""Parquet, by pyarrow, a few thousand rows at a time; nested columns are not read, lists are, as several labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data.block import Block, Cells, Rejection, batches_as_blocks, check_columns, wanted_columns
from tfpipe.data.readers.class_labels import declared, named
from tfpipe.data.source_file import SourceFile
from tfpipe.data.streams import open_bytes
from tfpipe.errors import InputError

# Text that is not UTF-8; dates and times that Python has not.
_UNREADABLE = (ValueError, OverflowError, pa.ArrowException)


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Blocks whose payload is an Arrow record batch of the wanted columns."""
    return batches_as_blocks(file, _batches(file, data))


def cells(block: Block, data: Data) -> Cells:
    """The rows of a block."""
    batch = block.payload
    numbers = list(range(block.first, block.first + batch.num_rows))
    columns = {column: batch.column(column) for column in wanted_columns(data)}
    try:
        return Cells({column: values.to_pylist() for column, values in columns.items()}, numbers, [])
    except _UNREADABLE:
        return _one_by_one(columns, numbers, block.file)


def classes(file: SourceFile, data: Data) -> tuple[str, ...] | None:
    """The classes of the label column that Hugging Face datasets wrote into the file's metadata."""
    try:
        with open_bytes(file.path) as stream, pa.parquet.ParquetFile(stream) as reader:
            return declared(reader.schema_arrow).get(data.label_column)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return None  # `blocks` says what is wrong with it


def _one_by_one(columns: dict[str, pa.Array], numbers: list[int], file: SourceFile) -> Cells:
    cells = Cells({column: [] for column in columns}, [], [])
    for at, number in enumerate(numbers):
        row: dict[str, Any] = {}
        for column, values in columns.items():
            try:
                row[column] = values[at].as_py()
            except _UNREADABLE as error:
                cells.rejections.append(Rejection(file.name, number, f"unreadable value in {column!r} ({error})", ""))
                break
        else:
            cells.numbers.append(number)
            for column, value in row.items():
                cells.columns[column].append(value)
    return cells


def slices(batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    """A batch in parts of about a block's bytes, each with its rows and bytes."""
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
        with open_bytes(file.path) as stream, pa.parquet.ParquetFile(stream) as reader:
            check_columns(reader.schema_arrow.names, data, file.name)
            expected, read = reader.metadata.num_rows, 0
            if not expected:
                raise InputError(f"{file.name}: no row; expected at least one row of each label")
            columns = list(wanted_columns(data))
            names = {column: own for column, own in declared(reader.schema_arrow).items() if column in columns}
            for batch in reader.iter_batches(blocks_module.BLOCK_RECORDS, columns=columns):
                for column, own in names.items():
                    at = batch.schema.get_field_index(column)
                    batch = batch.set_column(at, column, named(batch.column(at), own, file.name))
                yield from slices(batch)
                read += batch.num_rows
            if read != expected:  # what its row groups say need not add up to what the file says
                raise InputError(f"{file.name}: {read} rows in a file that has {expected}; fetch or write it again")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last for names of columns
        reason = " ".join(str(error).split())
        raise InputError(f"{file.name}: not a whole Parquet file ({reason}); fetch or write it again") from error
