"""Batches for training and evaluation, as tf.data.

Enters: a token table and a plan. Leaves: a dataset with one element per step. The dataset runs over step numbers;
each is mapped, in parallel and in order, to the rows that the plan gives it, so a dataset can start at any step and
holds no state worth saving.

An element is a dictionary:

| key | shape | dtype | |
|---|---|---|---|
| `input_ids` | `[batch, length]` | int32 | filled with the tokenizer's padding token |
| `token_type_ids` | `[batch, length]` | int32 | |
| `attention_mask` | `[batch, length]` | int32 | 1 for a token |
| `labels` | `[batch, num_labels]` | float32 | one-hot or multi-hot |
| `weights` | `[batch]` | float32 | 1 for a row, 0 for an empty slot |
| `rows` | `[batch]` | int64 | evaluation only: index in the token table, -1 for an empty slot |

`batch` is fixed, `length` is one of the plan's bucket lengths and differs from step to step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfpipe.data.plan import Plan, plan_evaluation
from tfpipe.data.token_table import TokenTable

_DTYPES = {
    "input_ids": tf.int32,
    "token_type_ids": tf.int32,
    "attention_mask": tf.int32,
    "labels": tf.float32,
    "weights": tf.float32,
    "rows": tf.int64,
}


def batches(table: TokenTable, plan: Plan, first_step: int, last_step: int) -> tf.data.Dataset:
    """The training batches of the global steps from `first_step` up to, and without, `last_step`.

    Args:
      table: the training rows.
      plan: made from this table's `lengths`.
      first_step: global number of the first step, from 0.
      last_step: global number of the step after the last one.

    Returns:
      A dataset of `last_step - first_step` elements, described above, without `rows`.
    """
    keys = [key for key in _DTYPES if key != "rows"]
    return _dataset(table, plan.step, range(first_step, last_step), plan.batch_size, keys)


def evaluation_batches(table: TokenTable, batch_size: int, bucket_lengths: Sequence[int]) -> tf.data.Dataset:
    """All rows of a table once, from the shortest to the longest.

    Args:
      table: the rows to evaluate.
      batch_size: rows per batch; the last batch may have empty slots.
      bucket_lengths: the lengths that a batch may be padded to, rising.

    Returns:
      A dataset whose elements are described above; `rows` says where each answer belongs.
    """
    plan = plan_evaluation(table.lengths, batch_size=batch_size, bucket_lengths=bucket_lengths)

    def step(n: int) -> tuple[np.ndarray, int]:
        return plan.rows[n], int(plan.length[n])

    return _dataset(table, step, range(len(plan.rows)), batch_size, list(_DTYPES))


def _dataset(
    table: TokenTable, step: Callable[[int], tuple[np.ndarray, int]], steps: range, batch_size: int, keys: list[str]
) -> tf.data.Dataset:
    def assemble(n: np.ndarray) -> list[np.ndarray]:
        rows, length = step(int(n))
        batch = {**table.rows(rows, length), "rows": rows}
        return [batch[key] for key in keys]

    def load(n: tf.Tensor) -> dict[str, tf.Tensor]:
        # Stateless: the same step number always gives the same batch.
        values = tf.numpy_function(assemble, [n], [_DTYPES[key] for key in keys], stateful=False)
        batch = dict(zip(keys, values, strict=True))
        shapes = {"labels": [batch_size, table.num_labels], "weights": [batch_size], "rows": [batch_size]}
        for key in keys:
            batch[key].set_shape(shapes.get(key, [batch_size, None]))
        return batch

    dataset = tf.data.Dataset.range(steps.start, steps.stop)
    return dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
