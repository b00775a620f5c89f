"""A teacher in the training step: another model learns from the dense model's answers and hidden states.

The loss is `(1 - weight) * hard + weight * soft + hidden_weight * hidden`. `soft` is the cross-entropy with the
teacher's probabilities at a temperature, times its square, so that its gradient does not shrink with it (Hinton et al.,
2015); `hidden` the mean squared difference of the hidden states of mapped layers (Sun et al., 2019; Jiao et al., 2020),
over the tokens of each example. The teacher runs in the step, without dropout, in the precision of training.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
import tf_keras

from tfpipe.compress.limits import layer_pairs
from tfpipe.config.compress import Distill
from tfpipe.config.run import Config
from tfpipe.devices.strategy import precision
from tfpipe.encoders.parameters import layer_of, layer_output
from tfpipe.model.bert import build_training_model
from tfpipe.model.classifier import load_classifier
from tfpipe.model.layers import GatherClassToken
from tfpipe.model.weights import set_weights
from tfpipe.tasks import task_of
from tfpipe.train.step import Batch, Loss, Objective, model_inputs
from tfpipe.train.vocabulary import ActiveVocabulary


def taught(
    model: tf_keras.Model,
    teacher: Path,
    config: Config,
    loss: Loss,
    policy: str,
    active: ActiveVocabulary | None = None,
) -> Objective | None:
    """Makes the objective of a model that the dense one teaches; None where the configuration asks for no teacher.

    Call it under the strategy's scope.

    Args:
      model: the training model that learns, with TF-MOT's wrappers or without.
      teacher: directory of the dense classifier.
      config: the configuration.
      loss: of the true labels.
      policy: Keras policy in which the teacher answers.
      active: the part of the vocabulary that the batches are numbered by; None: all of it.

    Raises:
      InputError: the layer map does not fit.
    """
    if config.distill is None:
        return None
    classifier = load_classifier(teacher)
    layers = layer_pairs(config.distill, _last_layer(model) + 1, classifier.architecture.num_hidden_layers)
    architecture = classifier.architecture if active is None else active.architecture(classifier.architecture)
    with precision(policy):
        dense = build_training_model(architecture.with_dropout(0.0), len(classifier.labels))
        set_weights(dense, classifier.weights if active is None else active.taken(classifier.weights))
    dense.trainable = False
    return Distillation(config.distill, model, dense, layers, loss)


class Distillation:
    """The objective of a model with a teacher: see the top of this module."""

    def __init__(
        self,
        settings: Distill,
        learner: tf_keras.Model,
        teacher: tf_keras.Model,
        layers: tuple[tuple[int, int], ...],
        loss: Loss,
    ):
        """Joins a model and its teacher.

        Args:
          settings: temperature and weights.
          learner: a training model.
          teacher: a training model.
          layers: (learner's, teacher's) whose hidden states are compared.
          loss: of the true labels.
        """
        self._settings, self._loss = settings, loss
        self._pairs = [HiddenPair(learner, own, teacher, other) for own, other in layers]
        self._learner, self._teacher = (
            tf_keras.Model(model.input, [model.output, *hidden])
            for model, hidden in (
                (learner, [pair.own for pair in self._pairs]),
                (teacher, [pair.other for pair in self._pairs]),
            )
        )

    def __call__(self, batch: Batch, key: tf.Tensor) -> tf.Tensor:
        """Sums the objective over a batch's examples: [] float32."""
        # Without hidden states, Keras gives the only output as it is.
        learned = tf.nest.flatten(self._learner(model_inputs(batch, key), training=True))
        shown = tf.nest.flatten(self._teacher(model_inputs(batch), training=False))
        logits, answers = tf.cast(learned[0], tf.float32), tf.stop_gradient(tf.cast(shown[0], tf.float32))
        hard = self._loss.per_example(logits, batch["labels"])
        soft = soft_loss(logits, answers, self._settings.temperature, self._loss.task)
        share = self._settings.weight
        total = tf.reduce_sum(((1.0 - share) * hard + share * soft) * self._loss.weights(batch))
        for pair, own, other in zip(self._pairs, learned[1:], shown[1:], strict=True):
            factor = self._settings.hidden_weight / len(self._pairs)
            total += factor * pair.loss(own, tf.stop_gradient(other), batch, self._loss.weights(batch))
        return total


class HiddenPair:
    """A layer of the model that learns, and the teacher's layer that it is compared with.

    After its last layer a model has the hidden states of the class tokens alone. Then the other model's are taken there
    too.
    """

    def __init__(self, learner: tf_keras.Model, own: int, teacher: tf_keras.Model, other: int):
        """Finds the tensors in two training models."""
        lasts = [layer == _last_layer(model) for model, layer in ((learner, own), (teacher, other))]
        self.of_class_tokens = any(lasts)
        self.own, self.other = (
            GatherClassToken()([states, model.input["cls_index"]]) if self.of_class_tokens and not last else states
            for model, last, states in (
                (learner, lasts[0], _hidden_states(learner, own)),
                (teacher, lasts[1], _hidden_states(teacher, other)),
            )
        )

    def loss(self, own: tf.Tensor, other: tf.Tensor, batch: Batch, weights: tf.Tensor) -> tf.Tensor:
        """Computes the mean squared difference over the tokens of each example, summed over examples: [] float32.

        Args:
          own: [rows, length or slots, hidden] float.
          other: the teacher's, the same.
          batch: see `tokens/batches.py`.
          weights: of the examples, [rows, slots] float32.
        """
        squares = tf.reduce_mean(tf.square(tf.cast(own, tf.float32) - tf.cast(other, tf.float32)), axis=-1)
        if self.of_class_tokens:
            return tf.reduce_sum(squares * weights)
        segments = batch["segment_ids"]
        lengths = tf.reduce_sum(tf.cast(tf.equal(segments[:, :, None], segments[:, None, :]), tf.float32), axis=-1)
        of_token = tf.gather(weights, tf.maximum(segments - 1, 0), batch_dims=1) / lengths
        return tf.reduce_sum(tf.where(segments > 0, squares * of_token, 0.0))


def _hidden_states(model: tf_keras.Model, layer: int) -> tf.Tensor:
    found = model.get_layer(layer_output(layer))
    # TF-MOT calls a layer once more in the model that it makes of another: the last call is this model's.
    return found.get_output_at(len(found.inbound_nodes) - 1)


def _last_layer(model: tf_keras.Model) -> int:
    return max(number for layer in model.layers if (number := layer_of(layer.name)) is not None)


def soft_loss(logits: tf.Tensor, answers: tf.Tensor, temperature: float, task: str) -> tf.Tensor:
    """Computes the cross-entropy with the teacher's probabilities, times the temperature's square.

    Args:
      logits: [..., labels] float32.
      answers: the teacher's logits, the same.
      temperature: divides both.
      task: `single_label` or `multi_label`.

    Returns:
      [...] float32.
    """
    kind = task_of(task)
    return temperature**2 * kind.loss(kind.graph_probabilities(answers / temperature), logits / temperature)
