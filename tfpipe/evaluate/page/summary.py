"""The parts of a page beside the measures of a run: data, learning curves, the verdict, settings.

Enters: the output of earlier stages. Leaves: parts of `metrics.json`, all of them plain JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfpipe.artifacts import REFERENCE
from tfpipe.config.compress import Budget
from tfpipe.config.run import Config
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.variants import STAGE_OF_VARIANT

PAGE = "report.html"
HISTORY = "history.json"
SPLITS = ("train", "validation", "test")
_BINS = 24
_QUANTIZED = {
    "qat": "quantization-aware training",
    "ptq": "calibrated, without training",
    "weight_only": "weights alone",
}


def data_of(prepared: Path) -> dict[str, Any]:
    """Gives the counts of `prepare`, and the lengths of the rows of each split.

    Args:
      prepared: directory of `prepare`.

    Returns:
      The content of `statistics.json`, and `lengths`: `edges` of bins of tokens, and `rows` in each, by split.
    """
    statistics = json.loads((prepared / "statistics.json").read_text(encoding="utf-8"))
    tokens = {split: TokenTable.open(prepared / split).lengths for split in SPLITS}
    longest = max((int(each.max()) for each in tokens.values() if len(each)), default=1)
    width = math.ceil((longest + 1) / _BINS)
    edges = list(range(0, longest + width + 1, width))
    rows = {split: np.histogram(each, edges)[0].tolist() for split, each in tokens.items()}
    return statistics | {"lengths": {"edges": edges, "rows": rows}}


def history_of(stage: StageDirectory) -> dict[str, list[dict[str, Any]]]:
    """Gives the evaluations of each training on the validation rows: stage -> entries with `step`, `epoch`, scores."""
    files = {name: stage.inputs[name] / HISTORY for name in STAGE_OF_VARIANT.values() if name in stage.inputs}
    found = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
    return {name: entries for name, entries in found.items() if entries}


def verdict_of(artifacts: Sequence[Mapping[str, Any]], within: Sequence[str], budget: Budget) -> dict[str, Any]:
    """Chooses the artifact that the page begins with: the fastest within the budget, then the smallest.

    A variant is within the budget by its artifact `budget.artifact`. Artifacts of other formats that are larger or
    slower than the budget allows are passed over.

    Args:
      artifacts: rows of `metrics.json`.
      within: the variants within the budget; where there is none, dense is published alone.
      budget: the limits, and the shape at which latencies are compared.

    Returns:
      `variant`, `artifact`, `path` and `shape`; the numbers are those of this row among the artifacts.
    """
    variants, shape = within or ["dense"], budget.latency_shape
    usable = [row for row in artifacts if row["variant"] in variants and row["artifact"] != REFERENCE.name]
    usable = [row for row in usable if row["agrees"]] or usable
    usable = [
        row
        for row in usable
        if row["size_bytes"] <= (budget.max_size_bytes or math.inf)
        and (budget.max_latency_ms is None or _latency(row, shape) <= budget.max_latency_ms)
    ] or usable
    best = min(usable, key=lambda row: (_latency(row, shape), row["size_bytes"]))
    return {name: best[name] for name in ("variant", "artifact", "path")} | {"shape": shape}


def artifact_of(summary: Mapping[str, Any], variant: str, kind: str) -> dict[str, Any] | None:
    """Finds the row of an artifact; None where the run has none."""
    rows = (row for row in summary["artifacts"] if (row["variant"], row["artifact"]) == (variant, kind))
    return next(rows, None)


def made_by(config: Config) -> list[str]:
    """Names the changes that the run made to the model, a phrase for each stage that was asked for."""
    found = []
    if config.distill is not None and config.distill.student is not None:
        found.append("distilled into a smaller model")
    if config.prune is not None:
        removed = "parameters removed by heads and columns" if config.prune.method == "structured" else "zeros"
        share = 50.0 if config.prune.method == "two_four" else config.prune.sparsity * 100.0
        found.append(f"pruned to {share:g} % {removed}")
    if config.quantize is not None:
        found.append(f"quantized to 8 bits ({_QUANTIZED[config.quantize.mode]})")
    return found


def settings_of(config: Config) -> dict[str, Any]:
    """Gives the settings that differ from their defaults, by section."""
    return config.model_dump(mode="json", exclude_defaults=True)


def _latency(row: Mapping[str, Any], shape: str) -> float:
    found = row["latency_ms"][shape]
    return math.inf if found is None else found
