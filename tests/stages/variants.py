"""Classifiers compressed in every way, made of a trained one in a moment and without training."""

from __future__ import annotations

import numpy as np

from tfpipe.compress.grid import quantized
from tfpipe.compress.structure import remove_units
from tfpipe.encoders.parameters import kernels_by_point
from tfpipe.model.classifier import Classifier

NAMES = ("structured", "two_four", "weight_only", "int8", "partly float", "structured int8", "embeddings")


def compressed(dense: Classifier, name: str) -> Classifier:
    """One of `NAMES`; heads 2 and 1, columns 40 and 17 where it is structured."""
    kernels = kernels_by_point(dense.weights)
    every = [kernel for names in kernels.values() for kernel in names]
    ranges = dict.fromkeys(kernels, (-6.0, 6.5))
    if name == "two_four":
        weights = dict(dense.weights)
        for kernel in every:
            groups = weights[kernel].reshape(len(weights[kernel]), -1, 4)
            order = np.argsort(np.abs(groups), axis=2)
            weights[kernel] = np.where(np.argsort(order, axis=2) < 2, 0.0, groups).reshape(weights[kernel].shape)
        return dense.with_weights({k: v.astype(np.float32) for k, v in weights.items()})
    if name.startswith("structured"):
        weights = dict(dense.weights)
        for layer, (heads, columns) in enumerate(((2, 40), (1, 17))):
            for kernel, kept in (("attention.output.dense", 8 * heads), ("output.dense", columns)):
                full = f"bert.encoder.layer.{layer}.{kernel}.weight"
                weights[full] = weights[full] * (np.arange(weights[full].shape[1]) < kept)
        architecture, weights = remove_units(dense.architecture, weights)
        pruned = dense.with_weights(weights, architecture=architecture)
        return quantized(pruned, weights, ranges, every) if name == "structured int8" else pruned
    if name == "weight_only":
        return quantized(dense, dense.weights, {}, every)
    if name == "embeddings":
        return quantized(dense, dense.weights, {}, [])
    if name == "partly float":
        left = [point for point in kernels if "layer.1.attention" not in point and "pooler" not in point]
        chosen = [kernel for point in left for kernel in kernels[point]]
        return quantized(dense, dense.weights, {point: ranges[point] for point in left}, chosen)
    return quantized(dense, dense.weights, ranges, every)
