"""The stored classifier as a float32 Keras model: the reference that every artifact is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from tfpipe.encoders.architecture import INFERENCE_INPUTS
from tfpipe.formats.base import Answer, Requests
from tfpipe.model.classifier import QUANTIZATION_FILE, Classifier, float_model


def answer(classifier: Classifier) -> Answer:
    """Builds the inference model of a classifier; it runs on TensorFlow's threads."""
    model = float_model(classifier)
    function = tf.function(
        lambda tokens: model(tokens, training=False),
        input_signature=[{name: tf.TensorSpec([None, None], tf.int32, name) for name in INFERENCE_INPUTS}],
        autograph=False,
    )

    def ask(requests: Requests) -> np.ndarray:
        return function({name: tf.constant(value) for name, value in requests.tokens.items()}).numpy()

    return Answer("keras", False, ask)


def size_bytes(path: Path) -> int:
    """Gives the bytes of the weights and of the quantization beside them."""
    return sum(file.stat().st_size for file in (path, path.with_name(QUANTIZATION_FILE)) if file.is_file())
