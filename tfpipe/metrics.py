"""Accuracy, F1, calibration: one definition for training, verification and the report.

Everything here takes NumPy arrays of the whole split and answers in plain floats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np


def probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """[rows, labels] float -> the same: softmax (single_label) or sigmoid (multi_label), in float64."""
    wide = np.asarray(logits, np.float64)
    if task == "multi_label":
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            return np.exp(-np.logaddexp(0.0, -wide))
    shifted = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def predictions(logits: np.ndarray, task: str) -> np.ndarray:
    """[rows, labels] float -> [rows, labels] bool: the largest logit, or every logit above 0 (multi_label)."""
    if task == "multi_label":
        return logits > 0.0
    return np.eye(logits.shape[-1], dtype=bool)[logits.argmax(axis=-1)]


def label_names(logits: np.ndarray, names: Sequence[str], task: str) -> list[str]:
    """[rows, labels] float -> the predicted name of each row; multi_label: the chosen names by `joined_labels`."""
    if task != "multi_label":
        return [names[place] for place in logits.argmax(axis=-1)]
    chosen = predictions(logits, task)
    return [joined_labels(name for name, given in zip(names, row, strict=True) if given) for row in chosen]


def joined_labels(names: Iterable[str]) -> str:
    """Joins label names by `|`, each as `escaped_label` writes it: "" for none, `split_labels` gives them back."""
    return "|".join(map(escaped_label, names))


def escaped_label(name: str) -> str:
    """Writes a label name so that names can be joined: a backslash before each `|` and each backslash in it."""
    return name.replace("\\", "\\\\").replace("|", "\\|")


def split_labels(joined: str) -> list[str]:
    """Reads the label names from an answer of a multi-label model, in the order of the model's labels."""
    names, characters = [""] if joined else [], iter(joined)
    for character in characters:
        if character == "|":
            names.append("")
        else:
            names[-1] += next(characters, "") if character == "\\" else character
    return names


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
    guessed = predictions(logits, task)
    probability = probabilities(logits, task)
    clipped = np.clip(probability, 1e-12, 1.0)
    loss = -(labels * np.log(clipped)).sum(axis=-1)
    if task == "multi_label":
        loss = loss - ((1.0 - labels) * np.log(np.clip(1.0 - probability, 1e-12, 1.0))).sum(axis=-1)
    most_probable = logits.argmax(axis=-1)[:, None]
    confidence, right = (np.take_along_axis(each, most_probable, axis=-1)[:, 0] for each in (probability, truth))
    return {
        "loss": float(loss.mean()),
        "accuracy": float(correct(logits, labels, task).mean()),
        "macro_f1": _macro_f1(truth, guessed),
        "calibration_error": _calibration_error(confidence, right),
    }


def correct(logits: np.ndarray, labels: np.ndarray, task: str) -> np.ndarray:
    """Which rows are answered right, every label of them: [rows, labels] float, the same -> [rows] bool."""
    return (predictions(logits, task) == (labels > 0.5)).all(axis=-1) & np.isfinite(logits).all(axis=-1)


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
    centre, n = (won - lost) / (count + 2), count + 2
    half = 1.959963984540054 * math.sqrt((won + lost + 1.0) / n - centre**2) / math.sqrt(n)
    return (won - lost) / count, max(centre - half, -1.0), min(centre + half, 1.0)


def differences(logits: np.ndarray, reference: np.ndarray, task: str) -> dict[str, float]:
    """How far answers are from the reference's, both [rows, labels]: by logit, by label, by probability.

    Returns:
      `max_abs_logit_diff`; `label_agreement`, the share of the rows whose labels are all the same; and
      `mean_abs_probability_diff`, the mean over rows of the probability that moved (single_label: from labels to
      others, the total variation distance; multi_label: at the label where most did), so that a row counts as much
      among a thousand labels as among two. A row whose logits are not finite agrees with none, and the differences are
      NaN then.
    """
    same = (predictions(logits, task) == predictions(reference, task)).all(axis=-1) & np.isfinite(logits).all(axis=-1)
    by_label = np.abs(probabilities(logits, task) - probabilities(reference, task))
    moved = by_label.max(axis=-1) if task == "multi_label" else by_label.sum(axis=-1) / 2.0
    return {
        "max_abs_logit_diff": float(np.abs(logits - reference).max()),
        "label_agreement": float(same.mean()),
        "mean_abs_probability_diff": float(moved.mean()),
    }


def divergence(probability: np.ndarray, reference: np.ndarray, task: str) -> float:
    """Kullback-Leibler divergence from the reference's probabilities, both [rows, labels], in nats, mean over rows."""
    p, q = (np.clip(each, 1e-12, 1.0) for each in (reference, probability))
    terms = p * np.log(p / q)
    if task == "multi_label":
        p, q = (np.clip(1.0 - each, 1e-12, 1.0) for each in (reference, probability))
        terms = terms + p * np.log(p / q)
    return float(terms.sum(axis=-1).mean())


def wilson_interval(rate: float, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a rate seen over `count` rows (Wilson, 1927)."""
    z = 1.959963984540054
    centre = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(centre - half, 0.0), min(centre + half, 1.0)


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
