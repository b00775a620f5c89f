"""The columns of `report.slices`: their values for the held-out rows, in a file that the stage `report` reads alone.

Enters: cells of a block. Leaves: `slices.arrow` in the directory of `prepare`, with the id of each held-out row, then a
text for each column. Token tables stay as they are: other columns make `prepare` and `report` run again, and no stage
that trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from tfpipe.data.block import as_json, as_text, is_null, printable
from tfpipe.errors import InputError

FILE = "slices.arrow"
SLICES = "slices"
"""folder of the blocks' shards, beside those of the splits"""
_MOST_CHARACTERS = 200


class Shards(Protocol):
    """The tables of all blocks (`block_tables.BlockTables`)."""

    names: Iterable[str]

    def shard(self, split: str, name: str) -> Path:
        """Names the shard of a block."""


def slice_value(cell: Any) -> str | None:
    """Returns a cell as a text, as it is written; None for nulls and empty texts."""
    if is_null(cell):
        return None
    if isinstance(cell, list | tuple | dict | np.ndarray):
        text = as_json(cell.tolist() if isinstance(cell, np.ndarray) else cell)
    else:
        text = cell.decode("utf-8", "backslashreplace").strip() if isinstance(cell, bytes) else as_text(cell)
    return printable(text[:_MOST_CHARACTERS]) if text else None


def slice_batch(row_ids: np.ndarray, slices: Mapping[str, Sequence[str | None]], rows: np.ndarray) -> pa.RecordBatch:
    """Makes a batch of some rows' values.

    Args:
      row_ids: `[n] int64`.
      slices: column -> the values of all rows of the block.
      rows: `[n] int64`, numbers of some of these.
    """
    columns = [pa.array([values[row] for row in rows.tolist()], pa.string()) for values in slices.values()]
    return pa.record_batch([pa.array(row_ids, pa.int64()), *columns], schema=_schema(slices))


def write_slices(directory: Path, tables: Shards, columns: Iterable[str]) -> None:
    """Writes `slices.arrow` of the blocks' shards, a batch for each."""
    schema = _schema(columns)
    with open(directory / FILE, "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for name in tables.names:
            path = tables.shard(SLICES, name)
            if path.exists():
                with pa.memory_map(str(path)) as shard, pa.ipc.open_file(shard) as reader:
                    writer.write_batch(reader.get_batch(0))


def read_slices(prepared: Path, row_ids: np.ndarray) -> dict[str, list[str | None]]:
    """Reads the values of some held-out rows.

    Args:
      prepared: directory of the stage `prepare`.
      row_ids: `[n] int64`, of the rows.

    Returns:
      Column -> the value of each row; empty where there is no file.

    Raises:
      InputError: a row is not in the file, or the file is another one.
    """
    path = prepared / FILE
    if not path.exists():
        return {}
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            table = reader.read_all()
        known = table.column(0).to_numpy()
        order = np.argsort(known)
        places = order[np.searchsorted(known, row_ids, sorter=order).clip(max=len(known) - 1)]
        if not np.array_equal(known[places], row_ids):
            raise pa.ArrowInvalid("a row is missing")
    except (pa.ArrowException, OSError, IndexError) as error:
        raise InputError(f"{path}: not the slices of this run ({error}); make it again with --redo prepare") from error
    chosen = table.take(pa.array(places))
    return {name: chosen.column(at).to_pylist() for at, name in enumerate(chosen.column_names) if at}


def _schema(columns: Iterable[str]) -> pa.Schema:
    return pa.schema(
        [pa.field("row_id", pa.int64(), nullable=False), *(pa.field(column, pa.string()) for column in columns)]
    )
