"""What answers texts: an artifact in its runtime, or a server. Without TensorFlow."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np


class Answers(NamedTuple):
    """The answers to some texts, in their order."""

    labels: list[str]
    """as `tasks.Task.label_texts` writes them: of a multi-label model, the chosen names, joined"""
    probabilities: np.ndarray
    """[texts, labels] float"""


class Answerer(Protocol):
    """Answers texts in two steps, so that the first can be done for the next texts while the second is at work."""

    name: str
    """what answers, for people: such as `runs/quickstart int8 by ONNX Runtime`"""
    names: tuple[str, ...] | None
    """of the labels, in the order of the probabilities; None: the model does not tell"""
    one_label: bool
    """whether a text has exactly one label"""
    pairs: bool
    """whether texts come in pairs"""

    def prepare(self, texts: list[str], text_pairs: list[str] | None) -> Any:
        """Does what needs no model, such as tokenizing: any number of texts -> what `answer` takes."""

    def answer(self, prepared: Any) -> Answers:
        """Answers what `prepare` gave.

        Raises:
          InputError: the model fails at a text, or a server can't be asked.
        """
