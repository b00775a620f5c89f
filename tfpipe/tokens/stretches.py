"""The ids of stretches: a stretch is the text between two spaces, tokenized once and remembered.

Enters: stretches of texts. Leaves: their token ids, as `tokenizer.py` has them, by Hugging Face's tokenizers. As in the
graph, a stretch can be tokenized by itself: a space ends every word, no special token has a space, and no character is
normalized by text beyond a space.

`can_repeat` names the settings that only the graph can repeat. TensorFlow is imported for them, not before.
"""

from __future__ import annotations

import dataclasses
import itertools
import unicodedata
from collections.abc import Iterable

import numpy as np
from tokenizers.normalizers import BertNormalizer

from tfpipe.encoders.vocabulary import MAX_WORD_CHARS
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

# A cut within a stretch changes its last word, or a special token there: fewer tokens than these, as in the graph.
LAST_TOKENS = 2 * MAX_WORD_CHARS
_CHARACTERS_PER_TOKEN = 16  # of the start of a long stretch that is tokenized first
_LONGER = 8  # times the start before
_REMEMBERED = 1 << 17  # stretches; of English reviews, they take 25 MB
_LONGEST_REMEMBERED = 64  # characters
_TOGETHER = 4096  # stretches
_WITHOUT_CUT = 1 << 30


def can_repeat(settings: TokenizerSettings) -> str | None:
    """Tells why texts can't be tokenized without TensorFlow; None where they can.

    Args:
      settings: vocabulary, normalization and cleaning.
    """
    if settings.stop_words:
        return "its tokenizer leaves out stop words (data.cleaning.stop_words), which only TensorFlow's graph does"
    if settings.strips_accents and len(marks := _kept_marks(settings.vocabulary)) > 1:
        shown = ", ".join(f"U+{ord(mark):04X}" for mark in marks[:3])
        return f"its vocabulary has combining marks ({shown}) that only TensorFlow's graph leaves in their order"
    return None


class Stretches:
    """Stretch -> its ids: int32, as bytes. One thread at a time may ask."""

    def __init__(self, settings: TokenizerSettings, max_length: int):
        """Builds the tokenizer.

        Args:
          settings: vocabulary, normalization and cleaning; `html` is the caller's, as it reaches across spaces.
          max_length: the most ids of a stretch that are needed.
        """
        self._settings = settings
        self._enough = max_length + LAST_TOKENS + max(map(len, settings.special_tokens.values()))
        self._by_graph = can_repeat(settings) is not None
        self._graph = None
        self._tokenizer = settings.wordpiece()
        self._known: dict[str, bytes] = {}
        self._long: list[str] = []  # of the known ones, which are not remembered for long
        self._assigned: set[str] = set()  # characters that Python's Unicode has, among those met

    def rows(self, parts: list[list[str]]) -> list[bytes]:
        """Gives the ids of texts: of a long stretch at least as many as are needed.

        Args:
          parts: the stretches of each text.
        """
        for stretch in self._long:
            del self._known[stretch]
        self._long = []
        distinct = set().union(*parts)
        new = distinct - self._known.keys()
        if len(self._known) + len(new) > _REMEMBERED:
            self._known, new = {}, distinct
        ordered = list(new)
        for start in range(0, len(ordered), _TOGETHER):
            self._learn(ordered[start : start + _TOGETHER])
        return [b"".join(map(self._known.__getitem__, part)) for part in parts]

    def first(self, stretch: str, count: int) -> list[int]:
        """Gives the first ids of a stretch: of a long stretch at most as many as `max_length` needs."""
        return np.frombuffer(self.rows([[stretch]])[0], np.int32)[:count].tolist()

    def whole(self, stretches: list[str]) -> bytes:
        """Gives all ids of a text, however long its stretches are."""
        if max(map(len, stretches)) > self._enough * _CHARACTERS_PER_TOKEN:
            return b"".join(self._tokenize(stretches))
        return self.rows([stretches])[0]

    def _learn(self, stretches: list[str]) -> None:
        size = self._enough * _CHARACTERS_PER_TOKEN
        starts = [stretch[:size] for stretch in stretches]
        for stretch, start, ids in zip(stretches, starts, self._tokenize(starts), strict=True):
            while len(start) < len(stretch) and len(ids) < self._enough * np.int32().nbytes:
                start = stretch[: len(start) * _LONGER]
                (ids,) = self._tokenize([start])
            self._known[stretch] = ids
            if len(stretch) > _LONGEST_REMEMBERED:
                self._long.append(stretch)

    def _tokenize(self, stretches: list[str]) -> list[bytes]:
        if self._by_graph:
            return self._tokenize_by_graph(stretches)
        form = self._settings.unicode
        if form is None:
            return self._tokenize_normalized(stretches)
        newer = [stretch for stretch in stretches if not self._is_assigned(stretch)]
        found = dict(zip(newer, self._tokenize_by_graph(newer), strict=True)) if newer else {}
        rest = [stretch for stretch in stretches if stretch not in found]
        normalized = [unicodedata.normalize(form, stretch) for stretch in rest]
        found |= zip(rest, self._tokenize_normalized(normalized), strict=True)
        return [found[stretch] for stretch in stretches]

    def _tokenize_normalized(self, stretches: list[str]) -> list[bytes]:
        encodings = self._tokenizer.encode_batch_fast(stretches, add_special_tokens=False)
        return [np.array(each.ids, np.int32).tobytes() for each in encodings]

    def _tokenize_by_graph(self, stretches: list[str]) -> list[bytes]:
        import tensorflow as tf

        from tfpipe.tokens.tokenizer import Tokenizer

        if self._graph is None:
            self._graph = Tokenizer(dataclasses.replace(self._settings, html=False), _WITHOUT_CUT)
        rows, _ = self._graph.encode(tf.constant(stretches))
        ids, ends = rows.values.numpy().astype(np.int32), rows.row_splits.numpy()
        return [ids[start + 1 : end - 1].tobytes() for start, end in itertools.pairwise(ends)]

    def _is_assigned(self, text: str) -> bool:
        """Tells whether Python's Unicode has every character; the graph's is newer, and may normalize others."""
        if text.isascii():
            return True
        new = set(text) - self._assigned
        if any(unicodedata.category(character) == "Cn" for character in new):
            return False
        self._assigned |= new
        return True


def _kept_marks(vocabulary: Iterable[str]) -> list[str]:
    """Lists the combining marks of a vocabulary that stripping accents keeps: its order of two is not the graph's."""
    stripping = BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    characters = {character for piece in vocabulary if not piece.isascii() for character in piece}
    return sorted(
        character
        for character in characters
        if (unicodedata.combining(character) or unicodedata.category(character) == "Cn")
        and stripping.normalize_str(character)
    )
