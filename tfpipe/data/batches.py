"""Batches for training and evaluation, as tf.data.

Enters: a token table and a plan. Leaves: a dataset with one element per step. The dataset runs over step numbers;
each is mapped, in parallel and in order, to the examples that the plan gives it, so a dataset can start at any step and
holds no state worth saving.

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
| `examples` | `[rows, slots]` | int64 | evaluation only: index in the token table, -1 for an empty slot |

`rows` and `slots` are fixed; `length` too, but for bucketed batches, where it is one of a few.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfpipe.data.plan import EMPTY_SLOT, Batching, Plan, plan_evaluation
from tfpipe.data.token_table import TokenTable

_DTYPES = {
    "input_ids": tf.int32,
    "token_type_ids": tf.int32,
    "segment_ids": tf.int32,
    "position_ids": tf.int32,
    "cls_index": tf.int32,
    "labels": tf.float32,
    "weights": tf.float32,
    "examples": tf.int64,
}


def batches(table: TokenTable, plan: Plan, first_step: int, last_step: int, *, shares: int = 1) -> tf.data.Dataset:
    """The training batches of the global steps from `first_step` up to, and without, `last_step`.

    Args:
      table: the training rows.
      plan: made from this table's `lengths`.
      first_step: global number of the first step, from 0.
      last_step: global number of the step after the last one.
      shares: into how many equal parts a batch is going to be divided; empty rows are added until it can be.

    Returns:
      A dataset of `last_step - first_step` elements, described above, without `examples`.
    """
    keys = [key for key in _DTYPES if key != "examples"]
    return _dataset(table, plan.step, range(first_step, last_step), plan.batching, keys, shares)


def evaluation_batches(table: TokenTable, batching: Batching) -> tf.data.Dataset:
    """All rows of a table once.

    Args:
      table: the rows to evaluate.
      batching: shape of the batches.

    Returns:
      A dataset whose elements are described above; `examples` says where each answer belongs.
    """
    plan = plan_evaluation(table.lengths, batching)

    def step(n: int) -> tuple[np.ndarray, int]:
        return plan.examples[n], int(plan.row_length[n])

    return _dataset(table, step, range(len(plan.row_length)), batching, list(_DTYPES), shares=1)


def _dataset(
    table: TokenTable,
    step: Callable[[int], tuple[np.ndarray, int]],
    steps: range,
    batching: Batching,
    keys: list[str],
    shares: int,
) -> tf.data.Dataset:
    rows = -(-batching.rows // shares) * shares
    added = np.full((rows - batching.rows, batching.slots), EMPTY_SLOT, np.int64)

    def assemble(n: np.ndarray) -> list[np.ndarray]:
        examples, length = step(int(n))
        examples = np.concatenate([examples, added])
        batch = {**table.batch(examples, length), "examples": examples}
        return [batch[key] for key in keys]

    length = batching.row_lengths[0] if len(batching.row_lengths) == 1 else None
    shapes = {key: [rows, batching.slots] for key in ("cls_index", "weights", "examples")}
    shapes["labels"] = [rows, batching.slots, table.num_labels]

    def load(n: tf.Tensor) -> dict[str, tf.Tensor]:
        # Stateless: the same step number always gives the same batch.
        values = tf.numpy_function(assemble, [n], [_DTYPES[key] for key in keys], stateful=False)
        batch = dict(zip(keys, values, strict=True))
        for key in keys:
            batch[key].set_shape(shapes.get(key, [rows, length]))
        return batch

    dataset = tf.data.Dataset.range(steps.start, steps.stop)
    return dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
