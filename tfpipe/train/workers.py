"""What the workers of a training tell each other, beside the gradients; with one worker, nothing.

All are collective operations: every worker must call them, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import numpy as np
import tensorflow as tf

from tfpipe.errors import WorkerLost
from tfpipe.train.cluster import Cluster

T = TypeVar("T")


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes: the first worker does, or the only one."""
    if not _several(strategy):
        return True
    resolver = strategy.cluster_resolver
    chief = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (chief, 0)


def from_chief(strategy: tf.distribute.Strategy, value: T) -> T:
    """The chief's value, which must be one that JSON has; the others' own is not looked at."""
    if not _several(strategy):
        return value
    text = json.dumps(value).encode() if is_chief(strategy) else b""
    size = int(_sum(strategy, np.array([len(text)], np.int32))[0])
    codes = np.zeros(size, np.int32)
    codes[: len(text)] = np.frombuffer(text, np.uint8)
    return json.loads(_sum(strategy, codes).astype(np.uint8).tobytes())


def any_worker(strategy: tf.distribute.Strategy, own: bool) -> bool:
    """Whether it is true on any worker."""
    return bool(_sum(strategy, np.array([own], np.int32))[0]) if _several(strategy) else own


def synchronize(strategy: tf.distribute.Strategy, variables: Iterable[tf.Variable]) -> None:
    """Gives every worker the chief's values, to the bit."""
    if not _several(strategy):
        return
    variables = list(variables)
    values = [np.asarray(variable.numpy()) for variable in variables]
    data = b"".join(value.tobytes() for value in values)
    words = np.frombuffer(data + bytes(-len(data) % 4), np.int32)
    words = _sum(strategy, words if is_chief(strategy) else np.zeros_like(words)).tobytes()
    first = 0
    for variable, value in zip(variables, values, strict=True):
        variable.assign(np.frombuffer(words[first : first + value.nbytes], value.dtype).reshape(value.shape))
        first += value.nbytes


@contextmanager
def loss_of_a_worker_said(cluster: Cluster) -> Iterator[None]:
    """Turns what TensorFlow raises when another worker is gone into one line.

    Raises:
      WorkerLost: it is gone. A worker can't join again: all must be started anew.
    """
    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.FailedPreconditionError,
        tf.errors.InternalError,
        tf.errors.UnknownError,
    ) as error:
        if not any(sign in str(error) for sign in ("Collective", "collective", "unhealthy", "/job:", "oordination")):
            raise
        gone = ", ".join(cluster.silent()) or "another worker"
        raise WorkerLost(f"{gone} is gone; start all workers again with the same command") from error


def _several(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and _number_of_workers(strategy) > 1


def _number_of_workers(strategy: tf.distribute.Strategy) -> int:
    spec = strategy.cluster_resolver.cluster_spec()
    return sum(spec.num_tasks(job) for job in spec.jobs)


def _sum(strategy: tf.distribute.Strategy, own: np.ndarray) -> np.ndarray:
    """Sums one array, [size] int32, over the workers: of integers, so that no bit of a float in it is lost."""
    return _summing(strategy)(tf.constant(own)).numpy()


@cache
def _summing(strategy: tf.distribute.Strategy):
    replicas_of_a_worker = strategy.num_replicas_in_sync // _number_of_workers(strategy)

    def in_replica(own):
        context = tf.distribute.get_replica_context()
        counts = tf.equal(context.replica_id_in_sync_group % replicas_of_a_worker, 0)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(counts, own, tf.zeros_like(own)))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def run(own):
        return strategy.experimental_local_results(strategy.run(in_replica, args=(own,)))[0]

    return run
