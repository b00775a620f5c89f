"""Precision over recall as the threshold falls: the points of a plot."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfpipe.tasks import task_of

MOST_LABELS = 20
"""labels up to which each has a curve"""
MOST_POINTS = 200
"""points of a curve"""


def precision_recall(
    logits: np.ndarray, labels: np.ndarray, task: str, names: tuple[str, ...]
) -> dict[str, Any] | None:
    """Gives precision and recall by the probability from which on a label counts as given.

    Args:
      logits: [rows, labels] float.
      labels: [rows, labels] float, one-hot or multi-hot.
      task: `single_label` or `multi_label`.
      names: of the labels.

    Returns:
      `average`: `label` or, of more than 20 labels, `micro`, which is over all labels together. `curves`, each with
      `label` (null for all together), `threshold`, `precision` and `recall`: lists of at most 200 points, recall
      rising. A label that no row has is left out. None where no curve is defined.
    """
    probability, truth = task_of(task).probabilities(logits), labels > 0.5
    if not np.isfinite(probability).all():
        return None
    if truth.shape[1] > MOST_LABELS:
        columns = [(None, truth.ravel(), probability.ravel())]
    else:
        columns = [(name, truth[:, at], probability[:, at]) for at, name in enumerate(names)]
    curves = [{"label": name, **_curve(*column)} for name, *column in columns if column[0].any()]
    average = "micro" if truth.shape[1] > MOST_LABELS else "label"
    return {"average": average, "curves": curves} if curves else None


def _curve(truth: np.ndarray, probability: np.ndarray) -> dict[str, list[float]]:
    """Gives the points at which the recall changes, some of them where there are many."""
    order = np.argsort(-probability, kind="stable")
    found = np.cumsum(truth[order])
    # Of equal probabilities the last; each recall with its largest precision, which is where it is first reached.
    ends = np.append(np.flatnonzero(np.diff(probability[order]) < 0), len(order) - 1)
    ends = ends[np.append(True, np.diff(found[ends]) > 0) & (found[ends] > 0)]
    kept = ends[np.unique(np.linspace(0, len(ends) - 1, min(MOST_POINTS, len(ends))).round().astype(int))]
    return {
        "threshold": probability[order][kept].tolist(),
        "precision": (found[kept] / (kept + 1)).tolist(),
        "recall": (found[kept] / truth.sum()).tolist(),
    }
