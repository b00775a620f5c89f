"""TFRecord files of `tf.train.Example`: a feature of bytes, integers or floats a column; several values are a list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data.block import Block, Cells, Rejection, batches_as_blocks, cells_of_records
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.streams import COMPRESSIONS, zip_and_member
from tfpipe.devices.untuned import untuned
from tfpipe.errors import InputError


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields blocks whose payload is a list of serialized examples."""
    return batches_as_blocks(file, _batches(file))


def cells(block: Block, data: Data) -> Cells:
    """Reads the examples of a block."""
    return cells_of_records(block.file, data, whole_records(block, data))


def names(block: Block, data: Data) -> list[str]:
    """Returns the names of the features of a block's examples."""
    fields = (each for _, each, _ in whole_records(block, data) if isinstance(each, dict))
    return list(dict.fromkeys(name for each in fields for name in each))


def _batches(file: SourceFile) -> Iterator[tuple[list[bytes], int, int]]:
    compression = COMPRESSIONS.get(Path(file.path).suffix, "")
    if compression not in ("", "gzip") or zip_and_member(file.path):
        raise InputError(f"{file.name}: TFRecord files are read plain or as .gz; write it again")
    part: list[bytes] = []
    size = 0
    records = untuned(tf.data.TFRecordDataset(file.path, compression_type=compression.upper()))
    try:
        for record in records.as_numpy_iterator():
            part.append(record)
            size += len(record)
            if size >= blocks_module.BLOCK_BYTES or len(part) >= blocks_module.BLOCK_RECORDS:
                yield part, len(part), size
                part, size = [], 0
    except tf.errors.OpError as error:
        raise InputError(f"{file.name}: not a whole TFRecord file ({error.message}); write it again") from error
    if part:
        yield part, len(part), size


def whole_records(block: Block, data: Data) -> Iterator[tuple[int, dict[str, Any] | Rejection, str]]:
    """Yields the number, the features, or the reason for none, and the content of each example."""
    for number, record in enumerate(block.payload, start=block.first):
        try:
            features = tf.train.Example.FromString(record).features.feature
        except Exception as error:  # protobuf's DecodeError has no stable place to import it from
            yield number, Rejection(block.file.name, number, f"not a tf.train.Example ({error})", ""), ""
            continue
        names = sorted(features)  # a map of Protocol Buffers has no order of its own
        yield number, {name: _value(features[name]) for name in names}, ", ".join(names)


def _value(feature: tf.train.Feature) -> Any:
    kind = feature.WhichOneof("kind")
    values = [] if kind is None else list(getattr(feature, kind).value)
    if kind == "bytes_list":
        values = [value.decode("utf-8", "surrogateescape") for value in values]
    return values[0] if len(values) == 1 else values
