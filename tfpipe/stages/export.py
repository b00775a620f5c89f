"""The stage `export`: every variant in every format, in float32 after training in any precision.

Enters: `train`, `distill`, `prune`, `quantize`, and real rows from `prepare`. Leaves, per variant: `saved_model/` with
warm-up and golden requests in its `assets.extra/`, and `onnx/`, a folder that transformers, optimum and
transformers.js open, with `golden.jsonl` in it; and `calibration.json`: the choices on the validation rows, which are
part of every artifact.
"""

from __future__ import annotations

from tfpipe import artifacts
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.evaluate import golden
from tfpipe.evaluate.calibration import FILE as CALIBRATION
from tfpipe.evaluate.calibration import calibrated, shown_calibration, validation_logits
from tfpipe.files import write_json
from tfpipe.formats.base import Source
from tfpipe.model.classifier import load_classifier
from tfpipe.rundir.record import RECORD, parse_record
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.variants import STAGE_OF_VARIANT


def run(config: Config, stage: StageDirectory) -> None:
    """Writes each variant in each format, with its answers to golden requests.

    Raises:
      InputError: an operator has no counterpart in ONNX, or is not in the TF Serving release that is to load it; or
        `calibrate.precision` is not reached.
    """
    prepared = stage.inputs["prepare"]
    test, pairs = TokenTable.open(prepared / "test"), config.data.text_pair_column is not None
    fingerprint = parse_record((prepared / RECORD).read_bytes(), prepared).output
    validation, facts = TokenTable.open(prepared / "validation").labels, {}
    for variant in stage.variants:
        origin, directory = stage.inputs[STAGE_OF_VARIANT[variant]], stage.path / variant
        directory.mkdir()
        classifier = load_classifier(origin)
        calibration, facts[variant] = calibrated(
            validation_logits(origin), validation, classifier.task, classifier.labels, config.calibrate
        )
        classifier = classifier.calibrated(*calibration)
        say(f"  {variant}: {shown_calibration(facts[variant])}")
        saturation = parse_record((origin / RECORD).read_bytes(), origin).notes.get("saturation")
        tokenizer = Tokenizer(TokenizerSettings.read(origin), classifier.max_length)
        source = Source(classifier, tokenizer, test, pairs, fingerprint)
        requests, operators = golden.golden_requests(test, tokenizer, pairs=pairs), {}
        for each in artifacts.formats_named(config.export.formats):
            artifact = directory / each.path
            written = each.code.write(source, artifact, config.export)
            say(f"  {variant}: {written.said}")
            operators[f"{each.name}_operators"] = written.operators
            golden.record(each, artifact, requests, classifier, variant, saturation)
        stage.notes[variant] = operators
    write_json(stage.path / CALIBRATION, facts)
