"""Texts to token ids without TensorFlow: rows with the ids of `tokenizer.py`, cut alike.

Enters: texts. Leaves: rows of token ids, and padded batches of them. Of a long text, only the start is looked at.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tfpipe.tokens.stretches import Stretches, can_repeat
from tfpipe.tokens.tokenizer_settings import HTML, TokenizerSettings

__all__ = ["FastTokenizer", "TokenIds", "can_repeat"]

# RE2, which the graph has, takes fewer characters for white space than Python does.
HTML_PATTERNS = tuple((re.compile(pattern.replace(r"\s", r"[\t\n\f\r ]")), new) for pattern, new in HTML)
_ID_BYTES = np.int32().nbytes
_CHARACTERS_PER_TOKEN = 5  # of what is looked at first; of English reviews, 1 in 1,000 is looked at again
_LONGER = 8  # times what was looked at before


class TokenIds(NamedTuple):
    """Rows of token ids, [CLS] and [SEP] included."""

    ids: list[np.ndarray]
    """[length] int32 each"""
    first_lengths: list[int]
    """tokens of each row whose type is 0; the rest of a pair has type 1"""

    def padded(self, rows: Iterable[int], pad_id: int) -> dict[str, np.ndarray]:
        """Gives rows as the inputs of an encoder, padded to the longest of them.

        Args:
          rows: numbers of the rows, at least one.
          pad_id: of the padding token.

        Returns:
          `input_ids, attention_mask, token_type_ids`, [rows, longest] int32.
        """
        chosen = list(rows)
        shape = len(chosen), max(len(self.ids[row]) for row in chosen)
        input_ids = np.full(shape, pad_id, np.int32)
        attention_mask, token_type_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for place, row in enumerate(chosen):
            length = len(self.ids[row])
            input_ids[place, :length] = self.ids[row]
            attention_mask[place, :length] = 1
            token_type_ids[place, self.first_lengths[row] : length] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}


class FastTokenizer:
    """Text to token ids, without TensorFlow unless `can_repeat` gives a reason. Several threads may ask."""

    def __init__(self, settings: TokenizerSettings, max_length: int):
        """Builds the tokenizer.

        Args:
          settings: vocabulary, normalization and cleaning.
          max_length: longest row in tokens, [CLS] and [SEP] included; at least 4.
        """
        if max_length < 4:
            raise ValueError(f"max_length is {max_length}; it must be at least 4: a pair and its three special tokens")
        self.settings, self.max_length = settings, max_length
        cls, sep, self.pad_id = (
            settings.vocabulary.index(getattr(settings, f"{name}_token")) for name in ("cls", "sep", "pad")
        )
        self._cls, self._sep = np.int32(cls).tobytes(), np.int32(sep).tobytes()
        self.stretches = Stretches(settings, max_length)
        self._lock = threading.Lock()

    def encode(self, texts: list[str], text_pairs: list[str] | None = None) -> TokenIds:
        """Turns texts into rows of token ids, equal to those of `Tokenizer.encode`.

        Args:
          texts: without lone surrogates.
          text_pairs: the second text of each pair, or None.
        """
        texts = self._without_html(texts)
        with self._lock:
            if text_pairs is None:
                return self._singles(self._starts(texts))
            return self._pairs(texts, self._without_html(text_pairs))

    def _singles(self, starts: list[bytes]) -> TokenIds:
        room = (self.max_length - 2) * _ID_BYTES
        ids = [np.frombuffer(self._cls + start[:room] + self._sep, np.int32) for start in starts]
        return TokenIds(ids, [len(row) for row in ids])

    def _pairs(self, texts: list[str], text_pairs: list[str]) -> TokenIds:
        ids, first_lengths, room = [], [], self.max_length - 3
        for text, text_pair, first, second in zip(
            texts, text_pairs, self._starts(texts), self._starts(text_pairs), strict=True
        ):
            if min(len(first), len(second)) > room // 2 * _ID_BYTES:  # what is odd goes to the longer one of the whole
                first, second = (self.stretches.whole(each.split(" ")) for each in (text, text_pair))
            first_room, second_room = _longest_first(len(first) // _ID_BYTES, len(second) // _ID_BYTES, room)
            head = self._cls + first[: first_room * _ID_BYTES] + self._sep
            ids.append(np.frombuffer(head + second[: second_room * _ID_BYTES] + self._sep, np.int32))
            first_lengths.append(len(head) // _ID_BYTES)
        return TokenIds(ids, first_lengths)

    def _starts(self, texts: list[str]) -> list[bytes]:
        """Gives the ids of each text: all, or at least `max_length` of them."""
        size = _CHARACTERS_PER_TOKEN * self.max_length
        found = self.stretches.rows([_start(text, size).split(" ") for text in texts])
        for place, text in enumerate(texts):
            looked_at = size
            while len(found[place]) < self.max_length * _ID_BYTES and len(_start(text, looked_at)) < len(text):
                looked_at *= _LONGER
                (found[place],) = self.stretches.rows([_start(text, looked_at).split(" ")])
        return found

    def _without_html(self, texts: list[str]) -> list[str]:
        if self.settings.html:
            for pattern, new in HTML_PATTERNS:
                texts = [pattern.sub(new, text) for text in texts]
        return texts


def _start(text: str, size: int) -> str:
    """Gives the text up to the first space after so many characters."""
    end = text.find(" ", size)
    return text if end < 0 else text[:end]


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Gives the tokens to which the texts of a pair are cut, as `tokenizer.py` does."""
    short = min(first, second, room // 2)
    long = min(max(first, second), room - short)
    return (long, short) if first > second else (short, long)
