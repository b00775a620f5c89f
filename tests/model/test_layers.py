"""The weightless layers: dropout, attention, masks, normalization, activation."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfpipe.devices.strategy import precision
from tfpipe.model import elementwise
from tfpipe.model.layers import (
    MASKED,
    Activation,
    AttentionContext,
    BroadcastDense,
    CompiledActivation,
    Dropout,
    FakeQuantize,
    GatherClassToken,
    GatherEmbedding,
    LayerNormalization,
    MaskBias,
    PackedAttentionContext,
    Positions,
    ResidualNormalization,
    salted,
)

KEY = tf.constant([3, 41, 0], tf.int32)


def test_the_dropout_layer_acts_in_training_only():
    x = tf.random.stateless_normal([8, 8], [1, 2])
    layer = Dropout(0.5, salt=4)
    assert np.array_equal(layer([x, KEY], training=False), x)
    moved = layer([x, KEY], training=True).numpy()
    assert np.array_equal(moved, elementwise.dropout(x, salted(KEY, 4), 0.5)) and (moved == 0).any()
    assert not np.array_equal(moved, Dropout(0.5, salt=5)([x, KEY], training=True))
    assert np.array_equal(Dropout(0.0, salt=4)([x, KEY], training=True), x)


def test_mask_bias_and_positions():
    bias = MaskBias()(tf.constant([[1, 1, 0], [1, 0, 0]]))
    assert bias.shape == (2, 1, 1, 3)
    assert bias.numpy()[:, 0, 0].tolist() == [[0.0, 0.0, MASKED], [0.0, MASKED, MASKED]]
    assert Positions()(tf.zeros([5, 4], tf.int32)).numpy().tolist() == [[0, 1, 2, 3]]


def attention_inputs(length: int = 6, hidden: int = 8):
    return [tf.random.stateless_normal([2, length, hidden], [5, number]) for number in range(3)]


def test_attention_against_numpy():
    query, key, value = attention_inputs()
    bias = MaskBias()(tf.constant([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]))
    found = AttentionContext(num_heads=2)([query, key, value, bias]).numpy()
    q, k, v = (x.numpy().astype(np.float64).reshape(2, 6, 2, 4).transpose(0, 2, 1, 3) for x in (query, key, value))
    scores = q @ k.transpose(0, 1, 3, 2) / 2.0 + bias.numpy()  # the square root of a head's 4
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    expected = (share @ v).transpose(0, 2, 1, 3).reshape(2, 6, 8)
    assert np.abs(found - expected).max() <= 1e-6


def test_a_masked_position_gets_no_attention_at_all():
    query, key, value = attention_inputs()
    bias = MaskBias()(tf.constant([[1, 1, 1, 0, 0, 0]] * 2))
    layer = AttentionContext(num_heads=2)
    expected = layer([query, key, value, bias])
    loud = tf.concat([key[:, :3], key[:, 3:] * 1000.0], axis=1), tf.concat([value[:, :3], value[:, 3:] + 1e30], axis=1)
    assert np.array_equal(layer([query, *loud, bias]), expected)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_packed_attention_stays_within_a_segment(dtype):
    """Against attention over each segment alone, and with the other segments made loud."""
    query, key, value = (tf.cast(x, dtype) for x in attention_inputs())
    segments = tf.constant([[1, 1, 1, 2, 2, 0]] * 2)
    layer = PackedAttentionContext(num_heads=2, rate=0.0, salt=1, dtype=dtype)
    found = layer([query, key, value, segments, segments, KEY])
    assert found.dtype == dtype
    plain = AttentionContext(num_heads=2)
    for here in (slice(0, 3), slice(3, 5)):
        alone = plain([tf.cast(x[:, here], tf.float32) for x in (query, key, value)] + [tf.zeros([2, 1, 1, 1])])
        assert np.abs(tf.cast(found[:, here], tf.float32) - alone).max() <= (1e-6 if dtype == tf.float32 else 0.05)
    loud = [tf.concat([x[:, :3], x[:, 3:] * 1000.0], axis=1) for x in (key, value)]
    assert np.array_equal(layer([query, *loud, segments, segments, KEY])[:, :3], found[:, :3])


def test_some_queries_may_ask_alone():
    """The last layer: what stands at the slots, over the keys and values of the whole row."""
    query, key, value = attention_inputs()
    segments = tf.constant([[1, 1, 1, 2, 2, 0]] * 2)
    layer = PackedAttentionContext(num_heads=2, rate=0.0, salt=1)
    every = layer([query, key, value, segments, segments, KEY])
    index = tf.constant([[0, 3]] * 2)
    take = GatherClassToken()
    chosen = layer([take([query, index]), key, value, take([segments, index]), segments, KEY])
    assert np.abs(chosen - take([every, index])).max() <= 1e-6


def test_a_row_that_sees_nothing_stays_finite():
    nothing = tf.zeros([2, 6], tf.int32)
    context = PackedAttentionContext(2, 0.0, 1)([*attention_inputs(), nothing, nothing, KEY])
    assert np.isfinite(context).all()


def test_attention_dropout_acts_in_training_only():
    segments = tf.ones([2, 6], tf.int32)
    layer = PackedAttentionContext(num_heads=2, rate=0.5, salt=9)
    inputs = [*attention_inputs(), segments, segments, KEY]
    still, moved = layer(inputs, training=False).numpy(), layer(inputs, training=True).numpy()
    assert np.array_equal(still, PackedAttentionContext(2, 0.0, 9)(inputs, training=True))
    assert not np.array_equal(still, moved)
    assert np.array_equal(moved, layer(inputs, training=True))


def test_residual_normalization_is_dropout_sum_and_normalization():
    x, residual = (tf.random.stateless_normal([4, 7, 32], [1, n]) for n in (1, 2))
    layer, plain = ResidualNormalization(1e-12, rate=0.3, salt=5), LayerNormalization(1e-12)
    for each, shape in ((layer, [x.shape, x.shape, [2]]), (plain, x.shape)):
        each.build(shape)
        each.gamma.assign(tf.random.stateless_normal([32], [2, 1]))
        each.beta.assign(tf.random.stateless_normal([32], [2, 2]))
    assert np.abs(layer([x, residual, KEY], training=False) - plain(x + residual)).max() <= 2e-6
    dropped = Dropout(0.3, salt=5)([x, KEY], training=True)
    assert np.abs(layer([x, residual, KEY], training=True) - plain(dropped + residual)).max() <= 2e-6


def test_layer_normalization_equals_that_of_keras():
    x = tf.random.stateless_normal([4, 7, 32], [1, 1], mean=3.0, stddev=2.0)
    ours, theirs = LayerNormalization(1e-12), tf_keras.layers.LayerNormalization(epsilon=1e-12)
    gamma, beta = tf.random.stateless_normal([32], [2, 1]), tf.random.stateless_normal([32], [2, 2])
    for layer in (ours, theirs):
        layer.build(x.shape)
        layer.gamma.assign(gamma)
        layer.beta.assign(beta)
    assert np.abs(ours(x).numpy() - theirs(x).numpy()).max() <= 2e-6
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        results = [tf.reduce_sum(layer(x) * tf.sin(x)) for layer in (ours, theirs)]
    first, second = (tape.gradient(result, x).numpy() for result in results)
    assert np.abs(first - second).max() <= 1e-5


def test_layer_normalization_takes_its_epsilon_into_account():
    x = tf.constant([[0.001, -0.001]])
    assert np.allclose(LayerNormalization(1e-12)(x), [[1.0, -1.0]], atol=1e-5)
    assert np.allclose(LayerNormalization(3e-6)(x), [[0.5, -0.5]], atol=1e-5)


def test_layer_normalization_is_computed_in_float32_under_bfloat16():
    x = tf.random.stateless_normal([64, 32], [1, 1], mean=100.0)  # near 100, bfloat16 counts in steps of 0.5
    with precision("mixed_bfloat16"):
        mixed = LayerNormalization(1e-12)
        found = mixed(x)
    assert found.dtype == tf.bfloat16 and mixed.gamma.dtype == tf.float32
    expected = LayerNormalization(1e-12)(tf.cast(tf.cast(x, tf.bfloat16), tf.float32))
    assert np.abs(tf.cast(found, tf.float32) - expected).max() <= 0.01


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("gelu", lambda x: tf.nn.gelu(x, approximate=False)),
        ("gelu_new", lambda x: tf.nn.gelu(x, approximate=True)),
        ("relu", tf.nn.relu),
    ],
)
def test_activation(name, reference):
    x = tf.linspace(-8.0, 8.0, 4001)
    for layer in (Activation(name), CompiledActivation(name)):
        assert np.abs(layer(x) - reference(x)).max() <= 2e-6


def test_the_two_gelus_differ():
    x = tf.linspace(-4.0, 4.0, 401)
    assert 1e-4 < np.abs(Activation("gelu")(x) - Activation("gelu_new")(x)).max() < 1e-3


def test_broadcast_dense_and_gather_embedding_equal_those_of_keras():
    x = tf.random.stateless_normal([3, 5, 8], [1, 1])
    ours, theirs = BroadcastDense(4), tf_keras.layers.Dense(4)
    for layer in (ours, theirs):
        layer.build(x.shape)
    theirs.set_weights([ours.get_weights()[0], np.arange(4.0)])
    ours.set_weights(theirs.get_weights())
    assert np.abs(ours(x) - theirs(x)).max() <= 1e-6

    ids = tf.constant([[1, 0, 6], [6, 6, 2]])
    gather, embedding = GatherEmbedding(7, 8), tf_keras.layers.Embedding(7, 8)
    embedding.build(ids.shape)
    gather.build(ids.shape)
    gather.set_weights(embedding.get_weights())
    assert np.array_equal(gather(ids), embedding(ids))


def test_fake_quantize_rounds_to_256_levels():
    low, high = -1.0, 1.55  # a step is 0.01
    x = tf.linspace(-2.0, 2.0, 4001)
    y = FakeQuantize(low, high)(x).numpy()
    assert len(np.unique(y)) == 256
    assert y.min() == pytest.approx(low) and y.max() == pytest.approx(high)
    inside = (x.numpy() >= low) & (x.numpy() <= high)
    assert np.abs(y - x)[inside].max() <= 0.005 + 1e-6


@pytest.mark.parametrize(
    "layer",
    [
        Dropout(0.2, 3),
        AttentionContext(4),
        PackedAttentionContext(4, rate=0.1, salt=5),
        LayerNormalization(1e-7),
        ResidualNormalization(1e-7, rate=0.1, salt=6),
        Activation("gelu_new"),
        CompiledActivation("gelu"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_is_made_again_from_its_settings(layer):
    """TF-MOT clones the model by them."""
    settings = layer.get_config()
    again = type(layer).from_config(settings)
    assert again.get_config() == settings
    constructor = {"name", "trainable", "dtype"}
    assert all(getattr(again, name) == value for name, value in settings.items() if name not in constructor)
    assert set(settings) > constructor
