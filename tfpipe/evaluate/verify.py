"""The stage `verify`: every artefact answers like the Keras model of its variant, or nothing is published.

Enters: the test rows, hard texts, the artefacts. Leaves: `parity.json`, and, once every gate is passed, a new version
of each SavedModel in `<run>/serving/<variant>/<integer>/`, with what TF Serving and its users need beside them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tfpipe import metrics
from tfpipe.config import Config
from tfpipe.console import progress_bar, say
from tfpipe.data.token_table import TokenTable
from tfpipe.data.tokenizer import Tokenizer
from tfpipe.data.tokenizer_settings import TokenizerSettings
from tfpipe.errors import GateError
from tfpipe.evaluate.artifacts import KINDS, Artifact, Batch, batches_of, load_artifacts
from tfpipe.evaluate.benchmark import measure_batching
from tfpipe.export.export import STAGE_OF_VARIANT
from tfpipe.export.golden import Requests, hard_requests
from tfpipe.export.serving import write_serving_files
from tfpipe.model.weights import load_classifier
from tfpipe.rundir import StageDirectory, sha256_of_file, write_json


def run(config: Config, stage: StageDirectory) -> None:
    """Compares, judges, publishes.

    Raises:
      GateError: a gate failed; `parity.json` says by how much.
    """
    prepared = stage.inputs["prepare"]
    test, validation = TokenTable.open(prepared / "test"), TokenTable.open(prepared / "validation")
    pairs = config.data.text_pair_column is not None
    comparisons, accuracies = [], {}
    for variant in config.variants:
        source = stage.inputs[STAGE_OF_VARIANT[variant]]
        classifier = load_classifier(source)
        artifacts = load_artifacts(variant, classifier, source, stage.inputs["export"] / variant, None)
        hard = hard_requests(Tokenizer(TokenizerSettings.read(source), classifier.max_length), pairs=pairs)
        comparisons += compare(artifacts, test, hard, config)
        accuracies[variant] = _accuracy(artifacts[0], validation, config)
        if variant == "dense":
            curve = measure_batching(next(each for each in artifacts if each.kind == "saved_model_text"), test)
    failures = judge(comparisons, accuracies, config)
    write_json(
        stage.path / "parity.json",
        {"comparisons": comparisons, "validation_accuracy": accuracies, "failures": failures},
    )
    if failures:
        raise GateError(f"nothing is published; {'; '.join(failures)} (see {stage.path / 'parity.json'})")
    say(f"  {len(comparisons)} comparisons passed")
    shown = range(min(2, test.num_rows))
    texts = {"text": test.texts(shown)} | ({"text_pair": test.text_pairs(shown)} if pairs else {})
    serving = stage.path.parent / "serving"
    published = {
        variant: publish(stage.inputs["export"] / variant / "saved_model", serving / variant)
        for variant in config.variants
    }
    stage.choices["published"] = [str(path.relative_to(stage.path.parent)) for path in published.values()]
    write_serving_files(serving, config.name, config.export.serving_version, published, texts, curve)


def compare(artifacts: list[Artifact], table: TokenTable, hard: Requests, config: Config) -> list[dict[str, Any]]:
    """Every artefact of a variant against its Keras model, at both batch sizes.

    At the larger size all of `verify.rows` answer; at the smaller, `verify.small_batch_rows` of them, drawn by seed.
    The hard texts answer at both and count in the largest logit difference; the shares are over rows of the data alone.

    Returns:
      Per artefact and batch size: `variant, artifact, batch_size, rows, accuracy, macro_f1, calibration_error,
      max_abs_logit_diff, label_agreement, mean_abs_probability_diff, hard_texts, hard_texts_max_abs_logit_diff`.
    """
    everything = np.arange(min(config.verify.rows, table.num_rows))
    small, large = sorted(config.verify.batch_sizes)
    few = np.sort(np.random.default_rng(config.seed).permutation(everything)[: config.verify.small_batch_rows])
    comparisons = []
    for batch_size, rows in ((large, everything), (small, few)):
        logits = {kind: np.zeros((table.num_rows, table.num_labels), np.float32) for kind in KINDS}
        description = f"verify {artifacts[0].variant}, batches of {batch_size}"
        with progress_bar(description, len(rows)) as bar:
            for chunk, batch in batches_of(table, rows, batch_size):
                for artifact in artifacts:
                    logits[artifact.kind][chunk] = artifact.answer(batch)
                bar.advance(len(chunk))
        hard_logits = {artifact.kind: _answers(artifact, hard, batch_size) for artifact in artifacts}
        for artifact in artifacts:
            result = metrics.evaluate(logits[artifact.kind][rows], table.labels[rows], config.task)
            found = metrics.differences(logits[artifact.kind][rows], logits["keras"][rows], config.task)
            of_hard = float(np.abs(hard_logits[artifact.kind] - hard_logits["keras"]).max())
            comparisons.append(
                {
                    "variant": artifact.variant,
                    "artifact": artifact.kind,
                    "batch_size": batch_size,
                    "rows": len(rows),
                    **{name: result[name] for name in ("accuracy", "macro_f1", "calibration_error")},
                    **found,
                    "max_abs_logit_diff": float(np.maximum(found["max_abs_logit_diff"], of_hard)),  # NaN stays NaN
                    "hard_texts": len(hard),
                    "hard_texts_max_abs_logit_diff": of_hard,
                }
            )
    return comparisons


def judge(comparisons: list[dict[str, Any]], accuracies: dict[str, float], config: Config) -> list[str]:
    """The gates that failed, one line each: what, by how much, which setting."""
    gates, failures = config.verify, []
    for entry in comparisons:
        where = f"{entry['variant']} {entry['artifact']} at batch size {entry['batch_size']}"
        if entry["variant"] == "int8":
            if not np.isfinite(entry["max_abs_logit_diff"]):
                failures.append(f"{where}: logits differ by {entry['max_abs_logit_diff']}")
            if not entry["label_agreement"] >= gates.min_label_agreement_int8:  # so that NaN fails
                failures.append(
                    f"{where}: labels agree on {entry['label_agreement']:.2%}, "
                    f"verify.min_label_agreement_int8 is {gates.min_label_agreement_int8:.2%}"
                )
            if not entry["mean_abs_probability_diff"] <= gates.max_probability_diff_int8:
                failures.append(
                    f"{where}: probabilities differ by {entry['mean_abs_probability_diff']:.2g} on average, "
                    f"verify.max_probability_diff_int8 is {gates.max_probability_diff_int8:g}"
                )
            continue
        setting = "max_logit_diff_onnx" if entry["artifact"] == "onnx" else "max_logit_diff_saved_model"
        limit = getattr(gates, setting)
        if not entry["max_abs_logit_diff"] <= limit:
            failures.append(
                f"{where}: logits differ by up to {entry['max_abs_logit_diff']:.2g}, verify.{setting} is {limit:g}"
            )
    for variant, accuracy in accuracies.items():
        drop = accuracies["dense"] - accuracy
        if drop > gates.max_accuracy_drop:
            failures.append(
                f"{variant}: accuracy on validation rows falls from {accuracies['dense']:.4f} to {accuracy:.4f}, "
                f"verify.max_accuracy_drop is {gates.max_accuracy_drop:g}; compress less, train longer or allow more"
            )
    return failures


def publish(saved_model: Path, directory: Path) -> Path:
    """Copies a SavedModel to the next free integer below `directory`, so that TF Serving sees a whole one or none.

    A newest version that holds the same files already is left as it is.
    """
    directory.mkdir(parents=True, exist_ok=True)
    newest = max((int(child.name) for child in directory.iterdir() if child.name.isdigit()), default=0)
    if newest and _contents(directory / str(newest)) == _contents(saved_model):
        say(f"  published already: {directory / str(newest)}")
        return directory / str(newest)
    target = directory / str(newest + 1)
    temporary = directory / f".{target.name}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(saved_model, temporary)
    temporary.rename(target)
    say(f"  published {target}")
    return target


def _contents(directory: Path) -> dict[str, str]:
    return {str(file.relative_to(directory)): sha256_of_file(file) for file in directory.rglob("*") if file.is_file()}


def _answers(artifact: Artifact, requests: Requests, batch_size: int) -> np.ndarray:
    parts = (requests.part(start, start + batch_size) for start in range(0, len(requests), batch_size))
    return np.concatenate([artifact.answer(Batch(part.tokens, part.texts, part.text_pairs)) for part in parts])


def _accuracy(artifact: Artifact, table: TokenTable, config: Config) -> float:
    logits = np.zeros((table.num_rows, table.num_labels), np.float32)
    for chunk, batch in batches_of(table, np.arange(table.num_rows), max(config.verify.batch_sizes)):
        logits[chunk] = artifact.answer(batch)
    return metrics.evaluate(logits, table.labels, config.task)["accuracy"]
