"""Hugging Face datasets (see `data/hubs.py`). Integers of a ClassLabel become their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data import hubs
from tfpipe.data.block import Block, Cells, batches_as_blocks, wanted_columns
from tfpipe.data.nested_arrow import Steps, steps_to
from tfpipe.data.readers.parquet import cells as parquet_cells
from tfpipe.data.readers.parquet import check_schema, slices, wanted_batch
from tfpipe.data.sources import SourceFile


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Blocks whose payload is an Arrow record batch of the wanted columns."""
    dataset = hubs.load_hugging_face(file.path)
    check_schema(dataset.features.arrow_schema, data, file.name)
    return batches_as_blocks(file, _batches(dataset, data))


def cells(block: Block, data: Data) -> Cells:
    """The rows of a block."""
    return parquet_cells(block, data)


def _batches(dataset: Any, data: Data) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    schema = dataset.features.arrow_schema
    ways = [steps_to(schema, name) for name in wanted_columns(data)]
    features = [_class_label(dataset.features, steps) for steps in ways]
    columns = list(dict.fromkeys(steps[0] for steps in ways))
    for table in dataset.with_format("arrow").iter(blocks_module.BLOCK_RECORDS):
        batch = wanted_batch(table.select(columns).combine_chunks().to_batches()[0], data)
        for place, feature in enumerate(features):
            if feature is not None:
                named = pa.array([_named_label(value, feature) for value in batch.column(place).to_pylist()])
                batch = batch.set_column(place, batch.schema.names[place], named)
        yield from slices(batch)


def _class_label(features: Any, steps: Steps) -> Any:
    """The ClassLabel that a way leads to, or to a list of which; None for another feature."""
    for step in steps:
        features = features[step] if isinstance(step, str) else features.feature
    inner = getattr(features, "feature", features)
    return inner if hasattr(inner, "int2str") else None


def _named_label(value: Any, feature: Any) -> Any:
    if isinstance(value, list):
        return [_named_label(one, feature) for one in value]
    return None if value is None or value < 0 else feature.int2str(value)
