"""Scores of a split: of all labels together and of each.

Scores that are made of counts of right and wrong answers are computed here, with weights for the rows, as the bootstrap
draws rows a thousand times. scikit-learn computes the scores that are made of ranks. The tests compare all scores with
scikit-learn's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tfpipe.tasks import PLAIN, Decision, task_of

BINS = 15
"""of the calibration error"""

SCORES = {
    "loss": "mean cross-entropy of a row, in nats",
    "accuracy": "share of the rows whose labels are all right",
    "balanced_accuracy": "mean recall over the labels; multi_label: mean of recall and of specificity",
    "macro_precision": "mean over the labels that occur, in the rows or among the answers",
    "macro_recall": "mean over the labels that occur, in the rows or among the answers",
    "macro_f1": "mean over the labels that occur, in the rows or among the answers",
    "micro_precision": "over all labels together",
    "micro_recall": "over all labels together",
    "micro_f1": "over all labels together",
    "weighted_precision": "mean over the labels, each as often as it occurs in the rows",
    "weighted_recall": "mean over the labels, each as often as it occurs in the rows",
    "weighted_f1": "mean over the labels, each as often as it occurs in the rows",
    "matthews": "Matthews' correlation coefficient, -1 to 1; multi_label: mean over the labels",
    "auroc": "area under the receiver operating characteristic, mean over the labels",
    "average_precision": "area under the precision-recall curve, mean over the labels",
    "brier": "mean squared error of the probabilities, halved sum over the labels; multi_label: mean over the labels",
    "calibration_error": f"expected calibration error of a row's most probable label, {BINS} bins (Guo et al., 2017)",
    "hamming_loss": "multi_label: share of the labels of all rows that are wrong",
}
"""name -> what it is"""
LOWER_IS_BETTER = frozenset(("loss", "brier", "calibration_error", "hamming_loss"))
SHOWN = ("loss", "accuracy", "macro_f1", "calibration_error")
"""those that a line has room for"""
RANKS = ("auroc", "average_precision")
"""scores that take long where there are many labels: they are computed where they are asked for"""


class Counts(NamedTuple):
    """The terms, row by row, that all scores but `RANKS` are sums of."""

    truth: np.ndarray
    """[rows, labels] bool"""
    answers: np.ndarray
    """[rows, labels] bool; a row that is not finite has none"""
    right: np.ndarray
    """[rows] bool"""
    loss: np.ndarray
    """[rows] float, in nats"""
    brier: np.ndarray
    """[rows, labels] float"""
    confidence: np.ndarray
    """[rows] float, probability of the most probable label"""
    confident_right: np.ndarray
    """[rows] bool, whether that label is right"""
    one_label: bool


def counts_of(logits: np.ndarray, labels: np.ndarray, task: str, decision: Decision = PLAIN) -> Counts:
    """Counts the terms of the scores.

    Args:
      logits: [rows, labels] float.
      labels: [rows, labels] float, one-hot or multi-hot.
      task: `single_label` or `multi_label`.
      decision: how a row of several labels is answered.
    """
    kind, truth = task_of(task), labels > 0.5
    finite = np.isfinite(logits).all(axis=-1)
    answers, probability = kind.decisions(logits, decision) & finite[:, None], kind.probabilities(logits)
    most_probable = logits.argmax(axis=-1)[:, None]
    return Counts(
        truth,
        answers,
        (answers == truth).all(axis=-1) & finite,
        kind.cross_entropy(labels, probability),
        (probability - truth) ** 2,
        np.take_along_axis(probability, most_probable, axis=-1)[:, 0],
        np.take_along_axis(truth, most_probable, axis=-1)[:, 0],
        kind.one_label,
    )


def evaluate(
    logits: np.ndarray, labels: np.ndarray, task: str, decision: Decision = PLAIN, *, ranks: bool = False
) -> dict[str, float | None]:
    """Computes the scores of one split.

    How many more labels there are that never occur changes none of them, except `loss`, `brier` and `hamming_loss` of
    `multi_label`, which every label has a share in.

    Args:
      logits: [rows, labels] float.
      labels: [rows, labels] float, one-hot or multi-hot.
      task: `single_label` or `multi_label`.
      decision: how a row of several labels is answered.
      ranks: whether `RANKS` are computed too.

    Returns:
      The `SCORES` of the task by name. None where a score is not defined, as AUROC is not where a label is in every
      row or in none.
    """
    counts = counts_of(logits, labels, task, decision)
    found = {name: _number(value[0]) for name, value in from_counts(counts, np.ones((1, len(labels)))).items()}
    found["loss"] = float(counts.loss.mean())  # NaN stays NaN: it tells that weights are spoilt
    if ranks:
        found |= _ranks(task_of(task).probabilities(logits), counts.truth)
    return {name: found[name] for name in SCORES if name in found}


def from_counts(counts: Counts, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Computes all scores but `RANKS`, with the rows weighted in several ways.

    Args:
      counts: of the rows.
      weights: [draws, rows] float, how often each row counts.

    Returns:
      Score -> [draws] float; NaN where the score is not defined.
    """
    truth, answers = counts.truth.astype(np.float64), counts.answers.astype(np.float64)
    occurs = (truth.sum(axis=0) + answers.sum(axis=0)) > 0
    truth, answers = truth[:, occurs], answers[:, occurs]
    total = weights.sum(axis=1)
    found = weights @ (truth * answers)  # [draws, labels], true positives
    real, given = weights @ truth, weights @ answers
    scores = {
        "loss": weights @ counts.loss / total,
        "accuracy": weights @ counts.right / total,
        **_averages(found, real, given),
        "calibration_error": _calibration_error(counts, weights),
    }
    everything = total[:, None]
    recall, specificity = _ratio(found, real), _ratio(everything - real - given + found, everything - real)
    brier = counts.brier.sum(axis=1) / 2.0
    if counts.one_label:
        scores["balanced_accuracy"] = _mean(recall)
        # Gorodkin (2004), of several classes
        right, chance = found.sum(axis=1), (real * given).sum(axis=1)
        scores["matthews"] = _correlation(
            right * total - chance, total**2 - (given**2).sum(axis=1), total**2 - (real**2).sum(axis=1)
        )
    else:
        scores["balanced_accuracy"] = _mean((recall + specificity) / 2.0)
        of_label = _correlation(
            found * everything - real * given, given * (everything - given), real * (everything - real)
        )
        scores["matthews"] = _mean(of_label)
        brier = counts.brier.mean(axis=1)
        scores["hamming_loss"] = weights @ (counts.truth != counts.answers).mean(axis=1) / total
    return scores | {"brier": weights @ brier / total}


def correct(logits: np.ndarray, labels: np.ndarray, task: str, decision: Decision = PLAIN) -> np.ndarray:
    """Tells which rows are answered right, every label of them: [rows, labels] float, the same -> [rows] bool."""
    return (task_of(task).decisions(logits, decision) == (labels > 0.5)).all(axis=-1) & np.isfinite(logits).all(axis=-1)


def by_label(
    logits: np.ndarray, labels: np.ndarray, task: str, decision: Decision = PLAIN
) -> list[dict[str, float | None]]:
    """Computes the scores of each label, in their order.

    Returns:
      `support` (rows that have it), `answers` (rows that are given it), `precision`, `recall`, `f1`, `auroc`,
      `average_precision`; None where a score is not defined, as the precision of a label that is never answered.
    """
    counts, probability = counts_of(logits, labels, task, decision), task_of(task).probabilities(logits)
    found, real, given = (each.sum(axis=0) for each in (counts.truth & counts.answers, counts.truth, counts.answers))
    precision, recall, f1 = _ratio(found, given), _ratio(found, real), _ratio(2.0 * found, real + given)
    return [
        {
            "support": int(real[at]),
            "answers": int(given[at]),
            "precision": _number(precision[at]),
            "recall": _number(recall[at]),
            "f1": _number(f1[at]),
            **_ranks(probability[:, at : at + 1], counts.truth[:, at : at + 1]),
        }
        for at in range(len(real))
    ]


def confusion(logits: np.ndarray, labels: np.ndarray, task: str, decision: Decision = PLAIN) -> np.ndarray:
    """Counts answers by the right answers.

    Returns:
      single_label: [labels, labels] int, rows of a label by the label that is answered. multi_label: [labels, 2, 2]
      int, of each label the rows without and with it by whether it is answered.
    """
    counts = counts_of(logits, labels, task, decision)
    if counts.one_label:
        found = np.zeros((counts.truth.shape[1],) * 2, int)
        answered = counts.answers.any(axis=1)  # a row that is not finite has no answer
        np.add.at(found, (counts.truth.argmax(axis=1)[answered], counts.answers.argmax(axis=1)[answered]), 1)
        return found
    sides = np.stack([~counts.truth, counts.truth]).astype(int), np.stack([~counts.answers, counts.answers]).astype(int)
    return np.einsum("trl,arl->lta", *sides)


def most_confused(
    logits: np.ndarray, labels: np.ndarray, task: str, decision: Decision = PLAIN, *, most: int = 1000
) -> list[tuple[int, int, int]]:
    """Lists the labels that are taken for others, the most frequent first.

    Returns:
      Label of a row, label that is answered, and in how many rows; the first `most`. Empty for multi_label.
    """
    counts = counts_of(logits, labels, task, decision)
    if not counts.one_label:
        return []
    wrong = counts.answers.any(axis=1) & ~counts.right
    pairs = np.stack([counts.truth[wrong].argmax(axis=1), counts.answers[wrong].argmax(axis=1)], axis=1)
    found, times = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-times, kind="stable")[:most]
    return [(*pair, count) for pair, count in zip(found[order].tolist(), times[order].tolist(), strict=True)]


def reliability(logits: np.ndarray, labels: np.ndarray, task: str) -> list[dict[str, Any]]:
    """Compares a model's confidence with its accuracy: the bins of `calibration_error` that hold rows.

    Returns:
      `low`, `high` (bounds of the confidence), `rows`, `confidence` (mean), `accuracy` (of the most probable label).
    """
    counts = counts_of(logits, labels, task)
    bins, found = _bins(counts.confidence), []
    for at in np.unique(bins).tolist():
        of_bin = bins == at
        found.append(
            {
                "low": at / BINS,
                "high": (at + 1) / BINS,
                "rows": int(of_bin.sum()),
                "confidence": float(counts.confidence[of_bin].mean()),
                "accuracy": float(counts.confident_right[of_bin].mean()),
            }
        )
    return found


def is_better(metric: str, candidate: float | None, best: float | None, min_delta: float = 0.0) -> bool:
    """Tells whether a score beats the best so far by more than `min_delta`; an undefined score beats none."""
    if best is None or candidate is None:
        return candidate is not None
    return candidate < best - min_delta if metric in LOWER_IS_BETTER else candidate > best + min_delta


def _averages(found: np.ndarray, real: np.ndarray, given: np.ndarray) -> dict[str, np.ndarray]:
    """Averages precision, recall and F1 over labels that occur: others are 0/0, and zeros would hide the rest.

    Args:
      found: [draws, labels] float, rows that have a label and are given it.
      real: the same, rows that have it.
      given: the same, rows that are given it.
    """
    parts = {"precision": (found, given), "recall": (found, real), "f1": (2.0 * found, real + given)}
    scores = {}
    for name, (above, below) in parts.items():
        ratio = np.nan_to_num(_ratio(above, below))  # 0/0 is 0 here, as in scikit-learn
        occurs = (real + given) > 0
        scores[f"macro_{name}"] = _ratio((ratio * occurs).sum(axis=1), occurs.sum(axis=1).astype(float), 0.0)
        scores[f"micro_{name}"] = _ratio(above.sum(axis=1), below.sum(axis=1), 0.0)
        scores[f"weighted_{name}"] = _ratio((ratio * real).sum(axis=1), real.sum(axis=1), 0.0)
    return scores


def _ranks(probability: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Computes `RANKS` as means over the labels that some rows have and some have not."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    both = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    if not len(both) or not np.isfinite(probability).all():
        return dict.fromkeys(RANKS)
    pairs = [(truth[:, at], probability[:, at]) for at in both]
    scorers = (roc_auc_score, average_precision_score)
    return {
        name: float(np.mean([scorer(*pair) for pair in pairs])) for name, scorer in zip(RANKS, scorers, strict=True)
    }


def _bins(confidence: np.ndarray) -> np.ndarray:
    return np.minimum((np.nan_to_num(confidence) * BINS).astype(int), BINS - 1)


def _calibration_error(counts: Counts, weights: np.ndarray) -> np.ndarray:
    in_bin = np.eye(BINS)[_bins(counts.confidence)]
    gaps = weights @ (in_bin * (counts.confidence - counts.confident_right)[:, None])
    return np.abs(gaps).sum(axis=1) / weights.sum(axis=1)


def _ratio(above: np.ndarray, below: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """Divides; gives `empty` where the divisor is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), empty), where=below > 0)


def _correlation(above: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Divides a covariance by the variances; 0 where one of them is 0, as scikit-learn does."""
    return _ratio(above, np.sqrt(np.maximum(first * second, 0.0)), 0.0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Averages over the labels for which a score is defined: [draws, labels] -> [draws]."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1).astype(float))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
