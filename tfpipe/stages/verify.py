"""The stage `verify`: does each artifact answer like the Keras model of its variant, and does it keep the budget?

Enters: the test and validation rows, hard texts, the artifacts. Leaves: `parity.json`, with a row of measurements for
each artifact; `logits.safetensors`, their answers to a sample of the test rows, and `rows`, the numbers of these rows
in the table.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from tfpipe import metrics
from tfpipe.artifacts import REFERENCE
from tfpipe.config.export import Verify
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.devices.memory import give_back
from tfpipe.devices.strategy import float32_kept
from tfpipe.errors import GateError
from tfpipe.evaluate import budget, sanity
from tfpipe.evaluate.benchmark import measure_batching, measure_latency
from tfpipe.evaluate.calibration import calibration_of
from tfpipe.evaluate.full_batch import full_batches, timing_tokenizer
from tfpipe.evaluate.golden import hard_requests
from tfpipe.evaluate.loaded import Loaded, load_artifacts
from tfpipe.evaluate.parity import Answered, answer, answer_rows, compare, failed_gates, measured
from tfpipe.files import write_json
from tfpipe.formats.base import Requests
from tfpipe.formats.saved_model.format import BY_TEXT
from tfpipe.rundir.record import LOGITS, label_names
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tasks import Decision
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.variants import STAGE_OF_VARIANT


class Rows(NamedTuple):
    """Rows that artifacts are asked and timed with."""

    test: TokenTable
    validation: TokenTable
    shapes: Mapping[str, Requests]
    """by `full_batches`"""


class Measured(NamedTuple):
    """An artifact, its answers, and their costs."""

    answered: Answered
    latency_ms: dict[str, float | None]
    """shape -> milliseconds; of the reference, which nobody serves, none"""
    validation: np.ndarray | None
    """answers to the validation rows, [rows, labels] float32, of the artifact that the budget is about"""
    curve: dict[int, float] | None
    """batch size -> milliseconds, of dense by text"""


class Results(NamedTuple):
    """The results of a variant: its artifacts, measured and compared."""

    measured: list[Measured]
    comparisons: list[dict[str, Any]]
    """by `parity.compare`"""
    validation: dict[str, float | None]
    """scores on the validation rows of the artifact that the budget is about"""
    decision: Decision
    """how its probabilities become an answer"""

    @property
    def logits(self) -> dict[str, np.ndarray]:
        """Gives the logits by kind of artifact: [rows, labels] float32, of the test rows that were asked."""
        return {each.answered.artifact.kind: each.answered.batched.rows for each in self.measured}


@float32_kept()
def run(config: Config, stage: StageDirectory) -> None:
    """Compares, measures, checks.

    Raises:
      GateError: a gate failed, or the last variant is outside the budget; `parity.json` says by how much.
    """
    prepared = stage.inputs["prepare"]
    test, validation = TokenTable.open(prepared / "test"), TokenTable.open(prepared / "validation")
    measured_on, names = measured(test, config), label_names(prepared)
    for split, table in (("validation", validation), ("test", test)):
        for warning in sanity.warnings(table.labels, names, split):
            say(f"warning: {warning}")
    tokenizer = timing_tokenizer(TokenizerSettings.read(stage.inputs["train"]))
    shapes = full_batches(test, tokenizer, pairs=config.data.text_pair_column is not None, seed=config.seed)
    asked = Rows(test, validation, shapes)
    found = {variant: _variant(variant, config, stage, asked) for variant in stage.variants}
    measurements = [measurement for each in found.values() for measurement in each.measured]
    comparisons = [comparison for each in found.values() for comparison in each.comparisons]
    labels = test.labels[measured_on]
    right = {
        f"{variant}.{kind}": metrics.correct(logits, labels, config.task, each.decision)
        for variant, each in found.items()
        for kind, logits in each.logits.items()
    }
    rows = measured_rows(measurements, comparisons, right, stage.path.parent, config)
    costs = costs_of(rows, {variant: each.validation[config.budget.metric] for variant, each in found.items()}, config)
    within, excess = budget.within_budget(costs, config.budget)
    insane = {
        variant: sanity.failures(each.logits[REFERENCE.name], labels, config.task, names, each.decision)
        for variant, each in found.items()
    }
    sane = [variant for variant in within if config.verify.sanity == "allow" or not insane[variant]]
    failures = failed_gates(comparisons, config.verify) + ([] if excess is None else [excess])
    failures += _failures_of_sanity(insane, stage.variants[-1], config.verify)
    answers = {f"{variant}.{kind}": each for variant in found for kind, each in found[variant].logits.items()}
    (stage.path / LOGITS).write_bytes(save(answers | {"rows": measured_on}))
    write_json(
        stage.path / "parity.json",
        {
            "artifacts": rows,
            "comparisons": comparisons,
            "validation_accuracy": {variant: each.validation["accuracy"] for variant, each in found.items()},
            "costs": [vars(cost) for cost in costs],
            "within_budget": sane,
            "sanity": insane,
            "failures": failures,
            "latency_ms_by_batch_size": next(each.curve for each in measurements if each.curve is not None),
        },
    )
    if failures:
        raise GateError(f"nothing is published; {'; '.join(failures)} (see {stage.path / 'parity.json'})")
    say(f"  {len(comparisons)} comparisons passed")
    for cost in costs:
        if cost.variant not in sane:
            reasons = cost.excesses(config.budget) + insane[cost.variant]
            say(f"  {cost.variant} is not published: {'; '.join(reasons)}")


def _variant(variant: str, config: Config, stage: StageDirectory, rows: Rows) -> Results:
    """Loads the artifacts of a variant one after the other, and measures each."""
    source, exported = stage.inputs[STAGE_OF_VARIANT[variant]], stage.inputs["export"]
    decision = calibration_of(exported, variant).decision
    tokenizer = Tokenizer(TokenizerSettings.read(source), config.data.max_length)
    hard = hard_requests(tokenizer, pairs=config.data.text_pair_column is not None)
    loaded = load_artifacts(variant, source, exported / variant, config.export.formats, config.verify.threads)
    # map() keeps no artifact that it has given on: it leaves memory before the next one is loaded.
    found = list(chain.from_iterable(map(partial(_measured, config=config, rows=rows, hard=hard), loaded)))
    comparisons = compare([each.answered for each in found], rows.test, config, decision)
    answers, ranks = next(each.validation for each in found if each.validation is not None), metrics.RANKS
    scores = metrics.evaluate(
        answers, rows.validation.labels, config.task, decision, ranks=config.budget.metric in ranks
    )
    return Results(found, comparisons, scores, decision)


def _measured(ways: list[Loaded], config: Config, rows: Rows, hard: Requests) -> list[Measured]:
    """Measures an artifact in each way to ask it."""
    give_back()  # the memory of the artifact before it
    found = []
    for answered, (artifact, way) in zip(answer(ways, rows.test, hard, config), ways, strict=True):
        is_reference, in_budget = artifact.kind == REFERENCE.name, artifact.kind == config.budget.artifact
        of_server = artifact.kind == BY_TEXT and artifact.variant == "dense"
        runs = 0 if is_reference else config.verify.latency_runs
        found.append(
            Measured(
                answered,
                measure_latency(way, artifact.longest, rows.shapes, runs),
                answer_rows(way, rows.validation, config.verify.batch_size) if in_budget else None,
                measure_batching(way, rows.test, config.seed) if of_server else None,
            )
        )
    return found


def _failures_of_sanity(insane: dict[str, list[str]], last: str, gates: Verify) -> list[str]:
    """Lists the failed sanity checks of dense and of the last variant; only warns where the configuration allows."""
    failures = []
    for variant, found in insane.items():
        for each in found:
            if gates.sanity == "allow":
                say(f"warning: {variant}: {each} (verify.sanity: allow)")
            elif variant in ("dense", last):
                advice = "check the labels and the learning rate, or set verify.sanity: allow"
                failures.append(f"{variant}: {each}; {advice}")
    return failures


def measured_rows(
    measurements: list[Measured],
    comparisons: list[dict[str, Any]],
    right: dict[str, np.ndarray],
    run_path: Path,
    config: Config,
) -> list[dict[str, Any]]:
    """Makes one flat row of measurements for each artifact.

    Args:
      measurements: of all variants.
      comparisons: by `parity.compare`.
      right: `<variant>.<kind>` -> [rows] bool, the rows that are answered right.
      run_path: directory that the paths of artifacts are relative to.
      config: the configuration.
    """
    large = {name_of(each): each for each in reversed(comparisons)}
    rows = []
    for measurement in measurements:
        artifact = measurement.answered.artifact
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
                "latency_ms": measurement.latency_ms,
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
    """Names the artifact of a comparison: `<variant>.<kind>`."""
    return f"{comparison['variant']}.{comparison['artifact']}"


def costs_of(rows: list[dict[str, Any]], scores: dict[str, float | None], config: Config) -> list[budget.Cost]:
    """Lists the costs of each compressed variant, or of dense alone, by the artifact that the budget is about.

    Args:
      rows: of `measured_rows`.
      scores: variant -> `budget.metric` on validation rows; None where it is not defined, which no budget allows.
      config: the configuration.
    """
    sign = -1.0 if config.budget.metric in metrics.LOWER_IS_BETTER else 1.0

    def drop(variant: str) -> float:
        before, after = scores["dense"], scores[variant]
        # 0.90 - 0.87 is 0.03, and within 0.03
        return math.nan if before is None or after is None else round(sign * (before - after), 9)

    return [
        budget.Cost(
            row["variant"], drop(row["variant"]), row["size_bytes"], row["latency_ms"][config.budget.latency_shape]
        )
        for row in rows
        if row["artifact"] == config.budget.artifact and (row["variant"] != "dense" or len(scores) == 1)
    ]
