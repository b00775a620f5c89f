"""The stored classifier as a float32 Keras model: the reference that every artifact is compared with."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import tensorflow as tf
from safetensors import safe_open

from tfpipe.encoders.parameters import is_prunable
from tfpipe.formats.base import Answer, Requests
from tfpipe.model.bert import INFERENCE_INPUTS
from tfpipe.model.classifier import QUANTIZATION_FILE, float_model, load_classifier


def load(path: Path, threads: int | None = None, allowed: Collection[str] = ()) -> tuple[Answer, ...]:
    """Builds the inference model of the classifier beside `path`; it runs on TensorFlow's threads."""
    model = float_model(load_classifier(path.parent))
    function = tf.function(
        lambda tokens: model(tokens, training=False),
        input_signature=[{name: tf.TensorSpec([None, None], tf.int32, name) for name in INFERENCE_INPUTS}],
    )

    def ask(requests: Requests) -> np.ndarray:
        return function({name: tf.constant(value) for name, value in requests.tokens.items()}).numpy()

    return (Answer("keras", False, ask),)


def kernels(path: Path) -> dict[str, np.ndarray]:
    """Reads the encoder's kernels: transformers' name -> [out, in] float32."""
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys() if is_prunable(name)}  # noqa: SIM118


def size_bytes(path: Path) -> int:
    """Gives the bytes of the weights and of the quantization beside them."""
    return sum(file.stat().st_size for file in (path, path.with_name(QUANTIZATION_FILE)) if file.is_file())
