"""Rows that a reader of the page looks at: the changes by compression, and the mistakes that a model is surest of.

Enters: the answers of the variants to the test rows. Leaves: `rows.json`, plain JSON. Long texts are cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfpipe.evaluate.answers import Answers
from tfpipe.tasks import task_of

SHOWN = 20
"""rows of a list"""
LONGEST = 1000
"""characters of a text"""


def changed(answers: Answers) -> dict[str, Any]:
    """Lists the rows that each variant has right and dense has not, and the other way round.

    Returns:
      Variant -> `won` and `lost`, each with `count` and `shown`: rows, of which the compressed model is surest first.
    """
    return {
        variant: {
            "won": _flipped(answers, variant, answers.right(variant) & ~answers.right("dense")),
            "lost": _flipped(answers, variant, ~answers.right(variant) & answers.right("dense")),
        }
        for variant in answers.logits
        if variant != "dense"
    }


def mistakes(answers: Answers, variant: str) -> list[dict[str, Any]]:
    """Lists the rows that a variant has wrong, first those of whose wrong label it is surest.

    Returns:
      As in `changed`, with `answer`, `label` (the one that it is surest of, and wrong about), `is_given` (whether it
      gives the label, or should have) and `probability` (that it gives this label).
    """
    given, sure = answers.given(variant), answers.sureness(variant)
    wrong = (given != (answers.labels > 0.5)) & np.isfinite(sure)
    if task_of(answers.task).one_label:
        wrong &= given  # its own label, not the one that it missed
    sureness = np.where(wrong, sure, 0.0)
    found = []
    for at in _largest(sureness.max(axis=1), wrong.any(axis=1)):
        label = int(sureness[at].argmax())
        is_given = bool(given[at, label])
        found.append(
            _described(answers, at)
            | {
                "row": int(answers.rows[at]),
                "answer": answers.named(given[at]),
                "label": answers.names[label],
                "is_given": is_given,
                "probability": float(sure[at, label] if is_given else 1.0 - sure[at, label]),
            }
        )
    return found


def _described(answers: Answers, at: int) -> dict[str, Any]:
    """Gives the place of a row, its texts and its right labels.

    Args:
      answers: that the row is one of.
      at: its place among the rows that were asked.
    """
    row = int(answers.rows[at])
    pair = answers.table.text_pairs([row])[0]
    return {
        "where": answers.table.locations([row])[0],
        "text": _cut(answers.table.texts([row])[0]),
        "text_pair": None if pair is None else _cut(pair),
        "right": answers.named(answers.labels[at] > 0.5),
    }


def _flipped(answers: Answers, variant: str, chosen: np.ndarray) -> dict[str, Any]:
    sure = {name: answers.sureness(name) for name in ("dense", variant)}
    shown = [
        _described(answers, at)
        | {
            when: {"answer": answers.named(answers.given(name)[at]), "sure": _sure(answers, sure[name][at], name, at)}
            for when, name in (("before", "dense"), ("after", variant))
        }
        for at in _largest(np.nan_to_num(sure[variant]).max(axis=1), chosen)
    ]
    return {"count": int(chosen.sum()), "shown": shown}


def _sure(answers: Answers, sureness: np.ndarray, variant: str, at: int) -> float:
    """Gives how sure a variant is of a whole answer: of its label, or of the label that it is least sure of."""
    if task_of(answers.task).one_label:
        return float(sureness[answers.given(variant)[at]].max())
    return float(sureness.min())


def _largest(values: np.ndarray, chosen: np.ndarray) -> list[int]:
    """Lists some of the chosen places, by falling values; of equal values, the first first."""
    places = np.flatnonzero(chosen)
    return places[np.argsort(-values[places], kind="stable")][:SHOWN].tolist()


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def examples_of(answers: Answers, published: Sequence[str]) -> dict[str, Any]:
    """Gives the content of `rows.json`, without explanations.

    Args:
      answers: of the variants.
      published: variants; the mistakes are those of the last.
    """
    last = published[-1]
    wrong = int((~answers.right(last)).sum())
    of_last = {"variant": last, "count": wrong, "shown": mistakes(answers, last)}
    return {"changed": changed(answers), "mistakes": of_last}
