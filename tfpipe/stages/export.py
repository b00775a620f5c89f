"""The stage `export`: every variant as a SavedModel and as ONNX.

Enters: `train`, `distill`, `prune`, `quantize`, and real rows from `prepare`. Leaves, per variant: `saved_model/` with
warm-up and golden requests in its `assets.extra/`, `model.onnx` with `golden.jsonl` beside it. All in float32, whatever
the precision of training.
"""

from __future__ import annotations

from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.evaluate import golden
from tfpipe.formats.onnx.convert import operator_counts, save_onnx, to_onnx
from tfpipe.formats.saved_model.served import ServedClassifier, save_saved_model
from tfpipe.formats.saved_model.serving_check import check_saved_model
from tfpipe.formats.saved_model.warmup import write_warmup
from tfpipe.model.classifier import float_model, load_classifier, served_model
from tfpipe.rundir.record import RECORD, parse_record
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.variants import STAGE_OF_VARIANT


def run(config: Config, stage: StageDirectory) -> None:
    """Exports each variant.

    Raises:
      InputError: an operator has no counterpart in ONNX, or is not in the TF Serving release that is to load it.
    """
    prepared = stage.inputs["prepare"]
    test, pairs = TokenTable.open(prepared / "test"), config.data.text_pair_column is not None
    fingerprint = parse_record((prepared / RECORD).read_bytes(), prepared).output
    for variant in stage.variants:
        source, directory = stage.inputs[STAGE_OF_VARIANT[variant]], stage.path / variant
        directory.mkdir()
        classifier, saved_model = load_classifier(source), directory / "saved_model"
        model = float_model(classifier)
        tokenizer = Tokenizer(TokenizerSettings.read(source), classifier.max_length)
        save_saved_model(ServedClassifier(served_model(classifier), classifier, tokenizer, pairs=pairs), saved_model)
        operators = check_saved_model(saved_model, config.export.serving_version)
        warmups = write_warmup(saved_model, test, pairs=pairs)
        say(
            f"  {variant}: saved_model/ ({operators} operators, all in TF Serving {config.export.serving_version}; "
            f"{warmups} warm-up requests)"
        )
        graph = to_onnx(model, classifier, config.export.onnx_opset, fingerprint)
        counts = operator_counts(graph)
        save_onnx(graph, directory / "model.onnx")
        shown = ", ".join(f"{operator} {count}" for operator, count in list(counts.items())[:5])
        say(f"  {variant}: model.onnx ({sum(counts.values())} operators: {shown}, …)")
        requests = golden.golden_requests(test, tokenizer, pairs=pairs)
        extra = saved_model / "assets.extra"
        for artifact, beside in ((saved_model, extra), (directory / "model.onnx", directory)):
            golden.record(artifact, beside / golden.FILE, requests, classifier, variant)
        stage.notes[variant] = {"onnx_operators": counts, "saved_model_operators": operators}
