"""The weightless layers of the encoder, and the two with weights that Keras's own would make slow or hard to export.

Every projection of the model is a Keras `Dense`, which TF-MOT can wrap. All else is here: attention, masks, dropout
keyed by step, the gather of each example's `[CLS]`. Softmax and layer norm are computed in float32 under any policy.
"""

from __future__ import annotations

import math

import tensorflow as tf
import tf_keras

from tfpipe.model import elementwise

MASKED = -1e9  # added to a masked score: exp() of it is exactly 0 in float32, and sums with it stay finite


def salted(key: tf.Tensor, salt: int) -> tf.Tensor:
    """Makes the dropout key of one layer: [3] int32, number of the layer -> [3] int32; see `elementwise`."""
    return tf.concat([tf.random.experimental.stateless_fold_in(key[:2], salt), key[2:]], axis=0)


class Dropout(tf_keras.layers.Layer):
    """Stateless dropout: `[x, key]` -> x; the identity outside training."""

    def __init__(self, rate: float, salt: int, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.salt = rate, salt

    def call(self, inputs, training=False):
        """Drops elements: `x` [...] float, `key` [3] int32 -> [...] float."""
        x, key = inputs
        if not training or self.rate == 0.0:
            return tf.identity(x)
        return elementwise.dropout(x, salted(key, self.salt), self.rate)

    def compute_output_shape(self, input_shape):
        """Gives the shape of `x`."""
        return input_shape[0]

    def get_config(self):
        """Gives the settings, for cloning."""
        return super().get_config() | {"rate": self.rate, "salt": self.salt}


class MaskBias(tf_keras.layers.Layer):
    """Additive attention bias of one example a row."""

    def call(self, attention_mask):
        """Makes the bias: [batch, length] int32, 1 for a token -> [batch, 1, 1, length] float32, 0 or MASKED."""
        bias = (1.0 - tf.cast(attention_mask, tf.float32)) * MASKED
        return tf.expand_dims(tf.expand_dims(bias, 1), 1)  # an index of None keeps LiteRT from converting it


class Positions(tf_keras.layers.Layer):
    """Positions 0, 1, 2, … of one example a row: [batch, length] int32 -> [1, length] int32."""

    def call(self, input_ids):
        """Makes the positions, shared by all rows."""
        return tf.range(tf.shape(input_ids)[1])[None]


class AttentionContext(tf_keras.layers.Layer):
    """Scaled dot-product attention over heads (Vaswani et al., 2017), between the projections, of one example a row.

    `[query, key, value, bias]` -> context, [batch, queries, hidden].
    """

    def __init__(self, num_heads: int, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def call(self, inputs):
        """Attends: queries, keys, values [batch, length, hidden]; bias broadcastable to [batch, 1, queries, length]."""
        query, key, value, bias = inputs
        scores = tf.matmul(self.split(query), self.split(key), transpose_b=True)
        probabilities = tf.nn.softmax(scores * (1.0 / math.sqrt(query.shape[-1] // self.num_heads)) + bias)
        return self.merge(tf.matmul(probabilities, self.split(value)))

    def split(self, x):
        """Splits off the heads: [batch, length, hidden] -> [batch, heads, length, width]."""
        shape = tf.shape(x)
        heads = tf.reshape(x, [shape[0], shape[1], self.num_heads, x.shape[-1] // self.num_heads])
        return tf.transpose(heads, [0, 2, 1, 3])

    def merge(self, x):
        """Merges the heads: [batch, heads, length, width] -> [batch, length, hidden]."""
        shape = tf.shape(x)
        return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [shape[0], shape[2], self.num_heads * x.shape[-1]])

    def compute_output_shape(self, input_shape):
        """Gives the shape of the query."""
        return input_shape[0]

    def get_config(self):
        """Gives the settings, for cloning."""
        return super().get_config() | {"num_heads": self.num_heads}


class PackedAttentionContext(AttentionContext):
    """Attention for rows that hold several examples: a token attends to its own segment; dropout in training.

    `[query, key, value, query segments, key segments, dropout key]` -> context, [rows, queries, hidden].
    """

    def __init__(self, num_heads: int, rate: float, salt: int, **kwargs):
        super().__init__(num_heads, **kwargs)
        self.rate, self.salt = rate, salt

    def call(self, inputs, training=False):
        """Attends: queries [rows, queries, hidden], keys, values [rows, length, hidden]; int32 segments, 0 pads."""
        query, key, value, query_segments, key_segments, dropout_key = inputs
        context = elementwise.segment_attention(
            self.split(query),
            self.split(key),
            self.split(value),
            query_segments,
            key_segments,
            salted(dropout_key, self.salt),
            scale=1.0 / math.sqrt(query.shape[-1] // self.num_heads),
            rate=self.rate if training else 0.0,
        )
        return self.merge(context)

    def get_config(self):
        """Gives the settings, for cloning."""
        return super().get_config() | {"rate": self.rate, "salt": self.salt}


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
        """Normalizes: [..., hidden] float -> the same."""
        wide = tf.cast(x, tf.float32)
        centered = wide - tf.reduce_mean(wide, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
        # Gamma first: as the last factor, LiteRT's converter would put it into the kernels that follow, off their grid.
        scale = tf.math.rsqrt(variance + self.epsilon) * tf.cast(self.gamma, tf.float32)
        return tf.cast(centered * scale + tf.cast(self.beta, tf.float32), x.dtype)

    def compute_output_shape(self, input_shape):
        """Gives the shape of the input."""
        return input_shape

    def get_config(self):
        """Gives the settings, for cloning."""
        return super().get_config() | {"epsilon": self.epsilon}


class ResidualNormalization(LayerNormalization):
    """Dropout, the residual's sum and layer normalization in one: `[x, residual, dropout key]` -> [..., hidden]."""

    def __init__(self, epsilon: float, rate: float, salt: int, **kwargs):
        super().__init__(epsilon, **kwargs)
        self.rate, self.salt = rate, salt

    def build(self, input_shape):
        """Makes gamma and beta, [hidden] float32."""
        super().build(input_shape[0])

    def call(self, inputs, training=False):
        """Adds and normalizes: `x` and `residual` [..., hidden] float; `key` [3] int32."""
        x, residual, key = inputs
        gamma, beta = (tf.cast(weight, tf.float32) for weight in (self.gamma, self.beta))
        rate = self.rate if training else 0.0
        return elementwise.add_and_normalize(
            x, residual, gamma, beta, salted(key, self.salt), rate=rate, epsilon=self.epsilon
        )

    def compute_output_shape(self, input_shape):
        """Gives the shape of `x`."""
        return input_shape[0]

    def get_config(self):
        """Gives the settings, for cloning."""
        return super().get_config() | {"rate": self.rate, "salt": self.salt}


class Activation(tf_keras.layers.Layer):
    """The feed-forward activation: `gelu` (exact, with erf), `gelu_new` (tanh) or `relu`, as transformers names them.

    The exact GELU is written with erf, not with Keras's erfc, which tf2onnx does not know (Hendrycks & Gimpel, 2016).
    """

    def __init__(self, function: str, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        """Activates: [..., width] float -> the same."""
        if self.function == "gelu":
            return x * 0.5 * (1.0 + tf.math.erf(x / tf.cast(math.sqrt(2.0), x.dtype)))
        if self.function == "gelu_new":
            return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))
        return tf.nn.relu(x)

    def compute_output_shape(self, input_shape):
        """Gives the shape of the input."""
        return input_shape

    def get_config(self):
        """Gives the settings, for cloning."""
        return super().get_config() | {"function": self.function}


class CompiledActivation(Activation):
    """The activation in training: one loop forward, one for the gradient."""

    def call(self, x, training=False):
        """Activates: [..., width] float -> the same."""
        if self.function == "relu" or not training:
            return super().call(x)
        return elementwise.gelu(x, approximate=self.function == "gelu_new")


class GatherClassToken(tf_keras.layers.Layer):
    """The values at each example's `[CLS]`: `[values of tokens, cls_index]` -> [rows, slots, …]."""

    def call(self, inputs):
        """Gathers: values [rows, length, …]; cls_index [rows, slots] int32, positions within the row."""
        values, cls_index = inputs
        return tf.gather(values, cls_index, batch_dims=1)

    def compute_output_shape(self, input_shape):
        """Gives [rows, slots, …]."""
        return (*input_shape[1], *input_shape[0][2:])


class FirstToken(tf_keras.layers.Layer):
    """The `[CLS]` of one example a row."""

    def call(self, x):
        """Takes the first token: [batch, length, hidden] -> [batch, 1, hidden]."""
        first = x[:, :1]
        first.set_shape([None, 1, None])
        return first


class FlatDense(tf_keras.layers.Dense):
    """`Dense` over matrices: product and bias stand side by side, and TensorFlow fuses them into one operator."""

    def call(self, x):
        """Projects: [rows, length, into] float -> [rows, length, units] float."""
        shape = tf.shape(x)
        product = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), self.kernel)
        bias = tf.cast(self.bias, product.dtype)
        return tf.reshape(elementwise.add_bias(product, bias), [shape[0], shape[1], self.units])


class BroadcastDense(tf_keras.layers.Dense):
    """`Dense` as one matrix product over the last axis: no shape arithmetic in the exported graph.

    For inference only: the gradient of a broadcast product would be taken per row and then summed.
    """

    def call(self, x):
        """Projects: [batch, length, into] float -> [batch, length, units] float."""
        return tf.matmul(x, self.kernel) + self.bias


class GatherEmbedding(tf_keras.layers.Embedding):
    """`Embedding` that reads its table and gathers from it: in the exported graph the table is an ordinary tensor."""

    def call(self, ids):
        """Gathers: [batch, length] int32 -> [batch, length, width] float32."""
        return tf.gather(tf.identity(self.embeddings), ids)


class QuantizationPoint(tf_keras.layers.Layer):
    """The identity: marks a value that quantization-aware training makes 8 bits wide."""

    def call(self, x):
        """Returns its input: [...] float -> the same."""
        return tf.identity(x)

    def compute_output_shape(self, input_shape):
        """Gives the shape of the input."""
        return input_shape


class FakeQuantize(tf_keras.layers.Layer):
    """The 256 levels of a fixed range, to which an 8-bit activation is rounded (Jacob et al., 2018)."""

    def __init__(self, minimum: float, maximum: float, **kwargs):
        super().__init__(**kwargs)
        self.minimum, self.maximum = minimum, maximum

    def call(self, x):
        """Rounds: [...] float32 -> the same."""
        return tf.quantization.fake_quant_with_min_max_args(x, self.minimum, self.maximum)
