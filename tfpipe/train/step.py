"""One step of training as a graph: forward, backward, update.

The loss is the sum over examples, each with its weight, divided by the weight of the whole batch over all replicas and
micro-batches, and dropout goes by a row's place in the whole batch: however a batch is divided, the step is the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import tensorflow as tf
import tf_keras

from tfpipe.model.weights import variables_by_name
from tfpipe.tasks import task_of
from tfpipe.train.feed import batch_of

MODEL_INPUTS = ("input_ids", "token_type_ids", "segment_ids", "position_ids", "cls_index")


Batch = dict[str, tf.Tensor]
Objective = Callable[[Batch, tf.Tensor], tf.Tensor]
"""a batch and a dropout key -> the loss, summed over the batch's examples: see `Loss.of_batch`"""


@dataclass(frozen=True)
class Hooks:
    """The additions of a compression method to a step."""

    on_gradients: Callable[[list[tf.Tensor]], None] | None = None
    """called in the replica with the gradient of the whole batch, one float32 tensor for each trainable variable, in
    the model's order, before it is clipped; it may be infinite or NaN"""
    after_update: Callable[[tf.Tensor], None] | None = None
    """called in the replica with the step's number (int64, from 0) after the optimizer's update: keeps zeros zero"""
    tracked: tf.Module | None = None
    """variables that belong into a checkpoint beside the model's"""
    objective: Objective | None = None
    """what is minimized in place of the loss"""
    watched: Mapping[str, tf.Variable] = field(default_factory=dict)
    """kernels that are pruned, by their names: TensorBoard shows their zeros"""


@dataclass(frozen=True)
class Loss:
    """The loss that is minimized."""

    task: str
    """name of the task"""
    label_smoothing: float = 0.0
    """share of the probability that is spread over all labels (Szegedy et al., 2016)"""
    class_weights: tuple[float, ...] | None = None
    """weight of an example by its label; with several labels, their mean"""

    def per_example(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Computes the loss of each example: [..., labels] float32, [..., labels] float32 -> [...] float32."""
        task = task_of(self.task)
        return task.loss(task.smoothed(labels, self.label_smoothing), logits)

    def weights(self, batch: Batch) -> tf.Tensor:
        """Gives the weight of each example: [rows, slots] float32, 0 for an empty slot."""
        if self.class_weights is None:
            return batch["weights"]
        chosen = tf.reduce_sum(batch["labels"] * tf.constant(self.class_weights), axis=-1)
        count = tf.reduce_sum(batch["labels"], axis=-1)
        # An example without any label (multi_label) counts once.
        return batch["weights"] * tf.where(count > 0.0, chosen / tf.maximum(count, 1.0), 1.0)

    def of_batch(self, model: tf_keras.Model, batch: Batch, key: tf.Tensor) -> tf.Tensor:
        """Sums the loss over a batch's examples, each with its weight: [] float32.

        Args:
          model: a training model.
          batch: see `tokens/batches.py`.
          key: [3] int32, of the dropout.
        """
        logits = tf.cast(model(model_inputs(batch, key), training=True), tf.float32)
        return tf.reduce_sum(self.per_example(logits, batch["labels"]) * self.weights(batch))


def model_inputs(batch: Batch, dropout_key: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
    """Selects the training model's inputs; without a key, for inference."""
    key = tf.zeros([3], tf.int32) if dropout_key is None else dropout_key
    return {name: batch[name] for name in MODEL_INPUTS} | {"dropout_key": key}


ReplicaStep = Callable[[Batch, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""a replica's rows, the step's number (int64, from 0), the rate -> loss of the whole batch, norm of its gradient"""


def make_replica_step(
    model: tf_keras.Model,
    optimizer: tf_keras.optimizers.Optimizer,
    *,
    replicas: int,
    loss: Loss,
    seed: int,
    micro_batches: int,
    clip_global_norm: float | None,
    hooks: Hooks,
    guarded: bool = False,
    compiled: bool = False,
) -> ReplicaStep:
    """Makes one replica's part of a step. With several replicas, it runs in a replica context, on its own rows.

    Args:
      model: a training model, made under the strategy.
      optimizer: over the model's trainable variables; a LossScaleOptimizer scales the loss.
      replicas: how many share a batch.
      loss: the loss that is minimized.
      seed: seed of the dropout.
      micro_batches: parts into which a replica divides its rows, one after the other, to save memory.
      clip_global_norm: largest norm of the gradient; None: as it is.
      hooks: the additions of a compression method.
      guarded: whether the optimizer leaves everything as it is where loss or gradient is not finite; costs a TPU 3 %.
      compiled: whether XLA compiles forward and backward into one program; a TPU's whole step is compiled anyway.
    """
    variables = model.trainable_variables
    objective = hooks.objective or functools.partial(loss.of_batch, model)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)

    def summed(values):
        if replicas == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    def gradients_of(batch, example_weight, key):
        with tf.GradientTape() as tape:
            value = objective(batch, key) / example_weight
            target = optimizer.get_scaled_loss(value) if scaled else value
        # An embedding's gradient is sparse, with a token's rows apart: added up, or its norm would be wrong.
        gradients = [tf.cast(tf.convert_to_tensor(g), tf.float32) for g in tape.gradient(target, variables)]
        return value, optimizer.get_unscaled_gradients(gradients) if scaled else gradients

    if compiled:
        gradients_of = tf.function(gradients_of, jit_compile=True, autograph=False)

    def replica_step(batch, step, rate):
        inner.rate = rate
        example_weight = summed(tf.reduce_sum(loss.weights(batch)))
        own_rows = batch["input_ids"].shape[0]
        first_row = 0 if replicas == 1 else tf.distribute.get_replica_context().replica_id_in_sync_group * own_rows
        rows = own_rows // micro_batches
        total, sums = 0.0, None
        for first in range(0, own_rows, rows):
            part = {name: value[first : first + rows] for name, value in batch.items()}
            if sums is not None:  # or all of them would run side by side, and save no memory
                with tf.control_dependencies(sums):
                    part = {name: tf.identity(value) for name, value in part.items()}
            key = tf.stack([seed, tf.cast(step, tf.int32), first_row + first])
            value, gradients = gradients_of(part, example_weight, key)
            total += value
            sums = gradients if sums is None else [a + b for a, b in zip(sums, gradients, strict=True)]
        total, sums = summed(total), summed(sums)
        if hooks.on_gradients is not None:
            hooks.on_gradients(sums)
        norm = tf.linalg.global_norm(sums)
        inner.applies = tf.math.is_finite(norm) & tf.math.is_finite(total) if guarded else None
        if clip_global_norm is not None:
            sums, _ = tf.clip_by_global_norm(sums, clip_global_norm, use_norm=norm)
        optimizer.apply_gradients(zip(sums, variables, strict=True), skip_gradients_aggregation=True)
        if hooks.after_update is not None:
            hooks.after_update(step)
        return total, norm

    return replica_step


def make_train_step(strategy: tf.distribute.Strategy, replica_step: ReplicaStep) -> Callable:
    """Compiles a function of several steps: (batches, first step int64, learning rates [steps] float32) -> results.

    The batches are those of a `Feed`, one for each rate. The results are the mean loss of each step
    over the batch's examples and the norm of its gradient, both [steps] float32.
    """

    def one_step(batch, step, rate):
        results = strategy.run(replica_step, args=(batch, step, rate))
        return [strategy.experimental_local_results(each)[0] for each in results]

    @tf.function(autograph=False)  # traced once for each number of rates
    def train_steps(batches, first_step, rates):
        # Unrolled: a loop in the graph would not let pruning merge its replicas.
        results = [
            one_step(batch_of(batches, index), first_step + index, rates[index]) for index in range(rates.shape[0])
        ]
        losses, norms = zip(*results, strict=True)
        return tf.stack(losses), tf.stack(norms)

    return train_steps


def trainable_by_name(model: tf_keras.Model) -> dict[str, tf.Variable]:
    """Lists the variables that train: name -> variable, in the model's order."""
    names = {id(variable): name for name, variable in variables_by_name(model).items()}
    return {names.get(id(variable), variable.name): variable for variable in model.trainable_variables}
