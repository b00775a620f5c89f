"""Rows whose texts are nearly the same, across splits: MinHash (Broder, 1997) with banding.

Enters: token tables, whose rows are compared as the model sees them (`seen_text.py`). Those of validation and test
are indexed. Leaves: for each row of training and validation a similar indexed row of a split above its own, the most
similar of the candidates that were compared, where the estimated Jaccard similarity of their pieces reaches the
limit. A piece is eight bytes in a row, packed into an integer, so none is confused with another. Signatures come from
rensa; the index is sorted arrays on disk, mapped by every process.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rensa import RMinHash

from tfpipe.config import Config
from tfpipe.config_data import SPLITS
from tfpipe.console import say
from tfpipe.data.duplicates import is_among
from tfpipe.data.seen_text import SeenText
from tfpipe.data.split import TEST, TRAIN, VALIDATION
from tfpipe.data.token_table import read_shard, shard_path
from tfpipe.data.tokenizer_settings import TokenizerSettings
from tfpipe.data.workers import in_processes

NEAR_ROWS = 1_000_000  # up to so many, near duplicates are looked for unless asked otherwise
PERMUTATIONS = 128  # the estimate is good to 0.035 at a similarity of 0.8
PIECE_BYTES = 8
# What bounds memory and time where thousands of rows are alike: rows asked at once, candidates of a row in each band
# that are compared together, pairs compared at once, and candidates of a row in each band after which none is sought.
_ASKED, _CANDIDATES, _COMPARED, _MOST_CANDIDATES = 1024, 64, 16384, 512
_FOUND = 0.999  # of the pairs at the limit, the share that banding must find
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of Fibonacci hashing (Knuth, TAOCP 3, 6.4)


def signatures(content: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """MinHash signatures of texts: `[rows, 128] uint32`.

    Args:
      content: `[bytes] uint8`, the texts one after the other.
      lengths: `[rows] int64`, bytes of each. A text shorter than a piece is padded with zeros.
    """
    padded = np.maximum(lengths, PIECE_BYTES)
    ends = np.cumsum(padded)
    total = int(padded.sum())
    spread = np.zeros(total + PIECE_BYTES, np.uint8)
    within = np.arange(len(content)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    spread[np.repeat(ends - padded, lengths) + within] = content
    packed = np.zeros(total, np.uint64)
    for offset in range(PIECE_BYTES):
        packed |= spread[offset : offset + total].astype(np.uint64) << np.uint64(8 * offset)
    # The last seven windows of a row reach into the next one.
    inside = np.ones(total, bool)
    for back in range(1, PIECE_BYTES):
        inside[ends - back] = False
    hashed = packed[inside] * _MULTIPLIER
    hashed ^= hashed >> np.uint64(29)
    offsets = np.r_[0, np.cumsum(padded - (PIECE_BYTES - 1))].astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashed, offsets, PERMUTATIONS, 0)
    return np.array(matrix.to_rows(), np.uint32).reshape(len(lengths), PERMUTATIONS)


class NearIndex:
    """The signatures of held-out rows, to be asked for what is near to a text."""

    def __init__(self, directory: Path, similarity: float):
        self._similarity = similarity
        self._signatures, self._row_ids, self._split, self._hashes, self._order = (
            np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("signatures", "row_ids", "split", "hashes", "order")
        )

    @staticmethod
    def write(directory: Path, similarity: float, row_ids: np.ndarray, split: np.ndarray, signed: np.ndarray) -> None:
        """Writes the index of `[rows]` signatures, ids and splits."""
        directory.mkdir(parents=True, exist_ok=True)
        hashes = _band_hashes(signed, similarity)
        # Among rows that share a band, those of the highest split first: rows that may not be compared with a row come
        # after all those that may, so that no limit on candidates counts them.
        order = np.stack([np.lexsort((-split, band)) for band in hashes.T]).astype(np.int32)
        arrays = {
            "signatures": signed,
            "row_ids": row_ids,
            "split": split,
            "hashes": np.take_along_axis(hashes.T, order.astype(np.int64), axis=1),
            "order": order,
        }
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)  # NumPy itself would not say why a file can't be written
            (directory / f"{name}.npy").write_bytes(content.getbuffer())

    def nearest(self, signed: np.ndarray, split: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Finds for each row a near row of a split above its own, the most similar of those that were compared.

        Args:
          signed: `[rows, 128] uint32`.
          split: `[rows] int8`, places in `SPLITS`.

        Returns:
          Which rows, `[n] int64`; the ids of the rows near to them, `[n] int64`; the similarities, `[n] float64`; and
          how many rows have none among the first `_MOST_CANDIDATES` that share a band, and more behind them.
        """
        found, undecided = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))], 0
        for at in range(0, len(signed), _ASKED):
            rows, others, similarity, more = self._nearest(signed[at : at + _ASKED], split[at : at + _ASKED])
            found.append((rows + at, others, similarity))
            undecided += more
        return *(np.concatenate(column) for column in zip(*found, strict=True)), undecided

    def _nearest(self, signed: np.ndarray, split: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """`nearest` for a few rows: in rounds, until a row has a near one or no candidate is left."""
        hashes = _band_hashes(signed, self._similarity).T  # [bands, rows]
        bands = list(zip(self._hashes, hashes, strict=True))
        first = np.stack([np.searchsorted(stored, asked, side="left") for stored, asked in bands])
        equal = np.stack([np.searchsorted(stored, asked, side="right") for stored, asked in bands]) - first
        pending, found = np.arange(len(signed)), []
        for start in range(0, _MOST_CANDIDATES, _CANDIDATES):
            pending = pending[(equal[:, pending] > start).any(axis=0)]
            if not len(pending):
                break
            rows, others = self._candidates(pending, first, equal, start)
            rows, others, similarity = self._compared(signed, split, rows, others)
            found.append((rows, others, similarity))
            pending = np.setdiff1d(pending, rows, assume_unique=True)
        undecided = self._undecided(pending, split, first, equal)
        none = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        return *(np.concatenate(column) for column in zip(none, *found, strict=True)), undecided

    def _undecided(self, pending: np.ndarray, split: np.ndarray, first: np.ndarray, equal: np.ndarray) -> int:
        """How many of the pending rows have further candidates in a split above their own."""
        found = np.zeros(len(pending), bool)
        for order, begin, size in zip(self._order, first[:, pending], equal[:, pending], strict=True):
            more = size > _MOST_CANDIDATES
            found[more] |= self._split[order[begin[more] + _MOST_CANDIDATES]] > split[pending[more]]
        return int(found.sum())

    def _candidates(
        self, pending: np.ndarray, first: np.ndarray, equal: np.ndarray, start: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The next candidates of each pending row, in all bands: the rows, and places in the index."""
        count, candidates = len(self._row_ids), []
        for order, begin, size in zip(self._order, first[:, pending], equal[:, pending], strict=True):
            taken = np.clip(size - start, 0, _CANDIDATES)
            rows = np.repeat(pending, taken)
            within = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
            candidates.append(rows * count + order[np.repeat(begin + start, taken) + within])
        return np.divmod(np.unique(np.concatenate(candidates)), max(count, 1))

    def _compared(
        self, signed: np.ndarray, split: np.ndarray, rows: np.ndarray, others: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each row's candidates in a split above its own the most similar, where it is near: row, id, similarity."""
        above = self._split[others] > split[rows]
        rows, others = rows[above], others[above]
        similarity = np.empty(len(rows))
        for start in range(0, len(rows), _COMPARED):
            part = slice(start, start + _COMPARED)
            similarity[part] = np.mean(signed[rows[part]] == self._signatures[others[part]], axis=1)
        near = similarity >= self._similarity
        rows, others, similarity = rows[near], others[near], similarity[near]
        # Of equally similar ones, the first row.
        order = np.lexsort((self._row_ids[others], -similarity, rows))
        which, best = np.unique(rows[order], return_index=True)
        return which, self._row_ids[others[order][best]], similarity[order][best]


def _band_hashes(signed: np.ndarray, similarity: float) -> np.ndarray:
    """A hash of each band of a signature, `[rows, bands] uint64`: bands as long as the similarity allows."""
    length = max(
        (n for n in range(1, PERMUTATIONS + 1) if 1 - (1 - similarity**n) ** (PERMUTATIONS // n) >= _FOUND), default=1
    )
    bands = PERMUTATIONS // length
    parts = signed[:, : bands * length].reshape(len(signed), bands, length).astype(np.uint64)
    hashes = np.zeros((len(signed), bands), np.uint64)
    for column in range(length):
        hashes = (hashes ^ parts[:, :, column]) * _MULTIPLIER
        hashes ^= hashes >> np.uint64(32)
    return hashes


def near_duplicates(
    config: Config, settings: TokenizerSettings, tables: Path, names: list[str], dropped: np.ndarray, scratch: Path
) -> tuple[list[list[Any]], int]:
    """Finds the rows of training and validation that are near to a row of a split above their own.

    Args:
      config: the settings.
      settings: of the tokenizer.
      tables: directory of the shards, `SPLIT/part-NAME.arrow`.
      names: of the blocks that the shards were made of.
      dropped: `[n] int64`, sorted: ids of rows that are left out already; they are neither indexed nor looked at.
      scratch: directory for the index.

    Returns:
      `[row, the row that it is near to, similarity]` for each, and how many rows could not be compared with all
      candidates.
    """
    similarity, index = config.data.duplicates.near_similarity, scratch / "near"
    signed, items = partial(_Signed, settings, tables, dropped), [(name, name) for name in names]
    held_out = in_processes(signed, items, config.data.workers)
    columns = zip(*(part for _, part in held_out), strict=True)
    NearIndex.write(index, similarity, *map(np.concatenate, columns))
    found, undecided = [], 0
    for _, (rows, more) in in_processes(partial(_Asking, signed, index, similarity), items, config.data.workers):
        found += rows
        undecided += more
    return found, undecided


def looked_for(config: Config, rows: int) -> bool:
    """Whether near duplicates are looked for among so many rows."""
    wanted = config.data.duplicates.near
    if wanted == "auto" and rows > NEAR_ROWS:
        say(f"  near duplicates are not looked for beyond {NEAR_ROWS:,} rows (data.duplicates.near: true does)")
        return False
    return bool(wanted)


class _Signed:
    """A function that signs the held-out rows of a block, or other ones; made once in each process."""

    def __init__(self, settings: TokenizerSettings, tables: Path, dropped: np.ndarray):
        self._seen, self._tables, self._dropped = SeenText(settings), tables, dropped

    def __call__(self, name: str, splits: tuple[int, ...] = (VALIDATION, TEST)) -> tuple[np.ndarray, ...]:
        """Ids, splits and signatures of the rows that are not dropped: `[n] int64`, `[n] int8`, `[n, 128] uint32`."""
        parts = [(np.empty(0, np.int64), np.empty(0, np.int8), np.empty((0, PERMUTATIONS), np.uint32))]
        for split in splits:
            path = shard_path(self._tables / SPLITS[split], name)
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
    """A function that asks the index about a block's rows; made once in each process."""

    def __init__(self, signed: Callable[[], _Signed], index: Path, similarity: float):
        self._signed, self._index = signed(), NearIndex(index, similarity)

    def __call__(self, name: str) -> tuple[list[list[Any]], int]:
        row_ids, split, signed = self._signed(name, (TRAIN, VALIDATION))
        rows, others, similarity, undecided = self._index.nearest(signed, split)
        found = [
            [int(row), int(other), round(float(value), 3)]
            for row, other, value in zip(row_ids[rows], others, similarity, strict=True)
        ]
        return found, undecided
