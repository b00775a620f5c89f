"""TensorFlow Datasets (see `data/files/hubs.py`). Integers of a ClassLabel become their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data.block import Block, Cells, batches_as_blocks, check_columns, wanted_columns
from tfpipe.data.files import hubs
from tfpipe.data.files.source_file import SourceFile
from tfpipe.devices.untuned import untuned
from tfpipe.errors import InputError


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields blocks whose payload is a dictionary of lists, the wanted columns."""
    builder = hubs.tfds_builder(file.path)
    check_columns(builder.info.features, data, file.name)
    return batches_as_blocks(file, _batches(builder, file, data))


def cells(block: Block, data: Data) -> Cells:
    """Reads the rows of a block."""
    columns = block.payload
    numbers = range(block.first, block.first + len(next(iter(columns.values()))))
    return Cells(dict(columns), list(numbers), [])


def classes(file: SourceFile, data: Data) -> tuple[str, ...] | None:
    """Returns the names of the label column's ClassLabel."""
    features = hubs.tfds_builder(file.path).info.features
    there = isinstance(data.label_column, str) and data.label_column in features
    feature = features[data.label_column] if there else None
    feature = getattr(feature, "feature", feature)
    return tuple(feature.names) if hasattr(feature, "int2str") else None


def _batches(builder: Any, file: SourceFile, data: Data) -> Iterator[tuple[dict[str, list[Any]], int, int]]:
    features = {name: builder.info.features[name] for name in wanted_columns(data)}
    split = file.path.partition("#")[2]
    try:
        dataset = untuned(builder.as_dataset(split=split, shuffle_files=False))
    except (ValueError, AssertionError, KeyError) as error:
        raise InputError(f"{file.name}: no such split ({error}); splits: {', '.join(builder.info.splits)}") from error
    columns: dict[str, list[Any]] = {name: [] for name in features}
    size = count = 0
    for example in dataset.as_numpy_iterator():
        for name, feature in features.items():
            value = _plain(example[name], feature)
            columns[name].append(value)
            size += len(value) if isinstance(value, str) else 8
        count += 1
        if size >= blocks_module.BLOCK_BYTES or count >= blocks_module.BLOCK_RECORDS:
            yield columns, count, size
            columns, size, count = {name: [] for name in features}, 0, 0
    if count:
        yield columns, count, size


def _plain(value: Any, feature: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    inner = getattr(feature, "feature", feature)
    if hasattr(inner, "int2str"):
        if getattr(value, "ndim", 0):
            return [inner.int2str(int(one)) for one in value if one >= 0]
        return inner.int2str(int(value)) if value >= 0 else None  # -1 stands for no label
    return value.tolist() if hasattr(value, "tolist") else value
