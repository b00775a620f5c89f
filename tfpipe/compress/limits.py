"""Limits of compression from an encoder's shape: units to remove, layers to compare, fewest bytes. No TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from tfpipe.config.compress import Distill
from tfpipe.encoders.architecture import Architecture
from tfpipe.encoders.parameters import is_embedding, is_projection
from tfpipe.errors import InputError

FEWEST_HEADS = 1  # that structured pruning leaves in a layer
FEWEST_COLUMNS = 16


def largest_share(architecture: Architecture) -> float:
    """Computes the largest share of the parameters of an encoder's layers that structured pruning can remove."""
    per_head = 2 * architecture.head_width  # in columns
    left = sum(FEWEST_HEADS * per_head + min(FEWEST_COLUMNS, width) for width in architecture.widths)
    return 1.0 - left / (sum(architecture.heads) * per_head + sum(architecture.widths))


def layer_pairs(settings: Distill | None, own: int, others: int) -> tuple[tuple[int, int], ...]:
    """Pairs the layers whose hidden states are compared: (of the learning model, of the teacher); none without weight.

    Args:
      settings: gives the map; without one they are spread evenly, the last with the last.
      own: layers of the model that learns.
      others: layers of the teacher.

    Raises:
      InputError: a layer of the map does not exist.
    """
    if settings is None or not settings.hidden_weight:
        return ()
    if settings.layer_map is None:
        count = min(own, others)
        return tuple((n * own // count - 1, n * others // count - 1) for n in range(1, count + 1))
    for layer, other in settings.layer_map.items():
        if layer >= own or other >= others:
            raise InputError(
                f"distill.layer_map: {layer} -> {other}, but the model that learns has layers 0 to {own - 1} and the "
                f"teacher 0 to {others - 1}"
            )
    return tuple(sorted(settings.layer_map.items()))


def least_bytes(shapes: Mapping[str, tuple[int, ...]], *, int8: bool, float_kernels: Collection[str] = ()) -> int:
    """Counts the bytes of a variant's weights. Its files also hold the graph and, in a SavedModel, the vocabulary.

    Args:
      shapes: name of each weight -> its shape, `[rows, columns]` or `[rows]`.
      int8: whether projections and embeddings are 8 bits wide, with a float scale a row.
      float_kernels: projections that are not.
    """
    total = 0
    for name, shape in shapes.items():
        in_int8 = int8 and (is_embedding(name) or (is_projection(name) and name not in float_kernels))
        total += math.prod(shape) + 4 * shape[0] if in_int8 else 4 * math.prod(shape)
    return total
