"""An explanation of an answer: each word of a text, and how far it moves a label's logit. Without TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

INTEGRATED_GRADIENTS = "integrated_gradients"
GRADIENT_X_INPUT = "gradient_x_input"
METHODS = (INTEGRATED_GRADIENTS, GRADIENT_X_INPUT)
"""ways to compute an explanation: see `attributions.py`"""
_LITTLE = 0.05  # of the strongest word: such words are not marked


@dataclass(frozen=True)
class ExplainedWord:
    """A word, and how far it moves the explained number."""

    text: str
    """as it was given"""
    start: int
    """its first character in its text"""
    end: int
    """the character after its last one"""
    attribution: float
    """in logits: above 0 for the label, below 0 against it"""


class Segment(NamedTuple):
    """A part of a text: a word, the characters between two words, or a part that is not read."""

    text: str
    word: ExplainedWord | None
    is_read: bool


@dataclass(frozen=True)
class ExplainedText:
    """A text, or one of a pair."""

    text: str
    words: tuple[ExplainedWord, ...]
    """those that the model reads, in their order"""
    read_to: int
    """the character at which the model stops reading, as the row is full; else the length of the text"""

    def segments(self) -> Iterator[Segment]:
        """Yields the parts of the text: joined, they are the text."""
        end = 0
        for word in self.words:
            if end < word.start:
                yield Segment(self.text[end : word.start], None, True)
            yield Segment(word.text, word, True)
            end = word.end
        if end < self.read_to:
            yield Segment(self.text[end : self.read_to], None, True)
        if self.read_to < len(self.text):
            yield Segment(self.text[self.read_to :], None, False)


@dataclass(frozen=True)
class Explanation:
    """An explanation: how far the words of a text, or of a pair, move the answer towards a label."""

    texts: tuple[ExplainedText, ...]
    """one, or two of a pair"""
    answer: str
    """of the model, as `tasks.Task.label_texts` writes it"""
    label: str
    """that is explained"""
    is_answer: bool
    """whether the model gives this label"""
    probability: float
    """of this label"""
    difference: float
    """of the explained number: at the text less at the baseline, in logits"""
    remainder: float
    """what the words leave of the difference"""
    completeness_error: float
    """the remainder as a share of the difference"""
    rounding: float | None
    """what rounding activations adds to the explained number, which the words do not explain; None: nothing rounds"""
    steps: int
    """points at which the gradient was taken"""
    method: str

    @property
    def words(self) -> list[ExplainedWord]:
        """Lists the words of all texts."""
        return [word for text in self.texts for word in text.words]

    @property
    def largest(self) -> float:
        """Gives the largest attribution of a word, without its sign; 0 where there is none."""
        return max((abs(word.attribution) for word in self.words), default=0.0)

    def level(self, word: ExplainedWord) -> int:
        """Gives a word's share of the strongest in fifths: 1 to 5 for the label, -1 to -5 against it, 0 for little."""
        share = abs(word.attribution) / (self.largest or 1.0)
        return 0 if share < _LITTLE else int(math.copysign(math.ceil(share * 5.0 - 1e-9), word.attribution))

    def signed(self, value: float) -> str:
        """Writes a number of logits with its sign, in as many digits as the words of this explanation need."""
        text = f"{value:+.{2 if self.largest >= 0.1 else 4}f}"
        return text if float(text) else text[1:]

    def strongest(self, count: int) -> tuple[list[ExplainedWord], list[ExplainedWord]]:
        """Lists the words that speak most for the label, and most against it, the strongest first; none with little."""
        ordered = sorted((word for word in self.words if self.level(word)), key=lambda word: -abs(word.attribution))
        return (
            [word for word in ordered if word.attribution > 0.0][:count],
            [word for word in ordered if word.attribution < 0.0][:count],
        )
