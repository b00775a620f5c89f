"""The numbers of a fit: its epochs, rates and evaluations, its loss, its plan.

Enters: the configuration and the training rows. Leaves: a `Recipe` and a `Plan`, of which every rate, evaluation and
stop is a function, so that none of them needs a place in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tfpipe.config.run import Config
from tfpipe.config.train import Train
from tfpipe.console import say
from tfpipe.errors import InputError
from tfpipe.tokens.plan import Plan, choose_batching
from tfpipe.tokens.table import TokenTable
from tfpipe.train.schedule import learning_rate, plateau_factor, stale_evaluations
from tfpipe.train.step import Loss


@dataclass(frozen=True)
class Recipe:
    """The recipe of one fit; the settings that differ between the stages that train stand before `settings`."""

    description: str
    epochs: float
    learning_rate: float
    keep: str
    """`best`: the best evaluated weights; `last`: those of the last step, where a schedule must have ended"""
    settings: Train
    loss: Loss
    precision: str
    """policy under which the model was made"""
    seed: int

    @property
    def metric(self) -> str | None:
        """Names the score that chooses the weights; None where the last ones are kept."""
        return self.settings.metric if self.keep == "best" else None

    def total_steps(self, plan: Plan) -> int:
        """Counts the steps of all epochs."""
        return plan.steps(self.epochs)

    def rate(self, plan: Plan, step: int, history: Sequence[dict[str, float]], slowed: Sequence[int] = ()) -> float:
        """Computes the learning rate of a step, counted from 0, from the plan and the evaluations before the step.

        The rate is halved for each number in `slowed` that the step has reached.
        """
        settings = self.settings
        rate = learning_rate(
            settings.schedule,
            self.learning_rate,
            before=plan.examples_before(step),
            after=plan.examples_before(step + 1),
            total=plan.examples_before(self.total_steps(plan)),
            warmup_fraction=settings.warmup_fraction,
        ) * 0.5 ** sum(step >= first for first in slowed)
        if self.metric is None or (plateau := settings.reduce_on_plateau) is None:
            return rate
        values = [entry[self.metric] for entry in history if entry["step"] <= step]
        return rate * plateau_factor(values, self.metric, plateau.factor, plateau.patience, plateau.min_delta)

    def stops_early(self, history: Sequence[dict[str, float]]) -> bool:
        """Tells whether enough evaluations in a row have brought no improvement."""
        if self.metric is None or (stopping := self.settings.early_stopping) is None:
            return False
        values = [entry[self.metric] for entry in history]
        return stale_evaluations(values, self.metric, stopping.min_delta) >= stopping.patience

    def is_evaluated(self, plan: Plan, done: int) -> bool:
        """Tells whether an evaluation comes after so many steps."""
        per_epoch = self.settings.evaluations_per_epoch
        passed, before = (each * per_epoch // plan.steps_per_epoch for each in (done, done - 1))
        return passed > before or done == self.total_steps(plan)

    def steps_at_once(self, plan: Plan, done: int) -> int:
        """Returns `steps_per_execution`, or 1 if an evaluation or the end comes before: each number is traced apart."""
        count = self.settings.steps_per_execution
        if done + count > self.total_steps(plan) or any(
            self.is_evaluated(plan, n) for n in range(done + 1, done + count)
        ):
            return 1
        return count


class Fitting(Protocol):
    """A section that says how long and how fast a stage trains."""

    epochs: float
    learning_rate: float


def recipe_of(
    config: Config,
    stage: str,
    section: Fitting,
    *,
    keep: str,
    precision: str,
    labels: Sequence[str],
    training: TokenTable,
) -> Recipe:
    """Makes the recipe of one stage.

    Args:
      config: the configuration.
      stage: its name.
      section: where its epochs and peak learning rate stand.
      keep: `best` or `last`.
      precision: policy under which the model was made.
      labels: names of the labels.
      training: rows to train on, for balanced class weights.
    """
    weights = class_weights(config.train.class_weights, labels, training.labels.sum(axis=0))
    loss = Loss(config.task, config.train.label_smoothing, weights)
    return Recipe(stage, section.epochs, section.learning_rate, keep, config.train, loss, precision, config.seed)


def class_weights(
    requested: str | dict[str, float] | None, labels: Sequence[str], counts: np.ndarray
) -> tuple[float, ...] | None:
    """Computes the weight of each label; `balanced`: inversely proportional to its frequency, as in scikit-learn.

    Args:
      requested: the setting.
      labels: names of the labels.
      counts: [labels] float, training rows per label.

    Raises:
      InputError: a weight for a label that does not exist.
    """
    if requested is None:
        return None
    if requested == "balanced":
        return tuple(float(sum(counts) / (len(labels) * max(count, 1.0))) for count in counts)
    unknown = sorted(set(requested) - set(labels))
    if unknown:
        raise InputError(f"train.class_weights: no label {unknown[0]!r}; the labels are {', '.join(labels)}")
    return tuple(requested.get(label, 1.0) for label in labels)


def training_plan(config: Config, training: TokenTable, validation: TokenTable) -> tuple[Plan, str]:
    """Plans batches of the training rows that can hold each validation row too; describes the batching in words.

    Raises:
      InputError: an example does not fit into a row.
    """
    settings = config.train
    try:
        batching, reason = choose_batching(
            settings.batching,
            training.lengths,
            longest=max(int(table.lengths.max()) for table in (training, validation)),
            batch_size=settings.batch_size,
            max_length=config.data.max_length,
            row_length=settings.row_length,
        )
    except ValueError as error:
        raise InputError(
            f"train.row_length: {error}; set it higher, or leave it out, or lower data.max_length"
        ) from None
    return Plan(training.lengths, batching, config.seed), f"{batching.kind} ({reason})"


def check_division(plan: Plan, micro_batches: int, replicas: int) -> None:
    """Checks that replicas and micro-batches can share the rows of a batch; empty rows fill the batch up.

    Reports empty rows that are more than a tenth of the work.

    Raises:
      InputError: there are fewer rows than parts.
    """
    rows, parts = plan.batching.rows, micro_batches * replicas
    shown = f"{replicas} replica(s) x train.gradient_accumulation {micro_batches}"
    if parts > rows:
        raise InputError(
            f"train.batch_size: a batch has {rows} {plan.batching.kind} row(s), which {shown} can't share; raise "
            "train.batch_size or lower train.gradient_accumulation"
        )
    added = -rows % parts
    if added * 10 > rows:
        say(
            f"  {rows} rows do not divide among {shown}: each batch gets {added} empty one(s); a larger "
            "train.batch_size costs less"
        )
