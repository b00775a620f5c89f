"""The one training loop: fine-tuning, pruning and quantization-aware training all run here.

Enters: a model in training form, a token table, a plan. Leaves: the trained model, its history, and, while it works,
checkpoints. A checkpoint holds the variables, the optimizer, the number of the step and the history; the plan, the
learning rates and the stateless randomness make everything else a function of these, so a resumed run ends
bit-identical.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
import tf_keras

from tfpipe import metrics
from tfpipe.console import progress_bar, say
from tfpipe.data.batches import batches
from tfpipe.data.plan import Plan
from tfpipe.data.token_table import TokenTable
from tfpipe.errors import InputError
from tfpipe.model.elementwise import announce_compiler
from tfpipe.rundir import StageDirectory
from tfpipe.train.checkpoints import Checkpoints, Progress
from tfpipe.train.evaluation import Evaluation
from tfpipe.train.optimizer import decay_without_gradient, make_optimizer
from tfpipe.train.recipe import Recipe, check_division
from tfpipe.train.step import Hooks, make_train_step, trainable_by_name


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
    """
    settings, hooks = recipe.settings, hooks or Hooks()
    micro_batches, replicas = settings.gradient_accumulation, strategy.num_replicas_in_sync
    check_division(plan, micro_batches, replicas)
    with strategy.scope():
        variables = trainable_by_name(model)
        optimizer = make_optimizer(variables, settings, loss_scaling=recipe.precision == "mixed_float16")
    tracked = {} if hooks.tracked is None else {"hooks": hooks.tracked}
    checkpoints = Checkpoints(stage.checkpoints, tf.train.Checkpoint(model=model, optimizer=optimizer, **tracked))
    progress = checkpoints.restore() or Progress(0, [], None, None)
    total_steps = recipe.total_steps(plan)
    if progress.step:
        say(f"  continuing {recipe.description} after step {progress.step} of {total_steps}")
    train_steps = make_train_step(
        model,
        optimizer,
        strategy,
        loss=recipe.loss,
        seed=recipe.seed,
        micro_batches=micro_batches,
        clip_global_norm=settings.clip_global_norm,
        hooks=hooks,
    )
    dataset = batches(training, plan, progress.step, total_steps, shares=micro_batches * replicas)
    iterator = iter(strategy.experimental_distribute_dataset(dataset))
    announce_compiler()
    # As many rows as a micro-batch has: what memory holds in training, it holds in evaluation.
    micro_batch = replace(plan.batching, rows=-(-plan.batching.rows // (micro_batches * replicas)))
    evaluation = Evaluation(model, validation, recipe.loss.task, micro_batch)
    writer = tf.summary.create_file_writer(str(stage.logs))

    rate = _Rate()
    with progress_bar(recipe.description, total_steps, progress.step) as bar, writer.as_default():
        while progress.step < total_steps and not recipe.stops_early(progress.history):
            first, count = progress.step, recipe.steps_at_once(plan, progress.step)
            rates = [recipe.rate(plan, step, progress.history) for step in range(first, first + count)]
            rate.begins()
            losses, norms = train_steps(iterator, tf.constant(first, tf.int64), tf.constant(rates, tf.float32))
            losses, norms = losses.numpy(), norms.numpy()
            progress.step += count
            rate.ends(plan.examples_before(progress.step) - plan.examples_before(first), count)
            for step, loss, norm, each in zip(range(first, progress.step), losses, norms, rates, strict=True):
                problem = _not_finite(loss, norm, recipe, optimizer)
                if problem is not None:
                    examples = plan.step(step)[0].ravel()
                    lines = ", ".join(str(training.lines[row]) for row in examples[:8] if row >= 0)
                    raise _diverged(problem, step, each, recipe, checkpoints, f"lines {lines}, … of the source")
                tf.summary.scalar("loss", loss, step + 1)
                tf.summary.scalar("gradient_norm", norm, step + 1)
                tf.summary.scalar("learning_rate", each, step + 1)
            bar.advance(count, note=f"loss {losses[-1]:.3f}  {rate.recent:.0f} examples/s")
            if recipe.is_evaluated(plan, progress.step):
                _evaluate(evaluation, progress, plan, recipe, checkpoints, model)
                checkpoints.save(progress)
            elif progress.step // settings.checkpoint_every > first // settings.checkpoint_every:
                checkpoints.save(progress)
    stage.choices["steps"] = progress.step
    if rate.overall:
        stage.choices["examples_per_second"] = round(rate.overall, 1)
    if progress.step < total_steps:
        say(f"  stopped after step {progress.step} of {total_steps}: {settings.metric} no longer improved")
    step = progress.step
    if recipe.keep == "best":
        checkpoints.load_best(model, progress)
        step = progress.best_step
    rates = [recipe.rate(plan, n, progress.history) for n in range(step)]
    decay = decay_without_gradient(optimizer, variables.get("bert.embeddings.word_embeddings.weight"), rates)
    return Fitted(progress.history, decay)


def _evaluate(evaluation, progress: Progress, plan: Plan, recipe: Recipe, checkpoints, model) -> None:
    with np.errstate(invalid="ignore"):
        result = evaluation.metrics()
    if not np.isfinite(result["loss"]):  # the last update did it: no gradient has seen its weights yet
        step = progress.step - 1
        problem = f"the validation loss is {result['loss']}"
        raise _diverged(problem, step, recipe.rate(plan, step, progress.history), recipe, checkpoints)
    epoch = round(progress.step / plan.steps_per_epoch, 3)
    progress.history.append({"step": progress.step, "epoch": epoch, **result})
    shown = "  ".join(f"{name} {value:.4f}" for name, value in result.items())
    say(f"  validation after epoch {epoch:g}: {shown}")
    for name, value in result.items():
        tf.summary.scalar(f"validation/{name}", value, progress.step)
    metric = recipe.settings.metric
    if recipe.keep == "best" and metrics.is_better(metric, result[metric], progress.best):
        progress.best, progress.best_step = result[metric], progress.step
        checkpoints.save_best(model, progress.step)


def _not_finite(loss, norm, recipe: Recipe, optimizer) -> str | None:
    """What is not finite, in words; None where all is well, or loss scaling takes care of it."""
    if np.isfinite(loss) and np.isfinite(norm):
        return None
    scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    if scaled and np.isfinite(loss) and float(optimizer.loss_scale) > 1.0:
        return None  # too large a scale; the optimizer left the step out and halved it
    return f"the norm of the gradient is {norm}" if np.isfinite(loss) else f"the loss is {loss}"


def _diverged(problem: str, step: int, rate: float, recipe: Recipe, checkpoints, where: str = "") -> InputError:
    other = "" if recipe.precision == "float32" else ", or set train.precision: float32"
    return InputError(
        f"{recipe.description}: {problem} at step {step + 1} (learning rate {rate:.3g}{where and '; '}{where}); lower "
        f"the stage's learning_rate{other}; {checkpoints.newest}"
    )


class _Rate:
    """Examples per second of the steps themselves: tracing, evaluation and checkpoints are left out."""

    def __init__(self):
        self._steps: list[tuple[float, int]] = []
        self._traced: set[int] = set()
        self._began = 0.0

    def begins(self) -> None:
        self._began = time.monotonic()

    def ends(self, examples: int, steps: int) -> None:
        if steps in self._traced:
            self._steps.append((time.monotonic() - self._began, examples))
        self._traced.add(steps)  # the first of each number traces

    @property
    def recent(self) -> float:
        return self._rate(self._steps[-20:])

    @property
    def overall(self) -> float:
        return self._rate(self._steps)

    @staticmethod
    def _rate(steps: list[tuple[float, int]]) -> float:
        seconds = sum(each for each, _ in steps)
        return sum(examples for _, examples in steps) / seconds if seconds else 0.0
