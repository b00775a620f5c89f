"""The parts that are quantized, and their 8-bit grids: weights, biases, ranges of activations (Jacob et al., 2018).

A quantization point `….input` stands before the projections that it feeds, and shares their prefix. The values that
pass it are 8 bits wide, and so are their kernels. In quantization, a layer is one point with its kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfpipe.encoders.parameters import is_embedding, point_of

if TYPE_CHECKING:  # the names of what is quantized are asked for before TensorFlow is needed
    from tfpipe.model.classifier import Classifier

LARGEST_CODE = 127  # of a weight: the grid is symmetric, -128 is not used
REDUCED_CODE = 63
"""the same of 7 bits: two products with activations, which are at most 255, add up to 32,130 and fit into 16 bits"""


def quantized(
    base: Classifier,
    weights: dict[str, np.ndarray],
    ranges: dict[str, tuple[float, float]],
    kernels: list[str],
    largest_code: int = LARGEST_CODE,
) -> Classifier:
    """Makes a classifier whose weights lie on their grids.

    Args:
      base: the classifier before quantization.
      weights: transformers' names, float32.
      ranges: quantization point -> range of what passes it, where that is 8 bits wide.
      kernels: projections that are quantized.
      largest_code: of a kernel. Embeddings are gathered, not multiplied, and always have 8 bits.
    """
    weights, quantization = dict(weights), {}
    for name in (*filter(is_embedding, sorted(weights)), *kernels):
        largest = largest_code if name in kernels else LARGEST_CODE
        weights[name], quantization[f"{name}.scale"] = on_grid(weights[name], largest)
    ranges = {name: nudged(low, high) for name, (low, high) in ranges.items()}
    for name, (low, high) in ranges.items():
        quantization |= {f"{name}.minimum": np.float32(low), f"{name}.maximum": np.float32(high)}
    for name in kernels:
        if point_of(name) in ranges:
            low, high = ranges[point_of(name)]
            bias, step = f"{name.removesuffix('.weight')}.bias", np.float32((high - low) / 255)
            weights[bias] = bias_on_grid(weights[bias], weights[name], quantization[f"{name}.scale"] * step)
    return base.with_weights(weights, quantization)


def on_grid(weight: np.ndarray, largest_code: int = LARGEST_CODE) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a weight to its symmetric grid, one scale per row.

    Args:
      weight: [rows, columns] float32; a row is an output channel or an embedding.
      largest_code: 127 for 8 bits, 63 for 7.

    Returns:
      The weight on the grid, float32, and the scales, [rows] float32: `weight / scale` is whole, at most `largest_code`
      in size. Zeros stay zeros.
    """
    scale = np.abs(weight).max(axis=1) / np.float32(largest_code)
    scale = np.where(scale > 0, scale, np.float32(1.0)).astype(np.float32)
    codes = np.clip(np.round(weight / scale[:, None]), -largest_code, largest_code)
    return (codes * scale[:, None]).astype(np.float32), scale


def bias_on_grid(bias: np.ndarray, kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Rounds a bias to the steps of the sums that it is added to, so that it can be added as an int32.

    The steps are not always small beside it: rounded at the export alone, biases would cost more agreement than all
    else in the int8 file.

    Args:
      bias: [channels] float32.
      kernel: [channels, into] float32, on its grid; a channel without weights keeps its bias, as its sums are 0.
      scale: [channels] float32, the kernel's scale times the input's.
    """
    return np.where(kernel.any(axis=1), np.round(bias / scale) * scale, bias).astype(np.float32)


def balanced(low: float, high: float) -> tuple[float, float]:
    """Widens a range to that of an int8 with a zero point of 0: 128 steps below 0, 127 above, as TF-MOT has it."""
    high = max(high, -low * 127 / 128, 1e-6)
    return -high * 128 / 127, high


def nudged(low: float, high: float) -> tuple[float, float]:
    """Moves a range so that it holds 0 and 0 is one of its 256 levels, as FakeQuant does when it runs."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-6) / 255.0
    zero_point = min(max(round(-low / scale), 0), 255)
    return -zero_point * scale, (255 - zero_point) * scale
