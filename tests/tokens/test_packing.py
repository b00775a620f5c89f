"""Packing: no example lost or twice, no row overfull, as full as best-fit-decreasing makes them."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfpipe.tokens.packing import assign, fill_rate, pack

ROW = 32
LENGTHS = st.lists(st.integers(1, ROW), min_size=1, max_size=300).map(lambda values: np.array(values, np.int32))
SLOTS = st.integers(1, 8)


def naive_best_fit_decreasing(lengths, row_length, slots):
    """One example at a time: the free tokens of every row, and how many examples it holds."""
    rows = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row in rows if row[0] >= length and row[1] < slots]
        if fitting:
            best = min(fitting)
            best[0], best[1] = best[0] - length, best[1] + 1
        else:
            rows.append([row_length - length, 1])
    return rows


@settings(deadline=None, max_examples=200)
@given(LENGTHS, SLOTS)
def test_rows_hold_every_example_once(lengths, slots):
    kinds = pack(np.bincount(lengths), ROW, slots)
    packed = Counter()
    for count, row in kinds:
        assert count > 0 and 1 <= len(row) <= slots and sum(row) <= ROW
        for length in row:
            packed[length] += count
    assert packed == Counter(lengths.tolist())


@settings(deadline=None, max_examples=200)
@given(LENGTHS, SLOTS)
def test_as_many_rows_as_one_example_at_a_time(lengths, slots):
    rows = sum(count for count, _ in pack(np.bincount(lengths), ROW, slots))
    expected = len(naive_best_fit_decreasing(lengths.tolist(), ROW, slots))
    # Rows with as many free tokens are equal to best-fit, but not to its successor: one may have a free slot more.
    assert abs(rows - expected) <= max(1, 0.02 * expected)


@settings(deadline=None, max_examples=100)
@given(LENGTHS, SLOTS, st.randoms(use_true_random=False))
def test_assignment_is_a_permutation_that_fits(lengths, slots, random):
    order = np.array(random.sample(range(len(lengths)), len(lengths)), np.int64)
    rows = assign(pack(np.bincount(lengths), ROW, slots), order, lengths, slots)
    assert sorted(rows[rows >= 0]) == list(range(len(lengths)))
    assert (np.where(rows >= 0, lengths[rows], 0).sum(axis=1) <= ROW).all()
    assert (np.diff((rows >= 0).astype(int), axis=1) <= 0).all()  # from the left, no gaps


def test_examples_of_one_length_are_taken_in_the_order_given():
    lengths = np.full(6, 10, np.int32)
    rows = assign(pack(np.bincount(lengths), ROW, 3), np.array([5, 3, 0, 1, 4, 2]), lengths, 3)
    assert rows.tolist() == [[5, 0, 4], [3, 1, 2]]


def test_fill_rate():
    assert fill_rate([(2, (10, 6)), (1, (32,))], 32) == pytest.approx((2 * 16 + 32) / 96)


def test_a_million_examples_take_no_longer_than_their_lengths():
    """The histogram is what counts: a hundred times the examples, the same kinds of rows."""
    lengths = np.random.default_rng(0).integers(5, 129, 10_000)
    counts = np.bincount(lengths)
    few, many = pack(counts, 128, 16), pack(counts * 100, 128, 16)
    assert sum(count for count, _ in many) <= 100 * sum(count for count, _ in few)
    assert len(many) <= 3 * len(few)
