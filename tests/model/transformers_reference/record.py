"""What transformers' BERT answers for the tests' tiny encoder: `record.json` and `record.safetensors` beside this file.

`make.py` writes both. This module reads them, and makes the weights that they are of. It needs NumPy and safetensors.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file
from tiny_bert import TINY, tiny_head, tiny_vocabulary, tiny_weights

HERE = Path(__file__).parent
CONFIG = TINY | {"vocab_size": len(tiny_vocabulary())}
ACTIVATIONS = ("gelu", "gelu_new", "relu")
NUM_LABELS = 3
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Record(NamedTuple):
    """The answers, and what they are answers to."""

    facts: dict[str, Any]
    """versions, `weights_sha256`, and `shapes` of the tensors of a `BertForSequenceClassification` by their names"""
    arrays: dict[str, np.ndarray]
    """by the names that `make.py` gives them"""

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """`[6, 12] int32` each: rows of different lengths, of two segments, one of them without padding."""
        return {name: self.arrays[name] for name in INPUTS}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the tensors of transformers' BertForSequenceClassification."""
        return {name: tuple(shape) for name, shape in self.facts["shapes"].items()}


def weights() -> dict[str, np.ndarray]:
    """Makes the weights of the classifier, in transformers' naming, float32."""
    return {f"bert.{name}": value for name, value in tiny_weights(CONFIG).items()} | tiny_head(NUM_LABELS)


def digest(named: dict[str, np.ndarray]) -> str:
    """Computes the SHA-256 of tensors: of their names, shapes and bytes."""
    found = hashlib.sha256()
    for name, value in sorted(named.items()):
        found.update(f"{name} {value.shape} {value.dtype}\n".encode())
        found.update(value.tobytes())
    return found.hexdigest()


@functools.cache
def recorded() -> Record:
    """Reads the record.

    Raises:
      AssertionError: it is of other weights than `weights` makes.
    """
    facts = json.loads((HERE / "record.json").read_text(encoding="utf-8"))
    assert facts["weights_sha256"] == digest(weights()), "the record is of other weights: run make.py beside it again"
    return Record(facts, load_file(HERE / "record.safetensors"))
