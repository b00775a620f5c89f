"""The optimizers: AdamW, Adam, SGD with momentum, over the fused update operators of TensorFlow.

Keras's own update each weight in a dozen passes over memory; `ResourceApplyAdam` is one, and takes a quarter of the
time. The learning rate is given for each step; layer-wise decay and weight decay are settings of each variable, made
from its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras

from tfpipe.config.train import Train
from tfpipe.encoders.parameters import depth_of, layer_of
from tfpipe.errors import InputError

# Too large a scale costs a step for every factor of two, too small a one loses small gradients until it has grown.
INITIAL_LOSS_SCALE = 2.0**15


@dataclass(frozen=True)
class VariableSettings:
    """The settings of the optimizer for one variable."""

    rate_factor: float
    """of the learning rate"""
    weight_decay: float
    """decoupled; 0 for biases and layer norms"""


def make_optimizer(
    variables: Mapping[str, tf.Variable], settings: Train, *, loss_scaling: bool
) -> tf_keras.optimizers.Optimizer:
    """Makes the optimizer that the settings ask for, with its slots; a step gives it the learning rate.

    Args:
      variables: transformers' name of the weight -> variable, of those that train.
      settings: the section `train`.
      loss_scaling: whether gradients are float16: the loss is then multiplied as far as they stay finite.
    """
    num_layers = 1 + max((layer for name in variables if (layer := layer_of(name)) is not None), default=-1)
    chosen = [
        VariableSettings(
            settings.layer_decay ** (num_layers + 1 - depth_of(name, num_layers)),
            settings.weight_decay if len(variable.shape) > 1 else 0.0,
        )
        for name, variable in variables.items()
    ]
    optimizer = {
        "adamw": lambda: AdamW(chosen),
        "adam": lambda: AdamW([VariableSettings(each.rate_factor, 0.0) for each in chosen]),
        "sgd": lambda: Momentum(chosen, settings.momentum),
    }[settings.optimizer]()
    optimizer.build(list(variables.values()))
    if loss_scaling:
        return tf_keras.mixed_precision.LossScaleOptimizer(optimizer, initial_scale=INITIAL_LOSS_SCALE)
    return optimizer


def decay_without_gradient(
    optimizer: tf_keras.optimizers.Optimizer, variable: tf.Variable | None, rates: Sequence[float]
) -> float:
    """Computes the factor that weight decay leaves of an element without gradients, over steps of these rates.

    A step that loss scaling leaves out is counted too: a difference of rate times decay, 5e-7 at the defaults.

    Args:
      optimizer: by `make_optimizer`.
      variable: a variable that it trains; None: one that it does not.
      rates: learning rate of each step.
    """
    if variable is None:
        return 1.0
    settings = getattr(optimizer, "inner_optimizer", optimizer).settings_of(variable)
    return float(np.prod([1.0 - rate * settings.rate_factor * settings.weight_decay for rate in rates]))


def freeze(model: tf_keras.Model, frozen_layers: int, num_layers: int) -> str:
    """Takes the embeddings and the lowest layers out of training, before the optimizer is made.

    Args:
      model: a training model.
      frozen_layers: how many of the encoder's layers.
      num_layers: how many it has.

    Returns:
      The frozen parts, in words.

    Raises:
      InputError: there are not so many.
    """
    if frozen_layers > num_layers:
        raise InputError(f"train.frozen_layers: {frozen_layers}, but the encoder has {num_layers}; use at most that")
    frozen = 0
    for layer in model.layers:
        if layer.weights and depth_of(layer.name, num_layers) <= frozen_layers:
            layer.trainable = False
            frozen += layer.count_params()
    return f"frozen: the embeddings and {frozen_layers} layer(s), {frozen / model.count_params():.0%} of the weights"


class _Optimizer(tf_keras.optimizers.Optimizer):
    """The common part of the optimizers: settings by variable, in the order in which the variables are built."""

    slots: tuple[str, ...]
    rate: tf.Tensor | None = None
    """learning rate of the step that is being made; None: `learning_rate`, which a replica can't set"""
    applies: tf.Tensor | None = None
    """whether the step that is being made updates anything: [] bool, the same in all replicas; None: it does"""

    def __init__(self, settings: list[VariableSettings]):
        super().__init__(name=type(self).__name__, weight_decay=None, jit_compile=False)
        self._learning_rate = self._build_learning_rate(0.0)
        self._settings = self._no_dependency(settings)

    def build(self, var_list):
        """Makes the slots."""
        super().build(var_list)
        if not hasattr(self, "slot_variables"):
            self.slot_variables = [
                [self.add_variable_from_reference(variable, name) for name in self.slots] for variable in var_list
            ]

    def _distributed_apply_gradients_fn(self, distribution, grads_and_vars, **kwargs):
        # Here, and not around `apply_gradients`: a branch may not leave the replica's context, as that does.
        def update():
            return tf.identity(super(_Optimizer, self)._distributed_apply_gradients_fn(distribution, grads_and_vars))

        return update() if self.applies is None else tf.cond(self.applies, update, lambda: tf.identity(self.iterations))

    def update_step(self, gradient, variable):
        """Updates one variable on one device: […] float32 gradient and variable."""
        settings = self.settings_of(variable)
        slots = self.slot_variables[self._index_dict[self._var_key(variable)]]
        rate = tf.cast(self.learning_rate if self.rate is None else self.rate, tf.float32) * settings.rate_factor
        self.update(variable, gradient, slots, rate, settings.weight_decay)

    def settings_of(self, variable) -> VariableSettings:
        """Returns the settings of a variable that this optimizer trains."""
        return self._settings[self._index_dict[self._var_key(variable)]]

    def _decay(self, variable, rate, weight_decay):
        if weight_decay:
            variable.assign(variable * (1.0 - rate * weight_decay))


class AdamW(_Optimizer):
    """Adam (Kingma & Ba, 2015) with decoupled weight decay (Loshchilov & Hutter, 2019); Adam where the decay is 0."""

    slots = ("m", "v")
    beta_1, beta_2, epsilon = 0.9, 0.999, 1e-8

    def update(self, variable, gradient, slots, rate, weight_decay):
        """Updates in one pass over the variable, its gradient and its moments."""
        self._decay(variable, rate, weight_decay)
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=slots[0].handle,
            v=slots[1].handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class Momentum(_Optimizer):
    """Gradient descent with momentum, as Keras's SGD, and decoupled weight decay."""

    slots = ("momentum",)

    def __init__(self, settings: list[VariableSettings], momentum: float):
        super().__init__(settings)
        self.momentum = momentum

    def update(self, variable, gradient, slots, rate, weight_decay):
        """Updates: velocity = momentum * velocity - rate * gradient; variable += velocity."""
        self._decay(variable, rate, weight_decay)
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle, accum=slots[0].handle, lr=rate, grad=gradient, momentum=self.momentum
        )
