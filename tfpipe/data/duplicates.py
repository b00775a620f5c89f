"""Exact duplicates: rows whose tokens are the same, so that the model can't tell them apart.

Enters: a `ROW` of each tokenized row (`tables.py`), 40 bytes. Leaves: the rows to drop and why, and the texts that
have several labels. The tokens are those that the model sees: cleaning, the vocabulary and the cut at
`data.max_length` make rows equal that differ in the file. Equal digests are in one of `BUCKETS` files, so that memory
holds one file's digests and the duplicates, not the rows.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfpipe.data.split import TRAIN

IDENTICAL, TWIN, NEAR = (
    "same tokens and label as an earlier training row",
    "same tokens as a held-out row",
    "nearly the text of a held-out row",
)
ROW = np.dtype(
    [("digest", "<u8", 2), ("row_id", "<i8"), ("label", "<u8"), ("whole", "<i4"), ("split", "i1")], align=True
)
"""of a tokenized row: digest of its tokens, its id, hash of its labels, tokens before the cut, index in `SPLITS`"""
BUCKETS = 64


@dataclass
class Verdict:
    """The duplicates found among some rows."""

    identical: np.ndarray
    """`[n, 2] int64`: a training row with the tokens and label of an earlier one, and that one"""
    twins: np.ndarray
    """`[n, 2] int64`: a row whose tokens are also in a split above its own, and that row"""
    conflicts: list[list[int]]
    """rows of one text with different labels, for each such text"""
    texts_that_repeat: int

    def dropped(self, across_splits: str) -> np.ndarray:
        """Lists the rows that are left out, sorted: `[n] int64`."""
        twins = self.twins[:, 0] if across_splits == "remove" else self.twins[:0, 0]
        return np.sort(np.concatenate([self.identical[:, 0], twins]))

    @staticmethod
    def joined(verdicts: list[Verdict]) -> Verdict:
        """Joins verdicts into one over all rows."""
        empty = [np.empty((0, 2), np.int64)]
        return Verdict(
            np.concatenate(empty + [verdict.identical for verdict in verdicts]),
            np.concatenate(empty + [verdict.twins for verdict in verdicts]),
            sorted(rows for verdict in verdicts for rows in verdict.conflicts),
            sum(verdict.texts_that_repeat for verdict in verdicts),
        )


def token_digests(input_ids: np.ndarray, token_type_ids: np.ndarray, row_splits: np.ndarray) -> np.ndarray:
    """Identifies the tokens of each row: `[rows, 2] uint64`, BLAKE2b (RFC 7693, 16 bytes).

    Args:
      input_ids: `[tokens] int32`, of all rows one after the other.
      token_type_ids: `[tokens] int32`; they tell where the second text of a pair begins.
      row_splits: `[rows + 1] int64`, where each row begins in them.
    """
    tokens = np.stack([input_ids, token_type_ids], axis=1).astype("<i4").tobytes()
    ends = (8 * np.asarray(row_splits, np.int64)).tolist()
    joined = b"".join(
        hashlib.blake2b(tokens[start:end], digest_size=16, person=b"tfpipe tokens").digest()
        for start, end in itertools.pairwise(ends)
    )
    return np.frombuffer(joined, "<u8").reshape(-1, 2)


def save_sorted(path: Path, ids: np.ndarray) -> Path:
    """Writes `[n]` ids in their order, for processes that map them: `is_among`."""
    with open(path, "wb") as file:
        np.save(file, np.sort(ids), allow_pickle=False)
    return path


def is_among(ids: np.ndarray, rising: np.ndarray) -> np.ndarray:
    """Tells which of some ids are among others, `[n] bool`, without going through all of the others.

    Args:
      ids: `[n]`.
      rising: `[m]`, of the same type, sorted.
    """
    if not len(rising):
        return np.zeros(len(ids), bool)
    return rising[np.minimum(np.searchsorted(rising, ids), len(rising) - 1)] == ids


class Buckets:
    """The rows of a run on disk, equal digests in one file."""

    def __init__(self, directory: Path):
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._files = [open(directory / f"{number:02x}", "wb+") for number in range(BUCKETS)]  # noqa: SIM115

    def add(self, rows: np.ndarray) -> None:
        """Appends `[rows] ROW`."""
        bucket = (rows["digest"][:, 0] >> np.uint64(58)).astype(np.int64)
        order = np.argsort(bucket, kind="stable")
        ends = np.searchsorted(bucket[order], np.arange(BUCKETS + 1))
        for number, file in enumerate(self._files):
            if ends[number] < ends[number + 1]:
                file.write(rows[order[ends[number] : ends[number + 1]]].tobytes())

    def read(self) -> Iterator[np.ndarray]:
        """Yields the rows of one bucket after the other, `[rows] ROW`, in no order within a bucket."""
        for file in self._files:
            file.flush()
            file.seek(0)
            yield np.frombuffer(file.read(), ROW)

    def close(self) -> None:
        """Closes the files and removes them."""
        for number, file in enumerate(self._files):
            file.close()
            (self._directory / f"{number:02x}").unlink(missing_ok=True)
        self._directory.rmdir()


def exact_duplicates(rows: Iterator[np.ndarray], directory: Path) -> Verdict:
    """Finds the exact duplicates among all rows.

    Args:
      rows: `[rows] ROW`, block by block.
      directory: for the buckets, during the search.
    """
    buckets = Buckets(directory)
    for block in rows:
        buckets.add(block)
    verdict = Verdict.joined([duplicates_among(bucket) for bucket in buckets.read()])
    buckets.close()
    return verdict


def duplicates_among(rows: np.ndarray) -> Verdict:
    """Finds the exact duplicates among rows.

    Of two equal rows in two splits, the one in the lower split goes: test keeps its rows, validation keeps those that
    test does not have. Within validation and test all rows stay, as the user measures on them.

    Args:
      rows: `[rows] ROW`; all rows of a digest, or none of them.
    """
    none = np.empty((0, 2), np.int64)
    repeated = _repeated(rows["digest"])
    if not repeated.any():
        return Verdict(none, none, [], 0)
    rows = rows[repeated]
    rows = rows[np.lexsort((rows["row_id"], rows["label"], rows["digest"][:, 1], rows["digest"][:, 0]))]
    row_id, split, digest = rows["row_id"], rows["split"], rows["digest"]
    new_text = np.r_[True, (digest[1:] != digest[:-1]).any(axis=1)]
    new_pair = new_text | np.r_[True, rows["label"][1:] != rows["label"][:-1]]
    starts = np.flatnonzero(new_text)
    text, pair = np.cumsum(new_text) - 1, np.cumsum(new_pair) - 1

    highest = np.maximum.reduceat(split, starts)  # of each text: test is above validation, validation above train
    below = split < highest[text]
    # The twin that is named: the first row of the text in that split.
    above = np.flatnonzero(split == highest[text])
    first_above = np.full(len(starts), np.iinfo(np.int64).max)
    np.minimum.at(first_above, text[above], row_id[above])
    trained = np.flatnonzero(split == TRAIN)
    _, first, which = np.unique(pair[trained], return_index=True, return_inverse=True)
    again = np.ones(len(trained), bool)
    again[first] = False
    identical = np.stack([row_id[trained[again]], row_id[trained[first[which[again]]]]], axis=1)
    below[trained[again]] = False  # said once
    twins = np.stack([row_id[below], first_above[text[below]]], axis=1)

    pairs_of_text = np.add.reduceat(new_pair.astype(np.int64), starts)
    ends = np.r_[starts[1:], len(rows)]
    conflicts = [np.sort(row_id[starts[n] : ends[n]]).tolist() for n in np.flatnonzero(pairs_of_text > 1)]
    return Verdict(identical, twins, conflicts, len(starts))


def _repeated(digest: np.ndarray) -> np.ndarray:
    """Finds repeated digests: `[rows, 2] uint64` -> `[rows] bool`."""
    order = np.lexsort((digest[:, 1], digest[:, 0]))
    equal = (digest[order[1:]] == digest[order[:-1]]).all(axis=1)
    found = np.zeros(len(digest), bool)
    found[order] = np.r_[False, equal] | np.r_[equal, False] if len(digest) else False
    return found
