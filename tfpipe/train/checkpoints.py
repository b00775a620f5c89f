"""Checkpoints of one fit: variables, optimizer, what a compression method tracks, and the number of the step.

A checkpoint is a directory `step-N`. Its `checkpoint.json` is written last, atomically, and holds the SHA-256 of itself
and of every file that the checkpoint needs, the best weights so far among them: a kill at any instant leaves the
checkpoint before whole, and a file that is torn or changed is noticed. The variables are safetensors, named by their
path in the object graph, as one device has them: what was begun under one strategy goes on under another.

A thread of its own writes, while training goes on: what was read of a variable stays as it was when that is updated.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tfpipe.console import say
from tfpipe.errors import InputError
from tfpipe.fingerprint import is_sealed, sealed
from tfpipe.paths import path_inside
from tfpipe.rundir import StageDirectory, sha256_of_file, write_json

MARKER = "checkpoint.json"


@dataclass
class Progress:
    """Where a fit stands; stored with each checkpoint."""

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    best_step: int | None = None
    left_out: list[int] = field(default_factory=list)
    """steps whose loss or gradient was not finite, and which updated nothing"""
    slowed: list[int] = field(default_factory=list)
    """steps from which on the learning rate is halved, once for each"""


class Checkpoints:
    """Checkpoints of one fit; see the top of this module."""

    def __init__(
        self,
        stage: StageDirectory,
        state: dict[str, tf.Module],
        *,
        writes: bool = True,
        every: int | float = 1,
        keep_last: int = 2,
    ):
        """Finds the variables.

        Args:
          stage: whose checkpoints they are.
          state: name -> what holds variables: `model`, `optimizer`, …
          writes: whether this process stores any; with several workers, one does.
          every: between two checkpoints, steps (int) or seconds (float).
          keep_last: how many are kept: where the newest is damaged, the one before it is used.
        """
        self.directory, self._stage, self._writes = stage.checkpoints, stage, writes
        self._every, self._keep_last = every, keep_last
        self._saved: Progress | None = None
        self._saved_at = time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: list[Future] = []
        seen: set[int] = set()
        self.variables = {
            f"{name}/{path}": each for name, root in state.items() for path, each in _variables(root, seen)
        }

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.shutdown()
        if exception[0] is None:
            self.wait()

    def wait(self) -> None:
        """Until all that was saved is stored; raises what went wrong."""
        while self._pending:
            self._pending.pop(0).result()

    def restore(self, *, passing_over: int | None = None) -> Progress | None:
        """Reads the newest whole checkpoint; None where there is none.

        Args:
          passing_over: step whose checkpoint is removed, if there is another before it.
        """
        self.wait()
        steps = self._steps()
        if len(steps) > 1 and steps[0] == passing_over:
            shutil.rmtree(self._path(steps[0]))
        for step in self._steps():
            try:
                stored = json.loads((self._path(step) / MARKER).read_text(encoding="utf-8"))
                if not is_sealed(stored):
                    raise ValueError(f"{MARKER} has changed")
                files = stored["files"]
                progress = Progress(**{name: stored[name] for name in stored if name not in ("files", "sha256")})
                if progress.step != step:
                    raise ValueError(f"{MARKER} is that of step {progress.step}")
                if type(progress.best_step) not in (int, type(None)):
                    raise ValueError("the step of the best weights is no number")
                if not isinstance(progress.history, list) or f"step-{step}/state.safetensors" not in files:
                    raise ValueError("history, or the file of the weights, is missing")
                for name, expected in files.items():
                    path = path_inside(self.directory, name, str(self._path(step) / MARKER))
                    if sha256_of_file(path) != expected:
                        raise ValueError(f"{name} has changed")
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                say(f"  the checkpoint of step {step} is not whole ({error}): trying the one before it")
                shutil.rmtree(self._path(step))
                continue
            self._read(self._path(step) / "state.safetensors", self.variables)
            self._saved = copy.deepcopy(progress)
            return progress
        return None

    @property
    def newest(self) -> str:
        """What is stored, in words."""
        if not self._writes:
            return "what is stored, the chief says"
        self.wait()
        steps = self._steps()
        return f"the checkpoint of step {steps[0]}, made before it, is kept" if steps else "nothing was stored yet"

    def is_due(self, before: int, after: int) -> bool:
        """Whether a checkpoint is due between two steps; by time, this process alone decides."""
        if isinstance(self._every, int):
            return after // self._every > before // self._every
        return time.monotonic() - self._saved_at >= self._every

    def save(self, progress: Progress) -> None:
        """Stores a checkpoint, then removes those that are no longer needed; returns before it is done."""
        if not self._writes or self._saved == progress:
            return
        self.wait()
        self._saved, self._saved_at = copy.deepcopy(progress), time.monotonic()
        self._pending.append(self._writer.submit(self._store, self._saved, _values(self.variables)))

    def _store(self, progress: Progress, values: dict[str, np.ndarray]) -> None:
        path = self._path(progress.step)
        shutil.rmtree(path, ignore_errors=True)
        files = [_write(path / "state.safetensors", values)]
        if progress.best_step is not None:
            files.append(self._best(progress.best_step))
        digests = {str(file.relative_to(self.directory)): sha256_of_file(file) for file in files}
        write_json(path / MARKER, sealed({**vars(progress), "files": digests}))
        kept = self._steps()[: self._keep_last]
        needed = {f"step-{step}" for step in kept} | {self._best_of(step) for step in kept}
        for other in self.directory.iterdir():
            if other.name not in needed:
                shutil.rmtree(other)
        self._stage.keep(f"{path.name}/{MARKER}")

    def save_best(self, step: int) -> None:
        """Keeps the model's weights of a step aside."""
        if self._writes:
            self._pending.append(self._writer.submit(_write, self._best(step), _values(self._model)))

    def load_best(self, progress: Progress) -> None:
        """Gives the model the best weights, where they are not its own already."""
        self.wait()
        if progress.best_step is not None and progress.best_step != progress.step:
            say(f"  keeping the weights of step {progress.best_step}, the best on validation")
            if self._writes:
                self._read(self._best(progress.best_step), self._model)

    @property
    def _model(self) -> dict[str, tf.Variable]:
        return {name: each for name, each in self.variables.items() if name.startswith("model/")}

    def _steps(self) -> list[int]:
        """Of the checkpoints that are marked as whole, the newest first."""
        names = (path.parent.name[5:] for path in self.directory.glob(f"step-*/{MARKER}"))
        return sorted((int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name)), reverse=True)

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step}"

    def _best(self, step: int) -> Path:
        return self.directory / f"best-{step}" / "model.safetensors"

    def _best_of(self, step: int) -> str:
        try:
            return f"best-{json.loads((self._path(step) / MARKER).read_text(encoding='utf-8'))['best_step']}"
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return ""  # `restore` will say that it is not whole

    def _read(self, path: Path, variables: dict[str, tf.Variable]) -> None:
        try:
            values = load_file(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise InputError(f"{path}: can't be read ({error}); start over with --redo {self._stage.name}") from error
        found = {name: (value.shape, value.dtype) for name, value in values.items()}
        if found != {name: (tuple(each.shape), each.dtype.as_numpy_dtype) for name, each in variables.items()}:
            raise InputError(
                f"{path}: holds other variables than there are here, as it was made in another precision or by another "
                f"version of tfpipe; set train.precision as it was, or start over with --redo {self._stage.name}"
            )
        for name, each in variables.items():
            each.assign(values[name])


def _values(variables: dict[str, tf.Variable]) -> dict[str, np.ndarray]:
    """What the variables hold now, without a copy on a CPU: TensorFlow updates no buffer that somebody has read."""
    return {name: np.asarray(each.numpy()) for name, each in variables.items()}


def _write(path: Path, values: dict[str, np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(values, path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return path


def _variables(root: tf.Module, seen: set[int]) -> list[tuple[str, tf.Variable]]:
    """(path, variable) of all variables below an object, by the shortest path; `seen` holds the ids of those before."""
    found, waiting = [], deque([("", root)])
    view = tf.train.TrackableView(root)
    while waiting:
        path, node = waiting.popleft()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, tf.Variable):
            found.append((path, node))
            continue
        waiting.extend((f"{path}/{name}" if path else name, child) for name, child in view.children(node).items())
    return found
