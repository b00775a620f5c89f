"""The stage `export`: every variant as a SavedModel and as ONNX.

Enters: `train`, `prune`, `quantize`. Leaves: `<variant>/saved_model/`,
`<variant>/model.onnx`. All in float32, whatever the precision of training.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from tfpipe.config import Config
from tfpipe.console import say
from tfpipe.data.tokenizer import Tokenizer
from tfpipe.data.tokenizer_settings import TokenizerSettings
from tfpipe.export.onnx import operator_counts, to_onnx
from tfpipe.export.saved_model import ServedClassifier, save_saved_model
from tfpipe.model.bert import build_mask_form
from tfpipe.model.weights import Classifier, load_classifier, set_weights
from tfpipe.rundir import StageDirectory

STAGE_OF_VARIANT = {"dense": "train", "pruned": "prune", "int8": "quantize"}


def run(config: Config, stage: StageDirectory) -> None:
    """Exports each variant."""
    for variant in config.variants:
        source = stage.inputs[STAGE_OF_VARIANT[variant]]
        classifier = load_classifier(source)
        counts = export_classifier(
            classifier,
            source,
            stage.path / variant,
            opset=config.export.onnx_opset,
            pairs=config.data.text_pair_column is not None,
        )
        shown = ", ".join(f"{operator} {count}" for operator, count in list(counts.items())[:5])
        say(f"  {variant}: saved_model/, model.onnx ({sum(counts.values())} operators: {shown}, …)")
        stage.choices[variant] = {"onnx_operators": counts}


def export_classifier(
    classifier: Classifier, tokenizer: Path, directory: Path, *, opset: int, pairs: bool
) -> dict[str, int]:
    """Writes both artefacts of one classifier into a directory and returns the ONNX operators by type."""
    directory.mkdir(parents=True, exist_ok=True)
    model = float_model(classifier)
    tokens = Tokenizer(TokenizerSettings.read(tokenizer), classifier.max_length)
    save_saved_model(ServedClassifier(model, classifier, tokens, pairs=pairs), directory / "saved_model")
    graph = to_onnx(model, classifier, opset)
    onnx.save(graph, str(directory / "model.onnx"))
    return operator_counts(graph)


def float_model(classifier: Classifier):
    """The mask form of a stored classifier: the Keras model that every artefact is compared with."""
    model = build_mask_form(classifier.architecture, len(classifier.labels), classifier.ranges)
    set_weights(model, classifier.weights)
    return model
