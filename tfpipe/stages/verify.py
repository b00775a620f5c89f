"""The stage `verify`: does each artifact answer like the Keras model of its variant, and does it keep the budget?

Enters: the test and validation rows, hard texts, the artifacts. Leaves: `parity.json`, with a row of measurements for
each artifact; `logits.safetensors`, their answers to a sample of the test rows, and `rows`, which rows of the table
these are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from tfpipe import metrics
from tfpipe.artifacts import REFERENCE
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.devices.strategy import float32_kept
from tfpipe.errors import GateError
from tfpipe.evaluate import budget
from tfpipe.evaluate.benchmark import measure_batching, measure_latency
from tfpipe.evaluate.full_batch import full_batches, timing_tokenizer
from tfpipe.evaluate.golden import hard_requests
from tfpipe.evaluate.loaded import Artifact, load_artifacts
from tfpipe.evaluate.parity import answer_rows, compare, failed_gates, measured
from tfpipe.files import write_json
from tfpipe.formats.saved_model.format import BY_TEXT
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.variants import STAGE_OF_VARIANT


@float32_kept()
def run(config: Config, stage: StageDirectory) -> None:
    """Compares, measures, checks.

    Raises:
      GateError: a gate failed, or the last variant is outside the budget; `parity.json` says by how much.
    """
    prepared = stage.inputs["prepare"]
    test, validation = TokenTable.open(prepared / "test"), TokenTable.open(prepared / "validation")
    pairs = config.data.text_pair_column is not None
    artifacts, comparisons, logits, accuracies = [], [], {}, {}
    measured_on = measured(test, config)
    for variant in stage.variants:
        source = stage.inputs[STAGE_OF_VARIANT[variant]]
        exported = stage.inputs["export"] / variant
        of_variant = load_artifacts(variant, source, exported, config.export.formats, config.verify.threads)
        max_length = next(each.longest for each in of_variant if each.kind == BY_TEXT)
        hard = hard_requests(Tokenizer(TokenizerSettings.read(source), max_length), pairs=pairs)
        found, answers = compare(of_variant, test, hard, config)
        comparisons += found
        logits |= {f"{variant}.{kind}": each for kind, each in answers.items()}
        held = next(each for each in of_variant if each.kind == config.budget.artifact)
        answers = answer_rows(held, validation, config.verify.batch_size)
        accuracies[variant] = metrics.evaluate(answers, validation.labels, config.task)["accuracy"]
        artifacts += of_variant
    tokenizer = timing_tokenizer(TokenizerSettings.read(stage.inputs["train"]))
    shapes = full_batches(test, tokenizer, pairs=pairs, seed=config.seed)
    latency = measure_latency(artifacts, shapes, config.verify.latency_runs)
    curve = measure_batching(next(each for each in artifacts if each.kind == BY_TEXT), test, config.seed)
    rows = measured_rows(artifacts, comparisons, logits, latency, test.labels[measured_on], stage.path.parent, config)
    costs = costs_of(rows, accuracies, config)
    within, excess = budget.within_budget(costs, config.budget)
    failures = failed_gates(comparisons, config.verify) + ([] if excess is None else [excess])
    (stage.path / "logits.safetensors").write_bytes(save(logits | {"rows": measured_on}))
    write_json(
        stage.path / "parity.json",
        {
            "artifacts": rows,
            "comparisons": comparisons,
            "validation_accuracy": accuracies,
            "costs": [vars(cost) for cost in costs],
            "within_budget": within,
            "failures": failures,
            "latency_ms_by_batch_size": curve,
        },
    )
    if failures:
        raise GateError(f"nothing is published; {'; '.join(failures)} (see {stage.path / 'parity.json'})")
    say(f"  {len(comparisons)} comparisons passed")
    for cost in costs:
        if cost.variant not in within:
            say(f"  {cost.variant} is not published: {'; '.join(cost.excesses(config.budget))}")


def measured_rows(
    artifacts: list[Artifact],
    comparisons: list[dict[str, Any]],
    logits: dict[str, np.ndarray],
    latency: dict[tuple[str, str], dict[str, float | None]],
    labels: np.ndarray,
    run_path: Path,
    config: Config,
) -> list[dict[str, Any]]:
    """One flat row of measurements for each artifact.

    Args:
      artifacts: what was measured.
      comparisons: by `parity.compare`.
      logits: `<variant>.<kind>` -> [rows, labels] float32.
      latency: by `measure_latency`.
      labels: [rows, labels] float32, of the rows that answered.
      run_path: directory that the paths of artifacts are relative to.
      config: the configuration.
    """
    large = {name_of(each): each for each in reversed(comparisons)}
    right = {name: metrics.correct(each, labels, config.task) for name, each in logits.items()}
    rows = []
    for artifact in artifacts:
        name = f"{artifact.variant}.{artifact.kind}"
        entry, own = large[name], [each for each in comparisons if name_of(each) == name]
        change, *interval = metrics.paired_change(right[name], right[f"dense.{REFERENCE.name}"])
        rows.append(
            {
                "variant": artifact.variant,
                "artifact": artifact.kind,
                "path": os.path.relpath(artifact.path, run_path),
                "split": "test",
                "rows": entry["rows"],
                "of": entry["of"],
                "accuracy": entry["accuracy"],
                "accuracy_95": list(metrics.wilson_interval(entry["accuracy"], entry["rows"])),
                "accuracy_change": change,
                "accuracy_change_95": interval,
                "macro_f1": entry["macro_f1"],
                "calibration_error": entry["calibration_error"],
                "size_bytes": artifact.size_bytes,
                "parameters": artifact.parameters,
                "latency_ms": latency[artifact.variant, artifact.kind],
                # Alone and in batches; NaN stays NaN.
                "max_abs_logit_diff": float(np.max([each["max_abs_logit_diff"] for each in own])),
                "label_agreement": entry["label_agreement"],
                "mean_abs_probability_diff": entry["mean_abs_probability_diff"],
                "sparsity": artifact.sparsity,
                "agrees": not failed_gates(own, config.verify),
            }
        )
    return rows


def name_of(comparison: dict[str, Any]) -> str:
    """`<variant>.<kind>` of what a comparison is about."""
    return f"{comparison['variant']}.{comparison['artifact']}"


def costs_of(rows: list[dict[str, Any]], accuracies: dict[str, float], config: Config) -> list[budget.Cost]:
    """Lists the costs of each compressed variant, or of dense alone, by the artifact that the budget is about."""
    return [
        budget.Cost(
            row["variant"],
            round(accuracies["dense"] - accuracies[row["variant"]], 9),  # 0.90 - 0.87 is 0.03, and within 0.03
            row["size_bytes"],
            row["latency_ms"][config.budget.latency_shape],
        )
        for row in rows
        if row["artifact"] == config.budget.artifact and (row["variant"] != "dense" or len(accuracies) == 1)
    ]
