"""Parity: how far each artifact's answers are from those of the Keras model that it came from, and whether too far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tfpipe import metrics
from tfpipe.artifacts import REFERENCE, format_named
from tfpipe.config.export import Verify
from tfpipe.config.run import Config
from tfpipe.console import progress_bar
from tfpipe.devices.processor import CLIPS, cpu_flags, sums_overflow
from tfpipe.evaluate.loaded import Artifact, batches_of
from tfpipe.formats.base import Requests
from tfpipe.tasks import PLAIN, Decision
from tfpipe.tokens.table import TokenTable


def measured(table: TokenTable, config: Config) -> np.ndarray:
    """The rows of the test split on which a run is measured: a random sample of `verify.rows`, [rows] int64, rising."""
    return table.sample(config.verify.rows, config.seed)


def compare(
    artifacts: list[Artifact], table: TokenTable, hard: Requests, config: Config, decision: Decision = PLAIN
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Compares every artifact of a variant with its Keras model, alone and in batches.

    In batches the sample of `measured` answers; alone, `verify.small_batch_rows` of it. The hard texts
    answer at both and count in the largest logit difference; the shares are over rows of the data alone.

    Returns:
      Per artifact and batch size: `variant, artifact, format, rounded, batch_size, rows, of (rows of the table),
      accuracy, macro_f1, calibration_error, max_abs_logit_diff, max_scaled_logit_diff, label_agreement,
      mean_abs_probability_diff, hard_texts, hard_texts_max_abs_logit_diff`; and the logits of the batches, kind of
      artifact -> [rows, labels] float32.
    """
    everything = measured(table, config)
    few = table.sample(min(config.verify.small_batch_rows, len(everything)), config.seed)
    comparisons, answers = [], {}
    for batch_size, rows in ((config.verify.batch_size, everything), (1, few)):
        logits = {each.kind: np.zeros((len(rows), table.num_labels), np.float32) for each in artifacts}
        description = f"verify {artifacts[0].variant}, batches of {batch_size}"
        with progress_bar(description, len(rows)) as bar:
            for chunk, batch in batches_of(table, rows, batch_size):
                for artifact in artifacts:
                    logits[artifact.kind][np.searchsorted(rows, chunk)] = artifact.answer(batch)
                bar.advance(len(chunk))
        answers = answers or logits
        hard_logits = {artifact.kind: _answers(artifact, hard, batch_size) for artifact in artifacts}
        for artifact in artifacts:
            task, reference = config.task, logits[REFERENCE.name]
            result = metrics.evaluate(logits[artifact.kind], table.labels[rows], task, decision)
            found = metrics.differences(logits[artifact.kind], reference, task, decision)
            hard_found = metrics.differences(hard_logits[artifact.kind], hard_logits[REFERENCE.name], task, decision)
            comparisons.append(
                {
                    "variant": artifact.variant,
                    "artifact": artifact.kind,
                    "format": artifact.format,
                    "rounded": artifact.rounded,
                    "batch_size": batch_size,
                    "rows": len(rows),
                    "of": table.num_rows,
                    **{name: result[name] for name in ("accuracy", "macro_f1", "calibration_error")},
                    **found,
                    **{
                        name: float(np.maximum(found[name], hard_found[name]))  # NaN stays NaN
                        for name in ("max_abs_logit_diff", "max_scaled_logit_diff")
                    },
                    "hard_texts": len(hard),
                    "hard_texts_max_abs_logit_diff": hard_found["max_abs_logit_diff"],
                }
            )
    return comparisons, answers


def failed_gates(comparisons: list[dict[str, Any]], gates: Verify) -> list[str]:
    """The gates that failed, one line each: what, by how much, which setting."""
    return [
        f"{entry['variant']} {entry['artifact']} at batch size {entry['batch_size']}: {failure}"
        for entry in comparisons
        for failure in (_failures_of_rounded if entry["rounded"] else _failures_of_float)(entry, gates)
    ]


def _failures_of_float(entry: dict[str, Any], gates: Verify) -> Iterator[str]:
    limit = gates.max_logit_diff.get(entry["format"], format_named(entry["format"]).max_logit_diff)
    found = entry["max_scaled_logit_diff"]
    if not found <= limit:  # so that NaN fails
        of_row = "" if found == entry["max_abs_logit_diff"] else f", {found:.4g} of the row's largest"
        yield (
            f"logits differ by up to {entry['max_abs_logit_diff']:.4g}{of_row}, "
            f"verify.max_logit_diff.{entry['format']} is {limit:g}"
        )


def _failures_of_rounded(entry: dict[str, Any], gates: Verify) -> Iterator[str]:
    format = format_named(entry["format"])
    clips = entry["variant"] == "int8" and format.adds_in_16_bits and sums_overflow(cpu_flags())
    cause = f"; {CLIPS} where quantize.reduce_range is not set" if clips else ""
    slack = format.int8_slack if entry["variant"] == "int8" else 1.0
    slacker = f", for {format.name} {slack:g} times as far" if slack != 1.0 else ""
    if not np.isfinite(entry["max_abs_logit_diff"]):
        yield f"logits differ by {entry['max_abs_logit_diff']}"
    least = gates.min_label_agreement_int8
    if not entry["label_agreement"] >= min(least, 1.0 - slack * (1.0 - least)):  # of a slack of 1 the number itself
        yield (
            f"labels agree on {entry['label_agreement']:.4%}, verify.min_label_agreement_int8 is {least:.2%}{slacker}; "
            f"lower it, or leave more in float (quantize.float_layers), or train longer (quantize.epochs){cause}"
        )
    if not entry["mean_abs_probability_diff"] <= slack * gates.max_probability_diff_int8:
        yield (
            f"probabilities differ by {entry['mean_abs_probability_diff']:.4g} on average, "
            f"verify.max_probability_diff_int8 is {gates.max_probability_diff_int8:g}{slacker}{cause}"
        )


def answer_rows(artifact: Artifact, table: TokenTable, batch_size: int) -> np.ndarray:
    """An artifact's answers to a whole table: [rows, labels] float32."""
    logits = np.zeros((table.num_rows, table.num_labels), np.float32)
    for chunk, batch in batches_of(table, np.arange(table.num_rows), batch_size):
        logits[chunk] = artifact.answer(batch)
    return logits


def _answers(artifact: Artifact, requests: Requests, batch_size: int) -> np.ndarray:
    parts = (requests.part(start, start + batch_size) for start in range(0, len(requests), batch_size))
    return np.concatenate([artifact.answer(part) for part in parts])
