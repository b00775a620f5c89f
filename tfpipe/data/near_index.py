"""An index of texts that finds nearly equal ones: MinHash (Broder, 1997) with banding.

Enters: texts as bytes. Leaves: for a text, the most similar indexed one whose estimated Jaccard similarity reaches the
limit. A piece is eight bytes in a row, packed into an integer, so no piece is confused with another. Signatures come
from rensa. The index is sorted arrays on disk, mapped by every process.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from rensa import RMinHash

PERMUTATIONS = 128  # the estimate is good to 0.035 at a similarity of 0.8
PIECE_BYTES = 8
# What bounds memory and time where thousands of rows are alike: rows asked at once, candidates of a row in each band
# that are compared together, pairs compared at once, and candidates of a row in each band after which none is sought.
_ASKED, _CANDIDATES, _COMPARED, _MOST_CANDIDATES = 1024, 64, 16384, 512
_FOUND = 0.999  # of the pairs at the limit, the share that banding must find
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of Fibonacci hashing (Knuth, TAOCP 3, 6.4)


def signatures(content: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Signs texts: MinHash signatures, `[rows, 128] uint32`.

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
    """The signatures of some rows."""

    def __init__(self, directory: Path, similarity: float):
        """Maps the files of `write`, which got the same similarity."""
        self._similarity = similarity
        self._signatures, self._row_ids, self._hashes, self._order = (
            np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("signatures", "row_ids", "hashes", "order")
        )

    @staticmethod
    def write(directory: Path, similarity: float, row_ids: np.ndarray, signed: np.ndarray) -> None:
        """Writes the index of `[rows] int64` ids and `[rows, 128] uint32` signatures."""
        directory.mkdir(parents=True, exist_ok=True)
        hashes = _band_hashes(signed, similarity)
        order = np.argsort(hashes, axis=0, kind="stable").astype(np.int32)
        arrays = {
            "signatures": signed,
            "row_ids": row_ids,
            "hashes": np.ascontiguousarray(np.take_along_axis(hashes, order, axis=0).T),
            "order": np.ascontiguousarray(order.T),
        }
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)  # NumPy itself would not say why a file can't be written
            (directory / f"{name}.npy").write_bytes(content.getbuffer())

    def nearest(self, signed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Finds for each row a near row, the most similar of those that were compared.

        Args:
          signed: `[rows, 128] uint32`.

        Returns:
          `[n] int64`, the rows that have a near row; `[n] int64`, its id; `[n] float64`, the similarity; and the
          number of rows without a near row among the first `_MOST_CANDIDATES` that share a band, and more behind them.
        """
        found, undecided = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))], 0
        for at in range(0, len(signed), _ASKED):
            rows, others, similarity, more = self._nearest(signed[at : at + _ASKED])
            found.append((rows + at, others, similarity))
            undecided += more
        return *(np.concatenate(column) for column in zip(*found, strict=True)), undecided

    def _nearest(self, signed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Does `nearest` for a few rows: in rounds, until a row has a near one or no candidate is left."""
        bands = list(zip(self._hashes, _band_hashes(signed, self._similarity).T, strict=True))
        first = np.stack([np.searchsorted(stored, asked, side="left") for stored, asked in bands])
        equal = np.stack([np.searchsorted(stored, asked, side="right") for stored, asked in bands]) - first
        pending, found = np.arange(len(signed)), [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
        for start in range(0, _MOST_CANDIDATES, _CANDIDATES):
            pending = pending[(equal[:, pending] > start).any(axis=0)]
            if not len(pending):
                break
            found.append(self._compared(signed, *self._candidates(pending, first, equal, start)))
            pending = np.setdiff1d(pending, found[-1][0], assume_unique=True)
        undecided = int((equal[:, pending] > _MOST_CANDIDATES).any(axis=0).sum())
        return *(np.concatenate(column) for column in zip(*found, strict=True)), undecided

    def _candidates(
        self, pending: np.ndarray, first: np.ndarray, equal: np.ndarray, start: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lists the next candidates of each pending row, in all bands: the rows, and positions in the index."""
        count, candidates = len(self._row_ids), []
        for order, begin, size in zip(self._order, first[:, pending], equal[:, pending], strict=True):
            taken = np.clip(size - start, 0, _CANDIDATES)
            rows = np.repeat(pending, taken)
            within = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
            candidates.append(rows * count + order[np.repeat(begin + start, taken) + within])
        return np.divmod(np.unique(np.concatenate(candidates)), max(count, 1))

    def _compared(
        self, signed: np.ndarray, rows: np.ndarray, others: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Chooses the most similar of each row's candidates, where it is near: row, id, similarity."""
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
    """Hashes each band of a signature, `[rows, bands] uint64`: bands as long as the similarity allows."""
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
