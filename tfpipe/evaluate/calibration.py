"""Calibration: choices on validation rows, so that probabilities hold and answers are as good as they can be.

Enters: the logits of the validation rows, and the right answers. Leaves: a temperature, thresholds of several labels,
the probability below which there is no answer; and their effects, for the report.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

from tfpipe import metrics
from tfpipe.config.calibrate import Calibrate
from tfpipe.errors import InputError
from tfpipe.rundir.record import VALIDATION_LOGITS
from tfpipe.tasks import PLAIN, Decision, task_of

FILE = "calibration.json"
LEAST_ROWS = 10
"""rows with a label from which its threshold is tuned, and answered rows from which a precision is one"""
_TEMPERATURES = (0.05, 20.0)
_CURVE_POINTS = 50
_LISTED = 12
_CERTAIN = 1e-6
"""from 0 or 1: nearer, an artifact's float32 can't tell probabilities apart"""


class Calibration(NamedTuple):
    """The calibration that a variant's artifacts have in their graphs and in `config.json`."""

    temperature: float = 1.0
    """by which logits are divided"""
    decision: Decision = PLAIN


def calibrated(
    logits: np.ndarray, labels: np.ndarray, task: str, names: tuple[str, ...], settings: Calibrate
) -> tuple[Calibration, dict[str, Any]]:
    """Chooses the calibration of a model.

    Args:
      logits: [validation rows, labels] float32.
      labels: the same shape, one-hot or multi-hot.
      task: `single_label` or `multi_label`.
      names: of the labels.
      settings: the section `calibrate`.

    Raises:
      InputError: the precision that is asked for is not reached on the validation rows.

    Returns:
      The calibration, and facts about it as JSON: `calibration_of` reads them.
    """
    temperature = fitted_temperature(logits, labels, task) if settings.temperature else 1.0
    scaled = logits / np.float32(temperature)
    probability, decision, curve = task_of(task).probabilities(scaled), PLAIN, None
    if task_of(task).one_label:
        curve = _curve(probability, labels)
        if settings.precision is not None:
            decision = Decision(abstain_below=_abstention(probability, labels, settings.precision))
    elif settings.thresholds == "f1":
        decision = Decision(thresholds=tuned_thresholds(probability, labels))
    scores = ("loss", "brier", "calibration_error", "accuracy", "macro_f1")
    before, after = metrics.evaluate(logits, labels, task), metrics.evaluate(scaled, labels, task, decision)
    facts = {
        "temperature": temperature,
        "thresholds": None if decision.thresholds is None else dict(zip(names, decision.thresholds, strict=True)),
        "abstain_below": decision.abstain_below,
        "validation_rows": len(labels),
        "before": {name: before[name] for name in scores},
        "after": {name: after[name] for name in scores},
        "reliability_before": metrics.reliability(logits, labels, task),
        "reliability_after": metrics.reliability(scaled, labels, task),
        "coverage": curve,
    }
    return Calibration(temperature, decision), facts


def shown_calibration(facts: dict[str, Any]) -> str:
    """Writes in a line what a calibration changed."""
    before, after = facts["before"], facts["after"]
    parts = [f"temperature {facts['temperature']:g}"]
    if before["calibration_error"] is None or after["calibration_error"] is None:
        parts.append("its logits on the validation rows are not finite")
    else:
        errors = f"{before['calibration_error']:.4f} to {after['calibration_error']:.4f}"
        parts[0] += f", calibration error on validation rows {errors}"
    if facts["thresholds"] is not None:
        thresholds = list(facts["thresholds"].values())
        shown = ", ".join(f"{each:.3g}" for each in thresholds)
        if len(thresholds) > _LISTED:
            shown = f"{min(thresholds):.3g} to {max(thresholds):.3g}"
        parts.append(f"thresholds {shown}, macro F1 {before['macro_f1']:.4f} to {after['macro_f1']:.4f}")
    if facts["abstain_below"] is not None:
        parts.append(f"no answer below {facts['abstain_below']:.4g}")
    return "; ".join(parts)


def calibration_of(exported: Path, variant: str) -> Calibration:
    """Reads the calibration of a variant.

    Args:
      exported: directory of the stage `export`.
      variant: `dense`, `distilled`, `pruned` or `int8`.
    """
    facts = json.loads((exported / FILE).read_text(encoding="utf-8"))[variant]
    return Calibration(facts["temperature"], Decision.read(facts, tuple(facts["thresholds"] or ())))


def validation_logits(source: Path) -> np.ndarray:
    """Reads the logits of the validation rows that a stage stored: [rows, labels] float32.

    Args:
      source: directory of the stage.
    """
    return load_file(source / VALIDATION_LOGITS)["logits"]


def fitted_temperature(logits: np.ndarray, labels: np.ndarray, task: str) -> float:
    """Finds the temperature under which the cross-entropy of some rows is least (Guo et al., 2017).

    Rows that are all right would ask for a temperature of 0. So its logarithm has a normal prior with mean 0 and
    deviation 1, which counts for less than one row of ordinary uncertainty, however many labels there are.

    Args:
      logits: [rows, labels] float.
      labels: the same shape, one-hot or multi-hot.
      task: `single_label` or `multi_label`.

    Returns:
      The temperature, 0.05 to 20, to four digits; 1 where there are too few rows to say.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) < LEAST_ROWS or not np.isfinite(logits).all():
        return 1.0
    kind = task_of(task)

    def loss(log_temperature: float) -> float:
        entropy = kind.cross_entropy(labels, kind.probabilities(logits / np.exp(log_temperature)))
        return float(entropy.sum()) + log_temperature**2 / 2.0

    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-5})
    return float(f"{np.exp(found.x):.4g}")


def tuned_thresholds(probability: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """Finds the threshold of each label where its F1 is largest; of equal ones, the nearest to one half.

    Args:
      probability: [rows, labels] float.
      labels: the same shape, multi-hot.

    Returns:
      A threshold for each label: between two probabilities that occur, or 0.5 for a label of too few rows.
    """
    found = []
    for column, truth in zip(probability.T, (labels > 0.5).T, strict=True):
        if truth.sum() < LEAST_ROWS:
            found.append(0.5)
            continue
        order = np.argsort(-column, kind="stable")
        ordered, right = column[order], np.cumsum(truth[order])
        ends = np.append(np.flatnonzero(ordered[1:] < ordered[:-1]), len(ordered) - 1)  # of equal probabilities
        f1 = 2.0 * right[ends] / (ends + 1 + truth.sum())
        below = np.append(ordered[1:], 0.0)[ends]
        middle = (ordered[ends] + below) / 2.0
        # One half itself, where it is as good: between its two neighbors it is the same rule.
        middle = np.where((below < 0.5) & (ordered[ends] > 0.5), 0.5, middle)
        best = np.flatnonzero(f1 == f1.max())
        threshold = middle[best[np.argmin(np.abs(middle[best] - 0.5))]]
        found.append(float(min(max(threshold, _CERTAIN), 1.0 - _CERTAIN)))
    return tuple(found)


def _curve(probability: np.ndarray, labels: np.ndarray) -> list[dict[str, float]]:
    """Lists, for some thresholds, the share of rows that are answered, and the share of these that are right."""
    confidence, right = _ordered(probability, labels)
    counts = np.unique(np.linspace(1, len(right), min(_CURVE_POINTS, len(right))).round().astype(int))
    return [
        {
            "threshold": float(confidence[count - 1]),
            "coverage": count / len(right),
            "precision": float(right[:count].mean()),
        }
        for count in counts.tolist()
    ]


def _abstention(probability: np.ndarray, labels: np.ndarray, precision: float) -> float:
    """Finds the smallest probability from which on answers are as precise as they are to be."""
    confidence, right = _ordered(probability, labels)
    shares = np.cumsum(right) / np.arange(1, len(right) + 1)
    ends = np.append(np.flatnonzero(confidence[1:] < confidence[:-1]), len(confidence) - 1)
    reached = [end for end in ends.tolist() if shares[end] >= precision and end + 1 >= LEAST_ROWS]
    if not reached:
        best = max((share for end, share in enumerate(shares) if end + 1 >= LEAST_ROWS), default=0.0)
        raise InputError(
            f"calibrate.precision {precision:g}: not reached on the {len(right):,} validation rows, whose most certain "
            f"answers are right in {best:.1%}; lower it, or set it to null"
        )
    last = reached[-1]
    below = confidence[last + 1] if last + 1 < len(confidence) else 0.0
    threshold = float((confidence[last] + below) / 2.0)
    if threshold > 1.0 - _CERTAIN:
        raise InputError(
            f"calibrate.precision {precision:g}: only answers with a probability above {1.0 - _CERTAIN} reach it, and "
            "artifacts can't tell these apart; lower it, set calibrate.temperature: true, or set it to null"
        )
    return threshold


def _ordered(probability: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest probability of each row, falling, and whether its label is right."""
    confidence = probability.max(axis=-1)
    order = np.argsort(-confidence, kind="stable")
    right = np.take_along_axis(labels > 0.5, probability.argmax(axis=-1)[:, None], axis=-1)[:, 0]
    return confidence[order], right[order]
