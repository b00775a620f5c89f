"""Batches for training and evaluation, as tf.data.

Enters: a token table and a plan. Leaves: a dataset with one element per step and replica. The dataset runs over step
numbers. It maps each, in parallel and in order, to the examples that the plan gives the step. A dataset can thus start
at any step, and holds no state worth saving. The rows of a batch are shared out in their order, replica by replica:
every worker knows the plan, and reads from the memory-mapped shards only the rows that are its own.

An element is a dictionary:

| key | shape | dtype | |
|---|---|---|---|
| `input_ids` | `[rows, length]` | int32 | filled with the tokenizer's padding token |
| `token_type_ids` | `[rows, length]` | int32 | |
| `segment_ids` | `[rows, length]` | int32 | which of the row's examples a token belongs to, from 1; 0 for padding |
| `position_ids` | `[rows, length]` | int32 | from 0 in each example |
| `cls_index` | `[rows, slots]` | int32 | where in its row each example starts |
| `labels` | `[rows, slots, num_labels]` | float32 | one-hot or multi-hot |
| `weights` | `[rows, slots]` | float32 | 1 for an example, 0 for an empty slot |

`rows` and `slots` are fixed; `length` too, but for bucketed batches, where it is one of a few.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfpipe.devices.untuned import untuned
from tfpipe.tokens.plan import EMPTY_SLOT, Batching, Plan, plan_evaluation
from tfpipe.tokens.table import TokenTable

_DTYPES = {
    "input_ids": tf.int32,
    "token_type_ids": tf.int32,
    "segment_ids": tf.int32,
    "position_ids": tf.int32,
    "cls_index": tf.int32,
    "labels": tf.float32,
    "weights": tf.float32,
}

_AT_ONCE = 4  # batches that are assembled at a time: more win nothing, as Python runs one thread at a time


@dataclass(frozen=True)
class Share:
    """A worker's share of the rows of every batch: some of the equal parts of the batch, one for each replica."""

    parts: int = 1
    """of a batch, over all replicas of all workers"""
    first: int = 0
    """the worker's first part"""
    count: int = 1
    """its parts"""

    @classmethod
    def of_worker(cls, context: tf.distribute.InputContext) -> Share:
        """Makes the share of a worker from its `tf.distribute` context; replicas are numbered worker by worker."""
        count = context.num_replicas_in_sync // context.num_input_pipelines
        return cls(context.num_replicas_in_sync, context.input_pipeline_id * count, count)


WHOLE = Share()


def batches(
    table: TokenTable,
    plan: Plan,
    first_step: int,
    last_step: int,
    *,
    share: Share = WHOLE,
    micro_batches: int = 1,
) -> tf.data.Dataset:
    """Makes the training batches of the global steps from `first_step` up to, and without, `last_step`.

    The dataset has no end: a distributed iterator of a dataset that ends would ask all workers at every step whether it
    has ended. Batches after the last step are empty.

    Args:
      table: the training rows.
      plan: made from this table's `lengths`.
      first_step: global number of the first step, from 0.
      last_step: global number of the step after the last one.
      share: the parts that are made here; the others' rows are not read.
      micro_batches: number of equal parts into which a replica divides its own; empty rows are added until it can.

    Returns:
      A dataset of `share.count` elements for each step, described above.
    """
    rows = -(-plan.batching.rows // (share.parts * micro_batches)) * micro_batches

    def step(n: int) -> tuple[np.ndarray, int] | None:
        return plan.step(first_step + n) if first_step + n < last_step else None

    return _dataset(table, step, plan.batching, share, rows)


class EvaluationSteps(NamedTuple):
    """All rows of a table once, a batch for each part at a time."""

    examples: np.ndarray
    """`[steps, parts * rows, slots] int64`, indices in the table: where each answer belongs; -1 is an empty slot"""
    row_length: np.ndarray
    """`[steps] int32`, the same for all parts of a step"""


def evaluation_steps(
    table: TokenTable, batching: Batching, parts: int = 1, *, rows: np.ndarray | None = None
) -> EvaluationSteps:
    """Lists the steps of an evaluation; empty batches fill up the last step.

    Args:
      table: the rows to evaluate.
      batching: shape of a batch, which is one part.
      parts: number of replicas.
      rows: `[n] int64`, those of the table that are evaluated; None: all.
    """
    plan = plan_evaluation(table.lengths if rows is None else table.lengths[rows], batching)
    if rows is not None:
        plan = replace(plan, examples=np.where(plan.examples == EMPTY_SLOT, EMPTY_SLOT, rows[plan.examples]))
    steps = -(-len(plan.row_length) // parts)
    missing = steps * parts - len(plan.row_length)
    empty = np.full((missing, *plan.examples.shape[1:]), EMPTY_SLOT, np.int64)
    examples = np.concatenate([plan.examples, empty]).reshape(steps, -1, batching.slots)
    lengths = np.concatenate([plan.row_length, np.zeros(missing, np.int32)])
    return EvaluationSteps(examples, lengths.reshape(steps, parts).max(axis=1))


def evaluation_batches(
    table: TokenTable, batching: Batching, steps: EvaluationSteps, *, share: Share = WHOLE
) -> tf.data.Dataset:
    """Makes the batches of an evaluation.

    Args:
      table: the rows to evaluate.
      batching: shape of a batch, which is one part.
      steps: made from both.
      share: the parts that are made here.

    Returns:
      A dataset of `share.count` elements for each step, described above; it has no end: after the last step comes the
      first of the next evaluation.
    """

    def step(n: int) -> tuple[np.ndarray, int]:
        n %= len(steps.row_length)
        return steps.examples[n], int(steps.row_length[n])

    return _dataset(table, step, batching, share, batching.rows)


def _dataset(
    table: TokenTable,
    step: Callable[[int], tuple[np.ndarray, int] | None],
    batching: Batching,
    share: Share,
    rows: int,
) -> tf.data.Dataset:
    nothing = np.zeros((0, batching.slots), np.int64), batching.row_lengths[0]

    def assemble(n: np.ndarray) -> list[np.ndarray]:
        number, part = divmod(int(n), share.count)
        examples, length = step(number) or nothing
        first = (share.first + part) * rows
        own = examples[first : first + rows]
        if len(own) < rows:
            own = np.concatenate([own, np.full((rows - len(own), batching.slots), EMPTY_SLOT, np.int64)])
        batch = table.batch(own, length)
        return [batch[key] for key in _DTYPES]

    length = batching.row_lengths[0] if len(batching.row_lengths) == 1 else None
    shapes = {key: [rows, batching.slots] for key in ("cls_index", "weights")}
    shapes["labels"] = [rows, batching.slots, table.num_labels]

    @tf.autograph.experimental.do_not_convert
    def load(n: tf.Tensor) -> dict[str, tf.Tensor]:
        # Stateless: the same number always gives the same batch.
        values = tf.numpy_function(assemble, [n], list(_DTYPES.values()), stateful=False)
        batch = dict(zip(_DTYPES, values, strict=True))
        for key in _DTYPES:
            batch[key].set_shape(shapes.get(key, [rows, length]))
        return batch

    dataset = tf.data.Dataset.counter().map(load, num_parallel_calls=_AT_ONCE, deterministic=True)
    return untuned(dataset.prefetch(2 * max(_AT_ONCE, share.count)))
