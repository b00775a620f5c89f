"""The masks of pruning: TF-MOT's, over kernels and over the units of structured pruning.

TF-MOT's layer wrappers are left out: they count a step per forward pass, so micro-batches would advance the schedule,
and under a mixed policy they hand TF-MOT kernels that are cast to bfloat16. Its `Pruning` works on the variables
themselves, after each update, the last one included: zeros are exact at the end, under any strategy and precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_impl import Pruning
from tensorflow_model_optimization.sparsity.keras import ConstantSparsity, PolynomialDecay

from tfpipe.compress.structure import Units
from tfpipe.encoders.architecture import Architecture
from tfpipe.encoders.parameters import WORD_EMBEDDINGS, is_prunable
from tfpipe.model.weights import variables_by_name

MASK_UPDATES = 20  # over the ramp; each sorts every kernel
SMOOTHING = 0.95  # of the importance of units: over about twenty steps


class WeightMasks(tf.Module):
    """TF-MOT's masks over a model's encoder kernels."""

    def __init__(
        self,
        model: tf_keras.Model,
        sparsity: float,
        ramp_steps: int,
        *,
        two_four: bool = False,
        embeddings: bool = False,
    ):
        """Makes the masks, all ones.

        Args:
          model: a training model.
          sparsity: share of zeros at the end of the ramp.
          ramp_steps: steps over which sparsity rises, as a cubic, from 0 (Zhu & Gupta, 2017).
          two_four: instead, two of each four weights along the input are zero from the first step on (Mishra et al.,
            2021).
          embeddings: whether word embeddings are pruned too.
        """
        super().__init__()
        self.end_step = 1 if two_four else max(ramp_steps, 1)
        self.kernels = {
            name: variable
            for name, variable in variables_by_name(model).items()
            if is_prunable(name) or (embeddings and name == WORD_EMBEDDINGS)
        }
        self.step = _counter()
        self.masks = [_ones(kernel.shape, f"mask_{index}") for index, kernel in enumerate(self.kernels.values())]
        thresholds = [_zeros((), f"threshold_{index}") for index in range(len(self.masks))]
        schedule = ConstantSparsity(0.5, begin_step=0) if two_four else _ramp(sparsity, self.end_step)
        self._pruning = Pruning(
            training_step_fn=lambda: self.step,
            pruning_vars=list(zip(self.kernels.values(), self.masks, thresholds, strict=True)),
            pruning_schedule=schedule,
            block_size=(1, 1),
            block_pooling_type="AVG",
            sparsity_m_by_n=(2, 4) if two_four else None,
        )

    on_gradients: Callable[[list[tf.Tensor]], None] | None = None

    def update(self, step: tf.Tensor) -> None:
        """Makes new masks after the update of a step (int64, from 0) if the schedule says so, then applies them."""
        self.step.assign(step + 1)
        self._pruning.conditional_mask_update()
        self._pruning.weight_mask_op()


class UnitMasks(tf.Module):
    """TF-MOT's masks over attention heads and feed-forward columns, ranked by their first-order importance.

    The importance of a unit is the squared change of a batch's loss, to first order, were its output zero (Molchanov et
    al., 2019; the empirical Fisher information of its gate, Kwon et al., 2022). The change is the sum, over the unit's
    rows of the kernel that reads it, of weight times gradient, so the training step has it already. It is smoothed over
    steps, divided by the unit's parameters, and compared over all layers.

    TF-MOT prunes the vector of these scores, in which a unit has one element for as many parameters as a column has. A
    unit that is masked there is zeroed in the kernel that reads it, and never comes back.
    """

    def __init__(self, model: tf_keras.Model, architecture: Architecture, sparsity: float, ramp_steps: int):
        """Makes the masks, all ones.

        Args:
          model: a training model.
          architecture: its shape.
          sparsity: share of the parameters of the encoder's layers that is masked at the end of the ramp.
          ramp_steps: steps over which it rises, as a cubic, from 0.
        """
        super().__init__()
        self.end_step = max(ramp_steps, 1)
        self.units = Units(architecture)
        variables = variables_by_name(model)
        positions = {id(variable): index for index, variable in enumerate(model.trainable_variables)}
        self.kernels = {name: variables[name] for name in self.units.readers}
        self._gradient_of = [positions[id(kernel)] for kernel in self.kernels.values()]
        self.step = _counter()
        self.importance = _zeros((self.units.size,), "importance")
        self.scores = _zeros((self.units.size,), "scores")
        self.mask = _ones((self.units.size,), "unit_mask")
        self.rows = [_ones((kernel.shape[0], 1), f"rows_{n}") for n, kernel in enumerate(self.kernels.values())]
        self._ranking = Pruning(
            training_step_fn=lambda: self.step,
            pruning_vars=[(self.scores, self.mask, _zeros((), "threshold"))],
            pruning_schedule=_ramp(sparsity, self.end_step),
            block_size=(1, 1),
            block_pooling_type="AVG",
        )
        self._zero = zeroing(self.kernels.values(), self.rows)

    def on_gradients(self, gradients: list[tf.Tensor]) -> None:
        """Adds a step's importance: one gradient for each trainable variable, of the whole batch."""
        changes = [
            tf.reduce_sum(kernel * gradients[index], axis=1)
            for kernel, index in zip(self.kernels.values(), self._gradient_of, strict=True)
        ]
        now = self.units.importance(changes)
        after = SMOOTHING * self.importance + (1.0 - SMOOTHING) * now
        usable = tf.reduce_all(tf.math.is_finite(now))  # else the step is going to be left out
        self.importance.assign(tf.where(usable, after, self.importance))

    def update(self, step: tf.Tensor) -> None:
        """Makes new masks after the update of a step (int64, from 0) if the schedule says so, then applies them."""
        self.step.assign(step + 1)
        self.scores.assign(self.units.scores(self.importance, self.mask))
        self._ranking.conditional_mask_update()
        for rows, kept in zip(self.rows, self.units.rows(self.mask), strict=True):
            rows.assign(kept[:, None])
        self._zero()


def zeroing(weights: Iterable[tf.Variable], masks: Iterable[tf.Tensor | tf.Variable]) -> Callable[[], None]:
    """Returns a function that multiplies weights by masks, of a shape that broadcasts, in a replica.

    TF-MOT knows how to assign a variable under a strategy. Its schedules and thresholds are not used.
    """
    pruning = Pruning(
        training_step_fn=lambda: 0,
        pruning_vars=[(weight, mask, None) for weight, mask in zip(weights, masks, strict=True)],
        pruning_schedule=None,
        block_size=(1, 1),
        block_pooling_type="AVG",
    )
    return pruning.weight_mask_op


def _ramp(sparsity: float, end_step: int) -> PolynomialDecay:
    frequency = math.ceil(end_step / MASK_UPDATES)
    # The last update must fall on the end of the schedule, or sparsity stays short of its goal; the end itself must
    # not move, or it might lie after the last step of all.
    return PolynomialDecay(0.0, sparsity, end_step % frequency, end_step, frequency=frequency)


def _counter() -> tf.Variable:
    return tf.Variable(0, dtype=tf.int64, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)


def _ones(shape, name: str) -> tf.Variable:
    return tf.Variable(tf.ones(shape), trainable=False, aggregation=tf.VariableAggregation.MEAN, name=name)


def _zeros(shape, name: str) -> tf.Variable:
    return tf.Variable(tf.zeros(shape), trainable=False, aggregation=tf.VariableAggregation.MEAN, name=name)
