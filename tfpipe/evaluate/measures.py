"""Measures of a variant on the test rows, with their intervals: the numbers of `metrics.json` and of all documents.

Enters: the answers that `verify` stored. Leaves: plain numbers; every document takes them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfpipe import metrics
from tfpipe.tasks import PLAIN, Decision, task_of

MATRIX = 100
"""labels up to which the confusion is a matrix: that of 5,000 labels would take gigabytes"""


def measures(
    logits: np.ndarray,
    labels: np.ndarray,
    task: str,
    names: tuple[str, ...],
    decision: Decision = PLAIN,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures a variant.

    Args:
      logits: [rows, labels] float32, calibrated.
      labels: the same shape, one-hot or multi-hot.
      task: `single_label` or `multi_label`.
      names: of the labels.
      decision: rule by which probabilities become an answer.
      seed: of the bootstrap.

    Returns:
      `rows`; `scores`, by name `{"value", "low", "high"}` with 95 % bounds, null where they are not defined;
      `by_label`, in the order of the labels; `confusion`, see `metrics.confusion`, null of more than `MATRIX` labels of
      which a row has one; `most_confused`, see `metrics.most_confused`, with the labels' names; `reliability`, bins;
      `precision_recall`, see there; of a model that abstains, `coverage` and `precision`, likewise with bounds.
    """
    counts = metrics.counts_of(logits, labels, task, decision)
    bounds = metrics.bootstrap(counts, seed)
    # Of shares of rows the interval of Wilson, as everywhere else.
    values = metrics.evaluate(logits, labels, task, decision, ranks=True)
    bounds["accuracy"] = metrics.wilson_interval(values["accuracy"], len(labels))
    found = {
        "rows": len(labels),
        "scores": {name: _with_bounds(value, bounds.get(name)) for name, value in values.items()},
        "by_label": [
            {"label": name, **each, "recall_95": _share(each["recall"], each["support"])}
            for name, each in zip(names, metrics.by_label(logits, labels, task, decision), strict=True)
        ],
        "confusion": (
            None
            if task_of(task).one_label and len(names) > MATRIX
            else metrics.confusion(logits, labels, task, decision).tolist()
        ),
        "most_confused": [
            {"label": names[label], "answer": names[answer], "rows": count}
            for label, answer, count in metrics.most_confused(logits, labels, task, decision)
        ],
        "reliability": metrics.reliability(logits, labels, task),
        "precision_recall": metrics.precision_recall(logits, labels, task, names),
    }
    if decision.abstain_below is not None:
        answered = task_of(task).probabilities(logits).max(axis=-1) >= decision.abstain_below
        right = metrics.correct(logits, labels, task, decision)[answered]
        precision = float(right.mean()) if len(right) else None
        found |= {
            "coverage": _with_bounds(float(answered.mean()), metrics.wilson_interval(answered.mean(), len(answered))),
            "precision": _with_bounds(precision, _share(precision, len(right))),
        }
    return found


def compared(right: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Compares each variant with dense, by McNemar's exact test with Holm's correction for their number.

    Args:
      right: variant -> [rows] bool, the test rows that it has right.

    Returns:
      Variant -> `change` and its bounds, `won` and `lost` (rows that one of the two alone has right), `p` (corrected).
    """
    others = [variant for variant in right if variant != "dense"]
    p_values = metrics.holm({variant: metrics.mcnemar(right[variant], right["dense"]) for variant in others})
    found = {}
    for variant in others:
        change, low, high = metrics.paired_change(right[variant], right["dense"])
        found[variant] = {
            "change": change,
            "low": low,
            "high": high,
            "won": int((right[variant] & ~right["dense"]).sum()),
            "lost": int((right["dense"] & ~right[variant]).sum()),
            "p": p_values[variant],
        }
    return found


def _with_bounds(value: float | None, bounds: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = bounds if bounds is not None and value is not None else (None, None)
    return {"value": value, "low": low, "high": high}


def _share(share: float | None, count: int) -> tuple[float, float] | None:
    return None if share is None else metrics.wilson_interval(share, count)
