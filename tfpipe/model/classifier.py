"""A stored classifier: the transformers layout on disk, and the Keras models that are made of it.

On disk `config.json` + `model.safetensors` + tokenizer files load in transformers as they are. In memory the weights
are one mapping in transformers' naming (`bert.encoder.layer.0.….weight`, kernels [out, in]).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from tfpipe.encoders.architecture import Architecture, check_architecture
from tfpipe.encoders.parameters import HEAD
from tfpipe.encoders.transformers import CONFIG as CONFIG_FILE
from tfpipe.encoders.transformers import QUANTIZATION as QUANTIZATION_FILE
from tfpipe.encoders.transformers import WEIGHTS as WEIGHTS_FILE
from tfpipe.errors import InputError
from tfpipe.files import write_json
from tfpipe.model.bert import build_differentiable_model, build_inference_model
from tfpipe.model.weights import set_weights
from tfpipe.tasks import PLAIN, TASKS, Decision

HEAD_PARAMETERS = (f"{HEAD}.weight", f"{HEAD}.bias")


@dataclass(frozen=True)
class Classifier:
    """A stored classifier: all data to build any form of it."""

    architecture: Architecture
    labels: tuple[str, ...]
    task: str
    max_length: int
    weights: dict[str, np.ndarray]
    """transformers' name -> float32"""
    quantization: dict[str, np.ndarray]
    """`<layer>.weight.scale` [out] float32, `<point>.minimum` and `.maximum` [] float32; empty: not quantized"""
    temperature: float = 1.0
    """by which the logits that training gave are divided in these weights"""
    decision: Decision = PLAIN
    """how probabilities become an answer"""

    def with_weights(
        self,
        weights: dict[str, np.ndarray],
        quantization: dict[str, np.ndarray] | None = None,
        architecture: Architecture | None = None,
    ) -> Classifier:
        """Returns the same classifier with other weights, and another shape where one is given."""
        return replace(
            self,
            weights=weights,
            quantization=quantization or {},
            architecture=architecture or self.architecture,
        )

    def calibrated(self, temperature: float, decision: Decision) -> Classifier:
        """Divides the logits by a temperature, in the weights of the head, which stay float, and sets the decision."""
        head = {name: self.weights[name] / np.float32(temperature) for name in HEAD_PARAMETERS}
        return replace(self, weights=self.weights | head, temperature=temperature, decision=decision)

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Gives the range of the 8-bit values at each quantization point."""
        suffix = ".minimum"
        return {
            name.removesuffix(suffix): (float(low), float(self.quantization[name.removesuffix(suffix) + ".maximum"]))
            for name, low in self.quantization.items()
            if name.endswith(suffix)
        }

    @property
    def signed(self) -> bool:
        """Tells whether activations are int8 with a zero point of 0: 0 is level 128 of the 256 of every range."""
        levels = [round(-low / (high - low) * 255) for low, high in self.ranges.values()]
        return bool(levels) and set(levels) == {128}

    @property
    def codes(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Gives the 8-bit codes of each quantized weight, [rows, columns] int8, and their scales, [rows] float32."""
        suffix, found = ".scale", {}
        for name, scale in self.quantization.items():
            if name.endswith(suffix):
                weight = name.removesuffix(suffix)
                found[weight] = codes_of(self.weights[weight], scale), scale
        return found


def float_model(classifier: Classifier):
    """Builds the inference model of a stored classifier: the Keras model that every artifact is compared with."""
    model = build_inference_model(classifier.architecture, len(classifier.labels), classifier.ranges)
    set_weights(model, classifier.weights)
    return model


def coded_model(classifier: Classifier, *, loaded: bool):
    """Builds the same model with 8-bit weights as codes: the source of a SavedModel, a quarter as large.

    Args:
      classifier: any variant.
      loaded: whether a server loads it, or also converters do: see `coded.py`.
    """
    architecture, labels, ranges = classifier.architecture, len(classifier.labels), classifier.ranges
    model = build_inference_model(architecture, labels, ranges, classifier.codes, loaded=loaded)
    set_weights(model, classifier.weights)
    return model


def differentiable_model(classifier: Classifier):
    """Builds the model as a function of word embeddings, for gradients by them: see `build_differentiable_model`."""
    model = build_differentiable_model(classifier.architecture, len(classifier.labels), classifier.ranges)
    set_weights(model, classifier.weights)
    return model


def codes_of(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Recovers the int8 codes, exactly, from a weight on its grid: [rows, columns] float32, [rows] float32 scales."""
    return np.round(weight / scale[:, None]).astype(np.int8)


def config_of(classifier: Classifier) -> dict[str, Any]:
    """Gives the content of `config.json`, as transformers has it.

    tfpipe's own are `max_length`, `temperature` (the logits are divided by it already), `thresholds` and
    `abstain_below`.
    """
    return {
        **classifier.architecture.to_config(),
        "problem_type": f"{classifier.task}_classification",
        "id2label": dict(enumerate(classifier.labels)),
        "label2id": {label: index for index, label in enumerate(classifier.labels)},
        "max_length": classifier.max_length,
        **({} if classifier.temperature == 1.0 else {"temperature": classifier.temperature}),
        **classifier.decision.as_json(classifier.labels),
    }


def save_classifier(directory: Path, classifier: Classifier, tokenizer: Path) -> None:
    """Writes the transformers layout: config.json, model.safetensors, tokenizer files, quantization if any."""
    write_json(directory / CONFIG_FILE, config_of(classifier))
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
        if task not in TASKS or type(max_length) is not int:
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
