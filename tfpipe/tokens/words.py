"""The words of a text as a model reads it: the characters of each word, and the number of its word pieces.

Enters: texts as they were given. Leaves: spans of their characters before cleaning and normalization, with the number
of word pieces that `tokenizer.py` makes of each. BERT's pre-tokenizer decides where a word ends, but apostrophes within
a word (`don't`) and points within a number (`3.5`) do not end it.

Spans come from Hugging Face's tokenizers, which follow each character through normalization. Ids are compared with
those of `stretches.py`. If they differ (characters that another release of Unicode normalizes otherwise), the whole
stretch between two spaces counts as one word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from tokenizers import normalizers

from tfpipe.tokens.fast_tokenizer import HTML_PATTERNS, FastTokenizer
from tfpipe.tokens.stretches import LAST_TOKENS

_STRETCH = re.compile("[^ ]+")
_INSIDE_A_WORD = re.compile(r"(?<=[^\W\d_])['’](?=[^\W\d_])|(?<=\d)[.,](?=\d)")
_CHARACTERS_PER_TOKEN = 16  # of the start of a long stretch that is tokenized first
_LONGER = 8  # times the start before
_FORMS = {"NFC": normalizers.NFC, "NFD": normalizers.NFD, "NFKC": normalizers.NFKC, "NFKD": normalizers.NFKD}


class Word(NamedTuple):
    """A word of a text, as far as the model reads it."""

    start: int
    """its first character in the text"""
    end: int
    """the character after its last one"""
    tokens: int
    """word pieces of it that the model reads: fewer than it has where the text is cut within it"""


class Reading(NamedTuple):
    """The part of a text that a model reads."""

    words: list[Word]
    """in the order of the text, without overlap"""
    read_to: int
    """the character after the last word that is read, where others follow; else the length of the text"""


class _Found(NamedTuple):
    """A word within a stretch."""

    start: int
    end: int
    ids: list[int]


class Words:
    """Text to words; one thread at a time may ask."""

    def __init__(self, tokenizer: FastTokenizer):
        """Builds the tokenizer that tells the characters of each word piece.

        Args:
          tokenizer: that makes the token ids.
        """
        settings = tokenizer.settings
        self._html, self._stop_words = settings.html, frozenset(settings.stop_words)
        self._ids = tokenizer.stretches
        self._last = LAST_TOKENS + max(map(len, settings.special_tokens.values()))
        self._tokenizer = settings.wordpiece()
        if settings.unicode is not None:
            first = _FORMS[settings.unicode]()
            self._tokenizer.normalizer = normalizers.Sequence([first, self._tokenizer.normalizer])

    def read(self, text: str, count: int) -> Reading:
        """Finds the words of the first word pieces of a text.

        Args:
          text: without lone surrogates.
          count: word pieces that the model reads of it, special tokens of the row not counted. The tokens of the words
            sum to it.
        """
        words = self._first(text, count + 1)
        if sum(word.tokens for word in words) <= count:
            return Reading(words, len(text))
        *words, last = words
        if last.tokens > 1:
            words.append(last._replace(tokens=last.tokens - 1))
        return Reading(words, words[-1].end if words else 0)

    def _first(self, text: str, count: int) -> list[Word]:
        cleaned, places = _without_html(text) if self._html else (text, None)
        words: list[Word] = []
        for stretch in _STRETCH.finditer(cleaned):
            if count <= 0:
                break
            for start, end, ids in self._of_stretch(stretch[0], count):
                first, last = stretch.start() + start, stretch.start() + end - 1
                start, end = (first, last + 1) if places is None else (places[first][0], places[last][1])
                words.append(Word(start, end, min(len(ids), count)))
                count -= words[-1].tokens
                if count <= 0:
                    break
        return list(_with_marks(text, words))

    def _of_stretch(self, stretch: str, count: int) -> list[_Found]:
        """Finds the words of a stretch, as far as `count` ids need them."""
        ids = self._ids.first(stretch, count)
        size = _CHARACTERS_PER_TOKEN * (count + self._last)
        found = self._joined(stretch[:size])
        while size < len(stretch) and sum(len(word.ids) for word in found) < count + self._last:
            size *= _LONGER
            found = self._joined(stretch[:size])
        if [each for word in found for each in word.ids][: len(ids)] == ids:
            return found
        return [_Found(0, len(stretch), ids)]

    def _joined(self, stretch: str) -> list[_Found]:
        """Finds the words of a stretch, or of its start, and joins those that are one word to a reader."""
        inside = {match.start() for match in _INSIDE_A_WORD.finditer(stretch)}
        joined: list[_Found] = []
        for start, end, ids in self._split(stretch):
            # Of a character that normalization makes several words of, there is one span.
            if joined and (start < joined[-1].end or (start == joined[-1].end and inside & {start, start - 1})):
                joined[-1] = _Found(joined[-1].start, max(end, joined[-1].end), joined[-1].ids + ids)
            else:
                joined.append(_Found(start, end, ids))
        return joined

    def _split(self, stretch: str) -> list[_Found]:
        """Finds the words that the pre-tokenizer makes, without stop words."""
        encoding = self._tokenizer.encode(stretch, add_special_tokens=False)
        words: list[_Found] = []
        number = None
        for id, (start, end), word in zip(encoding.ids, encoding.offsets, encoding.word_ids, strict=True):
            if words and word == number:
                words[-1] = _Found(words[-1].start, end, [*words[-1].ids, id])
            else:
                words.append(_Found(start, end, [id]))
            number = word
        if not self._stop_words:
            return words
        return [word for word in words if self._normalized(stretch[word.start : word.end]) not in self._stop_words]

    def _normalized(self, word: str) -> str:
        return self._tokenizer.normalizer.normalize_str(word).strip().lower()


def _without_html(text: str) -> tuple[str, list[tuple[int, int]] | None]:
    """Undoes HTML as `FastTokenizer` does.

    Returns:
      The text, and for each character of it the span of `text` that it stands for; None: each stands for itself.
    """
    places = None
    for pattern, new in HTML_PATTERNS:
        found = list(pattern.finditer(text))
        if not found:
            continue
        places = places or [(at, at + 1) for at in range(len(text))]
        parts, spans, end = [], [], 0
        for match in found:
            parts += [text[end : match.start()], new]
            spans += places[end : match.start()]
            spans.append((places[match.start()][0], places[match.end() - 1][1]))
            end = match.end()
        text, places = "".join([*parts, text[end:]]), spans + places[end:]
    return text, places


def _with_marks(text: str, words: list[Word]) -> Iterator[Word]:
    """Yields words with the marks and invisible characters behind them, which normalization drops."""
    starts = [*(word.start for word in words), len(text)]
    for word, following in zip(words, starts[1:], strict=True):
        end = word.end
        while end < following and unicodedata.category(text[end]) in ("Mn", "Mc", "Me", "Cf"):
            end += 1
        yield word._replace(end=end)
