"""Sums of two products against int16: counted as VPMADDUBSW adds them, and none with 7-bit kernels."""

import numpy as np
import pytest

from tfpipe.compress.grid import LARGEST_CODE, REDUCED_CODE, nudged, quantized
from tfpipe.compress.saturation import LARGEST, LEAST, Counts, activation_codes, counts, saturation
from tfpipe.encoders.parameters import kernels_by_point
from tfpipe.model.classifier import load_classifier


def one_by_one(activations: np.ndarray, kernel: np.ndarray) -> Counts:
    """The same by Python's integers, and what each output becomes, clipped or not."""
    sums = clipped = wrong = 0
    for row in activations.tolist():
        for channel in kernel.tolist():
            padded = [(a, w) for a, w in zip(row, channel, strict=True)] + [(0, 0)] * (len(row) % 2)
            pairs = [
                padded[at][0] * padded[at][1] + padded[at + 1][0] * padded[at + 1][1] for at in range(0, len(padded), 2)
            ]
            over = [not LEAST <= value <= LARGEST for value in pairs]
            sums, clipped, wrong = sums + len(pairs), clipped + sum(over), wrong + any(over)
    return Counts(sums, clipped, len(activations) * len(kernel), wrong)


@pytest.mark.parametrize("width", [2, 7, 32])
def test_counts_are_those_of_exact_integers(width):
    random = np.random.default_rng(width)
    activations = random.integers(0, 256, (20, width)).astype(np.uint8)
    kernel = random.integers(-LARGEST_CODE, LARGEST_CODE + 1, (30, width)).astype(np.int8)
    expected = one_by_one(activations, kernel)
    assert counts(activations, kernel) == expected
    assert 0 < expected.wrong_outputs < expected.outputs


def test_which_inputs_are_neighbors():
    activations, kernel = np.full((1, 4), 255, np.uint8), np.array([[127, 2, 0, 0], [0, 127, 127, 0]], np.int8)
    assert counts(activations, kernel) == Counts(4, 1, 2, 1)  # 255 · 129 is too much; inputs 1 and 2 are never added
    assert counts(activations, np.array([[-127, -2, 0, 0]], np.int8)).clipped_sums == 1
    assert counts(activations, np.array([[127, 1, -127, -1]], np.int8)).clipped_sums == 0  # 255 · 128 is 32,640


def test_seven_bits_never_overflow():
    codes = np.arange(-REDUCED_CODE, REDUCED_CODE + 1)
    every_pair = np.stack(np.meshgrid(codes, codes), axis=-1).reshape(-1, 2).astype(np.int8)
    extremes = np.array([[0, 0], [0, 255], [255, 0], [255, 255]], np.uint8)  # a sum is largest at an end of each code
    assert counts(extremes, every_pair).clipped_sums == 0
    sums = extremes.astype(int) @ every_pair.astype(int).T
    assert (sums.min(), sums.max()) == (-32_130, 32_130)
    every_pair[every_pair == REDUCED_CODE] = LARGEST_CODE
    assert counts(extremes, every_pair).clipped_sums > 0


@pytest.mark.parametrize(("low", "high"), [(-1.7, 3.1), (0.0, 5.0), (-128.0, 127.0)])
def test_codes_are_those_of_quantize_linear(low, high):
    low, high = nudged(low, high)
    values = np.random.default_rng(0).normal(0.0, 3.0, (50, 8)).astype(np.float32)
    codes = activation_codes(values, low, high)
    assert codes.dtype == np.uint8 and activation_codes(np.float32([0.0, low, high, 1e9]), low, high).tolist()[1:] == [
        0,
        255,
        255,
    ]
    step = (high - low) / 255
    back = codes * step + low
    inside = (values > low) & (values < high)
    assert np.abs(back - values)[inside].max() <= step * 0.501


def test_shares_are_of_all_projections_with_8_bit_activations(tiny_run):
    dense = load_classifier(tiny_run[1] / "train")
    kernels = kernels_by_point(dense.weights)
    every = [name for names in kernels.values() for name in names]
    ranges = dict.fromkeys(kernels, (-6.0, 6.5))
    random = np.random.default_rng(0)
    entered = {
        point: random.uniform(4.0, 6.5, (300, dense.weights[names[0]].shape[1])).astype(np.float32)
        for point, names in kernels.items()
    }

    def found(ranges, **options):
        return saturation(quantized(dense, dense.weights, ranges, every, **options), entered)

    whole = found(ranges)
    assert 0 < whole["sums"] < whole["outputs"] <= whole["worst_outputs"] <= 1 and whole["worst"] in every
    pooler = found({"pooler.input": ranges["pooler.input"]})
    assert pooler["worst"] == "bert.pooler.dense.weight" and pooler["outputs"] == pooler["worst_outputs"]
    assert found({}) is None
    assert found(ranges, largest_code=REDUCED_CODE)["outputs"] == 0.0
