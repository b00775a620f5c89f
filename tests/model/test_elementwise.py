"""The compiled chains: values and gradients against TensorFlow's own operators; dropout's hash as a random source."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfpipe.model import elementwise

KEY = tf.constant([3, 41, 0], tf.int32)


def normal(*shape: int, seed: int = 0, dtype=tf.float32) -> tf.Tensor:
    return tf.cast(tf.random.stateless_normal(shape, [7, seed]), dtype)


def agree(function, reference, *inputs, tolerance: float) -> None:
    """Values, and gradients by every input."""
    results = []
    for each in (function, reference):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = each(*inputs)
            flat = tf.reshape(tf.cast(value, tf.float32), [-1])
            total = tf.reduce_sum(flat * tf.sin(0.1 * tf.range(tf.size(flat), dtype=tf.float32)))
        results.append([value, *tape.gradient(total, inputs)])
    assert len(results[0]) == 1 + len(inputs)
    for found, expected in zip(*results, strict=True):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert np.abs(tf.cast(found, tf.float32) - tf.cast(expected, tf.float32)).max() <= tolerance


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_gelu(approximate, dtype):
    def reference(x):
        return tf.cast(tf.nn.gelu(tf.cast(x, tf.float32), approximate=approximate), x.dtype)

    def ours(x):
        return elementwise.gelu(x, approximate)

    x = tf.cast(tf.linspace(-8.0, 8.0, 999), dtype)[None]
    agree(ours, lambda x: reference(x), x, tolerance=3e-6 if dtype == tf.float32 else 0.04)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_add_and_normalize(rate):
    def reference(x, residual, gamma, beta):
        dropped = elementwise.dropout(x, KEY, rate) if rate else x
        sums = dropped + residual
        mean, variance = tf.nn.moments(sums, axes=[-1], keepdims=True)
        return (sums - mean) * tf.math.rsqrt(variance + 1e-6) * gamma + beta

    def ours(x, residual, gamma, beta):
        return elementwise.add_and_normalize(x, residual, gamma, beta, KEY, rate=rate, epsilon=1e-6)

    inputs = [normal(3, 5, 16), normal(3, 5, 16, seed=1), 1.0 + normal(16, seed=2), normal(16, seed=3)]
    agree(ours, reference, *inputs, tolerance=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_segment_attention(rate):
    segments = tf.constant([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]])

    def reference(queries, keys, values):
        seen = (segments[:, :, None] == segments[:, None, :]) & (segments[:, None, :] > 0)
        scores = tf.matmul(queries, keys, transpose_b=True)
        shares = tf.nn.softmax(scores * 0.5 + tf.where(seen, 0.0, -1e9)[:, None])
        return tf.matmul(elementwise.dropout(shares, KEY, rate) if rate else shares, values)

    def ours(queries, keys, values):
        return elementwise.segment_attention(queries, keys, values, segments, segments, KEY, scale=0.5, rate=rate)

    # Padding's own query sees nothing: its values have no meaning, and nobody reads them.
    inputs = [normal(2, 3, 6, 4, seed=n) for n in range(3)]
    agree(lambda *x: ours(*x)[:, :, :5], lambda *x: reference(*x)[:, :, :5], *inputs, tolerance=2e-6)


def test_large_scores_stay_finite():
    segments = tf.ones([1, 4], tf.int32)
    keys, values = tf.constant([[[[1e4], [-1e4], [0.0], [9e3]]]]), tf.constant([[[[3.0], [5.0], [7.0], [9.0]]]])
    context = elementwise.segment_attention(
        tf.ones([1, 1, 4, 1]), keys, values, segments, segments, KEY, scale=1.0, rate=0.0
    )
    assert np.array_equal(context[0, 0, :, 0], [3.0] * 4)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    x = tf.ones([1000, 1001])
    y = elementwise.dropout(x, KEY, rate).numpy()
    deviation = np.sqrt(rate * (1.0 - rate) / y.size)
    assert abs((y == 0).mean() - rate) < 5 * deviation
    assert abs(y.mean() - 1.0) < 5 * deviation / (1.0 - rate)
    assert np.unique(y).tolist() == pytest.approx([0.0, 1.0 / (1.0 - rate)])


def test_the_gradient_has_the_same_zeros():
    x = normal(64, 65)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = elementwise.dropout(x, KEY, 0.3)
    gradient = tape.gradient(y, x, tf.ones_like(x)).numpy()
    assert np.array_equal(gradient == 0, y.numpy() == 0) and gradient.max() == pytest.approx(1 / 0.7)


def test_dropout_is_a_function_of_its_key_compiled_or_not():
    first = elementwise.kept([64, 65], 0.3, KEY).numpy()
    assert np.array_equal(first, elementwise.kept([64, 65], 0.3, KEY))
    assert np.array_equal(first, elementwise.dropout(tf.ones([64, 65]), KEY, 0.3).numpy() != 0)
    for compiled in (True, False):
        function = tf.function(lambda key, x: elementwise.dropout(x, key, 0.3), jit_compile=compiled)
        assert np.array_equal(first, function(KEY, tf.ones([64, 65])).numpy() != 0)


@pytest.mark.parametrize("shape", [(12,), (12, 5), (12, 3, 7), (12, 2, 5, 5)])
def test_a_part_of_a_batch_loses_what_the_whole_does(shape):
    """However many devices and micro-batches share the rows, a seed means the same."""
    whole = elementwise.dropout(tf.ones(shape), KEY, 0.4).numpy()
    for first, last in ((0, 4), (4, 5), (5, 12)):
        key = tf.constant([3, 41, first], tf.int32)
        assert np.array_equal(elementwise.dropout(tf.ones((last - first, *shape[1:])), key, 0.4), whole[first:last])


def halves(key, shape=(1000, 1024)) -> np.ndarray:
    return elementwise.kept(shape, 0.5, tf.concat([key, [0]], axis=0)).numpy()


@pytest.mark.parametrize("other", [[3, 42], [4, 41], [41, 3], [-3, 41], [3 + 2**20, 41]])
def test_masks_of_two_keys_are_independent(other):
    first, second = halves([3, 41]), halves(other)
    # Independent halves agree at half the places; a million of them put five standard deviations at 0.25 %.
    assert abs((first == second).mean() - 0.5) < 0.0025
    for shift in (1, 2, 1024):  # nor is one the other, moved
        assert abs((first.ravel()[shift:] == second.ravel()[:-shift]).mean() - 0.5) < 0.0025


def test_neighbors_are_dropped_independently():
    mask = halves([3, 41])
    flat = mask.ravel()
    for distance in (1, 2, 3, 4, 16, 32, 64, 128, 384, 1024):
        assert abs((flat[:-distance] == flat[distance:]).mean() - 0.5) < 0.0025, distance
    for axis in (0, 1):  # shares per row and per column spread as coin tosses do
        shares = mask.mean(axis=axis)
        assert shares.std() == pytest.approx(0.5 / np.sqrt(mask.shape[axis]), rel=0.15)


def test_consecutive_keys_give_no_element_a_rhythm():
    """Over the steps of a training, each element is dropped as often as it should be, and in no pattern."""
    masks = np.stack(
        [halves(tf.random.experimental.stateless_fold_in(tf.constant([11, 0]), step), [512]) for step in range(400)]
    )
    assert masks.mean(axis=0).std() == pytest.approx(0.5 / np.sqrt(400), rel=0.15)
    assert abs((masks[:-1] == masks[1:]).mean() - 0.5) < 0.006


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 3, 7), (0, 4)])
def test_dropout_takes_any_shape(shape):
    y = elementwise.dropout(tf.ones(shape), KEY, 0.5)
    assert y.shape == shape and set(np.unique(y)) <= {0.0, 2.0}


def test_dropout_keeps_the_type():
    y = elementwise.dropout(tf.ones([9, 9], tf.bfloat16), KEY, 0.5)
    assert y.dtype == tf.bfloat16
    assert np.array_equal(y.numpy() != 0, elementwise.dropout(tf.ones([9, 9]), KEY, 0.5).numpy() != 0)
