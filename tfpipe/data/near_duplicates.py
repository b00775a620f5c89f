"""Rows whose texts are nearly the same, across splits: MinHash (Broder, 1997) with banding.

Enters: the texts of validation and test, which are indexed, then those of the rows that they judge. Leaves: for each
such row the most similar indexed row of a split above its own, where the estimated Jaccard similarity of their pieces
reaches the limit. A piece is eight bytes in a row of the lower-cased text, packed into an integer, so none is
confused with another. Signatures come from rensa; the index is sorted arrays on disk, mapped by every process.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rensa import RMinHash

from tfpipe.config import Config
from tfpipe.console import say
from tfpipe.data.block import Block
from tfpipe.data.rows import read_rows
from tfpipe.data.sources import SourceFile
from tfpipe.data.split import TRAIN
from tfpipe.data.survey import Decisions, records_of, splits_of
from tfpipe.data.workers import map_blocks

NEAR_ROWS = 1_000_000  # up to so many, near duplicates are looked for unless asked otherwise
PERMUTATIONS = 128  # the estimate is good to 0.035 at a similarity of 0.8
PIECE_BYTES = 8
# What bounds memory where thousands of rows are alike: rows asked at once, candidates of a row in each band, pairs
# compared at once. Of more candidates the first are taken: they share the band, so any of them is likely near enough.
_ASKED, _CANDIDATES, _COMPARED = 1024, 64, 16384
_FOUND = 0.999  # of the pairs at the limit, the share that banding must find
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of Fibonacci hashing (Knuth, TAOCP 3, 6.4)


def signatures(texts: Sequence[str], text_pairs: Sequence[str] | None) -> np.ndarray:
    """MinHash signatures of texts or pairs: `[rows, 128] uint32`."""
    pairs = text_pairs if text_pairs is not None else [""] * len(texts)
    rows = [" ".join(f"{text} {pair}".lower().split()).encode() for text, pair in zip(texts, pairs, strict=True)]
    # A text that is shorter than a piece, or than two, is padded, so that it has some.
    rows = [row.ljust(PIECE_BYTES, b"\0") for row in rows]
    lengths = np.array([len(row) for row in rows], np.int64)
    content = np.frombuffer(b"".join(rows) + bytes(PIECE_BYTES), np.uint8)
    packed = np.zeros(int(lengths.sum()), np.uint64)
    for offset in range(PIECE_BYTES):
        packed |= content[offset : offset + len(packed)].astype(np.uint64) << np.uint64(8 * offset)
    # The last seven windows of a row reach into the next one.
    ends = np.cumsum(lengths)
    inside = np.ones(len(packed), bool)
    for back in range(1, PIECE_BYTES):
        inside[ends - back] = False
    hashed = packed[inside] * _MULTIPLIER
    hashed ^= hashed >> np.uint64(29)
    offsets = np.r_[0, np.cumsum(lengths - (PIECE_BYTES - 1))].astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashed, offsets, PERMUTATIONS, 0)
    return np.array(matrix.to_rows(), np.uint32).reshape(len(rows), PERMUTATIONS)


class NearIndex:
    """The signatures of the rows that judge, to be asked for what is near to a text."""

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
        order = np.argsort(hashes, axis=0, kind="stable").astype(np.int32)
        arrays = {
            "signatures": signed,
            "row_ids": row_ids,
            "split": split,
            "hashes": np.ascontiguousarray(np.take_along_axis(hashes, order, axis=0).T),
            "order": np.ascontiguousarray(order.T),
        }
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)  # NumPy itself would not say why a file can't be written
            (directory / f"{name}.npy").write_bytes(content.getbuffer())

    def nearest(self, signed: np.ndarray, split: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The most similar row of a split above each row's own, for those rows that have one.

        Args:
          signed: `[rows, 128] uint32`.
          split: `[rows] int8`, places in `SPLITS`.

        Returns:
          Which rows, `[n] int64`; the ids of the rows near to them, `[n] int64`; the similarities, `[n] float64`.
        """
        parts = [
            self._nearest(signed[at : at + _ASKED], split[at : at + _ASKED], at) for at in range(0, len(signed), _ASKED)
        ]
        none = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        rows, others, similarity = (np.concatenate(column) for column in zip(none, *parts, strict=True))
        return rows, others, similarity

    def _nearest(self, signed: np.ndarray, split: np.ndarray, at: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`nearest` for a few rows, the first of which is row `at`."""
        count, candidates = len(self._row_ids), np.empty(0, np.int64)
        for band, hashes in enumerate(_band_hashes(signed, self._similarity).T):
            first = np.searchsorted(self._hashes[band], hashes, side="left")
            equal = np.searchsorted(self._hashes[band], hashes, side="right") - first
            equal = np.minimum(equal, _CANDIDATES)
            rows = np.repeat(np.arange(len(signed)), equal)
            within = np.arange(equal.sum()) - np.repeat(np.cumsum(equal) - equal, equal)
            found = rows * count + self._order[band][first[rows] + within]
            candidates = np.union1d(candidates, found)
        rows, others = np.divmod(candidates, max(count, 1))
        judged = self._split[others] > split[rows]
        rows, others = rows[judged], others[judged]
        similarity = np.empty(len(rows))
        for start in range(0, len(rows), _COMPARED):
            part = slice(start, start + _COMPARED)
            similarity[part] = np.mean(signed[rows[part]] == self._signatures[others[part]], axis=1)
        near = similarity >= self._similarity
        rows, others, similarity = rows[near], others[near], similarity[near]
        # Of several, the most similar; of equally similar ones, the first row.
        order = np.lexsort((self._row_ids[others], -similarity, rows))
        which, best = np.unique(rows[order], return_index=True)
        return which + at, self._row_ids[others[order][best]], similarity[order][best]


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


def index_judges(
    config: Config, files: list[SourceFile], decisions: Decisions, rows: int, directory: Path
) -> Path | None:
    """Indexes the rows that judge; None where near duplicates are not looked for.

    Args:
      config: the settings.
      files: read once more.
      decisions: the splits.
      rows: how many rows there are.
      directory: for the index and while it is made.
    """
    wanted = config.data.duplicates.near
    if wanted is False or (wanted == "auto" and rows > NEAR_ROWS):
        if wanted == "auto":
            say(f"  near duplicates are not looked for beyond {NEAR_ROWS:,} rows (data.duplicates.near: true does)")
        return None
    work = partial(partial, _signed, config=config, decisions=decisions)
    parts = [part for _, part in map_blocks(work, files, config, directory)]
    row_ids, split, signed = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    NearIndex.write(directory / "near", config.data.duplicates.near_similarity, row_ids, split, signed)
    return directory / "near"


def _signed(block: Block, config: Config, decisions: Decisions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row ids, splits and signatures of a block's rows of validation and test."""
    rows = read_rows(block, config, decisions.labels)
    split = splits_of(records_of(rows, config, decisions.labels), decisions)
    judges = np.flatnonzero((split != TRAIN) & ~np.isin(rows.row_ids, decisions.dropped))
    pairs = None if rows.text_pairs is None else [rows.text_pairs[at] for at in judges]
    return rows.row_ids[judges], split[judges], signatures([rows.texts[at] for at in judges], pairs)
