"""Checkpoints of one fit: variables, optimizer, and the number of the step.

A checkpoint is a directory `step-N`; `latest.json` names the newest whole one and is written last, atomically, so a
kill at any instant leaves either the old checkpoint or the new one.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
import tf_keras

from tfpipe.console import say
from tfpipe.rundir import write_json


@dataclass
class Progress:
    """Where a fit stands; stored with each checkpoint."""

    step: int
    history: list[dict[str, float]]
    best: float | None
    best_step: int | None


class Checkpoints:
    """Checkpoints of one fit: `latest.json` names the newest whole one and is written last."""

    def __init__(self, directory: Path, checkpoint: tf.train.Checkpoint):
        self._directory, self._checkpoint = directory, checkpoint
        self._marker = directory / "latest.json"

    def restore(self) -> Progress | None:
        """Reads the newest checkpoint; None where there is none."""
        try:
            progress = Progress(**json.loads(self._marker.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        status = self._checkpoint.read(str(self._path(progress.step) / "state"))
        status.assert_existing_objects_matched()
        return progress

    @property
    def newest(self) -> str:
        """What is stored, in words."""
        try:
            step = json.loads(self._marker.read_text(encoding="utf-8"))["step"]
        except (FileNotFoundError, ValueError, KeyError):
            return "nothing was stored yet"
        return f"the checkpoint of step {step}, made before it, is kept"

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint, then removes the ones before it."""
        path = self._path(progress.step)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        self._checkpoint.write(str(path / "state"))
        write_json(self._marker, vars(progress))
        for other in self._directory.glob("step-*"):
            if other != path:
                shutil.rmtree(other)
        for other in self._directory.glob("best-*"):
            if other.stem != f"best-{progress.best_step}":
                other.unlink()

    def save_best(self, model: tf_keras.Model, step: int) -> None:
        """Keeps the weights of a step aside."""
        self._directory.mkdir(parents=True, exist_ok=True)
        tf.train.Checkpoint(model=model).write(str(self._directory / f"best-{step}"))

    def load_best(self, model: tf_keras.Model, progress: Progress) -> None:
        """Gives the model the best weights, where they are not its own already."""
        if progress.best_step is not None and progress.best_step != progress.step:
            say(f"  keeping the weights of step {progress.best_step}, the best on validation")
            path = str(self._directory / f"best-{progress.best_step}")
            tf.train.Checkpoint(model=model).read(path).assert_existing_objects_matched()

    def _path(self, step: int) -> Path:
        return self._directory / f"step-{step}"
