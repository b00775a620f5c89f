"""The schedule and AdamW, against arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfpipe.train.optimizer import WarmupLinearDecay, adamw

PEAK = 4e-3


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (0, 1 / 10),  # the first step moves already
        (4, 5 / 10),
        (9, 1.0),  # the last step of the warm-up
        (10, 1.0),
        (55, 0.5),
        (99, 1 / 90),  # the last step of all
        (100, 0.0),
        (1000, 0.0),
    ],
)
def test_schedule(step, share):
    schedule = WarmupLinearDecay(PEAK, warmup_steps=10, total_steps=100)
    for dtype in (tf.int32, tf.int64):
        assert float(schedule(tf.constant(step, dtype))) == pytest.approx(PEAK * share, rel=1e-5)


@pytest.mark.parametrize(
    ("warmup", "total", "expected"),
    [
        (0, 1, [1.0]),
        (1, 1, [1.0]),
        (0, 4, [1.0, 0.75, 0.5, 0.25]),
        (4, 4, [0.25, 0.5, 0.75, 1.0]),
        (2, 4, [0.5, 1.0, 1.0, 0.5]),
    ],
)
def test_schedule_at_its_edges(warmup, total, expected):
    schedule = WarmupLinearDecay(1.0, warmup, total)
    assert [float(schedule(step)) for step in range(total)] == pytest.approx(expected)


def test_the_schedule_is_made_again_from_its_settings():
    schedule = WarmupLinearDecay(PEAK, 3, 9)
    again = WarmupLinearDecay.from_config(schedule.get_config())
    assert [float(again(n)) for n in range(9)] == [float(schedule(n)) for n in range(9)]


def test_adamw_against_numpy():
    """Five steps over a matrix, which decays, and a vector, which does not."""
    random = np.random.default_rng(0)
    first = {"kernel": random.normal(size=(3, 4)), "bias": random.normal(size=4)}
    gradients = [{name: random.normal(size=value.shape) for name, value in first.items()} for _ in range(5)]
    decay, beta_1, beta_2, epsilon = 0.1, 0.9, 0.999, 1e-8
    rates = [PEAK * share for share in (0.5, 1.0, 1.0, 2 / 3, 1 / 3)]

    variables = {name: tf.Variable(value, dtype=tf.float32, name=name) for name, value in first.items()}
    optimizer = adamw(
        list(variables.values()), learning_rate=PEAK, warmup_fraction=0.4, total_steps=5, weight_decay=decay
    )
    expected = {name: value.copy() for name, value in first.items()}
    mean = {name: np.zeros_like(value) for name, value in first.items()}
    square = {name: np.zeros_like(value) for name, value in first.items()}
    for number, (step, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        optimizer.apply_gradients(
            [(tf.constant(step[name], tf.float32), variable) for name, variable in variables.items()]
        )
        for name, gradient in step.items():
            if name == "kernel":
                expected[name] -= rate * decay * expected[name]
            mean[name] = beta_1 * mean[name] + (1 - beta_1) * gradient
            square[name] = beta_2 * square[name] + (1 - beta_2) * gradient**2
            corrected = np.sqrt(square[name] / (1 - beta_2**number)) + epsilon
            expected[name] -= rate * mean[name] / (1 - beta_1**number) / corrected
        for name, variable in variables.items():
            assert np.abs(variable.numpy() - expected[name]).max() <= 2e-6, (number, name)


def test_decay_is_decoupled_and_spares_vectors():
    """Without a gradient, a matrix shrinks by rate times decay, and a bias or layer norm stays."""
    kernel, bias = tf.Variable(tf.ones([2, 2]), name="kernel"), tf.Variable(tf.ones([2]), name="bias")
    optimizer = adamw([kernel, bias], learning_rate=0.5, warmup_fraction=0.0, total_steps=1, weight_decay=0.1)
    optimizer.apply_gradients([(tf.zeros([2, 2]), kernel), (tf.zeros([2]), bias)])
    assert np.allclose(kernel, 0.95, atol=1e-6)
    assert np.array_equal(bias, [1.0, 1.0])


def test_slots_are_made_at_once():
    """A checkpoint is restored before the first step: what it holds must have its place."""
    variables = [tf.Variable(tf.ones([2, 3])), tf.Variable(tf.ones([3]))]
    optimizer = adamw(variables, learning_rate=PEAK, warmup_fraction=0.1, total_steps=10, weight_decay=0.01)
    shapes = sorted(tuple(variable.shape) for variable in optimizer.variables if variable.shape.rank)
    assert shapes == [(2, 3), (2, 3), (3,), (3,)]
