"""Sums of two 8-bit products that overflow 16 bits on x86 processors with AVX2 or AVX-512, but neither VNNI nor AMX.

There ONNX Runtime multiplies by VPMADDUBSW. This instruction multiplies unsigned codes of activations by signed codes
of a kernel. It adds the products of neighbors (inputs 0 and 1, 2 and 3, and so on), and silently clips each sum to
int16. 255 · 127 · 2 is 64,770, and the largest int16 is 32,767. All else is added in 32 bits.

Enters: a quantized classifier and the values at its quantization points on a few rows. Leaves: the share of the sums
that is clipped. Activations with a zero point of 0 count as ONNX Runtime multiplies them there: moved up by 128.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tfpipe.encoders.parameters import point_of
from tfpipe.model.classifier import Classifier

LEAST, LARGEST = -(2**15), 2**15 - 1
TOKENS = 256
"""of each quantization point that are counted: enough for a share, and a second's work"""


class Counts(NamedTuple):
    """Sums of two products, and outputs of a projection, each the sum of many of them."""

    sums: int
    clipped_sums: int
    outputs: int
    wrong_outputs: int
    """in which a sum of two is clipped"""


def saturation(classifier: Classifier, entered: dict[str, np.ndarray]) -> dict[str, Any] | None:
    """Gives the share of clipped sums over all projections whose activations are 8 bits wide.

    Args:
      classifier: quantized.
      entered: quantization point -> what passes it, [tokens, width] float32.

    Returns:
      `sums` and `outputs`, the shares that are clipped or wrong; `worst`, the kernel with the largest share of wrong
      outputs, and its share, `worst_outputs`. None where no projection multiplies integers.
    """
    found = {}
    for kernel, (codes, _) in classifier.codes.items():
        if (point := point_of(kernel)) in classifier.ranges:
            activations = activation_codes(entered[point][:TOKENS], *classifier.ranges[point])
            found[kernel] = counts(activations, codes)
    if not found:
        return None
    total = Counts(*np.sum(list(found.values()), axis=0).tolist())
    worst = max(found, key=lambda kernel: found[kernel].wrong_outputs / found[kernel].outputs)
    return {
        "sums": total.clipped_sums / total.sums,
        "outputs": total.wrong_outputs / total.outputs,
        "worst": worst,
        "worst_outputs": found[worst].wrong_outputs / found[worst].outputs,
    }


def activation_codes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rounds activations to the codes of a range of which 0 is a level: [...] float32 -> [...] uint8."""
    step = np.float32((high - low) / 255)
    return np.clip(np.round(values / step) + np.round(-low / step), 0, 255).astype(np.uint8)


def counts(activations: np.ndarray, kernel: np.ndarray) -> Counts:
    """Counts sums of two products that do not fit into int16.

    Args:
      activations: [tokens, into] uint8.
      kernel: [out, into] int8.
    """
    if kernel.shape[1] % 2:
        activations, kernel = (np.pad(each, ((0, 0), (0, 1))) for each in (activations, kernel))
    (first, second), (left, right) = (
        (each[:, 0::2].astype(np.int32), each[:, 1::2].astype(np.int32)) for each in (activations, kernel)
    )
    # Most pairs of weights are too small to clip anything, whatever these tokens are.
    possible = np.abs(left) * first.max(axis=0) + np.abs(right) * second.max(axis=0) > LARGEST
    clipped_sums = wrong_outputs = 0
    for channel in np.flatnonzero(possible.any(axis=1)):
        pairs = np.flatnonzero(possible[channel])
        sums = first[:, pairs] * left[channel, pairs] + second[:, pairs] * right[channel, pairs]
        clipped = (sums > LARGEST) | (sums < LEAST)
        clipped_sums += int(clipped.sum())
        wrong_outputs += int(clipped.any(axis=1).sum())
    outputs = len(activations) * len(kernel)
    return Counts(outputs * left.shape[1], clipped_sums, outputs, wrong_outputs)
