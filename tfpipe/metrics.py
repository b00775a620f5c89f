"""Accuracy, F1, calibration: one definition for training, verification and the report.

Everything here takes NumPy arrays of the whole split and answers in plain floats.
"""

from __future__ import annotations

import math

import numpy as np

from tfpipe.tasks import task_of


def evaluate(logits: np.ndarray, labels: np.ndarray, task: str) -> dict[str, float]:
    """The metrics of one split.

    Args:
      logits: [rows, labels] float.
      labels: [rows, labels] float, one-hot or multi-hot.
      task: `single_label` or `multi_label`.

    Returns:
      `loss` (mean cross-entropy per row), `accuracy` (multi_label: every label of the row right), `macro_f1` (mean
      over the labels that occur, in `labels` or among the answers), `calibration_error` (expected calibration error of
      each row's most probable label, 15 bins; Guo et al., 2017). None of them depends on how many more labels there
      are that never occur.
    """
    truth = labels > 0.5
    guessed = task_of(task).decisions(logits)
    probability = task_of(task).probabilities(logits)
    most_probable = logits.argmax(axis=-1)[:, None]
    confidence, right = (np.take_along_axis(each, most_probable, axis=-1)[:, 0] for each in (probability, truth))
    return {
        "loss": float(task_of(task).cross_entropy(labels, probability).mean()),
        "accuracy": float(correct(logits, labels, task).mean()),
        "macro_f1": _macro_f1(truth, guessed),
        "calibration_error": _calibration_error(confidence, right),
    }


def correct(logits: np.ndarray, labels: np.ndarray, task: str) -> np.ndarray:
    """Which rows are answered right, every label of them: [rows, labels] float, the same -> [rows] bool."""
    return (task_of(task).decisions(logits) == (labels > 0.5)).all(axis=-1) & np.isfinite(logits).all(axis=-1)


def paired_change(right: np.ndarray, before: np.ndarray) -> tuple[float, float, float]:
    """The change of an accuracy on the same rows, with its 95 % confidence interval.

    Only rows that one of the two has right say something; the interval is that of Agresti & Min (2005).

    Args:
      right: [rows] bool.
      before: [rows] bool, of what it is compared with.

    Returns:
      The change, its lower and its upper bound, as shares.
    """
    count, won, lost = len(right), int((right & ~before).sum()), int((before & ~right).sum())
    center, n = (won - lost) / (count + 2), count + 2
    half = 1.959963984540054 * math.sqrt((won + lost + 1.0) / n - center**2) / math.sqrt(n)
    return (won - lost) / count, max(center - half, -1.0), min(center + half, 1.0)


def differences(logits: np.ndarray, reference: np.ndarray, task: str) -> dict[str, float]:
    """How far answers are from the reference's, both [rows, labels]: by logit, by label, by probability.

    Returns:
      `max_abs_logit_diff`; `max_scaled_logit_diff`, the same with each row divided by its largest logit in the
      reference, where that is more than 1; `label_agreement`, the share of the rows whose labels are all the same; and
      `mean_abs_probability_diff`, the mean over rows of the probability that moved (single_label: from labels to
      others, the total variation distance; multi_label: at the label where most did), so that a row counts as much
      among a thousand labels as among two. A row whose logits are not finite agrees with none, and the differences are
      NaN then.
    """
    kind = task_of(task)
    same = (kind.decisions(logits) == kind.decisions(reference)).all(axis=-1) & np.isfinite(logits).all(axis=-1)
    moved = kind.moved(np.abs(kind.probabilities(logits) - kind.probabilities(reference)))
    return {
        "max_abs_logit_diff": float(np.abs(logits - reference).max()),
        "max_scaled_logit_diff": scaled_difference(logits, reference),
        "label_agreement": float(same.mean()),
        "mean_abs_probability_diff": float(moved.mean()),
    }


def scaled_difference(logits: np.ndarray, reference: np.ndarray) -> float:
    """Gives the largest difference of a logit, in units of the row's largest logit where that is more than 1.

    float32 rounds sums in proportion to what is added, so larger logits differ by more. A logit near 0 can be the sum
    of large terms: the row's largest tells how large they are.

    Args:
      logits: [rows, labels] float.
      reference: the same shape; gives the unit.
    """
    unit = np.maximum(np.abs(reference).max(axis=-1, keepdims=True), 1.0)
    return float((np.abs(logits - reference) / unit).max())


def wilson_interval(rate: float, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a rate seen over `count` rows (Wilson, 1927)."""
    z = 1.959963984540054
    center = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(center - half, 0.0), min(center + half, 1.0)


def is_better(metric: str, candidate: float, best: float | None, min_delta: float = 0.0) -> bool:
    """Whether a value of a metric beats the best so far by more than `min_delta`; a loss is better when smaller."""
    if best is None:
        return True
    return candidate < best - min_delta if metric == "loss" else candidate > best + min_delta


def _macro_f1(truth: np.ndarray, guessed: np.ndarray) -> float:
    """The mean F1 of the labels that occur: of others it is 0/0, and zeros for them would hide the rest."""
    counts = truth.sum(axis=0) + guessed.sum(axis=0)
    occurs = counts > 0
    found = 2.0 * (truth & guessed).sum(axis=0)[occurs] / counts[occurs]
    return float(found.mean()) if found.size else 0.0


def _calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[bin_of == index].sum() - right[bin_of == index].sum())
        for index in range(bins)
        if (bin_of == index).any()
    ]
    return float(sum(gaps) / max(len(confidence), 1))
