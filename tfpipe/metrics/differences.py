"""Differences of answers from a reference's: by logit, by label, by probability."""

from __future__ import annotations

import numpy as np

from tfpipe.tasks import PLAIN, Decision, task_of


def differences(logits: np.ndarray, reference: np.ndarray, task: str, decision: Decision = PLAIN) -> dict[str, float]:
    """Measures how far answers are from the reference's, both [rows, labels].

    Returns:
      `max_abs_logit_diff`; `max_scaled_logit_diff`, the same with each row divided by its largest logit in the
      reference, where that is more than 1; `label_agreement`, the share of the rows whose labels all agree; and
      `mean_abs_probability_diff`, the mean over rows of the probability that moved (single_label: from labels to
      others, the total variation distance; multi_label: at the label where most did), so that a row counts as much
      among a thousand labels as among two. A row whose logits are not finite agrees with none, and the differences are
      NaN then.
    """
    kind = task_of(task)
    given, expected = (kind.decisions(each, decision) for each in (logits, reference))
    same = (given == expected).all(axis=-1) & np.isfinite(logits).all(axis=-1)
    moved = kind.moved(np.abs(kind.probabilities(logits) - kind.probabilities(reference)))
    return {
        "max_abs_logit_diff": float(np.abs(logits - reference).max()),
        "max_scaled_logit_diff": scaled_difference(logits, reference),
        "label_agreement": float(same.mean()),
        "mean_abs_probability_diff": float(moved.mean()),
    }


def scaled_difference(logits: np.ndarray, reference: np.ndarray) -> float:
    """Gives the largest difference of a logit, in units of the row's largest logit where that is more than 1.

    float32 rounds sums in proportion to their terms, so larger logits differ by more. A logit near 0 can be the sum of
    large terms: the row's largest logit shows how large they are.

    Args:
      logits: [rows, labels] float.
      reference: the same shape; gives the unit.
    """
    unit = np.maximum(np.abs(reference).max(axis=-1, keepdims=True), 1.0)
    return float((np.abs(logits - reference) / unit).max())
