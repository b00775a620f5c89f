"""The 8-bit grid: what is quantized, how weights, biases and ranges are rounded."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tfpipe.compress.grid import (
    LARGEST_CODE,
    balanced,
    bias_on_grid,
    nudged,
    on_grid,
)


def test_a_bias_of_an_empty_channel_is_kept():
    kernel = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32)
    found = bias_on_grid(np.array([0.26, 0.26], np.float32), kernel, np.array([0.1, 1.0], np.float32))
    assert found == pytest.approx([0.3, 0.26]) and found.dtype == np.float32


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
        | st.just(0.0)
        | st.floats(-(2**-20), 2**-20, width=32, allow_subnormal=False),
    )
)
def test_on_grid(weight):
    moved, scale = on_grid(weight)
    assert moved.dtype == scale.dtype == np.float32
    assert moved.shape == weight.shape and scale.shape == weight.shape[:1]
    assert (scale > 0).all() and np.isfinite(moved).all()
    error = np.abs(moved.astype(np.float64) - weight.astype(np.float64))
    assert (error <= scale[:, None] * (0.5 + 1e-4)).all()
    assert (moved[weight == 0] == 0).all()
    codes = moved / scale[:, None]
    assert np.abs(codes - np.round(codes)).max() <= 1e-3 and np.abs(codes).max() <= LARGEST_CODE + 1e-3
    # What lies on a grid already is not moved again.
    again, _ = on_grid(moved)
    assert np.allclose(again, moved, rtol=1e-5, atol=0)


def test_on_grid_of_zeros_alone():
    moved, scale = on_grid(np.array([[0.0, 0.0], [1.0, -127.0]], np.float32))
    assert moved.tolist() == [[0.0, 0.0], [1.0, -127.0]]
    assert scale.tolist() == [1.0, 1.0]


@settings(max_examples=300, deadline=None)
@given(st.floats(-50.0, 50.0), st.floats(0.01, 100.0))
def test_nudged_holds_zero_exactly(low, width):
    high = low + width
    moved_low, moved_high = nudged(low, high)
    assert moved_low <= 0.0 <= moved_high
    step = (moved_high - moved_low) / 255
    assert abs(-moved_low / step - round(-moved_low / step)) <= 1e-6
    # It moves by half a level at most.
    assert abs(moved_low - min(low, 0.0)) <= step * 0.5001
    assert abs(moved_high - max(high, 0.0)) <= step * 0.5001
    # FakeQuant, which nudges by itself, leaves the answer as it is, and 0 stays 0.
    found = tf.quantization.fake_quant_with_min_max_args(tf.constant([0.0, -1e9, 1e9]), moved_low, moved_high)
    assert found.numpy().tolist() == pytest.approx([0.0, moved_low, moved_high], rel=1e-5, abs=1e-6)
    assert found[0] == 0.0


def test_nudged_of_an_empty_range_is_finite():
    low, high = nudged(0.0, 0.0)
    assert low <= 0.0 < high < 1e-5


@settings(max_examples=300, deadline=None)
@given(st.floats(-1e4, 0.0), st.floats(0.0, 1e4))
def test_a_balanced_range_is_that_of_int8(low, high):
    moved_low, moved_high = balanced(low, high)
    step = moved_high / 127
    assert moved_low == pytest.approx(-128 * step, rel=1e-12) and step > 0
    assert moved_low <= low * (1 - 1e-12) and moved_high >= high  # nothing is cut off
    assert moved_low >= 1.01 * min(low, -high, -1e-6)  # and no more is held than that
    assert balanced(moved_low, moved_high) == pytest.approx((moved_low, moved_high), rel=1e-12)
    stored = [float(np.float32(end)) for end in nudged(moved_low, moved_high)]
    assert nudged(*stored) == pytest.approx((moved_low, moved_high), rel=1e-6)
    assert round(-stored[0] / (stored[1] - stored[0]) * 255) == 128
