"""Words that speak for the labels of a list of rows, by the explanations of `tfpipe explain`.

Enters: rows, and the classifier that answered them. Leaves: explanations as JSON, and back. A text is explained by
integrated gradients as long as the list costs some seconds; larger models get gradient × input, which costs a tenth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfpipe.encoders.parameters import encoder_size
from tfpipe.evaluate.answers import Answers
from tfpipe.evaluate.explained import (
    GRADIENT_X_INPUT,
    INTEGRATED_GRADIENTS,
    ExplainedText,
    ExplainedWord,
    Explanation,
)

if TYPE_CHECKING:  # TensorFlow, which the page of finished runs does without
    from tfpipe.model.classifier import Classifier
    from tfpipe.tokens.tokenizer_settings import TokenizerSettings

_POINTS = {INTEGRATED_GRADIENTS: 34, GRADIENT_X_INPUT: 3}
"""passes of a row, forward and backward"""
_MOST_OPERATIONS = 3e12
"""of a list: fifteen seconds of a processor with two cores"""
_LONGEST_TEXT = 20_000
"""characters of a text that is explained"""


def choose(classifier: Classifier, tokens: Sequence[int]) -> tuple[str, int]:
    """Chooses the method of explanation, and the number of rows to explain, from the first on.

    Args:
      classifier: that explains.
      tokens: of each row.

    Returns:
      Integrated gradients and all rows, where that is affordable; else gradient × input and as many as are.
    """
    encoder = encoder_size(classifier.weights)
    # Forward and backward, a token takes six multiplications and additions a weight.
    costs = {method: 6.0 * encoder * points * np.cumsum(tokens) for method, points in _POINTS.items()}
    if costs[INTEGRATED_GRADIENTS][-1] <= _MOST_OPERATIONS:
        return INTEGRATED_GRADIENTS, len(tokens)
    return GRADIENT_X_INPUT, int((costs[GRADIENT_X_INPUT] <= _MOST_OPERATIONS).sum())


def explained(
    classifier: Classifier, settings: TokenizerSettings, answers: Answers, shown: Sequence[dict[str, Any]]
) -> tuple[str | None, list[dict[str, Any] | None]]:
    """Explains the label of each row of a list.

    Args:
      classifier: whose answers they are.
      settings: of its tokenizer.
      answers: that the rows are of.
      shown: of `rows.mistakes`.

    Returns:
      The method, None where nothing is explained; and of each row an explanation as JSON, or None.
    """
    table, rows, found = answers.table, [each["row"] for each in shown], [None] * len(shown)
    method, most = choose(classifier, table.lengths[rows].tolist()) if rows else (None, 0)
    texts, pairs = table.texts(rows), table.text_pairs(rows)
    usable = [at for at in range(most) if len(texts[at]) + len(pairs[at] or "") <= _LONGEST_TEXT]
    if not usable:
        return None, found
    from tfpipe.evaluate.explanations import Explainer

    of_pairs = [pairs[at] or "" for at in usable] if any(pair is not None for pair in pairs) else None
    labels = [[answers.names.index(shown[at]["label"])] for at in usable]
    explanations = Explainer(classifier, settings, method).explain([texts[at] for at in usable], of_pairs, labels)
    for at, (explanation,) in zip(usable, explanations, strict=True):
        found[at] = as_json(explanation)
    return method, found


def as_json(explanation: Explanation) -> dict[str, Any]:
    """Gives an explanation as JSON, texts cut after the part that the model reads."""
    found = dataclasses.asdict(explanation)
    for text in found["texts"]:
        text["text"] = text["text"][: text["read_to"]] + ("…" if text["read_to"] < len(text["text"]) else "")
    return found


def from_json(found: dict[str, Any]) -> Explanation:
    """Reads the result of `as_json`."""
    texts = tuple(
        ExplainedText(each["text"], tuple(ExplainedWord(**word) for word in each["words"]), each["read_to"])
        for each in found["texts"]
    )
    return Explanation(**found | {"texts": texts})
