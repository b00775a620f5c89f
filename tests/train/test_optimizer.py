"""The optimizers, against arithmetic and Keras; what is frozen, what decays, how fast each layer learns."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import TINY, tiny_vocabulary

from tfpipe.config.train import Train
from tfpipe.devices.strategy import choose_strategy
from tfpipe.encoders.architecture import Architecture
from tfpipe.encoders.parameters import depth_of
from tfpipe.errors import InputError
from tfpipe.model.bert import build_training_model
from tfpipe.train.optimizer import decay_without_gradient, freeze, make_optimizer
from tfpipe.train.step import trainable_by_name

NAMES = ("bert.encoder.layer.0.output.dense.weight", "bert.encoder.layer.0.output.dense.bias")
SHAPES = ((3, 4), (4,))
RATES = (2e-3, 4e-3, 4e-3, 3e-3, 1e-3)


def start() -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    random = np.random.default_rng(0)
    first = {name: random.normal(size=shape) for name, shape in zip(NAMES, SHAPES, strict=True)}
    return first, [{name: random.normal(size=value.shape) for name, value in first.items()} for _ in RATES]


def optimized(settings: Train, first, gradients) -> dict[str, np.ndarray]:
    variables = {name: tf.Variable(value, dtype=tf.float32) for name, value in first.items()}
    optimizer = make_optimizer(variables, settings, loss_scaling=False)
    for rate, step in zip(RATES, gradients, strict=True):
        optimizer.learning_rate.assign(rate)
        optimizer.apply_gradients([(tf.constant(step[n], tf.float32), v) for n, v in variables.items()])
    return {name: variable.numpy() for name, variable in variables.items()}


@pytest.mark.parametrize(("name", "decay"), [("adamw", 0.1), ("adam", 0.01)])
def test_adam_against_numpy(name, decay):
    """A matrix, which decays under AdamW, and a vector, which does not."""
    first, gradients = start()
    expected = {key: value.copy() for key, value in first.items()}
    mean, square = ({key: np.zeros_like(value) for key, value in first.items()} for _ in range(2))
    for number, (step, rate) in enumerate(zip(gradients, RATES, strict=True), start=1):
        for key, gradient in step.items():
            if key == NAMES[0] and name == "adamw":
                expected[key] *= 1 - rate * decay
            mean[key] = 0.9 * mean[key] + 0.1 * gradient
            square[key] = 0.999 * square[key] + 0.001 * gradient**2
            corrected = np.sqrt(square[key] / (1 - 0.999**number)) + 1e-8
            expected[key] -= rate * mean[key] / (1 - 0.9**number) / corrected
    found = optimized(Train(optimizer=name, weight_decay=decay), first, gradients)
    for key, value in found.items():
        assert np.abs(value - expected[key]).max() <= 2e-6, key


def test_adamw_against_keras():
    first, gradients = start()
    variables = {name: tf.Variable(value, dtype=tf.float32) for name, value in first.items()}
    theirs = tf_keras.optimizers.AdamW(learning_rate=0.0, weight_decay=0.1, epsilon=1e-8, jit_compile=False)
    theirs.exclude_from_weight_decay(var_list=[variables[NAMES[1]]])
    theirs.build(list(variables.values()))
    for rate, step in zip(RATES, gradients, strict=True):
        theirs.learning_rate.assign(rate)
        theirs.apply_gradients([(tf.constant(step[n], tf.float32), v) for n, v in variables.items()])
    found = optimized(Train(weight_decay=0.1), first, gradients)
    for name, variable in variables.items():
        assert np.abs(found[name] - variable.numpy()).max() <= 1e-6


def test_sgd_against_keras():
    first, gradients = start()
    variables = {name: tf.Variable(value, dtype=tf.float32) for name, value in first.items()}
    theirs = tf_keras.optimizers.SGD(learning_rate=0.0, momentum=0.8, jit_compile=False)
    theirs.build(list(variables.values()))
    for rate, step in zip(RATES, gradients, strict=True):
        theirs.learning_rate.assign(rate)
        theirs.apply_gradients([(tf.constant(step[n], tf.float32), v) for n, v in variables.items()])
    found = optimized(Train(optimizer="sgd", momentum=0.8, weight_decay=0.0), first, gradients)
    for name, variable in variables.items():
        assert np.abs(found[name] - variable.numpy()).max() <= 1e-6


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_decay_is_decoupled_and_spares_vectors(name):
    """Without a gradient, a matrix shrinks by rate times decay, and a bias or layer norm stays."""
    first = {key: np.ones(shape) for key, shape in zip(NAMES, SHAPES, strict=True)}
    zero = [{key: np.zeros(shape) for key, shape in zip(NAMES, SHAPES, strict=True)} for _ in RATES]
    found = optimized(Train(optimizer=name, weight_decay=0.1), first, zero)
    assert found[NAMES[0]] == pytest.approx(np.prod([1 - rate * 0.1 for rate in RATES]), rel=1e-6)
    assert np.array_equal(found[NAMES[1]], np.ones(4))


def test_layers_learn_slower_towards_the_input():
    names = [
        "bert.embeddings.word_embeddings.weight",
        "bert.embeddings.LayerNorm.weight",
        "bert.encoder.layer.0.output.dense.weight",
        "bert.encoder.layer.1.output.dense.weight",
        "bert.pooler.dense.weight",
        "classifier.weight",
    ]
    assert [depth_of(name, 2) for name in names] == [0, 0, 1, 2, 3, 3]
    first = {name: np.zeros((2, 2)) for name in names}
    ones = [{name: np.ones((2, 2)) for name in names} for _ in RATES]
    found = optimized(Train(optimizer="sgd", momentum=0.0, weight_decay=0.0, layer_decay=0.5), first, ones)
    factors = [float(-found[name][0, 0] / sum(RATES)) for name in names]
    assert factors == pytest.approx([1 / 8, 1 / 8, 1 / 4, 1 / 2, 1.0, 1.0])


@pytest.fixture(scope="module")
def architecture():
    return Architecture.from_dict(TINY | {"vocab_size": len(tiny_vocabulary())})


@pytest.mark.parametrize(("frozen", "left"), [(0, {1, 2, 3}), (1, {2, 3}), (2, {3})])
def test_frozen_layers_get_no_slots(architecture, frozen, left):
    model = build_training_model(architecture, 2)
    said = freeze(model, frozen, 2)
    variables = trainable_by_name(model)
    assert {depth_of(name, 2) for name in variables} == left
    assert said.startswith(f"frozen: the embeddings and {frozen} layer(s), ")
    optimizer = make_optimizer(variables, Train(layer_decay=0.9), loss_scaling=False)
    slots = [variable for variable in optimizer.variables if variable.shape.rank]
    assert len(slots) == 2 * len(variables)


def test_more_frozen_layers_than_there_are(architecture):
    with pytest.raises(InputError, match=r"train\.frozen_layers: 3, but the encoder has 2; use at most that"):
        freeze(build_training_model(architecture, 2), 3, 2)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_slots_are_made_at_once(name):
    """A checkpoint is restored before the first step: what it holds must have its place."""
    variables = {key: tf.Variable(tf.ones(shape)) for key, shape in zip(NAMES, SHAPES, strict=True)}
    optimizer = make_optimizer(variables, Train(optimizer=name), loss_scaling=False)
    shapes = sorted(tuple(variable.shape) for variable in optimizer.variables if variable.shape.rank)
    assert shapes == sorted(SHAPES * (1 if name == "sgd" else 2))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_replicas_stay_equal(name):
    """Each replica updates its own copy by the summed gradient."""
    strategy = choose_strategy("mirrored")[0]
    with strategy.scope():
        variables = {NAMES[0]: tf.Variable(tf.ones([3, 4]))}
        optimizer = make_optimizer(variables, Train(optimizer=name), loss_scaling=False)

    @tf.function
    def step():
        optimizer.learning_rate.assign(0.1)
        strategy.run(
            lambda: optimizer.apply_gradients([(tf.ones([3, 4]), variables[NAMES[0]])], skip_gradients_aggregation=True)
        )

    step()
    step()
    copies = [copy.numpy() for copy in variables[NAMES[0]].values]
    assert len(copies) == 2 and np.array_equal(*copies) and (copies[0] != 1.0).all()
    single = {NAMES[0]: tf.Variable(tf.ones([3, 4]))}
    plain = make_optimizer(single, Train(optimizer=name), loss_scaling=False)
    for _ in range(2):
        plain.learning_rate.assign(0.1)
        plain.apply_gradients([(tf.ones([3, 4]), single[NAMES[0]])])
    assert np.array_equal(copies[0], single[NAMES[0]])


@pytest.mark.parametrize("loss_scaling", [False, True])
def test_what_decay_leaves_of_an_element_without_a_gradient(loss_scaling):
    """In the embeddings, two layers below the head's rate."""
    names = ["bert.embeddings.word_embeddings.weight", *NAMES, "classifier.weight"]
    variables = {name: tf.Variable(tf.ones([2, 2])) for name in names}
    settings = Train(weight_decay=0.1, layer_decay=0.5)
    optimizer = make_optimizer(variables, settings, loss_scaling=loss_scaling)
    for rate in RATES:
        optimizer.learning_rate.assign(rate)
        optimizer.apply_gradients([(tf.zeros_like(variable), variable) for variable in variables.values()])
    for name, factor in ((names[0], 0.25), (NAMES[0], 0.5), ("classifier.weight", 1.0)):
        left = decay_without_gradient(optimizer, variables[name], RATES)
        assert left == pytest.approx(np.prod([1 - rate * factor * 0.1 for rate in RATES]), abs=1e-9)
        assert variables[name].numpy() == pytest.approx(left, abs=1e-6)
    assert decay_without_gradient(optimizer, None, RATES) == 1.0  # frozen: it stays as it is
