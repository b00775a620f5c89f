"""The one training loop: fine-tuning, pruning and quantization-aware training all run here.

Enters: a training model, a token table, a plan. Leaves: the trained model, its history, and, while it works,
checkpoints. A checkpoint holds the variables, the optimizer, the number of the step, the history and the steps that
failed. The plan, the learning rates and the stateless randomness make everything else a function of these, so a resumed
run ends bit-identical.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
import tf_keras

from tfpipe import metrics
from tfpipe.config.types import steps_or_seconds
from tfpipe.console import progress_bar, say
from tfpipe.devices import tpu, workers
from tfpipe.devices.strategy import choose_xla
from tfpipe.encoders.parameters import WORD_EMBEDDINGS
from tfpipe.errors import InputError, Stopped, StopReason
from tfpipe.model.elementwise import announce_compiler
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.batches import Share, batches
from tfpipe.tokens.plan import Plan
from tfpipe.tokens.table import TokenTable
from tfpipe.train.checkpoints import Checkpoints, Progress
from tfpipe.train.evaluation import Evaluation, shown_scores
from tfpipe.train.feed import Feed
from tfpipe.train.nonfinite import NonFinite
from tfpipe.train.optimizer import decay_without_gradient, make_optimizer
from tfpipe.train.profile import Profile
from tfpipe.train.recipe import Recipe, check_division
from tfpipe.train.step import Hooks, make_replica_step, make_train_step, trainable_by_name
from tfpipe.train.stopping import stop_requests
from tfpipe.train.summaries import Summaries
from tfpipe.train.throughput import Throughput


@dataclass(frozen=True)
class Fitted:
    """The results of a fit beside the model's weights."""

    history: list[dict[str, float]]
    """one entry per evaluation"""
    embedding_decay: float
    """what weight decay left of an embedding that had no gradient"""
    logits: np.ndarray
    """[validation rows, labels] float32, the answers of the weights that are kept"""


class Fit:
    """One fit: its state and its steps. Every worker of a training makes the same calls."""

    def __init__(
        self,
        model: tf_keras.Model,
        *,
        stage: StageDirectory,
        training: TokenTable,
        validation: TokenTable,
        plan: Plan,
        recipe: Recipe,
        strategy: tf.distribute.Strategy,
        hooks: Hooks | None = None,
    ):
        """Makes the optimizer, restores the stage's newest checkpoint where there is one, builds the step.

        Args:
          model: a training model, made under `strategy`.
          stage: where checkpoints and TensorBoard logs go.
          training: rows to train on.
          validation: rows that are evaluated after each epoch, or more often, and at the end.
          plan: made from the training rows.
          recipe: epochs, rates, seeds.
          strategy: the strategy under which the model was made.
          hooks: the additions of a compression method.

        Raises:
          InputError: the rows do not divide among replicas and micro-batches.
        """
        hooks = hooks or Hooks()
        settings = recipe.settings
        self._model, self._stage, self._training = model, stage, training
        self._plan, self._recipe, self._strategy = plan, recipe, strategy
        self._micro_batches, replicas = settings.gradient_accumulation, strategy.num_replicas_in_sync
        check_division(plan, self._micro_batches, replicas)
        _check_tpu(strategy, plan, recipe)
        with strategy.scope():
            self._variables = trainable_by_name(model)
            self._optimizer = make_optimizer(
                self._variables, settings, loss_scaling=recipe.precision == "mixed_float16"
            )
        state = {"model": model, "optimizer": self._optimizer}
        self._chief = workers.is_chief(strategy)
        self._checkpoints = Checkpoints(
            stage,
            state | ({} if hooks.tracked is None else {"hooks": hooks.tracked}),
            writes=self._chief,
            every=steps_or_seconds(settings.checkpoint_every),
            keep_last=settings.keep_last,
            landmarks=2 if settings.nonfinite == "rollback" else 0,
        )
        self._progress = self._restored()
        self._total_steps = recipe.total_steps(plan)
        if self._progress.step:
            say(f"  continuing {recipe.description} after step {self._progress.step} of {self._total_steps}")
        replica_step = make_replica_step(
            model,
            self._optimizer,
            replicas=replicas,
            loss=recipe.loss,
            seed=recipe.seed,
            micro_batches=self._micro_batches,
            clip_global_norm=settings.clip_global_norm,
            hooks=hooks,
            guarded=settings.nonfinite != "stop",
            compiled=choose_xla(settings.xla).value == "on",
        )
        self._train_steps = make_train_step(strategy, replica_step)
        self._feed = self._feed_from(self._progress.step)
        announce_compiler()
        # As many rows as a micro-batch has: what memory holds in training, it holds in evaluation.
        micro_batch = replace(plan.batching, rows=-(-plan.batching.rows // (self._micro_batches * replicas)))
        self._evaluation = Evaluation(model, validation, recipe.loss.task, micro_batch, strategy, metric=recipe.metric)
        self._nonfinite = NonFinite(
            model, training, plan, recipe, strategy, micro_batch, self._checkpoints, self._restored
        )
        self._kept_logits: np.ndarray | None = None
        self._throughput = Throughput(plan, micro_batch.rows * self._micro_batches * replicas)
        self._summaries = Summaries(stage, self._throughput, self._total_steps, hooks.watched, writes=self._chief)
        self._profile = Profile(settings.profile_steps if self._chief else None, stage.logs, self._total_steps)

    def run(self) -> Fitted:
        """Trains the model in place, to the end or until it is asked to stop.

        Raises:
          InputError: the loss or the gradient became NaN or infinite.
          Stopped: this process, or another worker, was asked to stop; a checkpoint was made.
        """
        with (
            stop_requests() as self._requests,
            progress_bar(self._recipe.description, self._total_steps, self._progress.step) as self._bar,
            self._summaries,
            self._profile,
            self._checkpoints,
        ):
            self._summaries.begin(self._progress.step)
            self._save()
            while True:
                if self._asked_to_stop():
                    self._stop()
                if self._is_due() and not self._evaluate():  # nothing is stored before it: weights may be spoilt
                    continue
                if self._progress.step == self._total_steps or self._recipe.stops_early(self._progress.history):
                    break
                self._advance()
            self._summaries.end(self._progress.step, self._kept())
        return self._result()

    def _restored(self) -> Progress:
        """Restores the variables from the newest checkpoint, or leaves them at the beginning, on every worker."""
        found = self._checkpoints.restore() if self._chief else None
        progress = Progress(**workers.from_chief(self._strategy, vars(found or Progress())))
        workers.synchronize(self._strategy, self._checkpoints.variables.values())
        return progress

    def _feed_from(self, first: int) -> Feed:
        def own_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
            share = Share.of_worker(context)
            return batches(
                self._training, self._plan, first, self._total_steps, share=share, micro_batches=self._micro_batches
            )

        return Feed(self._strategy, own_batches, from_here=tpu.has_other_hosts(self._strategy))

    def _asked_to_stop(self) -> bool:
        return workers.any_worker(self._strategy, self._requests.reason is not None)

    def _stop(self) -> None:
        # A machine that is about to go has no time for an evaluation: it comes when the fit goes on.
        self._save()
        self._checkpoints.wait()
        raise Stopped(self._requests.reason or StopReason(143, "another worker"), self._progress.step)

    def _save(self) -> None:
        self._summaries.flush()
        self._checkpoints.save(self._progress)

    def _go_back(self, stored: Progress) -> None:
        self._bar.back_to(stored.step)
        self._summaries.go_back(stored.step)
        self._progress, self._feed = stored, self._feed_from(stored.step)
        self._kept_logits = None  # of weights that may be no longer the best

    def _is_due(self) -> bool:
        """Tells whether an evaluation comes after the steps so far, and has not been done."""
        done = self._progress.history[-1]["step"] if self._progress.history else 0
        return done < self._progress.step and self._recipe.is_evaluated(self._plan, self._progress.step)

    def _evaluate(self) -> bool:
        """Evaluates and takes note; False where the fit was asked to stop meanwhile, or went back."""
        logits = self._evaluation.logits(self._asked_to_stop)
        if logits is None:
            return False
        result = self._evaluation.scores(logits)
        if not np.isfinite(result["loss"]):
            self._go_back(self._nonfinite.evaluation_failed(result["loss"], self._progress))
            return False
        if self._take_note(result):
            self._kept_logits = logits
        self._save()
        return True

    def _take_note(self, result: dict[str, float]) -> bool:
        """Prints and logs an evaluation; keeps the weights if they are the best so far, and tells whether."""
        progress = self._progress
        epoch = round(progress.step / self._plan.steps_per_epoch, 3)
        progress.history.append({"step": progress.step, "epoch": epoch, **result})
        say(f"  validation after epoch {epoch:g}: {shown_scores(result, self._recipe.metric)}")
        self._summaries.evaluation(progress.step, result)
        if (metric := self._recipe.metric) is not None:
            first = progress.best_step is None  # which is kept, whatever its score, even where that is not defined
            if not first and not metrics.is_better(metric, result[metric], progress.best):
                return False
            progress.best, progress.best_step = result[metric], progress.step
            self._checkpoints.save_best(progress.step)
        return True

    def _advance(self) -> None:
        """Makes one step, or `steps_per_execution` of them."""
        progress, plan, recipe = self._progress, self._plan, self._recipe
        first, count = progress.step, recipe.steps_at_once(plan, progress.step)
        rates = [recipe.rate(plan, n, progress.history, progress.slowed) for n in range(first, first + count)]
        start = tf.constant(np.int64(first))  # of each of Python's numbers, TensorFlow would keep a tensor for ever
        with self._profile.around(first, count):
            self._throughput.begins()
            losses, norms = self._train_steps(self._feed.next(count), start, tf.constant(rates, tf.float32))
            losses, norms = losses.numpy(), norms.numpy()
            self._throughput.ends(first, count)
        progress.step += count
        for step, loss, norm, rate in zip(range(first, progress.step), losses, norms, rates, strict=True):
            problem = _not_finite(loss, norm, self._optimizer)
            if problem is None:
                self._nonfinite.well(loss)
            elif (after := self._nonfinite.step_failed(problem, step, progress)) is not progress:
                self._go_back(after)
                return
            self._summaries.step(step, loss, norm, rate)
        per_second = self._throughput.recent.examples_per_second
        self._bar.advance(count, note=f"loss {losses[-1]:.3f}  {per_second:.0f} examples/s")
        if self._checkpoints.is_due(first, progress.step) and not recipe.is_evaluated(plan, progress.step):
            self._save()

    def _kept(self) -> dict[str, float]:
        """Gives the validation measures of the weights that are kept."""
        progress = self._progress
        step = progress.best_step if self._recipe.keep == "best" else progress.step
        entry = next(entry for entry in reversed(progress.history) if entry["step"] == step)
        return {name: value for name, value in entry.items() if name not in ("step", "epoch")}

    def _result(self) -> Fitted:
        """Loads the weights that are kept, and writes the notes of the stage."""
        progress, recipe, notes = self._progress, self._recipe, self._stage.notes
        notes["steps"] = progress.step
        for name in ("left_out", "slowed"):
            if getattr(progress, name):
                notes[f"steps_{name}"] = getattr(progress, name)
                notes["nonfinite"] = recipe.settings.nonfinite  # under another one, there would be another result
        if overall := self._throughput.overall.examples_per_second:
            notes["examples_per_second"] = round(overall, 1)
        if progress.step < self._total_steps:
            say(f"  stopped after step {progress.step} of {self._total_steps}: {recipe.metric} no longer improved")
        step = progress.step
        if recipe.keep == "best":
            self._checkpoints.load_best(progress)
            workers.synchronize(self._strategy, self._model.variables)
            step = progress.best_step
        updates = [n for n in range(step) if n not in progress.left_out]
        rates = [recipe.rate(self._plan, n, progress.history, progress.slowed) for n in updates]
        decay = decay_without_gradient(self._optimizer, self._variables.get(WORD_EMBEDDINGS), rates)
        logits = self._kept_logits
        if logits is None:  # the fit went on after its last evaluation
            logits = self._evaluation.logits()
        return Fitted(progress.history, decay, logits)


def _check_tpu(strategy: tf.distribute.Strategy, plan: Plan, recipe: Recipe) -> None:
    if isinstance(strategy, tf.distribute.TPUStrategy) and len(plan.batching.row_lengths) > 1:
        chosen = "auto became bucketed, which" if recipe.settings.batching == "auto" else "bucketed"
        raise InputError(f"train.batching: {chosen} has rows of several lengths, a TPU wants one: use packed or padded")


def _not_finite(loss: float, norm: float, optimizer: tf_keras.optimizers.Optimizer) -> str | None:
    """Names the value that is not finite, in words; None where all is well, or loss scaling takes care of it."""
    if np.isfinite(loss) and np.isfinite(norm):
        return None
    scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    if scaled and np.isfinite(loss) and float(optimizer.loss_scale) > 1.0:
        return None  # too large a scale; the optimizer left the step out and halved it
    return f"the norm of the gradient is {norm}" if np.isfinite(loss) else f"the loss is {loss}"
