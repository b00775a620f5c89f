"""Messages between the workers of a training, beside the gradients; with one worker, none.

`from_chief`, `any_worker` and `synchronize` are collective operations: every worker must call them, in the same order.
`Team` acts between the stages that train.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TypeVar

import numpy as np
import tensorflow as tf

from tfpipe.config.file import dump_config
from tfpipe.config.run import Config
from tfpipe.devices.cluster import Cluster
from tfpipe.devices.strategy import choose_precision, choose_strategy, choose_xla
from tfpipe.errors import GateError, InputError, WorkerLost
from tfpipe.provenance import package_versions

T = TypeVar("T")

WORDS_AT_ONCE = 2**24
_TRAINED_BY = ("tfpipe", "python", "tensorflow", "tf-keras", "tensorflow-model-optimization", "numpy")
# What TensorFlow says of a collective operation that another worker has left.
_SIGNS = ("collective ops is aborted", "stopped sending heartbeats", "coordination service")
_SECONDS_TO_END = 3.0  # of a process, from the first of its connections that is closed to the last


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether this process writes: the first worker does, or the only one."""
    return not _several(strategy) or Cluster.from_environment().is_chief


def from_chief(strategy: tf.distribute.Strategy, value: T) -> T:
    """Gives every worker the chief's value, which must be one that JSON has; the others' own values are ignored."""
    if not _several(strategy):
        return value
    text = json.dumps(value).encode() if is_chief(strategy) else b""
    size = _sum(strategy, np.array(divmod(len(text), 2**16), np.uint16))
    codes = np.zeros(int(size[0]) * 2**16 + int(size[1]), np.uint16)
    codes[: len(text)] = np.frombuffer(text, np.uint8)
    return json.loads(_sum(strategy, codes).astype(np.uint8).tobytes())


def any_worker(strategy: tf.distribute.Strategy, own: bool) -> bool:
    """Tells whether `own` is true on any worker."""
    return bool(_sum(strategy, np.array([own], np.uint16))[0]) if _several(strategy) else own


def synchronize(strategy: tf.distribute.Strategy, variables: Iterable[tf.Variable]) -> None:
    """Gives every worker the chief's values, to the bit."""
    if not _several(strategy):
        return
    variables = list(variables)
    values = [np.asarray(variable.numpy()) for variable in variables]
    data = b"".join(value.tobytes() for value in values)
    words = np.frombuffer(data + bytes(-len(data) % 2), np.uint16)
    words = words if is_chief(strategy) else np.zeros_like(words)
    parts = [_sum(strategy, words[first : first + WORDS_AT_ONCE]) for first in range(0, len(words), WORDS_AT_ONCE)]
    received, first = np.concatenate(parts).tobytes(), 0
    for variable, value in zip(variables, values, strict=True):
        variable.assign(np.frombuffer(received[first : first + value.nbytes], value.dtype).reshape(value.shape))
        first += value.nbytes


class Team:
    """The chief and its helpers between the stages that train: calls to a stage, and the end."""

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy, self._at_work = strategy, False

    @contextmanager
    def training(self, stage: str, inputs: dict[str, str]) -> Iterator[None]:
        """Calls the other workers to a stage; for the chief.

        Args:
          stage: its name.
          inputs: stage that it reads -> digest of its output.
        """
        from_chief(self._strategy, {"stage": stage, "inputs": inputs})
        self._at_work = True
        yield
        self._at_work = False

    @contextmanager
    def released(self) -> Iterator[None]:
        """Sends the other workers home at the end of the block, with the reason where it fails; for the chief.

        It sends none out of a stage that trains: there they are in other collective operations, which fail.
        """
        try:
            yield
        except (InputError, GateError) as error:
            if not self._at_work:
                self._send_home(2 if isinstance(error, InputError) else 1, str(error))
            raise
        self._send_home(0, "")

    def _send_home(self, code: int, said: str) -> None:
        with suppress(tf.errors.OpError):  # what is done is committed: who is gone is not missed
            from_chief(self._strategy, {"stage": None, "code": code, "said": said})
            self._everyone_knows()

    def _everyone_knows(self) -> None:
        """Waits until every worker has received the chief's last message: the chief's exit would cut it off."""
        any_worker(self._strategy, False)

    def calls(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yields the stages that the chief calls to, as in `training`, until it sends this worker home; for the others.

        Raises:
          InputError: the chief's input was wrong.
          GateError: a gate failed on the chief.
        """
        while True:
            with _signals_end_at_once():
                call = from_chief(self._strategy, None)
            if call["stage"] is not None:
                yield call["stage"], call["inputs"]
                continue
            with suppress(tf.errors.OpError):  # the chief may leave as soon as this worker has answered
                self._everyone_knows()
            if call["code"]:
                raise {1: GateError, 2: InputError}[call["code"]](f"the chief: {call['said']}")
            return


def join(config: Config, cluster: Cluster) -> Team:
    """Joins the workers of a training.

    Raises:
      InputError: a worker does not join, or would train something else than the chief.
    """
    strategy, _ = choose_strategy(config.train.strategy, config.train.worker_timeout)
    own = {
        "configuration": dump_config(config),
        "precision": choose_precision(config.train.precision).value,
        "xla": choose_xla(config.train.xla).value,
        "software": ", ".join(f"{name} {package_versions().get(name)}" for name in _TRAINED_BY),
    }
    of_chief = from_chief(strategy, own)
    for name, value in own.items():
        if value != of_chief[name]:
            shown = "" if name == "configuration" else f" ({value}, the chief's {of_chief[name]})"
            raise InputError(f"{cluster}: its {name} is not the chief's{shown}; give all workers the same")
    return Team(strategy)


@contextmanager
def _signals_end_at_once() -> Iterator[None]:
    """Restores the system's signal handlers for the block: Python runs none while a collective operation waits."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def loss_of_a_worker_said(cluster: Cluster) -> Iterator[None]:
    """Turns the error that TensorFlow raises when another worker is gone into one line.

    Raises:
      WorkerLost: another worker is gone. It can't join again: all must be started anew.
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
        gone = ", ".join(_gone(cluster))
        if not gone and not any(sign in str(error).lower() for sign in _SIGNS):
            raise  # an error of this worker's own
        gone = gone or "another worker"
        raise WorkerLost(f"{gone} is gone; start all workers again with the same command") from error


def _gone(cluster: Cluster) -> list[str]:
    """Lists the workers that are gone, in words. It asks for a while, as a process that is ending may still answer."""
    until = time.monotonic() + _SECONDS_TO_END
    while not (gone := cluster.silent()) and time.monotonic() < until:
        time.sleep(0.1)
    return gone


def _several(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def _sum(strategy: tf.distribute.Strategy, own: np.ndarray) -> np.ndarray:
    """Sums an array, [size] uint16, over the workers.

    The sum is in float32, which holds uint16 exactly: GPUs sum no integers.
    """
    return _summing(strategy)(tf.constant(own, tf.float32)).numpy().astype(np.uint16)


@cache
def _summing(strategy: tf.distribute.Strategy):
    replicas_of_a_worker = strategy.num_replicas_in_sync // len(Cluster.from_environment().addresses)

    def in_replica(own):
        context = tf.distribute.get_replica_context()
        counts = tf.equal(context.replica_id_in_sync_group % replicas_of_a_worker, 0)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(counts, own, tf.zeros_like(own)))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)], autograph=False)
    def run(own):
        return strategy.experimental_local_results(strategy.run(in_replica, args=(own,)))[0]

    return run
