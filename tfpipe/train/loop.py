"""The one training loop: fine-tuning, pruning and quantization-aware training all run here.

Enters: a model in training form, a token table, a plan. Leaves: the trained model, its history, and, while it works,
checkpoints. A checkpoint holds the variables, the optimizer, the number of the step and the history; the plan, the
learning rates and the stateless randomness make everything else a function of these, so a resumed run ends
bit-identical.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras

from tfpipe import metrics
from tfpipe.config import Config, Train
from tfpipe.console import progress_bar, say
from tfpipe.data.batches import batches
from tfpipe.data.plan import Plan, choose_batching
from tfpipe.data.token_table import TokenTable
from tfpipe.errors import InputError
from tfpipe.model.elementwise import announce_compiler
from tfpipe.rundir import StageDirectory
from tfpipe.train.checkpoints import Checkpoints, Progress
from tfpipe.train.evaluation import Evaluation
from tfpipe.train.optimizer import decay_without_gradient, make_optimizer
from tfpipe.train.schedule import learning_rate, plateau_factor, stale_evaluations
from tfpipe.train.step import Hooks, Loss, make_train_step, trainable_by_name


@dataclass(frozen=True)
class Recipe:
    """What one fit does; what differs between the stages that train stands before `settings`."""

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


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves beside the model's weights."""

    history: list[dict[str, float]]
    """one entry per evaluation"""
    step: int
    """whose weights the model has"""
    embedding_decay: float
    """what weight decay left of an embedding that had no gradient"""


def recipe_of(
    config: Config,
    description: str,
    *,
    epochs: float,
    learning_rate: float,
    keep: str,
    precision: str,
    labels: Sequence[str],
    training: TokenTable,
) -> Recipe:
    """The recipe of one stage.

    Args:
      config: the configuration.
      description: name of the stage.
      epochs: passes over the training rows.
      learning_rate: peak.
      keep: `best` or `last`.
      precision: policy under which the model was made.
      labels: names of the labels.
      training: rows to train on, for balanced class weights.
    """
    weights = class_weights(config.train.class_weights, labels, training.labels.sum(axis=0))
    loss = Loss(config.task, config.train.label_smoothing, weights)
    return Recipe(description, epochs, learning_rate, keep, config.train, loss, precision, config.seed)


def class_weights(
    requested: str | dict[str, float] | None, labels: Sequence[str], counts: np.ndarray
) -> tuple[float, ...] | None:
    """Weight of each label; `balanced`: inversely proportional to its frequency, as scikit-learn has it.

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


def training_plan(config: Config, table: TokenTable) -> tuple[Plan, str]:
    """The plan of the training rows, and the choice of batching in words.

    Raises:
      InputError: an example does not fit into a row.
    """
    settings = config.train
    try:
        batching, reason = choose_batching(
            "packed" if settings.batching == "auto" else settings.batching,
            table.lengths,
            batch_size=settings.batch_size,
            max_length=config.data.max_length,
            row_length=settings.row_length,
        )
    except ValueError as error:
        raise InputError(
            f"train.row_length: {error}; set it higher, or leave it out, or lower data.max_length"
        ) from None
    return Plan(table.lengths, batching, config.seed), f"{batching.kind} ({reason})"


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
    total_steps = plan.steps(recipe.epochs)
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
    evaluation = Evaluation(model, validation, recipe.loss.task, plan.batching)
    writer = tf.summary.create_file_writer(str(stage.logs))

    rate = _Rate()
    with progress_bar(recipe.description, total_steps, progress.step) as bar, writer.as_default():
        while progress.step < total_steps and not _stopped_early(recipe, progress.history):
            first, count = progress.step, _steps_at_once(progress.step, total_steps, plan, settings)
            rates = [
                _learning_rate(recipe, plan, step, total_steps, progress.history)
                for step in range(first, first + count)
            ]
            rate.begins()
            losses, norms = train_steps(iterator, tf.constant(first, tf.int64), tf.constant(rates, tf.float32))
            losses, norms = losses.numpy(), norms.numpy()
            progress.step += count
            rate.ends(plan.examples_before(progress.step) - plan.examples_before(first), count)
            for step, loss, norm, each in zip(range(first, progress.step), losses, norms, rates, strict=True):
                _check_finite(step, loss, norm, each, recipe, optimizer, plan, training, checkpoints)
                tf.summary.scalar("loss", loss, step + 1)
                tf.summary.scalar("gradient_norm", norm, step + 1)
                tf.summary.scalar("learning_rate", each, step + 1)
            bar.advance(count, note=f"loss {losses[-1]:.3f}  {rate.recent:.0f} examples/s")
            if _is_evaluated(progress.step, total_steps, plan, settings):
                _evaluate(evaluation, progress, plan, recipe, checkpoints, model)
                checkpoints.save(progress)
            elif progress.step % settings.checkpoint_every == 0:
                checkpoints.save(progress)
    stage.choices |= {"steps": progress.step, "examples_per_second": round(rate.overall, 1)}
    if progress.step < total_steps:
        say(f"  stopped after step {progress.step} of {total_steps}: {settings.metric} no longer improved")
    step = progress.step
    if recipe.keep == "best":
        checkpoints.load_best(model, progress)
        step = progress.best_step
    rates = [_learning_rate(recipe, plan, n, total_steps, progress.history) for n in range(step)]
    decay = decay_without_gradient(optimizer, variables.get("bert.embeddings.word_embeddings.weight"), rates)
    return Fitted(progress.history, step, decay)


def check_division(plan: Plan, micro_batches: int, replicas: int) -> None:
    """The rows of a batch must divide among replicas and micro-batches; packed rows are filled up until they do.

    Raises:
      InputError: they do not, or one of them would never get an example.
    """
    rows, parts = plan.batching.rows, micro_batches * replicas
    shown = f"{replicas} replica(s) x train.gradient_accumulation {micro_batches}"
    if plan.batching.kind == "packed":
        if parts > rows:
            raise InputError(
                f"train.batch_size: a batch has {rows} packed row(s), which {shown} can't share; raise "
                "train.batch_size or lower train.gradient_accumulation"
            )
    elif rows % parts:
        raise InputError(
            f"train.batch_size: {rows} does not divide among {shown}; use a multiple of {parts}, or train.batching: "
            "packed"
        )


def _learning_rate(recipe: Recipe, plan: Plan, step: int, total_steps: int, history) -> float:
    settings = recipe.settings
    rate = learning_rate(
        settings.schedule,
        recipe.learning_rate,
        before=plan.examples_before(step),
        after=plan.examples_before(step + 1),
        total=plan.examples_before(total_steps),
        warmup_fraction=settings.warmup_fraction,
        power=settings.schedule_power,
    )
    plateau = settings.reduce_on_plateau
    if plateau is None or recipe.keep != "best":
        return rate
    values = [entry[settings.metric] for entry in history]
    return rate * plateau_factor(values, settings.metric, plateau.factor, plateau.patience, plateau.min_delta)


def _stopped_early(recipe: Recipe, history) -> bool:
    stopping = recipe.settings.early_stopping
    if stopping is None or recipe.keep != "best":
        return False
    values = [entry[recipe.settings.metric] for entry in history]
    return stale_evaluations(values, recipe.settings.metric, stopping.min_delta) >= stopping.patience


def _is_evaluated(step: int, total_steps: int, plan: Plan, settings: Train) -> bool:
    """`step` steps are done."""
    per_epoch = settings.evaluations_per_epoch
    passed, before = (each * per_epoch // plan.steps_per_epoch for each in (step, step - 1))
    return passed > before or step == total_steps


def _steps_at_once(step: int, total_steps: int, plan: Plan, settings: Train) -> int:
    """`steps_per_execution`, or one where an evaluation, a checkpoint or the end comes before."""
    count = settings.steps_per_execution
    if step + count > total_steps:
        return 1
    stops = range(step + 1, step + count)
    stop = any(_is_evaluated(s, total_steps, plan, settings) or s % settings.checkpoint_every == 0 for s in stops)
    return 1 if stop else count


def _evaluate(evaluation, progress: Progress, plan: Plan, recipe: Recipe, checkpoints, model) -> None:
    result = evaluation.metrics()
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


def _check_finite(
    step, loss, norm, rate, recipe: Recipe, optimizer, plan: Plan, table: TokenTable, checkpoints
) -> None:
    if np.isfinite(loss) and np.isfinite(norm):
        return
    scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    if scaled and np.isfinite(loss) and float(optimizer.loss_scale) > 1.0:
        return  # too large a scale; the optimizer left the step out and halved it
    what = "the loss" if not np.isfinite(loss) else "the norm of the gradient"
    examples, _ = plan.step(step)
    other = "" if recipe.precision == "float32" else ", or set train.precision: float32"
    lines = ", ".join(str(table.lines[row]) for row in examples.ravel()[:8] if row >= 0)
    raise InputError(
        f"{recipe.description}: {what} is {loss if what == 'the loss' else norm} at step {step + 1} (learning rate "
        f"{rate:.3g}; lines {lines}, … of the source); lower the stage's learning_rate{other}; {checkpoints.newest}"
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
