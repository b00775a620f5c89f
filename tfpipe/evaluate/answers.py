"""The answers of the Keras models of a run to the test rows: the source of measures, flipped rows and mistakes.

Enters: the output of `prepare` and `verify`. Leaves: the rows, the right answers, and the answers of each variant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tfpipe import metrics
from tfpipe.artifacts import REFERENCE
from tfpipe.config.run import Config
from tfpipe.evaluate.calibration import calibration_of
from tfpipe.rundir.record import LOGITS, label_names
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tasks import Decision, task_of
from tfpipe.tokens.table import TokenTable


@dataclass(frozen=True)
class Answers:
    """The test rows that `verify` asked, what is right, and the answers of each variant's Keras model or artifact."""

    table: TokenTable
    rows: np.ndarray
    """[rows] int64, of the table"""
    labels: np.ndarray
    """[rows, labels] float32"""
    names: tuple[str, ...]
    task: str
    logits: Mapping[str, np.ndarray]
    """variant -> [rows, labels] float32, calibrated"""
    decisions: Mapping[str, Decision]
    """variant -> how its probabilities become an answer"""

    def right(self, variant: str) -> np.ndarray:
        """Tells which rows a variant has right: [rows] bool."""
        return metrics.correct(self.logits[variant], self.labels, self.task, self.decisions[variant])

    def given(self, variant: str) -> np.ndarray:
        """Tells which labels a variant gives, abstention aside: [rows, labels] bool."""
        return task_of(self.task).decisions(self.logits[variant], self.decisions[variant])

    def sureness(self, variant: str) -> np.ndarray:
        """Gives the probability that each label is as the variant says: [rows, labels] float64."""
        probability = task_of(self.task).probabilities(self.logits[variant])
        return np.where(self.given(variant), probability, 1.0 - probability)

    def named(self, chosen: np.ndarray) -> list[str]:
        """Names the labels of a row: [labels] bool."""
        return [self.names[at] for at in np.flatnonzero(chosen)]


def read_answers(
    prepared: Path,
    verified: Path,
    variants: Iterable[str],
    task: str,
    decisions: Mapping[str, Decision],
    artifact: str = REFERENCE.name,
) -> Answers:
    """Reads the answers of a run.

    Args:
      prepared: directory of `prepare`.
      verified: directory of `verify`.
      variants: whose answers are read.
      task: `single_label` or `multi_label`.
      decisions: variant -> how its probabilities become an answer.
      artifact: whose answers are read; those of the Keras model by default.
    """
    stored, table = load_file(verified / LOGITS), TokenTable.open(prepared / "test")
    return Answers(
        table=table,
        rows=stored["rows"],
        labels=table.labels[stored["rows"]],
        names=label_names(prepared),
        task=task,
        logits={variant: stored[f"{variant}.{artifact}"] for variant in variants},
        decisions=decisions,
    )


def answers_of_run(config: Config, stage: StageDirectory) -> Answers:
    """Reads the answers of every variant of a run: see `read_answers`.

    Args:
      config: the configuration.
      stage: at work, which reads `prepare`, `export` and `verify`.
    """
    decisions = {variant: calibration_of(stage.inputs["export"], variant).decision for variant in stage.variants}
    return read_answers(stage.inputs["prepare"], stage.inputs["verify"], stage.variants, config.task, decisions)
