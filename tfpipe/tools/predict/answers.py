"""Sources of answers to texts: an artifact in its runtime, or a server. Without TensorFlow."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from tfpipe.tasks import split_labels


class Answers(NamedTuple):
    """The answers to some texts, in their order."""

    labels: list[str]
    """as `tasks.Task.label_texts` writes them: of a multi-label model, the chosen names, joined"""
    probabilities: np.ndarray
    """[texts, labels] float"""


class Answerer(Protocol):
    """A source of answers, in two steps: the first can be done for the next texts while the second is at work."""

    name: str
    """what answers, for people: such as `runs/quickstart int8 by ONNX Runtime`"""
    names: tuple[str, ...] | None
    """of the labels, in the order of the probabilities; None: the model does not tell"""
    one_label: bool
    """whether a text has exactly one label"""
    pairs: bool
    """whether texts come in pairs"""

    def prepare(self, texts: list[str], text_pairs: list[str] | None) -> Any:
        """Does the work that needs no model, such as tokenizing: any number of texts -> the argument of `answer`."""

    def answer(self, prepared: Any) -> Answers:
        """Answers the result of `prepare`.

        Raises:
          InputError: the model fails at a text, or a server can't be asked.
        """


def probability_of_answers(
    answers: Answers, names: tuple[str, ...] | None, *, one_label: bool
) -> tuple[np.ndarray, list[list[str]]]:
    """Gives the probability of each answer, and the labels that it names.

    With one label, it is the label's. With several, it is the smallest of the chosen. If none is chosen, it is 1 minus
    the largest of all: the probability that none applies.

    Returns:
      [texts] float32, and the labels of each text; for a model of one label, no labels.
    """
    probabilities = np.asarray(answers.probabilities, np.float32)
    if one_label:
        return probabilities.max(axis=1, initial=0.0), []
    chosen = [split_labels(label) for label in answers.labels]
    places = {name: at for at, name in enumerate(names or ())}
    found = [
        min((row[places[name]] for name in labels), default=1 - row.max())
        for row, labels in zip(probabilities, chosen, strict=True)
    ]
    return np.array(found, np.float32), chosen
