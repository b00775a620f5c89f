"""Sanity of a model: does it say more than one thing, and is it right more often than the commonest answer would be?

Enters: answers to test rows, and the right ones. Leaves: the failures, one line each. A model that fails is not
published unless the configuration says so.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

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
_PERMUTATIONS = 999


def failures(
    logits: np.ndarray, labels: np.ndarray, task: str, names: tuple[str, ...], decision: Decision = PLAIN
) -> list[str]:
    """Lists the signs that a model has learned nothing, one line each.

    Args:
      logits: [rows, labels] float32.
      labels: the same shape, one-hot or multi-hot.
      task: `single_label` or `multi_label`.
      names: of the labels.
      decision: how probabilities become an answer.
    """
    given, truth = task_of(task).decisions(logits, decision), labels > 0.5
    answers, right = _groups(given), _groups(truth)
    confusion = partial(_confusion, truth, given, names)
    correct = metrics.correct(logits, labels, task, decision)
    if len(set(right)) == 1:  # nothing tells what the model has learned, but that it is wrong
        if 2 * correct.sum() >= len(correct):
            return []
        return [
            f"it is right in {correct.mean():.2%} of {len(right):,} test rows, which are all "
            f"{_shown(truth[0], names)}; {confusion()}"
        ]
    if len(set(answers)) == 1:
        return [f"it answers {_shown(given[0], names)} to all {len(answers):,} test rows; {confusion()}"]
    commonest, rows = Counter(right).most_common(1)[0]
    always = np.array([each == commonest for each in right])
    probability = metrics.mcnemar(correct, always, alternative="greater")
    if probability <= SIGNIFICANCE or _finds_labels(given, truth, one_label=task_of(task).one_label):
        return []
    return [
        f"its accuracy on {len(right):,} test rows, {correct.mean():.2%}, is not above the {rows / len(right):.2%} of "
        f"always answering {_shown(truth[right.index(commonest)], names)} (exact test, p = {probability:.2g}); "
        f"{confusion()}"
    ]


def warnings(labels: np.ndarray, names: tuple[str, ...], split: str) -> list[str]:
    """Lists the reasons why the numbers of a held-out split say little.

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

    The largest of n numbers of equal models lies up to √(2 ln n) standard errors above their true value.

    Args:
      models: that answered the rows.
      accuracy: the best of theirs.
      rows: number of rows.
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

    It does where the labels that it gives are right more often than the same answers given to the rows in another order
    (permutation test): so how often each label is given proves nothing.
    """
    if one_label:
        return False
    fewer, others = (given, truth) if given.sum() < truth.sum() else (truth, given)
    rows, columns = np.nonzero(fewer)
    random, found = np.random.default_rng(0), int((given & truth).sum())
    shuffled = (others[random.permutation(len(others))[rows], columns].sum() for _ in range(_PERMUTATIONS))
    as_good = sum(int(each >= found) for each in shuffled)
    return (1 + as_good) / (1 + _PERMUTATIONS) <= SIGNIFICANCE


def _groups(chosen: np.ndarray) -> list[bytes]:
    """Gives equal rows the same key: [rows, labels] bool."""
    return [row.tobytes() for row in np.packbits(chosen, axis=1)]


def _shown(row: np.ndarray, names: tuple[str, ...]) -> str:
    """Names the labels of a row, [labels] bool, for a message."""
    text = joined_labels(name for name, given in zip(names, row, strict=True) if given)
    return excerpt(repr(text)) if text else "no label"


def _confusion(truth: np.ndarray, given: np.ndarray, names: tuple[str, ...]) -> str:
    """Writes how many rows of each label got which answer."""
    each = list(zip(_groups(truth), _groups(given), strict=True))
    pairs, places = Counter(each), {pair: at for at, pair in enumerate(each)}
    shown = [
        f"{_shown(truth[places[pair]], names)} answered {_shown(given[places[pair]], names)} {count:,} times"
        for pair, count in pairs.most_common(_LISTED)
    ]
    return "; ".join(shown) + ("; …" if len(pairs) > _LISTED else "")
