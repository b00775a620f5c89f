"""Rows that are there twice, exactly.

Enters: the records of all rows (`survey.py`), those of equal digests together, and each row's split. Leaves: which rows
to drop and why, and the texts that have several labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfpipe.data.split import TRAIN

IDENTICAL, TWIN, NEAR = "identical to an earlier training row", "same text as a row that judges", "nearly the same text"


@dataclass
class Verdict:
    """What is known of the duplicates in some records."""

    identical: np.ndarray
    """`[n, 2] int64`: a training row with the text and label of an earlier one, and that one"""
    twins: np.ndarray
    """`[n, 2] int64`: a row whose text is also in a split that judges it, and that row"""
    conflicts: list[list[int]]
    """rows of one text with different labels, for each such text"""
    texts_that_repeat: int

    def dropped(self, across_splits: str) -> np.ndarray:
        """The rows that are left out, sorted: `[n] int64`."""
        twins = self.twins[:, 0] if across_splits == "remove" else self.twins[:0, 0]
        return np.sort(np.concatenate([self.identical[:, 0], twins]))

    @staticmethod
    def joined(verdicts: list[Verdict]) -> Verdict:
        """The verdict over all records."""
        empty = [np.empty((0, 2), np.int64)]
        return Verdict(
            np.concatenate(empty + [verdict.identical for verdict in verdicts]),
            np.concatenate(empty + [verdict.twins for verdict in verdicts]),
            sorted(rows for verdict in verdicts for rows in verdict.conflicts),
            sum(verdict.texts_that_repeat for verdict in verdicts),
        )


def judge(records: np.ndarray, split: np.ndarray) -> Verdict:
    """Finds the duplicates.

    Test judges validation and training, validation judges training: of two equal texts, the one that is judged goes.
    Within validation and test all rows stay, as they are what the user measures on.

    Args:
      records: `[rows] survey.RECORD`; all rows of a digest, or none of them.
      split: `[rows] int8`, places in `SPLITS`.
    """
    none = np.empty((0, 2), np.int64)
    repeated = _repeated(records["digest"])
    if not repeated.any():
        return Verdict(none, none, [], 0)
    records, split = records[repeated], split[repeated]
    digest = records["digest"]
    order = np.lexsort((records["row_id"], records["label"], digest[:, 1], digest[:, 0]))
    records, split, digest = records[order], split[order], digest[order]
    row_id = records["row_id"]
    new_text = np.r_[True, (digest[1:] != digest[:-1]).any(axis=1)]
    new_pair = new_text | np.r_[True, records["label"][1:] != records["label"][:-1]]
    starts = np.flatnonzero(new_text)
    text, pair = np.cumsum(new_text) - 1, np.cumsum(new_pair) - 1

    judging = np.maximum.reduceat(split, starts)
    below = split < judging[text]
    # The twin that is named: the first row of the text in the split that judges.
    judges = np.flatnonzero(split == judging[text])
    first_judge = np.full(len(starts), np.iinfo(np.int64).max)
    np.minimum.at(first_judge, text[judges], row_id[judges])
    trained = np.flatnonzero(split == TRAIN)
    _, first, which = np.unique(pair[trained], return_index=True, return_inverse=True)
    again = np.ones(len(trained), bool)
    again[first] = False
    identical = np.stack([row_id[trained[again]], row_id[trained[first[which[again]]]]], axis=1)
    below[trained[again]] = False  # said once
    twins = np.stack([row_id[below], first_judge[text[below]]], axis=1)

    pairs_of_text = np.add.reduceat(new_pair.astype(np.int64), starts)
    ends = np.r_[starts[1:], len(records)]
    conflicts = [np.sort(row_id[starts[n] : ends[n]]).tolist() for n in np.flatnonzero(pairs_of_text > 1)]
    return Verdict(identical, twins, conflicts, len(starts))


def _repeated(digest: np.ndarray) -> np.ndarray:
    """Which digests occur more than once, `[rows, 2] uint64` -> `[rows] bool`."""
    order = np.lexsort((digest[:, 1], digest[:, 0]))
    equal = (digest[order[1:]] == digest[order[:-1]]).all(axis=1)
    found = np.zeros(len(digest), bool)
    found[order] = np.r_[False, equal] | np.r_[equal, False] if len(digest) else False
    return found
