"""Weights by name, into and out of Keras models: transformers' naming (`bert.encoder.layer.0.….weight`).

Kernels are [out, in] in such a mapping, and [in, out] in Keras.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras

from tfpipe.console import say
from tfpipe.encoders.parameters import HEAD, PREFIX, is_kernel, stored_layer
from tfpipe.errors import InputError
from tfpipe.model.coded import CodedDense, CodedEmbedding, DecodedKernel, LoadedDense, LoadedEmbedding
from tfpipe.model.layers import LayerNormalization


def variables_by_name(model: tf_keras.Model) -> dict[str, tf.Variable]:
    """Lists every weight of a model built by `bert.py`, TF-MOT's wrappers or not: transformers' name -> variable."""
    named = {}
    for wrapped in model.layers:
        layer = getattr(wrapped, "layer", wrapped)
        prefix = stored_layer(layer.name)
        if isinstance(layer, tf_keras.layers.Embedding):
            named[f"{prefix}.weight"] = layer.embeddings
        elif isinstance(layer, tf_keras.layers.Dense):
            # A wrapper that has run left a quantized tensor in `layer.kernel` and keeps the variable itself.
            named[f"{prefix}.weight"] = next(weight for weight in wrapped.weights if len(weight.shape) == 2)
            named[f"{prefix}.bias"] = layer.bias
        elif isinstance(layer, CodedDense | CodedEmbedding):
            if isinstance(layer, CodedDense):
                named[f"{prefix}.bias"] = layer.bias
        elif isinstance(layer, LayerNormalization):
            named[f"{prefix}.weight"], named[f"{prefix}.bias"] = layer.gamma, layer.beta
        elif layer.weights:
            raise TypeError(f"layer {layer.name} ({type(layer).__name__}) has weights that have no name on disk")
    return named


def codes_by_name(model: tf_keras.Model) -> dict[str, tf.Variable]:
    """Lists 8-bit weights that are variables: transformers' name -> codes, int8, oriented as in Keras."""
    coded = [layer for layer in model.layers if isinstance(layer, LoadedDense | LoadedEmbedding)]
    return {f"{stored_layer(layer.name)}.weight": layer.codes for layer in coded}


def decoded_kernels(model: tf_keras.Model) -> list[DecodedKernel]:
    """Lists the kernels that are computed from codes when the model is loaded."""
    return [layer.decoded for layer in model.layers if isinstance(layer, LoadedDense)]


def get_weights(model: tf_keras.Model) -> dict[str, np.ndarray]:
    """Returns a model's weights in transformers' naming and orientation, float32."""
    return {
        name: np.ascontiguousarray(variable.numpy().T) if is_kernel(name) else variable.numpy()
        for name, variable in variables_by_name(model).items()
    }


def set_weights(model: tf_keras.Model, weights: dict[str, np.ndarray]) -> None:
    """Gives a model all its weights.

    Raises:
      InputError: a weight is missing, or does not fit.
    """
    for name, variable in variables_by_name(model).items():
        if name not in weights:
            raise InputError(f"{name} is missing from the weights; config.json and the weights disagree")
        value = weights[name].T if is_kernel(name) else weights[name]
        _check_shape(name, value.shape, variable.shape)
        variable.assign(value)


def import_encoder(model: tf_keras.Model, weights: dict[str, np.ndarray], source: str) -> dict[str, list[str]]:
    """Gives a new classifier the pretrained encoder's weights; the pooler and the head may stay as they were made.

    Args:
      model: either form.
      weights: transformers' names without the prefix `bert.`.
      source: for messages.

    Returns:
      `{"made_new": [...], "skipped": [...]}`.

    Raises:
      InputError: the encoder lacks a tensor, or a tensor does not fit.
    """
    left = dict(weights)
    made_new = []
    for name, variable in variables_by_name(model).items():
        key = name.removeprefix(PREFIX)
        value = left.pop(key, None)
        if key.startswith(HEAD) and value is not None and value.shape[0] != variable.shape[-1]:
            value = None  # the head of another task
        if value is None:
            if not key.startswith(("pooler.", f"{HEAD}.")):
                raise InputError(f"encoder {source}: tensor {key} is missing from the weights; is it a BERT encoder?")
            made_new.append(key)
            continue
        value = value.T if is_kernel(name) else value
        _check_shape(f"encoder {source}: tensor {key}", value.shape, variable.shape)
        variable.assign(value)
    taken = len(weights) - len(left)
    say(f"  encoder {source}: {taken} tensors taken, {len(made_new)} made new ({', '.join(made_new) or 'none'})")
    if left:
        say(f"  not used from it: {', '.join(sorted(left))}")
    return {"made_new": made_new, "skipped": sorted(left)}


def _check_shape(what: str, got, expected) -> None:
    if tuple(got) != tuple(expected):
        raise InputError(
            f"{what}: shape {list(got)} does not fit {list(expected)}; config.json and the weights disagree"
        )
