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
from tfpipe.tasks import split_labels
from tfpipe.tools.predict.answers import Answerer


def in_few_digits(values: np.ndarray) -> np.ndarray:
    """Values as float32 shows them in as few digits as give them back, not in float64's many: float -> float64."""
    return np.array(np.asarray(values, np.float32).astype(str), np.float64)


def answer_of(answerer: Answerer, label: str, probabilities: Any) -> dict[str, Any]:
    """One answer: [labels] float."""
    answer: dict[str, Any] = {"label": label}
    probabilities = in_few_digits(probabilities)
    probability = float(probabilities.max())
    if not answerer.one_label:
        answer["labels"] = split_labels(label)
        chosen = [float(probabilities[answerer.names.index(name)]) for name in answer["labels"]]
        probability = min(chosen, default=1.0 - probability)
    answer["probability"] = probability
    if answerer.names is not None:
        answer["probabilities"] = dict(zip(answerer.names, probabilities.tolist(), strict=True))
    return answer


def print_answers(found: Iterator[dict[str, Any]], output: Path | None) -> None:
    """Prints answers, or writes them as JSON Lines."""
    if output is None:
        for answer in found:
            text = printable(answer["text"])
            shown = text if len(text) <= 80 else text[:79] + "…"
            print(f"{printable(answer['label']):<12} {answer['probability']:.4f}  {shown}", flush=True)
        return
    try:
        target = sys.stdout.fileno() if str(output) == "-" else output
        file = open(target, "w", encoding="utf-8", buffering=1, closefd=target is output)  # noqa: SIM115
    except OSError as error:
        raise InputError(f"--output {output}: can't be written ({error.strerror}); give another path") from error
    with file:
        for answer in found:
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")
