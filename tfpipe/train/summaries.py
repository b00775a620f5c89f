"""The TensorBoard files of a fit: curves, the effect of pruning on the weights, and settings (HParams).

Enters: the numbers of steps and evaluations. Leaves: event files in the stage's `logs/`; no result depends on them.

TensorBoard's own writer writes the files, a record a step, not `tf.summary`, which can write no `SessionLog.START`. By
this record, or by a step that comes again, TensorBoard's readers know that a fit went back to a checkpoint, and leave
out later steps. Before each checkpoint the files are flushed, so that a fit that was killed lacks no point between
them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.summary import session_end_pb
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tfpipe.config.file import flattened
from tfpipe.encoders.parameters import PREFIX, layer_of
from tfpipe.rundir.record import RECORD, content_of, parse_record
from tfpipe.rundir.stage import StageDirectory
from tfpipe.train.throughput import Throughput

LOGGED_STEPS = 2000
"""points of a curve, at most about: the files do not grow with the training"""
SHOWN_WEIGHTS = 50_000
"""of each kernel, at most about, in a histogram: counted zeros are exact, the shape of a histogram needs no more"""


class Summaries:
    """The event files of one fit; of a worker that is not the chief, none. As a context, they are closed at its end."""

    def __init__(
        self,
        stage: StageDirectory,
        throughput: Throughput,
        total_steps: int,
        watched: Mapping[str, tf.Variable],
        *,
        writes: bool,
    ):
        """Opens no file yet.

        Args:
          stage: gives the directory and the settings.
          throughput: of the steps.
          total_steps: of the fit.
          watched: kernels that are pruned, by their names.
          writes: whether this worker writes.
        """
        self._stage, self._throughput, self._total_steps = stage, throughput, total_steps
        self._watched, self._writes = watched, writes
        self._every = -(-total_steps // LOGGED_STEPS)
        self._writer: EventFileWriter | None = None

    def __enter__(self) -> Summaries:
        if self._writes:
            self._writer = EventFileWriter(str(self._stage.logs))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def begin(self, done: int) -> None:
        """Begins a session after so many steps: the first, or that of a resumed fit."""
        self.go_back(done)
        if self._writer is not None:
            self._write(0, [hparams_pb(hyperparameters(self._stage))])

    def go_back(self, done: int) -> None:
        """Takes back the points after so many steps."""
        if self._writer is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=done + 1, session_log=start))

    def step(self, number: int, loss: float, gradient_norm: float, learning_rate: float) -> None:
        """Draws a step, or leaves it out where there are too many.

        Args:
          number: of the step, from 0.
          loss: mean over its examples.
          gradient_norm: before it is clipped.
          learning_rate: of the step.
        """
        is_last = number + 1 == self._total_steps
        if self._writer is None or not (number % self._every == 0 or is_last):
            return
        first = max(number - self._every + 1, 0)
        values = {
            "loss": loss,
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate,
            "token_efficiency": self._throughput.token_efficiency(first, number),
        }
        if (recent := self._throughput.recent).seconds:
            values["examples_per_second"] = recent.examples_per_second
            values["tokens_per_second"] = recent.tokens_per_second
        self._write(number + 1, _scalars(values))

    def evaluation(self, done: int, measures: Mapping[str, float | None]) -> None:
        """Draws an evaluation after so many steps, and the weights that are pruned."""
        if self._writer is not None:
            values = {f"validation/{name}": value for name, value in measures.items()}
            self._write(done, [*_scalars(values), *_pruned(self._watched)])

    def end(self, done: int, measures: Mapping[str, float | None]) -> None:
        """Draws the measures of the weights that are kept, by which HParams compares fits, and ends the session."""
        if self._writer is not None:
            # Behind the last step, or a fit that was killed after it would draw them twice.
            values = {f"kept/{name}": value for name, value in measures.items()}
            ended = session_end_pb(api_pb2.STATUS_SUCCESS).SerializeToString()  # TensorFlow's class, not TensorBoard's
            self._write(done + 1, [*_scalars(values), Summary.FromString(ended)])

    def flush(self) -> None:
        """Writes all points to disk."""
        if self._writer is not None:
            self._writer.flush()

    def _write(self, step: int, parts: Iterable[Summary]) -> None:
        together = Summary(value=[value for part in parts for value in part.value])
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=together))


def hyperparameters(stage: StageDirectory) -> dict[str, bool | float | str]:
    """Gives the settings that decided a stage's result, its own and those of the stages that it reads.

    Args:
      stage: at work.

    Returns:
      Dotted path -> value, as HParams takes it; values other than numbers, truth values and texts are JSON.
    """
    settings: dict[str, Any] = {}
    for path in stage.inputs.values():
        record = parse_record(content_of(path / RECORD), path)
        settings |= record.settings if record is not None else {}
    own = flattened(settings | stage.settings)
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value, ensure_ascii=False)
        for name, value in own.items()
    }


def _scalars(values: Mapping[str, float | None]) -> list[Summary]:
    return [scalar_pb(name, value) for name, value in values.items() if value is not None]


def _pruned(kernels: Mapping[str, tf.Variable]) -> list[Summary]:
    """Shows the share of zeros of each layer and of all, a histogram of the kernels' shares, and the weights left.

    Args:
      kernels: name -> [in, out] float32; none: nothing is shown.
    """
    if not kernels:
        return []
    zeros: dict[str, list[tuple[int, int]]] = {}
    left: dict[str, list[np.ndarray]] = {}
    for name, kernel in kernels.items():
        values, layer = kernel.numpy().ravel(), layer_of(name)
        place = name.removeprefix(PREFIX).removesuffix(".weight") if layer is None else f"layer.{layer}"
        zeros.setdefault(place, []).append((values.size - np.count_nonzero(values), values.size))
        # An odd stride: an even one would meet the same two of each four again and again.
        shown = values[:: -(-values.size // SHOWN_WEIGHTS) | 1]
        left.setdefault(place, []).append(shown[shown != 0.0])
    counts = [each for of_layer in zeros.values() for each in of_layer]
    shares = {f"sparsity/{place}": _share(of_layer) for place, of_layer in zeros.items()}
    return [
        *_scalars(shares | {"sparsity/all": _share(counts)}),
        histogram_pb("sparsity_of_kernels", np.array([_share([each]) for each in counts])),
        *(histogram_pb(f"weights/{place}", np.concatenate(parts)) for place, parts in left.items()),
    ]


def _share(counts: list[tuple[int, int]]) -> float:
    """Gives the share of zeros among all, of (zeros, all) each."""
    return sum(zeros for zeros, _ in counts) / sum(size for _, size in counts)
