"""The one training loop: fine-tuning, pruning and quantization-aware training all run here.

Enters: a model in training form, a token table, a plan. Leaves: the trained model, its history, and, while it works,
checkpoints. A checkpoint holds the variables, the optimizer, the number of the step, the history and what was done
about steps that failed; the plan, the learning rates and the stateless randomness make everything else a function of
these, so a resumed run ends bit-identical.
"""

from __future__ import annotations

import time
from collections import deque
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
from tfpipe.rundir.directory import StageDirectory
from tfpipe.tokens.batches import Share, batches
from tfpipe.tokens.plan import Plan
from tfpipe.tokens.table import TokenTable
from tfpipe.train.checkpoints import Checkpoints, Progress
from tfpipe.train.evaluation import Evaluation
from tfpipe.train.feed import Feed
from tfpipe.train.nonfinite import NonFinite
from tfpipe.train.optimizer import decay_without_gradient, make_optimizer
from tfpipe.train.recipe import Recipe, check_division
from tfpipe.train.step import Hooks, make_replica_step, make_train_step, trainable_by_name
from tfpipe.train.stopping import stop_requests

LOGGED_STEPS = 2000
"""points of a curve in TensorBoard, at most about: its files do not grow with the training"""


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves beside the model's weights."""

    history: list[dict[str, float]]
    """one entry per evaluation"""
    embedding_decay: float
    """what weight decay left of an embedding that had no gradient"""


def fit(
    model: tf_keras.Model,
    *,
    stage: StageDirectory,
    training: TokenTable,
    validation: TokenTable,
    plan: Plan,
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
    hooks: Hooks | None = None,
) -> Fitted:
    """Trains a model in place.

    Continues from the stage's newest checkpoint where there is one.

    Args:
      model: training form, made under `strategy`.
      stage: where checkpoints and TensorBoard logs go.
      training: rows to train on.
      validation: rows that are evaluated after each epoch, or more often, and at the end.
      plan: made from the training rows.
      recipe: epochs, rates, seeds.
      strategy: the strategy under which the model was made.
      hooks: what a compression method adds.

    Raises:
      InputError: the loss or the gradient became NaN or infinite; the rows do not divide.
      Stopped: this process, or another worker, was asked to stop; a checkpoint was made.
    """
    settings, hooks = recipe.settings, hooks or Hooks()
    micro_batches, replicas = settings.gradient_accumulation, strategy.num_replicas_in_sync
    check_division(plan, micro_batches, replicas)
    if isinstance(strategy, tf.distribute.TPUStrategy) and len(plan.batching.row_lengths) > 1:
        chosen = "auto became bucketed, which" if settings.batching == "auto" else "bucketed"
        raise InputError(f"train.batching: {chosen} has rows of several lengths, a TPU wants one: use packed or padded")
    with strategy.scope():
        variables = trainable_by_name(model)
        optimizer = make_optimizer(variables, settings, loss_scaling=recipe.precision == "mixed_float16")
    state = {"model": model, "optimizer": optimizer} | ({} if hooks.tracked is None else {"hooks": hooks.tracked})
    chief = workers.is_chief(strategy)
    every = steps_or_seconds(settings.checkpoint_every)
    landmarks = 2 if settings.nonfinite == "rollback" else 0
    checkpoints = Checkpoints(
        stage, state, writes=chief, every=every, keep_last=settings.keep_last, landmarks=landmarks
    )

    def restored() -> Progress:
        """What is stored, or the beginning, on every worker."""
        found = checkpoints.restore() if chief else None
        progress = Progress(**workers.from_chief(strategy, vars(found or Progress())))
        workers.synchronize(strategy, checkpoints.variables.values())
        return progress

    progress = restored()
    total_steps = recipe.total_steps(plan)
    if progress.step:
        say(f"  continuing {recipe.description} after step {progress.step} of {total_steps}")
    replica_step = make_replica_step(
        model,
        optimizer,
        replicas=replicas,
        loss=recipe.loss,
        seed=recipe.seed,
        micro_batches=micro_batches,
        clip_global_norm=settings.clip_global_norm,
        hooks=hooks,
        guarded=settings.nonfinite != "stop",
        compiled=choose_xla(settings.xla).value == "on",
    )
    train_steps = make_train_step(strategy, replica_step)

    def feed_from(first: int) -> Feed:
        def own_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
            share = Share.of_worker(context)
            return batches(training, plan, first, total_steps, share=share, micro_batches=micro_batches)

        return Feed(strategy, own_batches, from_here=tpu.has_other_hosts(strategy))

    feed = feed_from(progress.step)
    announce_compiler()
    # As many rows as a micro-batch has: what memory holds in training, it holds in evaluation.
    micro_batch = replace(plan.batching, rows=-(-plan.batching.rows // (micro_batches * replicas)))
    evaluation = Evaluation(model, validation, recipe.loss.task, micro_batch, strategy)
    nonfinite = NonFinite(model, training, plan, recipe, strategy, micro_batch, checkpoints, restored)
    writer = tf.summary.create_file_writer(str(stage.logs)) if chief else tf.summary.create_noop_writer()

    rate, logged_every = _Rate(), -(-total_steps // LOGGED_STEPS)
    with (
        stop_requests() as requests,
        progress_bar(recipe.description, total_steps, progress.step) as bar,
        writer.as_default(),
        checkpoints,
    ):

        def asked_to_stop() -> bool:
            return workers.any_worker(strategy, requests.reason is not None)

        def back_to(stored: Progress) -> tuple[Progress, Feed]:
            bar.back_to(stored.step)
            return stored, feed_from(stored.step)

        checkpoints.save(progress)
        while True:
            if asked_to_stop():
                # A machine that is about to go has no time for an evaluation: it comes when the fit goes on.
                checkpoints.save(progress)
                checkpoints.wait()
                raise Stopped(requests.reason or StopReason(143, "another worker"), progress.step)
            if _is_due(progress, plan, recipe):  # nothing is stored before it: it may find the weights spoilt
                result = evaluation.metrics(asked_to_stop)
                if result is None:
                    continue
                if not np.isfinite(result["loss"]):
                    progress, feed = back_to(nonfinite.evaluation_failed(result["loss"], progress))
                    continue
                _take_note(result, progress, plan, recipe, checkpoints)
                checkpoints.save(progress)
            if progress.step == total_steps or recipe.stops_early(progress.history):
                break
            first, count = progress.step, recipe.steps_at_once(plan, progress.step)
            rates = [recipe.rate(plan, n, progress.history, progress.slowed) for n in range(first, first + count)]
            rate.begins()
            start = tf.constant(np.int64(first))  # of each of Python's numbers, TensorFlow would keep a tensor for ever
            losses, norms = train_steps(feed.next(count), start, tf.constant(rates, tf.float32))
            losses, norms = losses.numpy(), norms.numpy()
            progress.step += count
            rate.ends(plan.examples_before(progress.step) - plan.examples_before(first), count)
            after = progress
            for step, loss, norm, each in zip(range(first, progress.step), losses, norms, rates, strict=True):
                problem = _not_finite(loss, norm, optimizer)
                if problem is None:
                    nonfinite.well(loss)
                elif (after := nonfinite.step_failed(problem, step, progress)) is not progress:
                    break
                if step % logged_every == 0 or step + 1 == total_steps:
                    tf.summary.scalar("loss", loss, step + 1)
                    tf.summary.scalar("gradient_norm", norm, step + 1)
                    tf.summary.scalar("learning_rate", each, step + 1)
            if after is not progress:
                progress, feed = back_to(after)
                continue
            bar.advance(count, note=f"loss {losses[-1]:.3f}  {rate.recent:.0f} examples/s")
            if checkpoints.is_due(first, progress.step) and not recipe.is_evaluated(plan, progress.step):
                checkpoints.save(progress)
    stage.choices["steps"] = progress.step
    for name in ("left_out", "slowed"):
        if getattr(progress, name):
            stage.choices[f"steps_{name}"] = getattr(progress, name)
            stage.choices["nonfinite"] = settings.nonfinite  # under another one, there would be another result
    if rate.overall:
        stage.choices["examples_per_second"] = round(rate.overall, 1)
    if progress.step < total_steps:
        say(f"  stopped after step {progress.step} of {total_steps}: {settings.metric} no longer improved")
    step = progress.step
    if recipe.keep == "best":
        checkpoints.load_best(progress)
        workers.synchronize(strategy, model.variables)
        step = progress.best_step
    updates = [n for n in range(step) if n not in progress.left_out]
    rates = [recipe.rate(plan, n, progress.history, progress.slowed) for n in updates]
    decay = decay_without_gradient(optimizer, variables.get(WORD_EMBEDDINGS), rates)
    return Fitted(progress.history, decay)


def _is_due(progress: Progress, plan: Plan, recipe: Recipe) -> bool:
    """Whether an evaluation comes after the steps so far, and has not been done."""
    done = progress.history[-1]["step"] if progress.history else 0
    return done < progress.step and recipe.is_evaluated(plan, progress.step)


def _take_note(result: dict[str, float], progress: Progress, plan: Plan, recipe: Recipe, checkpoints) -> None:
    """Of an evaluation: it is said, logged and remembered, and the weights kept if they are the best so far."""
    epoch = round(progress.step / plan.steps_per_epoch, 3)
    progress.history.append({"step": progress.step, "epoch": epoch, **result})
    shown = "  ".join(f"{name} {value:.4f}" for name, value in result.items())
    say(f"  validation after epoch {epoch:g}: {shown}")
    for name, value in result.items():
        tf.summary.scalar(f"validation/{name}", value, progress.step)
    if recipe.keep == "best":
        metric = recipe.settings.metric
        if metrics.is_better(metric, result[metric], progress.best):
            progress.best, progress.best_step = result[metric], progress.step
            checkpoints.save_best(progress.step)


def _not_finite(loss: float, norm: float, optimizer: tf_keras.optimizers.Optimizer) -> str | None:
    """What is not finite, in words; None where all is well, or loss scaling takes care of it."""
    if np.isfinite(loss) and np.isfinite(norm):
        return None
    scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    if scaled and np.isfinite(loss) and float(optimizer.loss_scale) > 1.0:
        return None  # too large a scale; the optimizer left the step out and halved it
    return f"the norm of the gradient is {norm}" if np.isfinite(loss) else f"the loss is {loss}"


class _Rate:
    """Examples per second of the steps themselves: tracing, evaluation and checkpoints are left out."""

    def __init__(self):
        self._last: deque[tuple[float, int]] = deque(maxlen=20)
        self._seconds, self._examples = 0.0, 0
        self._traced: set[int] = set()
        self._began = 0.0

    def begins(self) -> None:
        self._began = time.monotonic()

    def ends(self, examples: int, steps: int) -> None:
        if steps in self._traced:
            seconds = time.monotonic() - self._began
            self._last.append((seconds, examples))
            self._seconds, self._examples = self._seconds + seconds, self._examples + examples
        self._traced.add(steps)  # the first of each number traces

    @property
    def recent(self) -> float:
        seconds = sum(each for each, _ in self._last)
        return sum(examples for _, examples in self._last) / seconds if seconds else 0.0

    @property
    def overall(self) -> float:
        return self._examples / self._seconds if self._seconds else 0.0
