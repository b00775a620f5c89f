"""Hugging Face datasets (see `data/files/hubs.py`). Integers of a ClassLabel become their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data.block import Block, Cells, batches_as_blocks, wanted_columns
from tfpipe.data.files import hubs
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.nested_arrow import Steps, steps_to
from tfpipe.data.readers.class_labels import named
from tfpipe.data.readers.parquet import cells as parquet_cells
from tfpipe.data.readers.parquet import check_schema, slices, wanted_batch


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields blocks whose payload is an Arrow record batch of the wanted columns."""
    dataset = hubs.load_hugging_face(file.path)
    check_schema(dataset.features.arrow_schema, data, file.name)
    return batches_as_blocks(file, _batches(dataset, file, data))


def cells(block: Block, data: Data) -> Cells:
    """Reads the rows of a block."""
    return parquet_cells(block, data)


def classes(file: SourceFile, data: Data) -> tuple[str, ...] | None:
    """Returns the names of the label column's ClassLabel."""
    features = hubs.load_hugging_face(file.path).features
    steps = steps_to(features.arrow_schema, data.label_column) if isinstance(data.label_column, str) else None
    return None if steps is None else _names(features, steps)


def _batches(dataset: Any, file: SourceFile, data: Data) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    schema = dataset.features.arrow_schema
    ways = [steps_to(schema, name) for name in wanted_columns(data)]
    names = [_names(dataset.features, steps) for steps in ways]
    columns = list(dict.fromkeys(steps[0] for steps in ways))
    for table in dataset.with_format("arrow").iter(blocks_module.BLOCK_RECORDS):
        batch = wanted_batch(table.select(columns).combine_chunks().to_batches()[0], data)
        for place, own in enumerate(names):
            if own is not None:
                batch = batch.set_column(place, batch.schema.names[place], named(batch.column(place), own, file.name))
        yield from slices(batch)


def _names(features: Any, steps: Steps) -> tuple[str, ...] | None:
    """Returns the names of the ClassLabel at the end of a way, or of a list of them; None for another feature."""
    for step in steps:
        features = features[step] if isinstance(step, str) else features.feature
    names = getattr(getattr(features, "feature", features), "names", None)
    return None if names is None else tuple(names)
