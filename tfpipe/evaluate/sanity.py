"""Sanity of a model: does it say more than one thing, and is it right more often than the commonest answer would be?

Enters: answers to test rows, and what is right. Leaves: what is wrong, one line each; a model that fails is not
published unless the configuration says so.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from tfpipe import metrics
from tfpipe.data.block import excerpt
from tfpipe.tasks import PLAIN, Decision, joined_labels, task_of

SIGNIFICANCE = 0.05
LEAST_ROWS = 10
"""held-out rows of a label below which its numbers say little"""
SMALL_SPLIT = 200
MANY_LOOKS = 5
"""models that are compared on the same test rows, from which the best number of theirs says too much"""
_LISTED = 5


def failures(
    logits: np.ndarray, labels: np.ndarray, task: str, names: tuple[str, ...], decision: Decision = PLAIN
) -> list[str]:
    """Lists what shows that a model has learned nothing, one line each.

    Args:
      logits: [rows, labels] float32.
      labels: the same shape, one-hot or multi-hot.
      task: `single_label` or `multi_label`.
      names: of the labels.
      decision: how probabilities become an answer.
    """
    given, truth = task_of(task).decisions(logits, decision), labels > 0.5
    answers, right = _shown(given, names), _shown(truth, names)
    commonest, rows = Counter(right).most_common(1)[0]
    if len(set(answers)) == 1:
        if len(set(right)) == 1:
            return []  # and it is the only one that there is
        return [f"it answers {answers[0]} to all {len(answers):,} test rows; {_confusion(right, answers)}"]
    always = np.array([each == commonest for each in right])
    correct = metrics.correct(logits, labels, task, decision)
    probability = metrics.mcnemar(correct, always, alternative="greater")
    if probability <= SIGNIFICANCE or _finds_labels(given, truth, one_label=task_of(task).one_label):
        return []
    return [
        f"its accuracy on {len(right):,} test rows, {correct.mean():.2%}, is not above the {rows / len(right):.2%} of "
        f"always answering {commonest} (exact test, p = {probability:.2g}); {_confusion(right, answers)}"
    ]


def warnings(labels: np.ndarray, names: tuple[str, ...], split: str) -> list[str]:
    """Lists what makes the numbers of a held-out split say little.

    Args:
      labels: [rows, labels] float, of the split.
      names: of the labels.
      split: its name.
    """
    found = []
    if len(labels) < SMALL_SPLIT:
        half = max(abs(each - 0.8) for each in metrics.wilson_interval(0.8, len(labels)))
        found.append(f"{len(labels)} {split} rows: an accuracy of 80 % is known within {half * 100:.0f} points")
    counts = (labels > 0.5).sum(axis=0)
    if few := [f"{name} {count}" for name, count in zip(names, counts, strict=True) if count < LEAST_ROWS]:
        more = f" and {len(few) - _LISTED} more" if len(few) > _LISTED else ""
        found.append(f"labels with fewer than {LEAST_ROWS} {split} rows: {', '.join(few[:_LISTED])}{more}")
    return found


def looked_at(models: int, accuracy: float, rows: int) -> str | None:
    """Warns of test rows by which many models are compared; None where there are few.

    The largest of n numbers of equal models lies up to √(2 ln n) standard errors above what they are worth.

    Args:
      models: that answered the rows.
      accuracy: the best of theirs.
      rows: how many there are.
    """
    if models < MANY_LOOKS:
        return None
    excess = math.sqrt(2.0 * math.log(models)) * math.sqrt(accuracy * (1.0 - accuracy) / rows)
    return (
        f"{models} models answered the same {rows:,} test rows: the best accuracy, {accuracy:.2%}, may be up to "
        f"{100.0 * excess:.1f} points too high by chance; choose by validation rows, and confirm on rows that no model "
        "has answered"
    )


def _finds_labels(given: np.ndarray, truth: np.ndarray, *, one_label: bool) -> bool:
    """Tells whether a model of several labels finds some, where most rows have the same answer, such as none.

    It does where the labels that it gives are right more often than labels given to as many rows at random.
    """
    if one_label:
        return False
    from scipy.stats import fisher_exact

    sides = [(given & truth).sum(), (given & ~truth).sum(), (~given & truth).sum(), (~given & ~truth).sum()]
    return bool(fisher_exact(np.reshape(sides, (2, 2)), alternative="greater").pvalue <= SIGNIFICANCE)


def _shown(chosen: np.ndarray, names: tuple[str, ...]) -> list[str]:
    texts = [joined_labels(name for name, given in zip(names, row, strict=True) if given) for row in chosen]
    return [excerpt(repr(text)) if text else "no label" for text in texts]


def _confusion(right: list[str], answers: list[str]) -> str:
    """Writes how many rows of each label got which answer."""
    pairs = Counter(zip(right, answers, strict=True))
    shown = [f"{label} answered {answer} {count:,} times" for (label, answer), count in pairs.most_common(_LISTED)]
    return "; ".join(shown) + ("; …" if len(pairs) > _LISTED else "")
