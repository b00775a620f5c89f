"""A loss or a gradient that is not finite: its cause, and the reaction to it.

The loss of each example of the batch, without dropout, with weights that were good before, tells divergence from a
fault of the data. If a few examples have no finite loss, they are at fault, or the weights that only they use. If all
have one, or hardly any, the training diverged.

`train.nonfinite` sets the reaction: to stop, to leave the step out, or to go back to the last landmark
(`checkpoints.py`) and on at half the learning rate. A step is left out in the graph (`make_replica_step`), so that a
run that is killed and resumes does the same again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras

from tfpipe.console import say
from tfpipe.errors import InputError
from tfpipe.tokens.plan import EMPTY_SLOT, Batching, Plan
from tfpipe.tokens.table import TokenTable
from tfpipe.train.checkpoints import Checkpoints, Progress
from tfpipe.train.evaluation import Evaluation
from tfpipe.train.recipe import Recipe

SHOWN = 5
"""examples that a message names"""
REMEMBERED = 50
"""losses before it, of which a message tells the first and the last"""


class NonFinite:
    """The reaction of a fit to a loss or a gradient that is not finite."""

    def __init__(
        self,
        model: tf_keras.Model,
        training: TokenTable,
        plan: Plan,
        recipe: Recipe,
        strategy: tf.distribute.Strategy,
        batching: Batching,
        checkpoints: Checkpoints,
        restore: Callable[[], Progress],
    ):
        """Asks nothing yet.

        Args:
          model: a training model.
          training: the rows of the batches.
          plan: of the batches.
          recipe: rates, and the reaction.
          strategy: the strategy under which the model was made.
          batching: shape of a replica's batches for evaluation.
          checkpoints: of the fit.
          restore: restores the variables from the newest checkpoint, on every worker.
        """
        self._model, self._training, self._plan, self._recipe = model, training, plan, recipe
        self._strategy, self._batching, self._checkpoints, self._restore = strategy, batching, checkpoints, restore
        self._losses: deque[float] = deque(maxlen=REMEMBERED)

    def well(self, loss: float) -> None:
        """Remembers the loss of a step that went well."""
        self._losses.append(loss)

    def step_failed(self, problem: str, step: int, progress: Progress) -> Progress:
        """Finds out why a step failed, and reacts as the settings say. Every worker must call it.

        Args:
          problem: the value that is not finite, in words.
          step: its number, from 0.
          progress: state of the fit; a step that is left out is added to it.

        Returns:
          The state to go on from: the same, or that of the checkpoint to which the fit goes back.

        Raises:
          InputError: the fit stops.
        """
        if step in progress.left_out:
            return progress  # gone back to before it: known already
        settings = self._recipe.settings
        kept = "before it" if progress.step == step + 1 else f"after step {progress.step}"  # of several steps a call
        if settings.nonfinite == "stop":  # the step spoilt the weights
            kept = f"of step {self._restore().step}"
        fault, cause = self._cause(step, kept)
        head = f"{self._recipe.description}: {problem} at step {step + 1} ({self._rate(step, progress)}); {cause}"
        if settings.nonfinite == "stop" or self._is_enough(progress):
            raise self._stop(head, step, fault, self._is_enough(progress))
        if settings.nonfinite == "rollback" and not fault:
            return self._go_back(head, progress)
        spoilt = self._spoilt()
        if spoilt is not None:
            raise self._stop(f"{head}; it can't be left out, since it has spoilt {spoilt}", step, fault, False)
        say(f"  {head}; the step is left out")
        progress.left_out.append(step)
        return progress

    def evaluation_failed(self, loss: float, progress: Progress) -> Progress:
        """Reacts to an evaluation whose loss is not finite: no gradient has seen the weights of the last update yet."""
        settings, step = self._recipe.settings, progress.step - 1
        head = (
            f"{self._recipe.description}: the validation loss is {loss} after step {step + 1} "
            f"({self._rate(step, progress)}); training diverged: {self._course()}"
        )
        if settings.nonfinite != "rollback" or self._is_enough(progress):
            raise self._stop(head, step, False, settings.nonfinite == "rollback")
        return self._go_back(head, progress)

    def _is_enough(self, progress: Progress) -> bool:
        """Tells whether a training has been helped as often as the settings allow."""
        settings = self._recipe.settings
        return (
            settings.nonfinite != "stop" and len(progress.left_out) + len(progress.slowed) >= settings.nonfinite_limit
        )

    def _go_back(self, head: str, progress: Progress) -> Progress:
        # A second time to the same one would end as the first did: to the one before it, where there is one.
        if self._checkpoints.writes:
            self._checkpoints.go_back(passing_over=progress.slowed[-1] if progress.slowed else None)
        back = self._restore()
        back.left_out = sorted({*back.left_out, *progress.left_out})
        back.slowed = [*progress.slowed, back.step]
        share = 0.5 ** len(back.slowed)
        say(f"  {head}; back to the checkpoint of step {back.step}, and on at {share:g} of the learning rate")
        self._losses.clear()
        self._checkpoints.save(back)  # with what was decided
        return back

    def _cause(self, step: int, kept: str) -> tuple[bool, str]:
        """Decides whether the batch or the training is at fault; returns the verdict and a sentence for the message.

        `kept` describes the weights that are used.
        """
        examples = self._plan.step(step)[0]
        rows = np.sort(examples[examples != EMPTY_SLOT])
        loss, table = self._recipe.loss, self._training
        evaluation = Evaluation(self._model, table, loss.task, self._batching, self._strategy, rows)
        losses = loss.per_example(tf.constant(evaluation.logits()[rows]), tf.constant(table.labels[rows]))
        lacking = rows[~np.isfinite(losses.numpy())]
        if 0 < 2 * len(lacking) < len(rows):
            return True, (
                f"with the weights {kept}, {len(lacking)} of the batch's {len(rows)} examples have no finite loss, "
                f"the others have: the fault is in {self._places(lacking)}, or in what only its tokens use"
            )
        how_many = "all" if not len(lacking) else f"only {len(rows) - len(lacking)}"
        return False, (
            f"with the weights {kept}, {how_many} of the batch's {len(rows)} examples ({self._places(rows)}) have a "
            f"finite loss: training diverged, {self._course()}"
        )

    def _spoilt(self) -> str | None:
        """Finds a variable that is not finite: the step does not hold back averages that the forward pass keeps."""
        kept = [each for each in self._model.non_trainable_variables if each.dtype.is_floating]
        return next((each.name for each in kept if not np.isfinite(each.numpy()).all()), None)

    def _places(self, rows: np.ndarray) -> str:
        shown = ", ".join(self._training.locations(rows[:SHOWN]))
        return f"row {shown}{', …' if len(rows) > SHOWN else ''}"

    def _course(self) -> str:
        if not self._losses:
            return "no step before it went well"
        return f"the loss was {self._losses[0]:.3g} {len(self._losses)} step(s) before, then {self._losses[-1]:.3g}"

    def _rate(self, step: int, progress: Progress) -> str:
        return f"learning rate {self._recipe.rate(self._plan, step, progress.history, progress.slowed):.3g}"

    def _stop(self, head: str, step: int, fault: bool, enough: bool) -> InputError:
        settings = self._recipe.settings
        other = "" if self._recipe.precision == "float32" else ", or set train.precision: float32"
        way = "mend the data" if fault else f"lower the stage's learning_rate{other}"
        if enough:
            way = f"train.nonfinite_limit {settings.nonfinite_limit} is reached: {way}"
        elif fault and settings.nonfinite == "stop":
            way += ", or set train.nonfinite: skip"
        elif settings.nonfinite != "rollback":
            way += ", or set train.nonfinite: rollback"
        return InputError(f"{head}; {way}; {self._checkpoints.newest_until(step)}")
