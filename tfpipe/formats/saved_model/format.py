"""SavedModels for TF Serving, with warm-up requests. They answer by token ids and by raw text."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfpipe.config.export import Export
from tfpipe.formats.base import Answer, Requests, Source, Written
from tfpipe.formats.saved_model.files import kernels, size_bytes
from tfpipe.formats.saved_model.inspection import load_saved_model
from tfpipe.formats.saved_model.readme import write_readme
from tfpipe.formats.saved_model.served import ServedClassifier, save_saved_model
from tfpipe.formats.saved_model.serving_check import check_saved_model
from tfpipe.formats.saved_model.warmup import write_warmup
from tfpipe.model.classifier import coded_model

__all__ = ["BY_TEXT", "kernels", "load", "size_bytes", "write"]
BY_TEXT = "saved_model_text"


def write(source: Source, path: Path, settings: Export) -> Written:
    """Writes a SavedModel that `settings.serving_version` of TF Serving loads, its warm-up requests and a README.

    Raises:
      InputError: it has an operator that this release of TF Serving lacks.
    """
    classifier, tokenizer, pairs = source.classifier, source.tokenizer, source.pairs
    save_saved_model(ServedClassifier(coded_model(classifier, loaded=True), classifier, tokenizer, pairs=pairs), path)
    operators = check_saved_model(path, settings.serving_version)
    warmups = write_warmup(path, source.rows, pairs=pairs)
    write_readme(source, path, takes_text=True)
    server = f"TF Serving {settings.serving_version}"
    return Written(operators, f"saved_model/ ({operators} operators, all in {server}; {warmups} warm-up requests)")


def load(path: Path, threads: int | None = None, allowed: Collection[str] = ()) -> tuple[Answer, ...]:
    """Inspects and loads a SavedModel; it runs on TensorFlow's threads.

    Raises:
      InputError: it would do more than compute.
    """
    loaded = load_saved_model(path, allowed)
    _destroy_kernels_with(loaded)
    tokens, text = loaded.signatures["tokens"], loaded.signatures["serving_default"]

    def by_tokens(requests: Requests, loaded=loaded) -> np.ndarray:  # a signature does not keep alive what it runs on
        return tokens(**{name: tf.constant(value) for name, value in requests.tokens.items()})["logits"].numpy()

    def by_text(requests: Requests, loaded=loaded) -> np.ndarray:
        return text(**_texts(requests))["logits"].numpy()

    def tokenize(requests: Requests) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in loaded.tokenize(**_texts(requests)).items()}

    return Answer("saved_model", False, by_tokens), Answer(BY_TEXT, True, by_text, tokenize=tokenize)


def _destroy_kernels_with(loaded: Any) -> None:
    """Destroys the kernels of a loaded SavedModel when Python drops it: see `DecodedKernel`."""
    kernels = getattr(loaded, "decoded_kernels", None)  # of tfpipe's own models; others may call anything so
    if isinstance(kernels, Sequence):
        handles = [each.resource_handle for each in kernels if hasattr(each, "resource_handle")]
        weakref.finalize(loaded, _destroy, handles).atexit = False  # the process ends, and TensorFlow may be gone


def _destroy(handles: list[tf.Tensor]) -> None:
    for handle in handles:
        tf.raw_ops.DestroyResourceOp(resource=handle, ignore_lookup_error=True)


def _texts(requests: Requests) -> dict[str, tf.Tensor]:
    """Makes the inputs of a signature that takes texts."""
    pairs = {} if requests.text_pairs is None else {"text_pair": tf.constant(requests.text_pairs)}
    return {"text": tf.constant(requests.texts), **pairs}
