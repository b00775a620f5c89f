"""Names of a BERT classifier's parameters, as transformers has them, and the facts that each name gives.

A name is `bert.`, the layer (`encoder.layer.0.attention.self.query`), and `.weight` or `.bias`; the head is
`classifier`, without a prefix. No TensorFlow: checks before any work go by names alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

PREFIX = "bert."
HEAD = "classifier"
WORD_EMBEDDINGS = f"{PREFIX}embeddings.word_embeddings.weight"
ENCODER = f"{PREFIX}encoder."
"""with which the parameters of the encoder's layers begin"""
EMBEDDINGS_OUTPUT = "embeddings.LayerNorm"
"""the Keras layer that gives the first hidden states"""


def encoder_size(weights: Mapping[str, np.ndarray]) -> int:
    """Counts the weights of the encoder's layers: a token takes about two operations for each, forward."""
    return sum(weight.size for name, weight in weights.items() if name.startswith(ENCODER))


def stored_layer(layer: str) -> str:
    """Gives a layer's name in files: `pooler.dense` -> `bert.pooler.dense`."""
    return layer if layer.startswith(HEAD) else f"{PREFIX}{layer}"


def layer_prefix(number: int) -> str:
    """Gives the beginning of the names of an encoder layer's parameters, without the last dot."""
    return f"{ENCODER}layer.{number}"


def layer_output(number: int) -> str:
    """Names the Keras layer whose output is the hidden states behind an encoder layer."""
    return f"encoder.layer.{number}.output.LayerNorm"


def layer_of(name: str) -> int | None:
    """Gives the number of the encoder layer that a parameter or a Keras layer belongs to; None outside of them."""
    found = re.search(r"\bencoder\.layer\.(\d+)\.", name)
    return int(found[1]) if found else None


def depth_of(name: str, num_layers: int) -> int:
    """Gives the distance from the input: 0 for embeddings, 1 for the first layer, `num_layers` + 1 for the head."""
    layer = layer_of(name)
    if layer is not None:
        return 1 + layer
    return 0 if "embeddings" in name.split(".") else num_layers + 1


def is_embedding(name: str) -> bool:
    """Tells whether a parameter is an embedding table."""
    return name.endswith("_embeddings.weight")


def is_projection(name: str) -> bool:
    """Tells whether a parameter is the kernel of a projection that can be quantized: the head stays float."""
    return name.endswith("dense.weight") or (".attention.self." in name and name.endswith(".weight"))


def is_kernel(name: str) -> bool:
    """Tells whether a parameter is a kernel, of a projection or the head: [out, in] in files, [in, out] in Keras."""
    return is_projection(name) or name == f"{HEAD}.weight"


def is_prunable(name: str) -> bool:
    """Tells whether a parameter is a kernel of the encoder's layers: embeddings, pooler and head stay dense."""
    return name.startswith(ENCODER) and is_projection(name)


def sparsity_of(weights: Mapping[str, np.ndarray]) -> float:
    """Gives the share of exact zeros in the encoder's kernels."""
    kernels = [weight for name, weight in weights.items() if is_prunable(name)]
    return sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)


def point_of(kernel: str) -> str:
    """Gives the quantization point that feeds a projection: `bert.pooler.dense.weight` -> `pooler.input`."""
    projection = kernel.removesuffix(".weight").removeprefix(PREFIX)
    return f"{projection.rpartition('.')[0]}.input"


def kernels_by_point(names: Iterable[str]) -> dict[str, list[str]]:
    """Sorts the kernels of projections by the quantization point that feeds them."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        if is_projection(name):
            found.setdefault(point_of(name), []).append(name)
    return found
