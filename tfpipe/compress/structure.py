"""The units of structured pruning: attention heads and feed-forward columns, and their removal from the weights.

All units of an encoder are one vector, layer by layer, the heads and then the columns, in which a unit has one element
for every `2 * hidden` of its parameters: a column one, a head `2 * head_width` (its rows of query, key and value, and
of the kernel that reads it). A share of the vector is a share of the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf

from tfpipe.compress.limits import FEWEST_COLUMNS, FEWEST_HEADS
from tfpipe.encoders.architecture import Architecture
from tfpipe.encoders.parameters import layer_prefix


class Units:
    """The units of an encoder."""

    def __init__(self, architecture: Architecture):
        """Counts the units.

        Args:
          architecture: shape of the encoder.
        """
        self._architecture = architecture
        self._per_head = 2 * architecture.head_width
        self._sizes = [
            size
            for heads, width in zip(architecture.heads, architecture.widths, strict=True)
            for size in (heads * self._per_head, width)
        ]
        self.size = sum(self._sizes)
        """elements of the vector"""
        self.readers = tuple(
            f"{layer_prefix(layer)}.{kernel}.weight"
            for layer in range(architecture.num_hidden_layers)
            for kernel in ("attention.output.dense", "output.dense")
        )
        """the kernels that read the units: without its rows there, a unit is gone"""

    def importance(self, changes: Sequence[tf.Tensor]) -> tf.Tensor:
        """Computes the squared change of the loss by element.

        Args:
          changes: first-order change of the loss by row of each reading kernel, [rows] float32.

        Returns:
          [size] float32.
        """
        parts = []
        for index, change in enumerate(changes):
            if index % 2:
                parts.append(tf.square(change))
            else:
                of_heads = tf.reduce_sum(tf.reshape(change, [-1, self._architecture.head_width]), axis=1)
                parts.append(tf.repeat(tf.square(of_heads) / self._per_head, self._per_head))
        return tf.concat(parts, axis=0)

    def scores(self, importance: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Ranks the elements: above 0 where a unit is kept, in the order of importance, and 0 where it is masked.

        Scores are ranks, not importances: TF-MOT keeps every element that ties with the last one kept, and many units
        that change nothing tie at 0. Each layer's best few units rank above all others, so that no layer is emptied.

        Args:
          importance: [size] float32, not negative.
          mask: [size] float32, 0 where a unit is gone.
        """
        ranked = tf.where(mask > 0.0, importance, -1.0)
        ranks = tf.cast(tf.argsort(tf.argsort(ranked, stable=True)), tf.float32) + 1.0
        parts, highest = [], float(self.size)
        for index, (part, kept) in enumerate(
            zip(tf.split(ranks, self._sizes), tf.split(mask, self._sizes), strict=True)
        ):
            fewest = FEWEST_COLUMNS if index % 2 else FEWEST_HEADS * self._per_head
            if not index % 2:  # the elements of a head are kept or go together
                first = tf.reduce_min(tf.reshape(part, [-1, self._per_head]), axis=1)
                part = tf.repeat(first, self._per_head)
            _, top = tf.math.top_k(part, k=min(fewest, part.shape[0]))
            floor = tf.scatter_nd(top[:, None], tf.ones_like(top, tf.float32), [part.shape[0]])
            parts.append(tf.where(kept > 0.0, tf.where(floor > 0.0, part + highest, part), 0.0))
        return tf.concat(parts, axis=0)

    def rows(self, mask: tf.Tensor) -> list[tf.Tensor]:
        """Spreads the mask over the rows of each reading kernel: [size] float32 -> [rows] float32 each."""
        parts = []
        for index, part in enumerate(tf.split(mask, self._sizes)):
            if index % 2:
                parts.append(part)
            else:  # an element in a head is kept or not with all others: they have the same score
                heads = tf.reduce_max(tf.reshape(part, [-1, self._per_head]), axis=1)
                parts.append(tf.repeat(heads, self._architecture.head_width))
        return parts


def remove_units(
    architecture: Architecture, weights: dict[str, np.ndarray]
) -> tuple[Architecture, dict[str, np.ndarray]]:
    """Removes the heads and columns that nothing reads: a smaller encoder that answers the same.

    Args:
      architecture: shape of the encoder.
      weights: transformers' names, [out, in] kernels; zeros in the columns of `attention.output.dense` and
        `output.dense` mark the units to remove.

    Returns:
      The smaller shape and weights.
    """
    weights, heads, widths = dict(weights), [], []
    for layer in range(architecture.num_hidden_layers):
        prefix = layer_prefix(layer)
        read = (weights[f"{prefix}.attention.output.dense.weight"] != 0).any(axis=0)
        of_head = read.reshape(-1, architecture.head_width).any(axis=1)
        of_head[0] |= not of_head.any()  # a layer keeps one, whatever was asked for
        kept = np.repeat(of_head, architecture.head_width)
        heads.append(int(of_head.sum()))
        for part in ("query", "key", "value"):
            _keep_rows(weights, f"{prefix}.attention.self.{part}", kept)
        _keep_columns(weights, f"{prefix}.attention.output.dense", kept)
        kept = (weights[f"{prefix}.output.dense.weight"] != 0).any(axis=0)
        kept[0] |= not kept.any()
        widths.append(int(kept.sum()))
        _keep_rows(weights, f"{prefix}.intermediate.dense", kept)
        _keep_columns(weights, f"{prefix}.output.dense", kept)
    smaller = replace(architecture, attention_heads_per_layer=tuple(heads), intermediate_size_per_layer=tuple(widths))
    return smaller, weights


def _keep_rows(weights: dict[str, np.ndarray], name: str, kept: np.ndarray) -> None:
    for tensor in (f"{name}.weight", f"{name}.bias"):
        weights[tensor] = np.ascontiguousarray(weights[tensor][kept])


def _keep_columns(weights: dict[str, np.ndarray], name: str, kept: np.ndarray) -> None:
    weights[f"{name}.weight"] = np.ascontiguousarray(weights[f"{name}.weight"][:, kept])
