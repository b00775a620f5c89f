"""Checkpoints of one fit: variables, optimizer, the variables of a compression method, and the number of the step.

A checkpoint is a directory `step-N`. Its `checkpoint.json` is written last, atomically. It holds the SHA-256 of itself
and of every file that the checkpoint needs, the best weights so far among them. A kill at any instant thus leaves the
checkpoint before whole, and a file that is torn or changed is noticed. The variables are safetensors, named by their
path in the object graph, as one device has them: a fit that began under one strategy resumes under another.

A thread of its own writes, from a copy, while training goes on; of large models on a processor, without a copy, while
it waits.

The clock and requests to stop decide which checkpoints exist, except those of evaluations and of the beginning. These
are the landmarks that `train.nonfinite: rollback` goes back to, so that a rollback ends the same however often a run
was stopped.
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
from typing import Any

import numpy as np
import tensorflow as tf
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tfpipe.console import say
from tfpipe.errors import InputError
from tfpipe.files import path_inside, sha256_of_file, write_json
from tfpipe.rundir.fingerprint import is_sealed, sealed
from tfpipe.rundir.stage import StageDirectory

MARKER = "checkpoint.json"
LARGE = 2**29
"""bytes of variables in main memory from which on a write is waited for"""


@dataclass
class Progress:
    """The state of a fit; stored with each checkpoint."""

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
        landmarks: int = 0,
    ):
        """Finds the variables.

        Args:
          stage: whose checkpoints they are.
          state: name -> what holds variables: `model`, `optimizer`, …
          writes: whether this process stores any; with several workers, one does.
          every: between two checkpoints, steps (int) or seconds (float).
          keep_last: how many are kept: where the newest is damaged, the one before it is used.
          landmarks: how many landmarks are kept beside them.
        """
        self.directory, self._stage, self.writes = stage.checkpoints, stage, writes
        self._every, self._keep_last, self._landmarks = every, keep_last, landmarks
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
        """Waits until everything saved is stored; raises the error of a failed write."""
        self._wait_for_all_but(0)

    def _wait_for_all_but(self, most: int) -> None:
        while self._pending and (len(self._pending) > most or self._pending[0].done()):
            self._pending.pop(0).result()

    def restore(self) -> Progress | None:
        """Reads the newest whole checkpoint; None where there is none."""
        self.wait()
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
                if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):  # a disk may only be away
                    shutil.rmtree(self._path(step))
                continue
            self._read(self._path(step) / "state.safetensors", self.variables)
            self._saved = copy.deepcopy(progress)
            return progress
        return None

    def go_back(self, passing_over: int | None = None) -> None:
        """Removes the checkpoints that are newer than the newest landmark.

        Args:
          passing_over: step of a landmark that is removed too, if there is another before it.
        """
        self.wait()
        landmarks = [step for step in self._steps() if self._is_landmark(step)]
        if len(landmarks) > 1 and landmarks[0] == passing_over:
            landmarks.pop(0)
        for step in self._steps():
            if landmarks and step > landmarks[0]:
                shutil.rmtree(self._path(step))

    def newest_until(self, step: int) -> str:
        """Names the newest checkpoint of up to so many steps, in words."""
        if not self.writes:
            return "what is stored, the chief says"
        self.wait()
        found = next((each for each in self._steps() if each <= step), None)
        return "no checkpoint before it is left" if found is None else f"the checkpoint of step {found} is kept"

    def is_due(self, before: int, after: int) -> bool:
        """Tells whether a checkpoint is due between two steps; by time, this process alone decides."""
        if isinstance(self._every, int):
            return after // self._every > before // self._every
        return time.monotonic() - self._saved_at >= self._every

    def save(self, progress: Progress) -> None:
        """Stores a checkpoint, then removes those that are no longer needed; returns before a write of few ends.

        In a processor's memory, the values are the variables' own until a step writes to these, which copies them
        first. Of many, the copy would be the most memory that a training takes, so that the write is waited for.
        """
        if not self.writes or self._saved == progress:
            return
        self._wait_for_all_but(1)  # such as the best weights
        self._saved, self._saved_at = copy.deepcopy(progress), time.monotonic()
        self._pending.append(self._writer.submit(self._store, self._saved, _values(self.variables)))
        if _bytes_in_main_memory(self.variables) >= LARGE:
            self.wait()

    def _store(self, progress: Progress, values: dict[str, np.ndarray]) -> None:
        path = self._path(progress.step)
        files = [_write(path / "state.safetensors", values)]
        if progress.best_step is not None:
            files.append(self._best(progress.best_step))
        digests = {str(file.relative_to(self.directory)): sha256_of_file(file) for file in files}
        write_json(path / MARKER, sealed({**vars(progress), "files": digests}))
        steps = self._steps()
        landmarks = [step for step in steps if self._landmarks and self._is_landmark(step)]
        kept = {*steps[: self._keep_last], *landmarks[: self._landmarks]}
        needed = {f"step-{step}" for step in kept} | {f"best-{self._marker(step).get('best_step')}" for step in kept}
        for other in (*self.directory.glob("step-*"), *self.directory.glob("best-*")):
            if other.name not in needed and other.is_dir():
                shutil.rmtree(other)
        self._stage.keep(f"{path.name}/{MARKER}")

    def save_best(self, step: int) -> None:
        """Keeps the model's weights of a step aside."""
        if self.writes:
            self._pending.append(self._writer.submit(_write, self._best(step), _values(self._model)))

    def load_best(self, progress: Progress) -> None:
        """Gives the model the best weights, where they are not its own already."""
        self.wait()
        if progress.best_step is not None and progress.best_step != progress.step:
            say(f"  keeping the weights of step {progress.best_step}, the best on validation")
            if self.writes:
                self._read(self._best(progress.best_step), self._model)

    @property
    def _model(self) -> dict[str, tf.Variable]:
        return {name: each for name, each in self.variables.items() if name.startswith("model/")}

    def _steps(self) -> list[int]:
        """Lists the steps of the checkpoints that are marked as whole, the newest first."""
        names = (path.parent.name[5:] for path in self.directory.glob(f"step-*/{MARKER}"))
        return sorted((int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name)), reverse=True)

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step}"

    def _best(self, step: int) -> Path:
        return self.directory / f"best-{step}" / "model.safetensors"

    def _marker(self, step: int) -> dict[str, Any]:
        """Reads the marker of a step; empty where it is damaged, which `restore` will report."""
        try:
            stored = json.loads((self._path(step) / MARKER).read_text(encoding="utf-8"))
            return stored if is_sealed(stored) else {}
        except (OSError, ValueError, TypeError, RecursionError):
            return {}

    def _is_landmark(self, step: int) -> bool:
        history = self._marker(step).get("history")
        return step == 0 or (bool(history) and history[-1]["step"] == step)

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


def _bytes_in_main_memory(variables: dict[str, tf.Variable]) -> int:
    return sum(each.dtype.size * each.shape.num_elements() for each in variables.values() if "CPU" in each.device)


def _values(variables: dict[str, tf.Variable]) -> dict[str, np.ndarray]:
    """Copies the present values of the variables."""
    return {name: np.asarray(each.numpy()) for name, each in variables.items()}


def _write(path: Path, values: dict[str, np.ndarray]) -> Path:
    """Writes a file; an existing file, such as that of a step which is stored again, stays whole until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    save_file(values, temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return path


def _variables(root: tf.Module, seen: set[int]) -> list[tuple[str, tf.Variable]]:
    """Lists (path, variable) of all variables below an object, by the shortest path, except ids in `seen`."""
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
