"""The batches that the replicas of a step get, and their origin.

As a rule every worker has a `tf.data` pipeline of its own. The other hosts of a TPU pod run no Python, which assembles
the rows: there this process makes the batches of all replicas and sends them, a few hundred kilobytes a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf


class Feed:
    """The batches of all steps, in their order."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        own_batches: Callable[[tf.distribute.InputContext], tf.data.Dataset],
        *,
        from_here: bool,
    ):
        """Starts the pipelines.

        Args:
          strategy: the strategy.
          own_batches: makes the dataset of one worker: an element for each step and replica of its own.
          from_here: whether this process makes the batches of all replicas, and sends them.
        """
        self._strategy, self._from_here = strategy, from_here
        if from_here:
            context = tf.distribute.InputContext(1, 0, strategy.num_replicas_in_sync)
            dataset = own_batches(context)
        else:
            dataset = strategy.distribute_datasets_from_function(own_batches)
        self._batches = iter(dataset)

    def next(self, steps: int) -> Iterator | list[Any]:
        """Gives the batches of so many steps, for a compiled function: see `batch_of`."""
        if not self._from_here:
            return self._batches
        distribute = self._strategy.experimental_distribute_values_from_function
        return [distribute(lambda context: next(self._batches)) for _ in range(steps)]


def batch_of(batches: Iterator | list[Any], index: int) -> Any:
    """Returns the batch of a call's step, from 0, in a compiled function; steps must be asked for in their order."""
    return batches[index] if isinstance(batches, list) else next(batches)
