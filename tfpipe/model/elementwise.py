"""The chains of elementwise operations between the matrix products, each one loop over memory, with its gradient.

TensorFlow runs an operator at a time: a GELU with its gradient is thirteen passes over [tokens, intermediate], and in
bfloat16 each pass converts there and back. Here XLA compiles a chain to one loop in float32, and the gradient is
written out, so that it too is one chain, which computes again what it needs from the inputs instead of reading it back.
The products stay with the library that multiplies fastest (oneDNN, cuBLAS); a TPU's whole step is compiled anyway.
`benchmarks/README.md` has the profile.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable

import tensorflow as tf

_WORD = tf.uint32


def _one_loop(function: Callable) -> Callable:
    return functools.wraps(function)(tf.function(function, jit_compile=True, autograph=False))


def announce_compiler() -> None:
    """Compiles something trivial with standard error closed: TensorFlow announces its first compilation there."""
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        tf.function(tf.identity, jit_compile=True)(tf.zeros([]))
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def kept(shape: tf.Tensor, rate: float, key: tf.Tensor) -> tf.Tensor:
    """Which elements dropout keeps: a pure function of `key` and an element's index, cheap enough to compute twice.

    The index goes through two rounds of a 32-bit integer hash with low bias (Wellons, 2018, "Prospecting for hash
    functions"), a word of the key before each: a counter-based generator in the sense of Salmon et al. (2011), with a
    tenth of Philox's operations.

    Args:
      shape: [rank] int32; at most 2**31 elements.
      rate: probability of False.
      key: [2] int32.

    Returns:
      `shape` bool.
    """
    count = tf.reduce_prod(shape)
    first, second = tf.unstack(tf.bitcast(key, _WORD))
    # Both words must change with either: masks that share the second would be neighbours changing places.
    first = _mixed(first + _mixed(second))
    second = _mixed(tf.bitwise.bitwise_xor(second, first))
    bits = _mixed(tf.bitwise.bitwise_xor(tf.bitcast(tf.range(count), _WORD), first))
    bits = _mixed(tf.bitwise.bitwise_xor(bits, second))
    return tf.reshape(bits >= tf.constant(round(rate * 2**32), _WORD), shape)


def _mixed(word: tf.Tensor) -> tf.Tensor:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, None)):
        word = tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, tf.constant(shift, _WORD)))
        if factor is not None:
            word *= tf.constant(factor, _WORD)
    return word


def dropout(x: tf.Tensor, key: tf.Tensor, rate: float) -> tf.Tensor:
    """Zeros at `rate`, the rest scaled to keep the mean (Srivastava et al., 2014).

    Args:
      x: float tensor of any shape.
      key: [2] int32, made of (seed, step, micro-batch, replica, layer).
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
    return tf.where(kept(tf.shape(x), rate, key), x * (1.0 / (1.0 - rate)), 0.0)


def gelu(x: tf.Tensor, approximate: bool) -> tf.Tensor:
    """GELU (Hendrycks & Gimpel, 2016), exact or by tanh: [...] float -> the same, computed in float32.

    The slope is computed with the value, which shares its terms, and kept instead of `x`.
    """

    @tf.custom_gradient
    def activated(x):
        value, slope = _gelu(x, approximate)
        return value, lambda upstream: _scaled(upstream, slope)

    return activated(x)


_TANH_SCALE, _TANH_CUBE = math.sqrt(2.0 / math.pi), 0.044715


@_one_loop
def _gelu(x, approximate):
    wide = tf.cast(x, tf.float32)
    if approximate:
        tanh = tf.tanh(_TANH_SCALE * (wide + _TANH_CUBE * wide**3))
        share = 0.5 * (1.0 + tanh)
        density = 0.5 * (1.0 - tanh**2) * _TANH_SCALE * (1.0 + 3.0 * _TANH_CUBE * wide**2)
    else:
        share, density = _normal_distribution(wide)
    return tf.cast(wide * share, x.dtype), tf.cast(share + wide * density, x.dtype)


def _normal_distribution(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The standard normal distribution function and density at `x`, to 1e-7: one exponential for both.

    Abramowitz & Stegun (1964), 7.1.26, for erf(|x| / sqrt(2)).
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
    """Layer normalization (Ba et al., 2016) of `dropout(x) + residual`, in float32.

    Args:
      x: [..., hidden] float.
      residual: the same.
      gamma: [hidden] float32.
      beta: [hidden] float32.
      key: [2] int32, of the dropout.
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
    total = _dropped(tf.cast(x, tf.float32), key, rate) + tf.cast(residual, tf.float32)
    centered = total - tf.reduce_mean(total, axis=-1, keepdims=True)
    scale = tf.math.rsqrt(tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True) + epsilon)
    standard = centered * scale
    return tf.cast(standard * gamma + beta, x.dtype), tf.cast(standard, x.dtype), scale


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
    """`tf.nn.bias_add` with a fast gradient: [rows, units] float, [units] of the same type."""

    @tf.custom_gradient
    def added(product, bias):
        return tf.nn.bias_add(product, bias), lambda up: (up, tf.cast(sum_of_rows(up), bias.dtype))

    return added(product, bias)


def segment_softmax(
    scores: tf.Tensor,
    query_segments: tf.Tensor,
    key_segments: tf.Tensor,
    key: tf.Tensor,
    scale: float,
    rate: float,
) -> tf.Tensor:
    """Attention probabilities of packed rows: a token attends to its own segment alone; softmax in float32, dropout.

    Args:
      scores: [rows, heads, queries, keys] float.
      query_segments: [rows, queries] int32.
      key_segments: [rows, keys] int32; 0 is padding, which nobody sees.
      key: [2] int32, of the dropout.
      scale: factor of the scores.
      rate: probability of a zero.

    Returns:
      [rows, heads, queries, keys] in the scores' dtype. A query of segment 0 gets finite values of no meaning.
    """

    @tf.custom_gradient
    def probabilities(scores):
        shares, dropped = _segment_softmax(scores, query_segments, key_segments, key, scale, rate)
        return dropped, lambda upstream: _segment_softmax_gradient(shares, key, upstream, scale, rate)

    return probabilities(scores)


@_one_loop
def _segment_softmax(scores, query_segments, key_segments, key, scale, rate):
    queries, keys = query_segments[:, None, :, None], key_segments[:, None, None, :]
    seen = tf.logical_and(tf.equal(queries, keys), keys > 0)
    # Far below any score, and finite: a query that sees nothing must not divide zero by zero.
    wide = tf.where(seen, tf.cast(scores, tf.float32) * scale, -1e9)
    exponentials = tf.exp(wide - tf.reduce_max(wide, axis=-1, keepdims=True))
    shares = exponentials / tf.reduce_sum(exponentials, axis=-1, keepdims=True)
    return tf.cast(shares, scores.dtype), tf.cast(_dropped(shares, key, rate), scores.dtype)


@_one_loop
def _segment_softmax_gradient(shares, key, upstream, scale, rate):
    wide = tf.cast(shares, tf.float32)
    down = _dropped(tf.cast(upstream, tf.float32), key, rate)
    down = wide * (down - tf.reduce_sum(wide * down, axis=-1, keepdims=True)) * scale
    return tf.cast(down, shares.dtype)
