"""A teacher's part of the loss, against NumPy and against what must follow from it."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import TINY, tiny_vocabulary, tiny_weights

from tfpipe.compress.teacher import Distillation, soft_loss
from tfpipe.config.compress import Distill
from tfpipe.encoders.architecture import Architecture
from tfpipe.model.bert import build_training_model
from tfpipe.model.weights import import_encoder
from tfpipe.tasks import task_of
from tfpipe.train.step import Loss

ARCHITECTURE = Architecture.from_dict(TINY | {"vocab_size": len(tiny_vocabulary())})
LOSS = Loss("single_label")


def new_model(seed: int, layers: int = 2):
    architecture = Architecture.from_dict(ARCHITECTURE.to_dict() | {"num_hidden_layers": layers})
    tf_keras.utils.set_random_seed(seed)
    model = build_training_model(architecture.with_dropout(0.0), 2)
    import_encoder(model, tiny_weights(architecture.to_dict(), seed), "the test")
    return model


def packed_batch() -> dict[str, tf.Tensor]:
    """Two rows of 12: examples of 5 and 4 tokens with 3 of padding, and one of 7 with 5."""
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 3, [1] * 7 + [0] * 5], np.int32)
    positions = np.array([[*range(5), *range(4), 0, 0, 0], [*range(7), 0, 0, 0, 0, 0]], np.int32)
    ids = np.random.default_rng(0).integers(5, 100, segments.shape).astype(np.int32) * (segments > 0)
    return {
        "input_ids": tf.constant(ids),
        "token_type_ids": tf.zeros_like(ids),
        "segment_ids": tf.constant(segments),
        "position_ids": tf.constant(positions),
        "cls_index": tf.constant([[0, 5], [0, 0]], tf.int32),
        "labels": tf.constant([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]]),
        "weights": tf.constant([[1.0, 1.0], [1.0, 0.0]]),
    }


KEY = tf.zeros([3], tf.int32)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_soft_loss_is_the_cross_entropy_of_softened_probabilities(task, temperature):
    random = np.random.default_rng(0)
    own, other = random.normal(0, 3, (2, 4, 5, 3)).astype(np.float32)
    p, q = (task_of(task).probabilities(each / temperature) for each in (other, own))
    expected = -(p * np.log(q)).sum(-1)
    if task == "multi_label":
        expected = -(p * np.log(q) + (1 - p) * np.log(1 - q)).sum(-1)
    found = soft_loss(tf.constant(own), tf.constant(other), temperature, task)
    assert found.numpy() == pytest.approx(temperature**2 * expected, rel=1e-4)


def test_the_gradient_of_the_soft_loss_vanishes_where_both_agree_and_keeps_its_size():
    logits = tf.constant(np.random.default_rng(0).normal(0, 1e-2, (64, 3)).astype(np.float32))

    def gradient(other, temperature):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = tf.reduce_sum(soft_loss(logits, tf.constant(other), temperature, "single_label"))
        return tape.gradient(loss, logits).numpy()

    assert np.abs(gradient(logits.numpy(), 2.0)).max() < 1e-6
    other = np.roll(logits.numpy(), 1, axis=1)
    assert gradient(other, 10.0) == pytest.approx(gradient(other, 1.0), rel=0.1, abs=1e-4)


def test_the_objective_is_the_sum_of_its_parts():
    teacher, learner, batch = new_model(1), new_model(2), packed_batch()
    settings = Distill(temperature=2.0, weight=0.25)
    found = float(Distillation(settings, learner, teacher, (), LOSS)(batch, KEY))
    inputs = {name: batch[name] for name in teacher.input if name != "dropout_key"} | {"dropout_key": KEY}
    own, other = learner(inputs), teacher(inputs)
    each = 0.75 * LOSS.per_example(own, batch["labels"]) + 0.25 * soft_loss(own, other, 2.0, "single_label")
    assert found == pytest.approx(float(tf.reduce_sum(each * batch["weights"])), rel=1e-5)
    assert found != pytest.approx(float(LOSS.of_batch(learner, batch, KEY)), rel=1e-3)


def test_hidden_states_are_compared_over_the_tokens_of_each_example():
    teacher, learner, batch = new_model(1), new_model(2), packed_batch()
    inputs = {name: batch[name] for name in teacher.input if name != "dropout_key"} | {"dropout_key": KEY}

    def states(model, layer):
        return tf_keras.Model(model.input, model.get_layer(f"encoder.layer.{layer}.output.LayerNorm").output)(
            inputs
        ).numpy()

    without = float(Distillation(Distill(), learner, teacher, (), LOSS)(batch, KEY))
    for pairs, expected in (
        (((0, 0),), _mean_by_example(states(learner, 0), states(teacher, 0), batch)),
        (((1, 1),), _of_class_tokens(states(learner, 1), states(teacher, 1), batch)),
        # the teacher's first layer has all tokens, the learner's last the class tokens alone
        (((1, 0),), _of_class_tokens(states(learner, 1), _class_tokens(states(teacher, 0), batch), batch)),
        (((0, 1),), _of_class_tokens(_class_tokens(states(learner, 0), batch), states(teacher, 1), batch)),
    ):
        found = float(Distillation(Distill(hidden_weight=3.0), learner, teacher, pairs, LOSS)(batch, KEY))
        assert found - without == pytest.approx(3.0 * expected, rel=1e-3)
    twice = Distillation(Distill(hidden_weight=3.0), learner, learner, ((0, 0), (1, 1)), LOSS)
    same = Distillation(Distill(), learner, learner, (), LOSS)
    assert float(twice(batch, KEY)) == pytest.approx(float(same(batch, KEY)), abs=1e-5)


def _mean_by_example(own, other, batch) -> float:
    total, segments = 0.0, batch["segment_ids"].numpy()
    for row in range(2):
        for example in range(1, segments[row].max() + 1):
            there = segments[row] == example
            total += np.square(own[row][there] - other[row][there]).mean()
    return total


def _class_tokens(states, batch):
    return np.take_along_axis(states, batch["cls_index"].numpy()[..., None], axis=1)


def _of_class_tokens(own, other, batch) -> float:
    return float((np.square(own - other).mean(axis=-1) * batch["weights"].numpy()).sum())


def test_no_gradient_reaches_the_teacher():
    teacher, learner, batch = new_model(1), new_model(2), packed_batch()
    objective = Distillation(Distill(hidden_weight=1.0), learner, teacher, ((0, 0),), LOSS)
    with tf.GradientTape() as tape:
        value = objective(batch, KEY)
    gradients = tape.gradient(value, [*teacher.variables, *learner.trainable_variables])
    assert all(gradient is None for gradient in gradients[: len(teacher.variables)])
    assert all(gradient is not None for gradient in gradients[len(teacher.variables) :])


def test_class_weights_count_in_the_hidden_states_too():
    """As in the loss: an example of twice the weight counts twice."""
    teacher, learner, batch = new_model(1), new_model(2), packed_batch()
    plain, weighted = (
        float(Distillation(Distill(hidden_weight=100.0), learner, teacher, ((0, 0), (1, 1)), loss)(batch, KEY))
        for loss in (LOSS, Loss("single_label", class_weights=(2.0, 2.0)))
    )
    assert weighted == pytest.approx(2 * plain, rel=1e-5)
    empty = batch | {"weights": tf.constant([[1.0, 0.0], [0.0, 0.0]])}
    first = float(Distillation(Distill(hidden_weight=100.0), learner, teacher, ((0, 0),), LOSS)(empty, KEY))
    assert first < float(Distillation(Distill(hidden_weight=100.0), learner, teacher, ((0, 0),), LOSS)(batch, KEY))
