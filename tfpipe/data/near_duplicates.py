"""Rows whose texts are nearly the same, across splits.

Enters: token tables, whose rows are compared as the model sees them (`seen_text.py`). Leaves: each row of validation
that is near to a row of test, and each row of training that is near to a held-out row, with that row. Validation comes
first: a validation row that is removed removes no row of training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tfpipe.config.data import SPLITS
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.data.block_tables import BlockTables
from tfpipe.data.duplicates import is_among
from tfpipe.data.near_index import PERMUTATIONS, NearIndex, signatures
from tfpipe.data.runners.local import LocalRunner
from tfpipe.data.seen_text import SeenText
from tfpipe.data.split import TEST, TRAIN, VALIDATION
from tfpipe.tokens.table import read_shard
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

NEAR_ROWS = 1_000_000  # up to so many, near duplicates are looked for unless asked otherwise

Found = tuple[list[list[Any]], int]
"""`[row, the row that it is near to, similarity]` for each; how many rows have more candidates than were compared"""


def looked_for(config: Config, rows: int) -> bool:
    """Tells whether to look for near duplicates among so many rows."""
    wanted = config.data.duplicates.near
    if wanted == "auto" and rows > NEAR_ROWS:
        say(f"  near duplicates are not looked for beyond {NEAR_ROWS:,} rows (data.duplicates.near: true does)")
        return False
    return bool(wanted)


def near_duplicates(
    config: Config, settings: TokenizerSettings, tables: BlockTables, dropped: Path, scratch: Path, runner: LocalRunner
) -> Found:
    """Finds the rows that are near to a row of a split above their own.

    Args:
      config: the settings.
      settings: of the tokenizer.
      tables: of all blocks.
      dropped: file of `[n] int64`, sorted: ids of rows that are left out already; they are compared with none.
      scratch: directory for the index.
      runner: of the work.
    """
    duplicates, names, arguments = config.data.duplicates, tables.names, (settings, tables, dropped)
    signed = runner.map_tables(names, _Signed, *arguments, (VALIDATION, TEST))
    row_ids, split, held_out = (np.concatenate(column) for column in zip(*signed, strict=True))

    def index(name: str, rows: np.ndarray) -> Path:
        NearIndex.write(scratch / name, duplicates.near_similarity, row_ids[rows], held_out[rows])
        return scratch / name

    of_test = NearIndex(index("near-test", split == TEST), duplicates.near_similarity)
    validation = split == VALIDATION
    found, undecided = _asked(of_test, row_ids[validation], held_out[validation])
    gone = [] if duplicates.across_splits == "keep" else [row for row, *_ in found]
    path = index("near-held-out", ~np.isin(row_ids, gone))
    for rows, more in runner.map_tables(names, _Asking, path, duplicates.near_similarity, *arguments):
        found += rows
        undecided += more
    return found, undecided


class _Signed:
    """A function that signs the rows of a block, of some splits; made once in each process."""

    def __init__(self, settings: TokenizerSettings, tables: BlockTables, dropped: Path, splits: tuple[int, ...]):
        self._seen, self._tables, self._splits = SeenText(settings), tables, splits
        self._dropped = np.load(dropped, mmap_mode="r", allow_pickle=False)

    def __call__(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gives ids, splits and signatures of rows: `[n] int64`, `[n] int8`, `[n, 128] uint32`."""
        parts = [(np.empty(0, np.int64), np.empty(0, np.int8), np.empty((0, PERMUTATIONS), np.uint32))]
        for split in self._splits:
            path = self._tables.shard(SPLITS[split], name)
            if not path.exists():
                continue
            batch = read_shard(path)
            row_ids = batch.column("row_id").to_numpy()
            keep = ~is_among(row_ids, self._dropped)
            tokens = batch.column("input_ids").filter(pa.array(keep))
            signed = signatures(*self._seen(tokens.values.to_numpy(), tokens.offsets.to_numpy()))
            parts.append((row_ids[keep], np.full(keep.sum(), split, np.int8), signed))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


class _Asking:
    """A function that asks an index about a block's training rows; made once in each process."""

    def __init__(self, index: Path, similarity: float, settings: TokenizerSettings, tables: BlockTables, dropped: Path):
        self._sign, self._index = _Signed(settings, tables, dropped, (TRAIN,)), NearIndex(index, similarity)

    def __call__(self, name: str) -> Found:
        row_ids, _, signed = self._sign(name)
        return _asked(self._index, row_ids, signed)


def _asked(index: NearIndex, row_ids: np.ndarray, signed: np.ndarray) -> Found:
    rows, others, similarity, undecided = index.nearest(signed)
    columns = (row_ids[rows].tolist(), others.tolist(), similarity.round(3).tolist())
    return [list(found) for found in zip(*columns, strict=True)], undecided
