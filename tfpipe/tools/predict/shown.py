"""Answers as people and programs read them one by one: a table, or JSON Lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfpipe.errors import InputError
from tfpipe.escaping import printable
from tfpipe.tools.predict.answers import Answerer, Answers, probability_of_answers

NO_LABEL = "-"
"""what a person reads where an answer is no label; files have an empty text"""


def in_few_digits(values: np.ndarray) -> np.ndarray:
    """Rounds to the few digits in which float32 is written, not to float64's many: float -> float64."""
    return np.array(np.asarray(values, np.float32).astype(str), np.float64)


def answers_of(answerer: Answerer, answers: Answers) -> Iterator[dict[str, Any]]:
    """Yields each answer: `label`, `probability`, the probabilities by name, and of several labels the chosen ones."""
    found, chosen = probability_of_answers(answers, answerer.names, one_label=answerer.one_label)
    rows = zip(
        answers.labels, in_few_digits(found).tolist(), in_few_digits(answers.probabilities).tolist(), strict=True
    )
    for at, (label, probability, values) in enumerate(rows):
        answer: dict[str, Any] = {"label": label}
        if not answerer.one_label:
            answer["labels"] = chosen[at]
        answer["probability"] = probability
        if answerer.names is not None:
            answer["probabilities"] = dict(zip(answerer.names, values, strict=True))
        yield answer


def print_answers(found: Iterator[dict[str, Any]], output: Path | None) -> None:
    """Prints answers, or writes them as JSON Lines."""
    if output is None:
        for answer in found:
            text = printable(answer["text"])
            shown = text if len(text) <= 80 else text[:79] + "…"
            print(f"{printable(answer['label']) or NO_LABEL:<12} {answer['probability']:.4f}  {shown}", flush=True)
        return
    try:
        target = sys.stdout.fileno() if str(output) == "-" else output
        file = open(target, "w", encoding="utf-8", buffering=1, closefd=target is output)  # noqa: SIM115
    except OSError as error:
        raise InputError(f"--output {output}: can't be written ({error.strerror}); give another path") from error
    with file:
        for answer in found:
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")
