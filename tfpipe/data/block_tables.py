"""The tables of each block as they were tokenized: work in progress, from which a killed run resumes, block by block.

Enters: the tables that `tables.py` makes of a block. Leaves, in a directory: the shards of each split, `[rows] ROW` of
each row, and the counts, which are written last: a block is done when they are there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tfpipe.config.data import SPLITS
from tfpipe.data import block
from tfpipe.data.counts import Counts
from tfpipe.data.slices import SLICES
from tfpipe.files import write_text
from tfpipe.tokens.table import SCHEMA, shard_path, write_shard


class BlockTables:
    """The tables of all blocks on disk; can be read any number of times."""

    def __init__(self, scratch: Path):
        """Makes the directory, below one for work in progress."""
        # Blocks of another size, of another version, are not gone on from.
        self.directory = scratch / f"tables-{block.BLOCK_BYTES}-{block.BLOCK_RECORDS}"
        for name in (*SPLITS, SLICES, "rows", "counts"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)

    @property
    def names(self) -> list[str]:
        """Lists the blocks that are done, in their order."""
        return sorted(path.stem for path in (self.directory / "counts").glob("*.json"))

    def store(self, name: str, made: tuple[dict[str, pa.RecordBatch], np.ndarray, Counts]) -> int:
        """Writes a block's shards, its slices, `[rows] ROW` and counts; returns the number of rows that were read."""
        tables, rows, counts = made
        for split, batch in tables.items():
            write_shard(self.shard(split, name), batch, batch.schema if split == SLICES else SCHEMA)
        with open(self._rows_path(name), "wb") as file:
            np.save(file, rows, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        write_text(self.directory / "counts" / f"{name}.json", counts.to_json() + "\n")
        return counts.totals["rows_read"]

    def shard(self, split: str, name: str) -> Path:
        """Names the shard of a block's rows of a split, or of its `SLICES`; it exists if there are any."""
        return shard_path(self.directory / split, name)

    def rows(self, name: str) -> np.ndarray:
        """Reads `[rows] ROW` of a block."""
        return np.load(self._rows_path(name), allow_pickle=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields `[rows] ROW` of every block."""
        return map(self.rows, self.names)

    def counts(self) -> Counts:
        """Adds up the counts of all blocks."""
        total = Counts()
        for name in self.names:
            total.add(Counts.from_json((self.directory / "counts" / f"{name}.json").read_text(encoding="utf-8")))
        return total

    def _rows_path(self, name: str) -> Path:
        return self.directory / "rows" / f"{name}.npy"
