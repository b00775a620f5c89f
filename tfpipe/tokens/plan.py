"""The plan: the examples of each step.

Enters: the length of every example, in tokens, a batch size, a seed. Leaves: for every step the examples of its batch,
the row and slot of each, and the length of a row. NumPy alone makes the plan, without reading a token. The examples of
a step are a pure function of (lengths, batching, seed, step). Batches are thus the same on any number of machines, and
a training that stopped resumes by asking for the next step.

Three ways of batching, one plan:

- packed: a row holds several examples, up to a number of slots; every batch has one shape and hardly any padding.
- bucketed: an example a row; a batch has examples of similar length, and the next of a few lengths.
- padded: an example a row, all batches as long as the longest example.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tfpipe.tokens.packing import assign, fill_rate, pack

# Examples of similar length meet in a bucketed batch when many batches are sorted together: the more, the less padding
# but the less random a batch. Share of padding with batches of 32 sentences of 27 tokens on average (6,034 of them):
# unsorted 51 %, windows of 10 batches 20 %, of 50 13.4 %, everything sorted 12.0 %, most of it rounding up to a bucket.
WINDOW_BATCHES = 50

# A packed row is the shortest that is filled so well; in a longer one attention costs more.
GOOD_FILL = 0.9
SHORTEST_ROW = 64

# Slots cost little (the last layer's queries), but they cost: as few as stay within this of the best fill.
FILL_TOLERANCE = 0.01

# A step has so many examples more or fewer than `batch_size` at most, on average, where whole rows are packed.
BATCH_TOLERANCE = 1 / 8

EMPTY_SLOT = -1


@dataclass(frozen=True)
class Batching:
    """The shape of every batch: `rows` x one of `row_lengths` tokens, up to `slots` examples a row."""

    kind: str
    """`packed`, `bucketed` or `padded`"""
    rows: int
    slots: int
    row_lengths: tuple[int, ...]
    """rising; more than one for `bucketed` alone"""


@dataclass(frozen=True)
class EpochPlan:
    """The steps of one pass over the examples; every example occurs exactly once."""

    examples: np.ndarray
    """`[steps, rows, slots] int64`, indices of examples; -1 is an empty slot"""
    row_length: np.ndarray
    """`[steps] int32`, tokens of the step's rows"""
    examples_before: np.ndarray
    """`[steps + 1] int64`, examples in the steps before"""
    tokens: np.ndarray
    """`[steps] int64`, tokens of the step's examples"""


class Plan:
    """The batches of every training step, by the step's global number.

    Global step n is step n mod `steps_per_epoch` of epoch n div `steps_per_epoch`, and the plan of an epoch is a pure
    function of (lengths, batching, seed, epoch). A checkpoint therefore stores nothing but n: to resume is to ask for
    step n + 1, in any process, with no iterator to restore.

    Calls may come from several threads and in any order.

    Args:
      lengths: `[examples] int32`, tokens per example.
      batching: shape of the batches.
      seed: seed of the shuffling.

    Raises:
      ValueError: no examples, or one longer than a row.
    """

    def __init__(self, lengths: np.ndarray, batching: Batching, seed: int):
        if not len(lengths):
            raise ValueError("a plan needs at least one example; the training split is empty")
        self.batching, self.num_examples = batching, len(lengths)
        make_rows = _epoch_rows(np.asarray(lengths), batching)

        # Two epochs are kept: around the border between them, prefetching asks for both.
        @lru_cache(maxsize=2)
        def epoch_plan(epoch: int) -> EpochPlan:
            # The raw stream of Philox (Salmon et al., 2011) is the same in every release of NumPy; what
            # Generator.shuffle makes of it may change. Sorting random keys is a shuffle too.
            philox = np.random.Philox(key=np.array([seed, epoch], np.uint64))
            return make_rows(lambda count: np.argsort(philox.random_raw(count), kind="stable"))

        self._epoch_plan = epoch_plan
        self.steps_per_epoch = len(epoch_plan(0).row_length)

    def step(self, n: int) -> tuple[np.ndarray, int]:
        """Returns the batch of global step n, counted from 0.

        Returns:
          examples: `[rows, slots] int64`, indices of examples; -1 is an empty slot.
          row_length: tokens of a row.
        """
        if n < 0:
            raise ValueError(f"step {n}: steps are counted from 0")
        epoch, step = divmod(int(n), self.steps_per_epoch)
        plan = self._epoch_plan(epoch)
        return plan.examples[step], int(plan.row_length[step])

    def examples_before(self, n: int) -> int:
        """Counts the examples in all steps before global step n, for schedules."""
        epoch, step = divmod(int(n), self.steps_per_epoch)
        within = int(self._epoch_plan(epoch).examples_before[step]) if step else 0
        return epoch * self.num_examples + within

    def tokens(self, n: int) -> tuple[int, int]:
        """Counts the tokens of global step n: those of its examples, and those of its rows, padding included."""
        epoch, step = divmod(int(n), self.steps_per_epoch)
        plan = self._epoch_plan(epoch)
        return int(plan.tokens[step]), self.batching.rows * int(plan.row_length[step])

    def steps(self, epochs: float) -> int:
        """Counts the steps of so many epochs, at least one."""
        return max(1, math.ceil(epochs * self.steps_per_epoch - 1e-9))


def choose_batching(
    requested: str,
    lengths: np.ndarray,
    *,
    batch_size: int,
    max_length: int,
    longest: int = 0,
    row_length: int | None = None,
) -> tuple[Batching, str]:
    """Chooses the shape of the batches, and describes it in words.

    Packed rows are a whole number, so that examples per step are `batch_size` on average, or about: within an eighth.
    If whole rows can't keep that, `auto` falls back to bucketed batches. With `packed`, or with a given row length,
    fewer examples share a row instead.

    Args:
      requested: `auto`, `packed`, `bucketed` or `padded`.
      lengths: `[examples] int32`, tokens per example.
      batch_size: examples per step; packed, on average.
      max_length: longest example that the settings allow.
      longest: tokens that a packed row must hold beside those of the examples, as evaluation uses the same rows.
      row_length: tokens of a packed row; None: chosen from the lengths.

    Raises:
      ValueError: an example does not fit into a row.
    """
    lengths = np.asarray(lengths)
    longest = max(longest, int(lengths.max()))
    if requested == "bucketed":
        return _bucketed(batch_size, max_length)
    if requested == "padded":
        batching = Batching("padded", batch_size, 1, (max_length,))
        return batching, f"{batch_size} rows of {max_length} tokens, {lengths.mean() / max_length:.1%} of them real"
    counts, given = np.bincount(lengths), row_length is not None
    if row_length is None:
        shortest = max(SHORTEST_ROW, -(-longest // 8) * 8)
        fills = {}
        for length in range(shortest, 2 * shortest + 1, -(-shortest // 64) * 8):  # eight more, or fewer
            fills[length] = _best_fill(counts, length)
            if fills[length] >= GOOD_FILL:
                break
        row_length = max(fills, key=fills.get)
    elif row_length < longest:
        raise ValueError(f"a row of {row_length} tokens can't hold the longest example, which has {longest}")
    best = _best_fill(counts, row_length)
    slots = next(
        slots
        for slots in range(1, row_length + 1)
        if fill_rate(pack(counts, row_length, slots), row_length) >= best - FILL_TOLERANCE
    )
    fill = fill_rate(pack(counts, row_length, slots), row_length)
    rows = batch_size * lengths.mean() / (fill * row_length)
    # A number of rows that several devices can share: at worst a sixteenth away from the exact one.
    unit = 2 ** max(0, math.floor(math.log2(max(rows, 1.0))) - 3)
    rows = max(1, round(rows / unit) * unit)
    examples = rows * fill * row_length / lengths.mean()
    if not _keeps(batch_size, examples):
        if requested == "auto" and not given:
            batching, words = _bucketed(batch_size, max_length)
            return batching, f"{words}, as packed rows of {row_length} would make it {examples:.1f} examples a step"
        rows, slots = _rows_and_slots(counts, row_length, batch_size)
        fill = fill_rate(pack(counts, row_length, slots), row_length)
        examples = rows * fill * row_length / lengths.mean()
    return Batching("packed", rows, slots, (row_length,)), (
        f"{rows} rows of {row_length} tokens, {fill:.1%} of them real, {examples:.1f} examples a step"
    )


def _bucketed(batch_size: int, max_length: int) -> tuple[Batching, str]:
    batching = Batching("bucketed", batch_size, 1, bucket_lengths_for(max_length))
    return batching, f"{batch_size} rows of up to {batching.row_lengths[-1]} tokens"


def _keeps(batch_size: int, examples: float) -> bool:
    """Tells whether so many examples a step are the batch size, or close to it."""
    return abs(examples - batch_size) <= BATCH_TOLERANCE * batch_size


def _rows_and_slots(counts: np.ndarray, row_length: int, batch_size: int) -> tuple[int, int]:
    """Finds the fewest packed rows that keep a batch size, and the slots that keep it best; one slot always does."""
    for rows in range(1, batch_size):
        examples: dict[int, float] = {}  # slots -> examples a step
        for slots in range(math.ceil((1 - BATCH_TOLERANCE) * batch_size / rows), row_length + 1):
            examples[slots] = rows * counts.sum() / sum(count for count, _ in pack(counts, row_length, slots))
            if examples[slots] >= batch_size or examples[slots] == examples.get(slots - 1):
                break
        slots = min(examples, key=lambda slots: abs(examples[slots] - batch_size), default=1)
        if _keeps(batch_size, examples.get(slots, 0.0)):
            return rows, slots
    return batch_size, 1


def plan_evaluation(lengths: np.ndarray, batching: Batching) -> EpochPlan:
    """Plans all examples once, without randomness.

    Args:
      lengths: `[examples] int32`, tokens per example.
      batching: shape of the batches.

    Raises:
      ValueError: an example is longer than a row.
    """
    return _epoch_rows(np.asarray(lengths), batching)(np.arange)


def bucket_lengths_for(max_length: int) -> tuple[int, ...]:
    """Lists the lengths that batches are padded to: dense for short texts, wide for long ones; the last is the longest.

    Every bucket is one more shape to trace and to compile, so there are only as many as save padding.
    """
    steps = [*range(8, 65, 8), *range(80, 129, 16), *range(160, 257, 32), *range(320, max(max_length, 320), 64)]
    return (*(length for length in steps if length < max_length), max_length)


def _best_fill(counts: np.ndarray, row_length: int) -> float:
    return fill_rate(pack(counts, row_length, row_length), row_length)


def _epoch_rows(lengths: np.ndarray, batching: Batching):
    """Returns the function that makes an epoch of `permutation(count)`, the epoch's only randomness."""
    longest = int(lengths.max(initial=0))
    if longest > batching.row_lengths[-1]:
        raise ValueError(
            f"an example has {longest} tokens and a row {batching.row_lengths[-1]}; "
            "use the max_length that the rows were prepared with"
        )
    if batching.kind == "packed":
        kinds = pack(np.bincount(lengths), batching.row_lengths[0], batching.slots)

        def make_rows(permutation) -> EpochPlan:
            rows = assign(kinds, permutation(len(lengths)), lengths, batching.slots)
            return _cut(rows[permutation(len(rows))], lengths, batching)

        return make_rows

    def make_rows(permutation) -> EpochPlan:
        order = permutation(len(lengths))
        if batching.kind == "bucketed":
            window = batching.rows * WINDOW_BATCHES
            for first in range(0, len(order), window):
                part = order[first : first + window]
                order[first : first + window] = part[np.argsort(lengths[part], kind="stable")]
        plan = _cut(order[:, None], lengths, batching)
        return _reordered(plan, permutation(len(plan.row_length)))

    return make_rows


def _cut(rows: np.ndarray, lengths: np.ndarray, batching: Batching) -> EpochPlan:
    steps = -(-len(rows) // batching.rows)
    examples = np.full((steps * batching.rows, rows.shape[1]), EMPTY_SLOT, np.int64)
    examples[: len(rows)] = rows
    tokens = np.zeros(examples.shape, np.int64)
    tokens[examples >= 0] = lengths[examples[examples >= 0]]
    of_rows = tokens.sum(axis=1).reshape(steps, batching.rows)
    buckets = np.asarray(batching.row_lengths, np.int32)
    row_length = buckets[np.searchsorted(buckets, of_rows.max(axis=1, initial=0))]
    return _finished(examples.reshape(steps, batching.rows, rows.shape[1]), row_length, of_rows.sum(axis=1))


def _reordered(plan: EpochPlan, order: np.ndarray) -> EpochPlan:
    return _finished(plan.examples[order], plan.row_length[order], plan.tokens[order])


def _finished(examples: np.ndarray, row_length: np.ndarray, tokens: np.ndarray) -> EpochPlan:
    before = np.concatenate([[0], np.cumsum((examples >= 0).sum(axis=(1, 2)))])
    for array in (examples, row_length, before, tokens):
        array.setflags(write=False)  # plans are cached and shared between threads
    return EpochPlan(examples, row_length, before, tokens)
