"""SavedModels that answer by token ids alone: any program with TensorFlow loads them, without tensorflow-text.

Beside the model, in `assets.extra/`, lie `config.json`, the tokenizer's files and a README with code.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfpipe.config.export import Export
from tfpipe.files import write_json
from tfpipe.formats.base import Answer, Requests, Source, Written
from tfpipe.formats.saved_model.files import kernels, size_bytes
from tfpipe.formats.saved_model.inspection import load_saved_model
from tfpipe.formats.saved_model.readme import write_readme
from tfpipe.formats.saved_model.served import ServedTokens, save_saved_model
from tfpipe.formats.saved_model.serving_check import check_saved_model
from tfpipe.formats.saved_model.warmup import write_token_warmup
from tfpipe.model.classifier import coded_model, config_of

__all__ = ["kernels", "load", "size_bytes", "write"]


def write(source: Source, path: Path, settings: Export) -> Written:
    """Writes a SavedModel with one signature, and the files that its users need beside it.

    Raises:
      InputError: it has an operator that `settings.serving_version` of TF Serving lacks.
    """
    classifier, extras = source.classifier, path / "assets.extra"
    save_saved_model(ServedTokens(coded_model(classifier, loaded=False), classifier), path)
    operators = check_saved_model(path, settings.serving_version)
    warmups = write_token_warmup(path, source.rows)
    source.tokenizer.settings.write(extras, classifier.max_length)
    write_json(extras / "config.json", config_of(classifier))
    write_readme(source, path, takes_text=False)
    return Written(
        operators, f"{path.name}/ ({operators} operators, none of tensorflow-text; {warmups} warm-up requests)"
    )


def load(path: Path, threads: int | None = None, allowed: Collection[str] = ()) -> tuple[Answer, ...]:
    """Inspects and loads a SavedModel; it runs on TensorFlow's threads.

    Raises:
      InputError: it would do more than compute.
    """
    loaded = load_saved_model(path, allowed)
    signature = loaded.signatures["serving_default"]

    def ask(requests: Requests, loaded=loaded) -> np.ndarray:  # a signature does not keep alive what it runs on
        return signature(**{name: tf.constant(value) for name, value in requests.tokens.items()})["logits"].numpy()

    return (Answer("saved_model_tokens", False, ask),)
