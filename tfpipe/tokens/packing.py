"""Packing: several examples in one row, so that hardly any token is padding.

Enters: the number of examples of each length, the length of a row, the most examples a row may hold. Leaves: the rows,
as kinds: so many rows made of examples of these lengths. The method is best-fit-decreasing bin packing on the histogram
of lengths (as SPFHP in Krell et al., 2021, "Efficient sequence packing without cross-contamination"). Its time depends
on the number of different lengths, not of examples.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

RowKind = tuple[int, tuple[int, ...]]
"""number of rows, and the lengths of the examples in each"""


def pack(counts: np.ndarray, row_length: int, slots: int) -> list[RowKind]:
    """Packs by best-fit decreasing: the longest example first, each into the fullest row that still holds it.

    Args:
      counts: `[longest + 1] int64`, number of examples per length; none may be longer than a row.
      row_length: tokens of a row.
      slots: most examples of a row.

    Returns:
      Kinds of rows that hold every example once.
    """
    open_rows: dict[int, list[RowKind]] = defaultdict(list)  # free tokens -> rows with a free slot
    full: list[RowKind] = []

    def put(free: int, rows: int, kind: tuple[int, ...], length: int, more: int) -> None:
        """Adds `more` examples to each of some rows."""
        kind, free = kind + (length,) * more, free - length * more
        if free and len(kind) < slots:
            open_rows[free].append((rows, kind))
        else:
            full.append((rows, kind))

    def fill(free: int, rows: int, kind: tuple[int, ...], length: int, left: int) -> int:
        """Fills equal rows one after the other, as best-fit would; returns the number of examples that are left."""
        each = min(free // length, slots - len(kind))
        whole, rest = min(rows, left // each), 0
        if whole:
            put(free, whole, kind, length, each)
        if whole < rows:
            rest = left - whole * each
            if rest:
                put(free, 1, kind, length, rest)
            untouched = rows - whole - (1 if rest else 0)
            if untouched and kind:
                open_rows[free].append((untouched, kind))
        return left - whole * each - rest

    for length in range(len(counts) - 1, 0, -1):
        left = int(counts[length])
        for free in range(length, row_length):
            while left and open_rows[free]:
                rows, kind = open_rows[free].pop()
                left = fill(free, rows, kind, length, left)
        if left:
            fill(row_length, left, (), length, left)
    return full + [kind for kinds in open_rows.values() for kind in kinds]


def fill_rate(kinds: list[RowKind], row_length: int) -> float:
    """Computes the share of the tokens of all rows that belong to an example."""
    rows = sum(count for count, _ in kinds)
    return sum(count * sum(lengths) for count, lengths in kinds) / (rows * row_length)


def assign(kinds: list[RowKind], order: np.ndarray, lengths: np.ndarray, slots: int) -> np.ndarray:
    """Puts examples into the rows: among those of one length, in the order given.

    Args:
      kinds: made from the histogram of `lengths`.
      order: `[examples] int64`, a permutation of the examples.
      lengths: `[examples] int32`, tokens per example.
      slots: most examples of a row.

    Returns:
      `[rows, slots] int64`: examples from the left, then -1.
    """
    by_length = order[np.argsort(lengths[order], kind="stable")]
    ends = np.cumsum(np.bincount(lengths))
    taken = np.concatenate([[0], ends[:-1]])  # per length, the place of the next example
    rows = np.full((sum(count for count, _ in kinds), slots), -1, np.int64)
    first = 0
    for count, kind in kinds:
        for slot, length in enumerate(kind):
            rows[first : first + count, slot] = by_length[taken[length] : taken[length] + count]
            taken[length] += count
        first += count
    return rows
