"""Explanations of a classifier's answers: how much each word speaks for a label, or against it.

Enters: a classifier with its tokenizer, and texts. Leaves: explanations, whose words stand in the text as it was given.
With one label a row, the explained number is the label's logit less the mean of all logits, as softmax ignores a change
that all logits share. With several labels, it is the logit of each, on its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfpipe.evaluate.attributions import Attributions, PathGradients, Question
from tfpipe.evaluate.explained import INTEGRATED_GRADIENTS, ExplainedText, ExplainedWord, Explanation
from tfpipe.model.classifier import Classifier
from tfpipe.tasks import task_of
from tfpipe.tokens.fast_tokenizer import FastTokenizer, TokenIds
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tokens.words import Reading, Words


class Explainer:
    """A classifier that explains its answers."""

    def __init__(self, classifier: Classifier, settings: TokenizerSettings, method: str = INTEGRATED_GRADIENTS):
        """Builds the model.

        Args:
          classifier: of a stage.
          settings: of its tokenizer.
          method: one of `explained.METHODS`.
        """
        self.labels, self.method = classifier.labels, method
        self._task, self._decision = task_of(classifier.task), classifier.decision
        self._tokenizer = FastTokenizer(settings, classifier.max_length)
        self._words = Words(self._tokenizer)
        self._model = PathGradients.of(classifier, settings.vocabulary.index(settings.mask_token))

    @property
    def one_label(self) -> bool:
        """Tells whether a text has exactly one label."""
        return self._task.one_label

    @property
    def rounds(self) -> bool:
        """Tells whether the model rounds activations, which explanations leave out."""
        return self._model.rounds

    def explain(
        self,
        texts: list[str],
        text_pairs: list[str] | None = None,
        labels: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Explanation]]:
        """Explains the answers to texts.

        Args:
          texts: without lone surrogates.
          text_pairs: the second text of each pair, or None.
          labels: the labels of each text to explain; None: those of the answer or, where it has none, the label with
            the largest logit.

        Returns:
          Of each text, an explanation of each of its labels. A text without words has explanations without words.
        """
        rows = self._tokenizer.encode(texts, text_pairs)
        logits = self._model.logits(rows)
        chosen = self._task.decisions(logits, self._decision)
        if labels is None:
            labels = [
                np.flatnonzero(row).tolist() or [int(values.argmax())]
                for row, values in zip(chosen, logits, strict=True)
            ]
        asked = [(row, label) for row, of_row in enumerate(labels) for label in of_row]
        questions = [Question(row, self._weights(label)) for row, label in asked]
        answers = self._task.label_texts(logits, self.labels, self._decision)
        probabilities = self._task.probabilities(logits)
        found: list[list[Explanation]] = [[] for _ in texts]
        for (row, label), question, given in zip(
            asked, questions, self._model.attribute(rows, questions, self.method), strict=True
        ):
            explanation = Explanation(
                texts=self._explained(rows, row, given, texts[row], text_pairs[row] if text_pairs else None),
                answer=answers[row],
                label=self.labels[label],
                is_answer=bool(chosen[row, label]) and answers[row] != "",
                probability=float(probabilities[row, label]),
                difference=given.difference,
                remainder=given.remainder,
                completeness_error=given.error,
                rounding=float(logits[row] @ question.weights) - given.value if self.rounds else None,
                steps=given.steps,
                method=self.method,
            )
            found[row].append(explanation)
        return found

    def _weights(self, label: int) -> np.ndarray:
        """Gives the explained number as weights of the logits, [labels] float32."""
        weights = np.zeros(len(self.labels), np.float32)
        if self._task.one_label:
            weights -= 1.0 / len(self.labels)
        weights[label] += 1.0
        return weights

    def _explained(
        self, rows: TokenIds, row: int, given: Attributions, text: str, text_pair: str | None
    ) -> tuple[ExplainedText, ...]:
        """Gives the texts of a row, whose word pieces lie between [CLS] and the separators."""
        first = given.tokens[1 : rows.first_lengths[row] - 1]
        found = (_explained_text(text, self._words.read(text, len(first)), first),)
        if text_pair is None:
            return found
        second = given.tokens[rows.first_lengths[row] : -1]
        return (*found, _explained_text(text_pair, self._words.read(text_pair, len(second)), second))


def _explained_text(text: str, reading: Reading, tokens: np.ndarray) -> ExplainedText:
    """Gives each word the sum of its word pieces: [pieces] float64."""
    ends = np.cumsum([0, *(word.tokens for word in reading.words)])
    shares = np.diff(np.concatenate([[0.0], np.cumsum(tokens)])[ends])
    found = tuple(
        ExplainedWord(text[word.start : word.end], word.start, word.end, float(share))
        for word, share in zip(reading.words, shares, strict=True)
    )
    return ExplainedText(text, found, reading.read_to)
