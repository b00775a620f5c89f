"""The one training loop: fine-tuning, pruning and quantization-aware training all run here.

Enters: a model in training form, a token table, a plan. Leaves: the trained model, its history, and, while it works,
checkpoints. A checkpoint holds the variables, the optimizer and the number of the step; the plan and the stateless
randomness make everything else a function of that number, so a resumed run ends bit-identical.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras

from tfpipe import metrics
from tfpipe.config import Config
from tfpipe.console import progress_bar, say
from tfpipe.data.batches import batches, evaluation_batches
from tfpipe.data.plan import Plan, bucket_lengths_for
from tfpipe.data.token_table import TokenTable
from tfpipe.errors import InputError
from tfpipe.rundir import StageDirectory
from tfpipe.train.checkpoints import Checkpoints, Progress
from tfpipe.train.optimizer import adamw

EVALUATION_BATCH = 64

MODEL_INPUTS = ("input_ids", "token_type_ids", "attention_mask")


@dataclass(frozen=True)
class Recipe:
    """What one fit does, in numbers."""

    description: str
    epochs: float
    batch_size: int
    learning_rate: float
    warmup_fraction: float
    weight_decay: float
    clip_global_norm: float | None
    checkpoint_every: int
    seed: int
    task: str
    max_length: int
    metric: str
    """validation metric that chooses the kept weights"""
    keep: str
    """`best`: the best evaluated weights; `last`: those of the last step, where a schedule must have ended"""

    def total_steps(self, num_rows: int) -> int:
        """Optimizer steps over a table of that many rows."""
        steps_per_epoch = -(-num_rows // self.batch_size)
        return max(1, math.ceil(self.epochs * steps_per_epoch - 1e-9))


def recipe_of(config: Config, description: str, *, epochs: float, learning_rate: float, keep: str) -> Recipe:
    """The recipe of one stage: what differs between stages is given, all else is `train`'s."""
    return Recipe(
        description=description,
        epochs=epochs,
        batch_size=config.train.batch_size,
        learning_rate=learning_rate,
        warmup_fraction=config.train.warmup_fraction,
        weight_decay=config.train.weight_decay,
        clip_global_norm=config.train.clip_global_norm,
        checkpoint_every=config.train.checkpoint_every,
        seed=config.seed,
        task=config.task,
        max_length=config.data.max_length,
        metric=config.train.metric,
        keep=keep,
    )


@dataclass(frozen=True)
class Hooks:
    """What pruning and quantization add to a step."""

    after_update: Callable[[tf.Tensor], None] | None = None
    """called in the replica with the step's number (int64, from 0) after the optimizer's update: keeps zeros zero"""
    tracked: tf.Module | None = None
    """variables that belong into a checkpoint beside the model's"""


def fit(
    model: tf_keras.Model,
    *,
    stage: StageDirectory,
    training: TokenTable,
    validation: TokenTable,
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
    hooks: Hooks | None = None,
) -> list[dict[str, float]]:
    """Trains a model in place and returns one entry per evaluation.

    Continues from the stage's newest checkpoint where there is one.

    Args:
      model: training form, made under `strategy`.
      stage: where checkpoints and TensorBoard logs go.
      training: rows to train on.
      validation: rows that are evaluated after each epoch and at the end.
      recipe: epochs, rates, seeds.
      strategy: the strategy under which the model was made.
      hooks: what a compression method adds.

    Raises:
      InputError: the loss became NaN or infinite.
    """
    hooks = hooks or Hooks()
    buckets = bucket_lengths_for(recipe.max_length)
    plan = Plan(training.lengths, batch_size=recipe.batch_size, bucket_lengths=buckets, seed=recipe.seed)
    total_steps = recipe.total_steps(training.num_rows)
    with strategy.scope():
        optimizer = adamw(
            model.trainable_variables,
            learning_rate=recipe.learning_rate,
            warmup_fraction=recipe.warmup_fraction,
            total_steps=total_steps,
            weight_decay=recipe.weight_decay,
        )
    tracked = {} if hooks.tracked is None else {"hooks": hooks.tracked}
    checkpoints = Checkpoints(stage.checkpoints, tf.train.Checkpoint(model=model, optimizer=optimizer, **tracked))
    progress = checkpoints.restore() or Progress(0, [], None, None)
    if progress.step:
        say(f"  continuing {recipe.description} after step {progress.step} of {total_steps}")
    dataset = strategy.experimental_distribute_dataset(batches(training, plan, progress.step, total_steps))
    train_step = _train_step(model, optimizer, strategy, recipe, hooks, dataset.element_spec)
    evaluation = Evaluation(model, validation, recipe.task, buckets)
    writer = tf.summary.create_file_writer(str(stage.logs))

    rate = _Rate()
    with progress_bar(recipe.description, total_steps, progress.step) as bar, writer.as_default():
        for batch in dataset:
            loss = train_step(batch, tf.constant(progress.step, tf.int64)).numpy()
            progress.step += 1
            if not np.isfinite(loss):
                raise InputError(_diverged(loss, progress, recipe, optimizer, plan))
            rate.step_done(recipe.batch_size)
            bar.advance(note=f"loss {loss:.3f}  {rate.recent:.0f} examples/s")
            tf.summary.scalar("loss", loss, progress.step)
            tf.summary.scalar("learning_rate", optimizer.learning_rate, progress.step)
            if progress.step % plan.steps_per_epoch == 0 or progress.step == total_steps:
                _evaluate(evaluation, progress, plan, recipe, checkpoints, model)
                checkpoints.save(progress)
            elif progress.step % recipe.checkpoint_every == 0:
                checkpoints.save(progress)
            rate.step_begins()
    stage.choices |= {"steps": total_steps, "examples_per_second": round(rate.overall, 1)}
    if recipe.keep == "best":
        checkpoints.load_best(model, progress)
    return progress.history


class Evaluation:
    """Logits of a training form over a whole table, exact: every row once."""

    def __init__(self, model: tf_keras.Model, table: TokenTable, task: str, buckets: tuple[int, ...]):
        self._table, self._task = table, task
        self._batches = evaluation_batches(table, EVALUATION_BATCH, buckets)

        ids = tf.TensorSpec([EVALUATION_BATCH, None], tf.int32)

        @tf.function(input_signature=[dict.fromkeys(MODEL_INPUTS, ids)])
        def answer(batch):
            return model(training_inputs(batch, tf.zeros([2], tf.int32)), training=False)

        self._answer = answer

    def logits(self) -> np.ndarray:
        """[rows, labels] float32."""
        logits = np.zeros((self._table.num_rows, self._table.num_labels), np.float32)
        with progress_bar("evaluate", self._table.num_rows) as bar:
            for batch in self._batches:
                rows = batch["rows"].numpy()
                answers = self._answer({name: batch[name] for name in MODEL_INPUTS}).numpy()
                logits[rows[rows >= 0]] = answers[rows >= 0]
                bar.advance(int((rows >= 0).sum()))
        return logits

    def metrics(self) -> dict[str, float]:
        """See `metrics.evaluate`."""
        return metrics.evaluate(self.logits(), self._table.labels, self._task)


def training_inputs(batch: dict[str, tf.Tensor], dropout_key: tf.Tensor) -> dict[str, tf.Tensor]:
    """The training form's inputs for a batch with one example a row."""
    shape = tf.shape(batch["input_ids"])
    positions = tf.broadcast_to(tf.range(shape[1])[None], shape)
    return {
        "input_ids": batch["input_ids"],
        "token_type_ids": batch["token_type_ids"],
        "segment_ids": batch["attention_mask"],
        "position_ids": positions,
        "cls_index": tf.range(shape[0]) * shape[1],
        "dropout_key": dropout_key,
    }


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, task: str) -> tf.Tensor:
    """[examples, labels] float32, [examples, labels] float32 -> [examples] float32."""
    if task == "multi_label":
        return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits), axis=-1)
    return tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def _train_step(model, optimizer, strategy, recipe: Recipe, hooks: Hooks, batch_spec):
    """The step as a graph, traced once: (global batch, step int64) -> mean loss over the batch's examples."""

    def replica_step(batch, example_weight, step):
        context = tf.distribute.get_replica_context()
        key = tf.random.experimental.stateless_fold_in(
            tf.stack([tf.constant(recipe.seed, tf.int32), tf.cast(step, tf.int32)]),
            tf.cast(context.replica_id_in_sync_group, tf.int32),
        )
        with tf.GradientTape() as tape:
            logits = model(training_inputs(batch, key), training=True)
            losses = cross_entropy(tf.cast(logits, tf.float32), batch["labels"], recipe.task)
            loss = tf.reduce_sum(losses * batch["weights"]) / example_weight
        # An embedding's gradient is sparse, with a token's rows apart: added up, or its norm would be wrong.
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_variables)]
        if strategy.num_replicas_in_sync > 1:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if recipe.clip_global_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, recipe.clip_global_norm)
        pairs = zip(gradients, model.trainable_variables, strict=True)
        optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)
        if hooks.after_update is not None:
            hooks.after_update(step)
        return loss

    @tf.function(input_signature=[batch_spec, tf.TensorSpec([], tf.int64)])
    def train_step(batch, step):
        # The batch's real examples over all replicas, so that the loss is the mean over them and not over slots.
        weights = strategy.reduce(
            tf.distribute.ReduceOp.SUM, strategy.run(tf.reduce_sum, args=(batch["weights"],)), axis=None
        )
        losses = strategy.run(replica_step, args=(batch, weights, step))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    return train_step


def _evaluate(evaluation, progress: Progress, plan: Plan, recipe: Recipe, checkpoints, model) -> None:
    result = evaluation.metrics()
    epoch = round(progress.step / plan.steps_per_epoch, 3)
    progress.history.append({"step": progress.step, "epoch": epoch, **result})
    shown = "  ".join(f"{name} {value:.4f}" for name, value in result.items())
    say(f"  validation after epoch {epoch:g}: {shown}")
    for name, value in result.items():
        tf.summary.scalar(f"validation/{name}", value, progress.step)
    if recipe.keep == "best" and metrics.is_better(recipe.metric, result[recipe.metric], progress.best):
        progress.best, progress.best_step = result[recipe.metric], progress.step
        checkpoints.save_best(model, progress.step)


def _diverged(loss: float, progress: Progress, recipe: Recipe, optimizer, plan: Plan) -> str:
    rows, _ = plan.step(progress.step - 1)
    shown = ", ".join(str(row) for row in rows[:8] if row >= 0)
    return (
        f"{recipe.description}: the loss is {loss} at step {progress.step} (learning rate "
        f"{float(optimizer.learning_rate):.3g}, rows {shown}, …); lower the stage's learning_rate. "
        f"The checkpoint before it is kept"
    )


class _Rate:
    """Examples per second of the steps themselves: tracing, evaluation and checkpoints are left out."""

    def __init__(self):
        self._steps: list[tuple[float, int]] = []
        self._began: float | None = None  # None: the first step, which traces, is not counted

    def step_begins(self) -> None:
        self._began = time.monotonic()

    def step_done(self, examples: int) -> None:
        if self._began is not None:
            self._steps.append((time.monotonic() - self._began, examples))

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
