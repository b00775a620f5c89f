"""The chains of elementwise operations between the matrix products, each one loop over memory, with its gradient.

TensorFlow runs an operator at a time: a GELU with its gradient is thirteen passes over [tokens, intermediate], and in
bfloat16 each pass converts there and back. Here XLA compiles a chain to one loop in float32. The gradient is written
out, so that it too is one chain. It computes its terms again from the inputs instead of reading them back.
The products stay with the library that multiplies fastest (oneDNN, cuBLAS); a TPU's whole step is compiled anyway.
`benchmarks/README.md` has the profile.

A dropout key is [3] int32: two words, and the number within the whole batch of the tensor's first row. The place of an
element in the whole batch decides whether dropout keeps it. A batch can thus be divided into any number of parts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from tfpipe.console import native_output_hidden

_WORD = tf.uint32


def _one_loop(function: Callable) -> Callable:
    return functools.wraps(function)(tf.function(function, jit_compile=True, autograph=False))


def announce_compiler() -> None:
    """Compiles something trivial with standard error closed: TensorFlow announces its first compilation there."""
    with native_output_hidden():
        tf.function(tf.identity, jit_compile=True, autograph=False)(tf.zeros([]))


def _stored(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Casts a value to the type in which it is kept, in a compiled function.

    Where a whole step is compiled, XLA would see that readers widen the value again, and keep it in float32, twice as
    many bytes in memory.
    """
    (value,) = xla.optimization_barrier(tf.cast(x, dtype))
    return value


@tf.RegisterGradient("XlaOptimizationBarrier")
def _barrier_gradient(operator: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    """Passes the upstream gradient on: TensorFlow has none for a barrier, and asks for one in eager code.

    `tf.custom_gradient` would register it anew in each trace; `Session.save` takes such entries out of the registry.
    """
    return upstream


def kept(shape: Sequence[int | tf.Tensor], rate: float, key: tf.Tensor) -> tf.Tensor:
    """Decides which elements dropout keeps: a pure function of `key` and an element's place, cheap enough to do twice.

    The place goes through two rounds of a 32-bit integer hash with low bias (Wellons, 2018, "Prospecting for hash
    functions"), a word of the key before each: a counter-based generator in the sense of Salmon et al. (2011), with a
    tenth of Philox's operations.

    Args:
      shape: rows first; the whole batch has at most 2**32 elements.
      rate: probability of False.
      key: [3] int32.

    Returns:
      `shape` bool.
    """
    first, second = tf.unstack(tf.bitcast(key[:2], _WORD))
    # Both words must change with either: masks that share the second would be neighbors changing places.
    first = _mixed(first + _mixed(second))
    second = _mixed(tf.bitwise.bitwise_xor(second, first))
    bits = _mixed(tf.bitwise.bitwise_xor(tf.bitcast(_places(shape, key[2]), _WORD), first))
    bits = _mixed(tf.bitwise.bitwise_xor(bits, second))
    return bits >= tf.constant(round(rate * 2**32), _WORD)


def _places(shape: Sequence[int | tf.Tensor], first_row: tf.Tensor) -> tf.Tensor:
    """Numbers each element in the whole batch, `shape` int32.

    It adds from the rows inwards, so that every sum depends on `first_row`: TensorFlow would fold a sum that does not
    into a constant as large as the tensor.
    """
    strides = [1]
    for size in shape[:0:-1]:
        strides.insert(0, strides[0] * size)
    places = first_row * strides[0]
    for axis, (size, stride) in enumerate(zip(shape, strides, strict=False)):
        places += tf.reshape(tf.range(size) * stride, [-1 if n == axis else 1 for n in range(len(shape))])
    return places


def _shape_of(x: tf.Tensor) -> list[int | tf.Tensor]:
    dynamic = tf.shape(x)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(x.shape)]


def _mixed(word: tf.Tensor) -> tf.Tensor:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, None)):
        word = tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, tf.constant(shift, _WORD)))
        if factor is not None:
            word *= tf.constant(factor, _WORD)
    return word


def dropout(x: tf.Tensor, key: tf.Tensor, rate: float) -> tf.Tensor:
    """Puts zeros at `rate`, and scales the rest to keep the mean (Srivastava et al., 2014).

    Args:
      x: float tensor of any shape.
      key: [3] int32, made of (seed, step, layer) and the first row.
      rate: probability of a zero.
    """

    @tf.custom_gradient
    def dropped(x):
        return _dropout(x, key, rate), lambda upstream: _dropout(upstream, key, rate)

    return dropped(x)


@_one_loop
def _dropout(x, key, rate):
    return tf.cast(_dropped(tf.cast(x, tf.float32), key, rate), x.dtype)


def _dropped(x, key, rate):
    if rate == 0.0:
        return x
    return tf.where(kept(_shape_of(x), rate, key), x * (1.0 / (1.0 - rate)), 0.0)


def gelu(x: tf.Tensor, approximate: bool) -> tf.Tensor:
    """Computes GELU (Hendrycks & Gimpel, 2016), exact or by tanh: [...] float -> the same, computed in float32.

    The slope is computed with the value, which shares its terms, and kept instead of `x`.
    """

    @tf.custom_gradient
    def activated(x):
        value, slope = _gelu(x, approximate)
        return value, lambda upstream: _scaled(upstream, slope)

    # A matrix, as the products before and after it have it: only then does a compiler join them.
    return tf.reshape(activated(tf.reshape(x, [-1, x.shape[-1]])), _shape_of(x))


_TANH_SCALE, _TANH_CUBE = math.sqrt(2.0 / math.pi), 0.044715


@_one_loop
def _gelu(x, approximate):
    x = _stored(x, x.dtype)
    wide = tf.cast(x, tf.float32)
    if approximate:
        tanh = tf.tanh(_TANH_SCALE * (wide + _TANH_CUBE * wide**3))
        share = 0.5 * (1.0 + tanh)
        density = 0.5 * (1.0 - tanh**2) * _TANH_SCALE * (1.0 + 3.0 * _TANH_CUBE * wide**2)
    else:
        share, density = _normal_distribution(wide)
    return tf.cast(wide * share, x.dtype), tf.cast(share + wide * density, x.dtype)


def _normal_distribution(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the standard normal distribution function and density at `x`, to 1e-7: one exponential for both.

    The series is Abramowitz & Stegun (1964), 7.1.26, for erf(|x| / sqrt(2)).
    """
    bell = tf.exp(-0.5 * x**2)
    t = 1.0 / (1.0 + (0.3275911 * math.sqrt(0.5)) * tf.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * series * bell
    return tf.where(x > 0.0, 1.0 - tail, tail), bell * (1.0 / math.sqrt(2.0 * math.pi))


@_one_loop
def _scaled(upstream, slope):
    return tf.cast(tf.cast(upstream, tf.float32) * tf.cast(slope, tf.float32), upstream.dtype)


def add_and_normalize(
    x: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, key: tf.Tensor, rate: float, epsilon: float
) -> tf.Tensor:
    """Computes the layer normalization (Ba et al., 2016) of `dropout(x) + residual`, in float32.

    Args:
      x: [..., hidden] float.
      residual: the same.
      gamma: [hidden] float32.
      beta: [hidden] float32.
      key: [3] int32, of the dropout.
      rate: probability of a zero in `x`.
      epsilon: added to the variance.
    """

    @tf.custom_gradient
    def normalized(x, residual, gamma, beta):
        value, standard, scale = _add_and_normalize(x, residual, gamma, beta, key, rate, epsilon)

        def gradient(upstream):
            down, kept_down, products = _add_and_normalize_gradient(standard, scale, gamma, key, upstream, rate)
            return kept_down, tf.cast(down, residual.dtype), sum_of_rows(products), sum_of_rows(upstream)

        return value, gradient

    return normalized(x, residual, gamma, beta)


@_one_loop
def _add_and_normalize(x, residual, gamma, beta, key, rate, epsilon):
    x = _stored(x, x.dtype)
    total = _dropped(tf.cast(x, tf.float32), key, rate) + tf.cast(residual, tf.float32)
    mean = tf.reduce_mean(total, axis=-1, keepdims=True)
    # Both moments in one pass over memory. Their float32 rounding is the variance's up to means some hundred deviations
    # off; those of hidden states are within one.
    variance = tf.maximum(tf.reduce_mean(tf.square(total), axis=-1, keepdims=True) - tf.square(mean), 0.0)
    scale = tf.math.rsqrt(variance + epsilon)
    standard = (total - mean) * scale
    return _stored(standard * gamma + beta, x.dtype), _stored(standard, x.dtype), scale


@_one_loop
def _add_and_normalize_gradient(standard, scale, gamma, key, upstream, rate):
    dtype = upstream.dtype
    standard, upstream = tf.cast(standard, tf.float32), tf.cast(upstream, tf.float32)
    products, down = upstream * standard, upstream * gamma
    means = [tf.reduce_mean(each, axis=-1, keepdims=True) for each in (down, down * standard)]
    down = scale * (down - means[0] - standard * means[1])
    return tf.cast(down, dtype), tf.cast(_dropped(down, key, rate), dtype), tf.cast(products, dtype)


def sum_of_rows(x: tf.Tensor) -> tf.Tensor:
    """Sums over all axes but the last, as a product with ones, which is several times as fast as a reduction.

    Args:
      x: [..., width] float.

    Returns:
      [width] float32; the sums are accumulated in float32 and rounded to the type of `x`.
    """
    rows = tf.reshape(x, [-1, x.shape[-1]])
    return tf.cast(tf.matmul(tf.ones([1, tf.shape(rows)[0]], x.dtype), rows)[0], tf.float32)


def add_bias(product: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Adds a bias as `tf.nn.bias_add` does, with a fast gradient: [rows, units] float, [units] of the same type."""

    @tf.custom_gradient
    def added(product, bias):
        return tf.nn.bias_add(product, bias), lambda up: (up, tf.cast(sum_of_rows(up), bias.dtype))

    return added(product, bias)


def segment_attention(
    queries: tf.Tensor,
    keys: tf.Tensor,
    values: tf.Tensor,
    query_segments: tf.Tensor,
    key_segments: tf.Tensor,
    key: tf.Tensor,
    scale: float,
    rate: float,
) -> tf.Tensor:
    """Computes scaled dot-product attention (Vaswani et al., 2017) of packed rows: tokens see their segment alone.

    The softmax is computed in float32. Its gradient needs, for each query, the sum over keys of probability times
    gradient; that is the product of the context and its gradient, which are smaller (Dao et al., 2022, appendix B).

    Args:
      queries: [rows, heads, queries, width] float.
      keys: [rows, heads, keys, width] float.
      values: the same.
      query_segments: [rows, queries] int32.
      key_segments: [rows, keys] int32; 0 is padding, which no token sees.
      key: [3] int32, of the dropout.
      scale: factor of the scores.
      rate: probability of a zero among the attention probabilities.

    Returns:
      [rows, heads, queries, width]. A query of segment 0 gets finite values of no meaning.
    """

    @tf.custom_gradient
    def attended(queries, keys, values):
        scores = tf.matmul(queries, keys, transpose_b=True)
        shares, dropped = _segment_softmax(scores, query_segments, key_segments, key, scale, rate)
        context = tf.matmul(dropped, values)

        def gradient(upstream):
            down = tf.matmul(upstream, values, transpose_b=True)
            down = _segment_softmax_gradient(shares, key, down, context, upstream, scale, rate)
            return (
                tf.matmul(down, keys),
                tf.matmul(down, queries, transpose_a=True),
                tf.matmul(dropped, upstream, transpose_a=True),
            )

        return context, gradient

    return attended(queries, keys, values)


@_one_loop
def _segment_softmax(scores, query_segments, key_segments, key, scale, rate):
    queries, keys = query_segments[:, None, :, None], key_segments[:, None, None, :]
    seen = tf.logical_and(tf.equal(queries, keys), keys > 0)
    # Far below any score, and finite: a query that sees nothing must not divide zero by zero.
    wide = tf.where(seen, tf.cast(scores, tf.float32) * scale, -1e9)
    exponentials = tf.exp(wide - tf.reduce_max(wide, axis=-1, keepdims=True))
    shares = exponentials / tf.reduce_sum(exponentials, axis=-1, keepdims=True)
    shares = _stored(shares, scores.dtype)
    return shares, tf.cast(_dropped(tf.cast(shares, tf.float32), key, rate), scores.dtype)


@_one_loop
def _segment_softmax_gradient(shares, key, upstream, context, context_upstream, scale, rate):
    products = tf.cast(context, tf.float32) * tf.cast(context_upstream, tf.float32)
    down = _dropped(tf.cast(upstream, tf.float32), key, rate) - tf.reduce_sum(products, axis=-1, keepdims=True)
    return tf.cast(tf.cast(shares, tf.float32) * down * scale, shares.dtype)
