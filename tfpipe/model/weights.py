"""Weights by name: between Keras models, and to and from the transformers layout on disk.

In memory and on disk a classifier's weights are one mapping in transformers' naming (`bert.encoder.layer.0.….weight`,
kernels [out, in]). `config.json` + `model.safetensors` + tokenizer files load in transformers as they are.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import tensorflow as tf
import tf_keras
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from tfpipe.config.run import Task
from tfpipe.console import say
from tfpipe.encoders.architecture import Architecture, check_architecture
from tfpipe.encoders.parameters import HEAD, PREFIX, is_kernel, stored_layer
from tfpipe.encoders.transformers import CONFIG as CONFIG_FILE
from tfpipe.encoders.transformers import QUANTIZATION as QUANTIZATION_FILE
from tfpipe.encoders.transformers import WEIGHTS as WEIGHTS_FILE
from tfpipe.errors import InputError
from tfpipe.files import write_json
from tfpipe.model.layers import CodedDense, LayerNormalization


@dataclass(frozen=True)
class Classifier:
    """A stored classifier: everything needed to build any form of it."""

    architecture: Architecture
    labels: tuple[str, ...]
    task: str
    max_length: int
    weights: dict[str, np.ndarray]
    """transformers' name -> float32"""
    quantization: dict[str, np.ndarray]
    """`<layer>.weight.scale` [out] float32, `<point>.minimum` and `.maximum` [] float32; empty: not quantized"""

    def with_weights(
        self,
        weights: dict[str, np.ndarray],
        quantization: dict[str, np.ndarray] | None = None,
        architecture: Architecture | None = None,
    ) -> Classifier:
        """The same classifier with other weights, and another shape where one is given."""
        return replace(
            self,
            weights=weights,
            quantization=quantization or {},
            architecture=architecture or self.architecture,
        )

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Quantization point -> range of what is 8 bits wide there."""
        suffix = ".minimum"
        return {
            name.removesuffix(suffix): (float(low), float(self.quantization[name.removesuffix(suffix) + ".maximum"]))
            for name, low in self.quantization.items()
            if name.endswith(suffix)
        }

    @property
    def codes(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Quantized weight -> its 8-bit codes, [rows, columns] int8, and their scales, [rows] float32."""
        suffix, found = ".scale", {}
        for name, scale in self.quantization.items():
            if name.endswith(suffix):
                weight = name.removesuffix(suffix)
                found[weight] = codes_of(self.weights[weight], scale), scale
        return found


def codes_of(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """[rows, columns] float32 on its grid, [rows] float32 scales -> the int8 codes, exactly."""
    return np.round(weight / scale[:, None]).astype(np.int8)


def variables_by_name(model: tf_keras.Model) -> dict[str, tf.Variable]:
    """transformers' name -> variable, for every weight of a model built by `bert.py`, TF-MOT's wrappers or not."""
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
        elif isinstance(layer, CodedDense):
            named[f"{prefix}.bias"] = layer.bias
        elif isinstance(layer, LayerNormalization):
            named[f"{prefix}.weight"], named[f"{prefix}.bias"] = layer.gamma, layer.beta
        elif layer.weights:
            raise TypeError(f"layer {layer.name} ({type(layer).__name__}) has weights that have no name on disk")
    return named


def get_weights(model: tf_keras.Model) -> dict[str, np.ndarray]:
    """A model's weights in transformers' naming and orientation, float32."""
    return {
        name: np.ascontiguousarray(variable.numpy().T) if is_kernel(name) else variable.numpy()
        for name, variable in variables_by_name(model).items()
    }


def set_weights(model: tf_keras.Model, weights: dict[str, np.ndarray]) -> None:
    """Gives a model all its weights.

    Raises:
      InputError: one is missing, or does not fit.
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
      InputError: the encoder lacks a tensor, or one does not fit.
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


def save_classifier(directory: Path, classifier: Classifier, tokenizer: Path) -> None:
    """Writes the transformers layout: config.json, model.safetensors, tokenizer files, quantization if any."""
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "position_embedding_type": "absolute",
        **classifier.architecture.to_dict(),
        "problem_type": f"{classifier.task}_classification",
        "id2label": dict(enumerate(classifier.labels)),
        "label2id": {label: index for index, label in enumerate(classifier.labels)},
        "max_length": classifier.max_length,
    }
    write_json(directory / "config.json", config)
    for file in sorted(tokenizer.iterdir()):
        shutil.copyfile(file, directory / file.name)
    ordered = {name: np.ascontiguousarray(classifier.weights[name], np.float32) for name in sorted(classifier.weights)}
    # save(), not save_file(), which makes files that their owner alone can read
    (directory / WEIGHTS_FILE).write_bytes(save(ordered, metadata={"format": "pt"}))
    if classifier.quantization:
        ordered = {name: np.asarray(value, np.float32) for name, value in sorted(classifier.quantization.items())}
        (directory / QUANTIZATION_FILE).write_bytes(save(ordered))


def load_classifier(directory: Path) -> Classifier:
    """Reads what `save_classifier` wrote.

    Raises:
      InputError: a file is missing or broken.
    """
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        architecture = check_architecture(config, CONFIG_FILE)
        labels = tuple(config["id2label"][str(index)] for index in range(len(config["id2label"])))
        task, max_length = config["problem_type"].removesuffix("_classification"), config["max_length"]
        if task not in get_args(Task) or type(max_length) is not int:
            raise ValueError("task or max_length in config.json")
        if len(labels) < 2 or not all(isinstance(label, str) for label in labels):
            raise ValueError("id2label in config.json")
        quantization = directory / QUANTIZATION_FILE
        classifier = Classifier(
            architecture=architecture,
            labels=labels,
            task=task,
            max_length=max_length,
            weights=load_file(directory / WEIGHTS_FILE),
            quantization=load_file(quantization) if quantization.exists() else {},
        )
        for name, value in (classifier.weights | classifier.quantization).items():
            if value.dtype != np.float32:
                raise ValueError(f"{name} is {value.dtype}, not float32")
        return classifier
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise InputError(f"{directory}: not a classifier written by tfpipe ({error!r}); make it again") from error
