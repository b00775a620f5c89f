"""Arrow's files and streams, which Feather and Hugging Face datasets write too, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from tfpipe.config.data import Data
from tfpipe.data.block import Block, Cells, NoRows, batches_as_blocks, label_columns, wanted_columns
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.streams import COMPRESSIONS, READ_ERRORS, is_remote, open_bytes, zip_and_member
from tfpipe.data.nested_arrow import steps_to
from tfpipe.data.readers.class_labels import declared, with_names
from tfpipe.data.readers.parquet import cells as parquet_cells
from tfpipe.data.readers.parquet import check_schema, slices, wanted_batch
from tfpipe.errors import InputError

_FILE_MAGIC = b"ARROW1"


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields blocks whose payload is an Arrow record batch of the wanted columns.

    Raises:
      InputError: the file can't be read, holds no row, or lacks a column.
    """
    return batches_as_blocks(file, _batches(file, data))


def cells(block: Block, data: Data) -> Cells:
    """Reads the rows of a block."""
    return parquet_cells(block, data)


def _batches(file: SourceFile, data: Data) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    rows = 0
    try:
        with _opened(file) as (schema, batches):
            check_schema(schema, data, file.name)
            columns = list(dict.fromkeys(steps_to(schema, column)[0] for column in wanted_columns(data)))
            names = declared(schema, wanted_columns(data))
            for batch in batches:
                wanted = wanted_batch(_checked(batch.select(columns)), data)
                yield from slices(with_names(wanted, names, file.name))
                rows += batch.num_rows
    except (pa.ArrowException, *READ_ERRORS, UnicodeDecodeError) as error:  # the last for names of columns
        reason = " ".join(str(error).split())
        raise InputError(f"{file.name}: not a whole Arrow file ({reason}); fetch or write it again") from error
    if not rows:
        raise NoRows(f"{file.name}: no row; expected at least one row of each label")


def classes(file: SourceFile, data: Data) -> tuple[str, ...] | None:
    """Returns the classes of the label column that Hugging Face datasets wrote into the file's metadata."""
    try:
        with _opened(file) as (schema, _):
            return declared(schema, label_columns(data)).get(data.label_column)
    except (pa.ArrowException, *READ_ERRORS, UnicodeDecodeError):
        return None  # `blocks` says what is wrong with it


@contextmanager
def _opened(file: SourceFile) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Opens a file or a stream: its schema, and its batches one by one."""
    local = not (is_remote(file.path) or zip_and_member(file.path) or file.path.endswith(tuple(COMPRESSIONS)))
    # A map of the file: what is not compressed is never copied as a whole.
    with pa.memory_map(file.path) if local else open_bytes(file.path) as stream:
        if local:
            start = stream.read(len(_FILE_MAGIC))
            stream.seek(0)
        else:
            start = stream.peek(len(_FILE_MAGIC))
        if not start.startswith(_FILE_MAGIC):
            reader = pa.ipc.open_stream(stream)
            yield reader.schema, iter(reader)
        else:
            reader = pa.ipc.open_file(stream if stream.seekable() else pa.BufferReader(stream.read()))
            yield reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns the same batch, whose buffers can be read; categories become values.

    Raises:
      pa.ArrowInvalid: its offsets point outside, as in a damaged file.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        # Text that is not UTF-8 is the fault of a row, which is rejected when it is read.
        pa.RecordBatch.from_arrays([_as_bytes(column) for column in batch.columns], batch.schema.names).validate(
            full=True
        )
    values = [each.dictionary_decode() if pa.types.is_dictionary(each.type) else each for each in batch.columns]
    return pa.RecordBatch.from_arrays(values, batch.schema.names)


def _as_bytes(column: pa.Array) -> Any:
    views = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    return column.view(views[column.type]) if column.type in views else column
