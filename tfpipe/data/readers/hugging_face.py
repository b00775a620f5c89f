"""Hugging Face datasets (see `data/hubs.py`). Integers of a ClassLabel become their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data import hubs
from tfpipe.data.block import Block, Cells, batches_as_blocks, check_columns, wanted_columns
from tfpipe.data.readers.class_labels import named
from tfpipe.data.readers.parquet import cells as parquet_cells
from tfpipe.data.readers.parquet import slices
from tfpipe.data.source_file import SourceFile


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Blocks whose payload is an Arrow record batch of the wanted columns."""
    dataset = hubs.load_hugging_face(file.path)
    check_columns(dataset.column_names, data, file.name)
    return batches_as_blocks(file, _batches(dataset, file, data))


def cells(block: Block, data: Data) -> Cells:
    """The rows of a block."""
    return parquet_cells(block, data)


def classes(file: SourceFile, data: Data) -> tuple[str, ...] | None:
    """The names of the label column's ClassLabel."""
    features = hubs.load_hugging_face(file.path).features
    return _names(features.get(data.label_column)) if isinstance(data.label_column, str) else None


def _batches(dataset: Any, file: SourceFile, data: Data) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    names = {column: _names(dataset.features[column]) for column in wanted_columns(data)}
    for table in dataset.with_format("arrow").iter(blocks_module.BLOCK_RECORDS):
        columns = {column: table.column(column).combine_chunks() for column in names}
        columns = {
            column: values if names[column] is None else named(values, names[column], file.name)
            for column, values in columns.items()
        }
        batch = pa.table(columns).combine_chunks().to_batches()[0]
        yield from slices(batch)


def _names(feature: Any) -> tuple[str, ...] | None:
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return None if names is None else tuple(names)
