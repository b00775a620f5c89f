"""The weightless layers of the encoder, and the two with weights that Keras's own would make slow or hard to export.

Every projection of the model is a Keras `Dense`, which TF-MOT can wrap. All else is here: attention, masks, dropout
keyed by step, the gather of each example's `[CLS]`. Softmax and layer norm are computed in float32 under any policy.
"""

from __future__ import annotations

import math

import tensorflow as tf
import tf_keras

MASKED = -1e9  # added to a masked score: exp() of it is exactly 0 in float32, and sums with it stay finite


def stateless_dropout(x: tf.Tensor, rate: float, key: tf.Tensor, salt: int) -> tf.Tensor:
    """Dropout whose mask is a pure function of `key` and `salt` (Philox), so that a resumed step repeats itself.

    Args:
      x: float tensor of any shape.
      rate: probability of a zero; it acts in steps of 1/65536.
      key: [2] int32, made of (seed, step, micro-batch, replica).
      salt: number of the layer.
    """
    count = tf.size(x)
    seed = tf.random.experimental.stateless_fold_in(key, salt)
    # One 32-bit draw serves two elements.
    draws = tf.random.stateless_uniform([(count + 1) // 2], seed, minval=None, maxval=None, dtype=tf.uint32)
    bits = tf.reshape(tf.reshape(tf.bitcast(draws, tf.uint16), [-1])[:count], tf.shape(x))
    keep = bits >= tf.constant(round(rate * 65536), tf.uint16)
    return tf.where(keep, x * tf.cast(1.0 / (1.0 - rate), x.dtype), tf.zeros([], x.dtype))


class Dropout(tf_keras.layers.Layer):
    """Stateless dropout: `[x, key]` -> x; the identity outside training."""

    def __init__(self, rate: float, salt: int, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.salt = rate, salt

    def call(self, inputs, training=False):
        """`x` [...] float, `key` [2] int32 -> [...] float."""
        x, key = inputs
        if not training or self.rate == 0.0:
            return tf.identity(x)
        return stateless_dropout(x, self.rate, key, self.salt)

    def compute_output_shape(self, input_shape):
        """Same as `x`."""
        return input_shape[0]

    def get_config(self):
        """Settings, for cloning."""
        return super().get_config() | {"rate": self.rate, "salt": self.salt}


class SegmentBias(tf_keras.layers.Layer):
    """Additive attention bias of packed rows: a token sees the tokens of its own segment, and 0 is padding."""

    def call(self, segment_ids):
        """[batch, length] int32 -> [batch, 1, length, length] float32, 0 or MASKED."""
        same = tf.equal(segment_ids[:, :, None], segment_ids[:, None, :])
        seen = tf.logical_and(same, segment_ids[:, None, :] > 0)
        return tf.where(seen, 0.0, MASKED)[:, None]

    def compute_output_shape(self, input_shape):
        """[batch, 1, length, length]."""
        return (input_shape[0], 1, input_shape[1], input_shape[1])


class MaskBias(tf_keras.layers.Layer):
    """Additive attention bias of one example a row."""

    def call(self, attention_mask):
        """[batch, length] int32, 1 for a token -> [batch, 1, 1, length] float32, 0 or MASKED."""
        return ((1.0 - tf.cast(attention_mask, tf.float32)) * MASKED)[:, None, None]


class Positions(tf_keras.layers.Layer):
    """Positions 0, 1, 2, … of one example a row: [batch, length] int32 -> [1, length] int32."""

    def call(self, input_ids):
        """The positions, shared by all rows."""
        return tf.range(tf.shape(input_ids)[1])[None]


class AttentionContext(tf_keras.layers.Layer):
    """Scaled dot-product attention over heads (Vaswani et al., 2017), between the projections.

    `[query, key, value, bias]` or `[query, key, value, bias, dropout key]` -> context, [batch, length, hidden].
    """

    def __init__(self, num_heads: int, rate: float = 0.0, salt: int = 0, **kwargs):
        super().__init__(**kwargs, autocast=False)  # the bias stays float32
        self.num_heads, self.rate, self.salt = num_heads, rate, salt

    def call(self, inputs, training=False):
        """Queries, keys and values [batch, length, hidden]; bias broadcastable to [batch, 1, length, length]."""
        query, key, value, bias = inputs[:4]
        hidden = query.shape[-1]
        scores = tf.matmul(self._split(query), self._split(key), transpose_b=True)
        scores = tf.cast(scores, tf.float32) * (1.0 / math.sqrt(hidden // self.num_heads)) + bias
        probabilities = tf.cast(tf.nn.softmax(scores), query.dtype)
        if training and self.rate > 0.0:
            probabilities = stateless_dropout(probabilities, self.rate, inputs[4], self.salt)
        context = tf.transpose(tf.matmul(probabilities, self._split(value)), [0, 2, 1, 3])
        shape = tf.shape(query)
        return tf.reshape(context, [shape[0], shape[1], hidden])

    def _split(self, x):
        shape = tf.shape(x)
        heads = tf.reshape(x, [shape[0], shape[1], self.num_heads, x.shape[-1] // self.num_heads])
        return tf.transpose(heads, [0, 2, 1, 3])

    def compute_output_shape(self, input_shape):
        """Same as the query."""
        return input_shape[0]

    def get_config(self):
        """Settings, for cloning."""
        return super().get_config() | {"num_heads": self.num_heads, "rate": self.rate, "salt": self.salt}


class LayerNormalization(tf_keras.layers.Layer):
    """Layer normalization over the last axis (Ba et al., 2016), in float32 whatever the policy."""

    def __init__(self, epsilon: float, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        """Makes gamma and beta, [hidden] float32."""
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(input_shape[-1],), initializer="zeros")
        super().build(input_shape)

    def call(self, x):
        """[..., hidden] float -> the same."""
        wide = tf.cast(x, tf.float32)
        centered = wide - tf.reduce_mean(wide, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
        scale = tf.cast(self.gamma, tf.float32)
        return tf.cast(
            centered * tf.math.rsqrt(variance + self.epsilon) * scale + tf.cast(self.beta, tf.float32), x.dtype
        )

    def compute_output_shape(self, input_shape):
        """Same as the input."""
        return input_shape

    def get_config(self):
        """Settings, for cloning."""
        return super().get_config() | {"epsilon": self.epsilon}


class Activation(tf_keras.layers.Layer):
    """The feed-forward activation: `gelu` (exact, with erf), `gelu_new` (tanh) or `relu`, as transformers names them.

    The exact GELU is written with erf, not with Keras's erfc, which tf2onnx does not know (Hendrycks & Gimpel, 2016).
    """

    def __init__(self, function: str, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        """[..., width] float -> the same."""
        if self.function == "gelu":
            return x * 0.5 * (1.0 + tf.math.erf(x / tf.cast(math.sqrt(2.0), x.dtype)))
        if self.function == "gelu_new":
            return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))
        return tf.nn.relu(x)

    def compute_output_shape(self, input_shape):
        """Same as the input."""
        return input_shape

    def get_config(self):
        """Settings, for cloning."""
        return super().get_config() | {"function": self.function}


class GatherClassToken(tf_keras.layers.Layer):
    """Takes each example's `[CLS]` from the rows: `[hidden states, cls_index]` -> [examples, hidden]."""

    def call(self, inputs):
        """Hidden states [batch, length, hidden] float; cls_index [examples] int32 counts tokens over all rows."""
        states, cls_index = inputs
        return tf.gather(tf.reshape(states, [-1, states.shape[-1]]), cls_index)

    def compute_output_shape(self, input_shape):
        """[examples, hidden]."""
        return (input_shape[1][0], input_shape[0][-1])


class BroadcastDense(tf_keras.layers.Dense):
    """`Dense` as one matrix product over the last axis: no shape arithmetic in the exported graph.

    For inference only: the gradient of a broadcast product would be taken per row and then summed.
    """

    def call(self, x):
        """[batch, length, into] float -> [batch, length, units] float."""
        return tf.matmul(x, self.kernel) + self.bias


class GatherEmbedding(tf_keras.layers.Embedding):
    """`Embedding` that reads its table and gathers from it: in the exported graph the table is an ordinary tensor."""

    def call(self, ids):
        """[batch, length] int32 -> [batch, length, width] float32."""
        return tf.gather(tf.identity(self.embeddings), ids)


class QuantizationPoint(tf_keras.layers.Layer):
    """The identity: marks what quantization-aware training makes 8 bits wide."""

    def call(self, x):
        """[...] float -> the same."""
        return tf.identity(x)

    def compute_output_shape(self, input_shape):
        """Same as the input."""
        return input_shape


class FakeQuantize(tf_keras.layers.Layer):
    """Rounds to the 256 levels of a fixed range, as an 8-bit activation does (Jacob et al., 2018)."""

    def __init__(self, minimum: float, maximum: float, **kwargs):
        super().__init__(**kwargs)
        self.minimum, self.maximum = minimum, maximum

    def call(self, x):
        """[...] float32 -> the same."""
        return tf.quantization.fake_quant_with_min_max_args(x, self.minimum, self.maximum)
