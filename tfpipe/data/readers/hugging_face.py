"""Hugging Face datasets (see `data/hubs.py`). Integers of a ClassLabel become their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data import hubs
from tfpipe.data.block import Block, Cells, batches_as_blocks, check_columns, wanted_columns
from tfpipe.data.readers.parquet import cells as parquet_cells
from tfpipe.data.readers.parquet import slices
from tfpipe.data.source_file import SourceFile


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Blocks whose payload is an Arrow record batch of the wanted columns."""
    dataset = hubs.load_hugging_face(file.path)
    check_columns(dataset.column_names, data, file.name)
    return batches_as_blocks(file, _batches(dataset, data))


def cells(block: Block, data: Data) -> Cells:
    """The rows of a block."""
    return parquet_cells(block, data)


def _batches(dataset: Any, data: Data) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    features = {name: _class_label(dataset.features[name]) for name in wanted_columns(data)}
    for table in dataset.with_format("arrow").iter(blocks_module.BLOCK_RECORDS):
        columns = {}
        for name, feature in features.items():
            column = table.column(name)
            columns[name] = (
                column if feature is None else pa.array([_named_label(v, feature) for v in column.to_pylist()])
            )
        batch = pa.table(columns).combine_chunks().to_batches()[0]
        yield from slices(batch)


def _class_label(feature: Any) -> Any:
    inner = getattr(feature, "feature", feature)
    return inner if hasattr(inner, "int2str") else None


def _named_label(value: Any, feature: Any) -> Any:
    if isinstance(value, list):
        return [_named_label(one, feature) for one in value]
    return None if value is None or value < 0 else feature.int2str(value)
