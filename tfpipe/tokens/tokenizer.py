"""BERT WordPiece as a TensorFlow graph: one tokenizer for preparing data and for serving raw text.

Enters: UTF-8 text, `[batch] string`. Leaves: token ids, ragged or padded, equal to those of transformers'
`BertTokenizer`. tensorflow-text's own BERT tokenizers differ from it where Unicode gets hard, so its normalizer
and pre-tokenizer are run here on every code point once, and the graph looks the results up:

    text -> cleaning -> stretches without a space, each distinct one once -> special tokens become private-use marks ->
    code points -> table -> words -> word pieces -> cut, [CLS], [SEP]

Only core operators and TFText's WhitespaceTokenize and FastWordpiece are used: stock TF Serving links these, while it
lacks tensorflow-text's trimmers. A table by code point can't reorder combining marks, as transformers does when it
strips accents. This matters only for marks that its Unicode data does not strip (spacing viramas, musical stems, marks
newer than its data), two of different class side by side in non-canonical order. Ids differ only if the vocabulary has
such marks. In any other case the word is [UNK] in either order.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from tfpipe.encoders.vocabulary import MAX_WORD_CHARS
from tfpipe.tokens.tokenizer_files import SPECIAL_TOKENS
from tfpipe.tokens.tokenizer_settings import HTML, TokenizerSettings

_MAX_WORD_BYTES = 4 * MAX_WORD_CHARS

# Stand in for the special tokens inside the graph. Private-use characters are dropped by transformers' normalizer, so
# one that is written in a text may be replaced by another dropped character, which leaves these free to carry meaning.
_MARKS = tuple(chr(0xE000 + index) for index in range(len(SPECIAL_TOKENS)))
_DROPPED = "\ufffd"

_PAGE = 256
_CODE_POINTS = 0x110000
_NOTHING, _ITSELF = -1, -2  # in the table of replacements: no code point here; the code point that is replaced
# Everywhere else nothing is assigned, which the normalizer keeps as it is, or all is private use, which it drops.
_ASSIGNABLE = (range(0xD800), range(0xE000, 0x40000), range(0xE0000, 0xE1000))
_PRIVATE_PLANES = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
PRIVATE_USE = (range(0xE000, 0xF900), *_PRIVATE_PLANES)
"""code points that the normalizer drops"""
_LETTER = "\u16a0"  # a runic letter, which is kept as it is, and which nothing else becomes
_TOGETHER = 4096  # code points that are normalized in one call

# A cut within a text changes what is made of its last word, or of a special token or a line break of HTML there: fewer
# tokens than these. Tokens before them are those of the whole text.
_LAST_TOKENS = 2 * MAX_WORD_CHARS
_BYTES_PER_TOKEN = 16  # of the first part that is looked at: enough of most scripts
_LONGER = 8  # times the part before


class Tokenizer(tf.Module):
    """The tokenizer as a graph: works eagerly, in `tf.function`, in `tf.data`, and inside a SavedModel."""

    def __init__(self, settings: TokenizerSettings, max_length: int):
        """Builds the tables.

        Args:
          settings: vocabulary and normalization.
          max_length: longest row in tokens, [CLS] and [SEP] included; at least 4.
        """
        super().__init__(name="tokenizer")
        if max_length < 4:
            raise ValueError(f"max_length is {max_length}; it must be at least 4: a pair and its three special tokens")
        self.settings = settings
        self.max_length = max_length
        ids = {piece: index for index, piece in enumerate(settings.vocabulary)}
        self._special_ids = {name: ids[token] for name, token in settings.special_tokens.items()}
        starts, entries, replacements = _code_point_table(
            settings.do_lower_case, settings.strips_accents, settings.tokenize_chinese_chars
        )
        self._page_starts = tf.constant(starts)
        self._entries = tf.constant(entries)
        self._replacements = tf.constant(replacements)
        self._whitespace = tensorflow_text.WhitespaceTokenizer()
        self._wordpiece = tensorflow_text.FastWordpieceTokenizer(
            vocab=_vocabulary_of_marks(settings),
            unknown_token=_MARKS[SPECIAL_TOKENS.index("unk_token")],
            max_bytes_per_word=_MAX_WORD_BYTES,
            token_out_type=tf.int32,
            no_pretokenization=True,
        )

    def encode(self, text: tf.Tensor, text_pair: tf.Tensor | None = None) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Turns texts into rows of token ids, cut as transformers' `truncation=True` does (`longest_first`).

        Args:
          text: `[batch] string`, UTF-8; invalid bytes are dropped.
          text_pair: `[batch] string`, the second text of each pair, or None.

        Returns:
          `input_ids` and `token_type_ids`, each ragged `[batch, (length)] int32`, [CLS] and [SEP] included.
        """
        # Of pairs, both are tokenized as a whole: which of two long texts is the longer one decides where they are cut.
        first = self._tokenize_start(text) if text_pair is None else self._tokenize(text)
        return self._rows(first, text_pair)[:2]

    def encode_counted(self, text: tf.Tensor, text_pair: tf.Tensor | None = None) -> tuple[Any, Any, tf.Tensor]:
        """Does what `encode` does, and counts the tokens of each row without the cut: `[batch] int64`."""
        return self._rows(self._tokenize(text), text_pair)

    def _rows(self, first: tf.RaggedTensor, text_pair: tf.Tensor | None) -> tuple[Any, Any, tf.Tensor]:
        """Makes the rows of `encode_counted` from the pieces of the first texts, ragged `[batch, (pieces)] int32`."""
        rows = first.nrows()
        cls = tf.fill([rows, 1], self._special_ids["cls_token"])
        sep = tf.fill([rows, 1], self._special_ids["sep_token"])
        if text_pair is None:
            whole = first.row_lengths() + 2
            first = _cut(first, tf.minimum(first.row_lengths(), self.max_length - 2))
            input_ids = tf.concat([cls, first, sep], axis=1)
            return input_ids, tf.zeros_like(input_ids), whole
        second = self._tokenize(text_pair)
        limits = _longest_first(first.row_lengths(), second.row_lengths(), self.max_length - 3)
        head = tf.concat([cls, _cut(first, limits[0]), sep], axis=1)
        tail = tf.concat([_cut(second, limits[1]), sep], axis=1)
        token_type_ids = tf.concat([tf.zeros_like(head), tf.ones_like(tail)], axis=1)
        return tf.concat([head, tail], axis=1), token_type_ids, first.row_lengths() + second.row_lengths() + 3

    def dense(self, text: tf.Tensor, text_pair: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Turns texts into the inputs of the encoder, padded to the longest row.

        Args:
          text: `[batch] string`.
          text_pair: `[batch] string`, or None.

        Returns:
          `input_ids`, `attention_mask`, `token_type_ids`, each `[batch, longest row] int32`; `[0, 2]` for no texts.
        """
        input_ids, token_type_ids = self.encode(text, text_pair)
        # A batch of no texts has the columns of [CLS] and [SEP] too: the model takes the first one out.
        shape = [-1, tf.maximum(input_ids.bounding_shape(axis=1), 2)]
        return {
            "input_ids": input_ids.to_tensor(self._special_ids["pad_token"], shape=shape),
            "attention_mask": tf.ones_like(input_ids).to_tensor(shape=shape),
            "token_type_ids": token_type_ids.to_tensor(shape=shape),
        }

    def _tokenize_start(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Finds the word pieces that `max_length` needs, `[batch] string` -> ragged `[batch, (pieces)] int32`.

        A text may be megabytes long. Its first part is tokenized, then longer parts until they have enough pieces.
        """
        enough = self.max_length + _LAST_TOKENS + max(map(len, self.settings.special_tokens.values()))
        bytes_of_text = tf.cast(tf.strings.length(text), tf.int64)

        def tokenize_part(_, size, *before):
            pieces = self._tokenize(tf.strings.substr(text, tf.zeros([], tf.int64), size))
            is_enough = tf.reduce_all((bytes_of_text <= size) | (pieces.row_lengths() >= enough))
            return is_enough, size * _LONGER, pieces.values, pieces.row_splits

        first = tf.constant(int(enough * _BYTES_PER_TOKEN), tf.int64)
        *_, values, row_splits = tf.while_loop(
            lambda is_enough, *_: ~is_enough,
            tokenize_part,
            (tf.constant(False), first, tf.zeros([0], tf.int32), tf.zeros([0], tf.int64)),
            shape_invariants=(*[tf.TensorShape([])] * 2, *[tf.TensorShape([None])] * 2),
        )
        return tf.RaggedTensor.from_row_splits(values, row_splits, validate=False)

    def _tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Finds the word pieces of texts, `[batch] string` -> ragged `[batch, (pieces)] int32`, no [CLS] or [SEP]."""
        if self.settings.html:
            for pattern, replacement in HTML:
                text = tf.strings.regex_replace(text, pattern, replacement)
        if self.settings.unicode is not None:
            text = tensorflow_text.normalize_utf8(text, self.settings.unicode)
        # What stands between two spaces is looked up once, however often it occurs: a space ends every word, and no
        # character is normalized by its neighbors.
        stretches = tf.strings.split(text, sep=" ")
        distinct, index = tf.unique(stretches.values)
        pieces = tf.gather(self._pieces(distinct), index)
        row_splits = tf.gather(pieces.row_splits, stretches.row_splits)
        return tf.RaggedTensor.from_row_splits(pieces.values, row_splits, validate=False)

    def _pieces(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Finds the word pieces, `[stretches] string` -> ragged `[stretches, (pieces)] int32`."""
        tokens = self.settings.special_tokens.values()
        special = tf.strings.regex_full_match(
            text, f"\\C*(?:[{_MARKS[0]}-{_MARKS[-1]}]|{'|'.join(map(re.escape, tokens))})\\C*"
        )
        text = tf.cond(tf.reduce_any(special), lambda: self._mark(text), lambda: text)  # in most texts, there is none
        words = self._whitespace.tokenize(self._normalize(text))
        if self.settings.stop_words:
            stop = "|".join(map(re.escape, self.settings.stop_words))
            words = tf.ragged.boolean_mask(
                words, words.with_values(~tf.strings.regex_full_match(words.values, f"(?i)(?:{stop})"))
            )
        too_long = tf.strings.length(words.values, unit="UTF8_CHAR") > MAX_WORD_CHARS
        unknown = _MARKS[SPECIAL_TOKENS.index("unk_token")]
        words = words.with_values(tf.where(too_long, unknown, words.values))
        return self._wordpiece.tokenize(words).merge_dims(1, 2)

    def _mark(self, text: tf.Tensor) -> tf.Tensor:
        """Puts a mark in the place of each special token that a text has, `[batch] string` -> `[batch] string`."""
        text = tf.strings.regex_replace(text, f"[{_MARKS[0]}-{_MARKS[-1]}]", _DROPPED)
        for mark, token in zip(_MARKS, self.settings.special_tokens.values(), strict=True):
            text = tf.strings.regex_replace(text, re.escape(token), mark)
        return text

    def _normalize(self, text: tf.Tensor) -> tf.Tensor:
        """Normalizes texts, with a space wherever a word ends, `[batch] string` -> `[batch] string`."""
        decoded = tf.strings.unicode_decode(text, "UTF-8", errors="replace")
        code_points = decoded.values
        page_starts = tf.gather(self._page_starts, code_points // _PAGE)
        replaced = tf.gather(self._replacements, tf.gather(self._entries, page_starts + code_points % _PAGE))
        replaced = tf.where(replaced == _ITSELF, code_points[:, tf.newaxis], replaced)
        kept = replaced != _NOTHING
        ends = tf.cumsum(tf.reduce_sum(tf.cast(kept, tf.int64), axis=1))
        row_splits = tf.gather(tf.concat([[0], ends], axis=0), decoded.row_splits)
        normalized = tf.RaggedTensor.from_row_splits(tf.boolean_mask(replaced, kept), row_splits, validate=False)
        return tf.strings.unicode_encode(normalized, "UTF-8")


def _cut(ids: tf.RaggedTensor, lengths: tf.Tensor) -> tf.RaggedTensor:
    """Takes the first `lengths` (`[batch] int64`) ids of each row of a ragged `[batch, (length)]`."""
    starts = ids.row_starts()
    return tf.gather(ids.values, tf.ragged.range(starts, starts + lengths))


def _longest_first(first: tf.Tensor, second: tf.Tensor, room: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the lengths, `[batch] int64`, to which a pair is cut, as the tokenizers library's `truncate_encodings`.

    The shorter text is kept whole if that leaves the longer one at least as much. Else both get half; an odd token goes
    to the longer text, or to the second of two equals.
    """
    short_limit = tf.minimum(tf.minimum(first, second), room // 2)
    long_limit = tf.minimum(tf.maximum(first, second), room - short_limit)
    swap = first > second
    return tf.where(swap, long_limit, short_limit), tf.where(swap, short_limit, long_limit)


@functools.lru_cache(maxsize=8)
def _code_point_table(
    do_lower_case: bool, strip_accents: bool, tokenize_chinese_chars: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tabulates transformers' normalizer and pre-tokenizer by code point.

    Returns:
      `page_starts [4352] int32`: the start of each page of 256 code points in `entries [256 x pages] int32`, which are
      rows of `replacements [rows, width] int32`: code points, `_ITSELF` or `_NOTHING`.
    """
    normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=tokenize_chinese_chars,
        strip_accents=strip_accents,
        lowercase=do_lower_case,
    )
    pre_tokenizer = BertPreTokenizer()
    rows: dict[str, int] = {"\0": 0}  # NUL stands for the code point itself: the normalizer never lets one through
    entries = np.zeros(_CODE_POINTS, np.int32)
    characters = [chr(code_point) for block in _ASSIGNABLE for code_point in block if code_point != ord(_LETTER)]
    for start in range(0, len(characters), _TOGETHER):
        some = characters[start : start + _TOGETHER]
        # Between two letters a character shows where words end: "ᚠ!ᚠ" becomes "ᚠ ! ᚠ".
        text = normalizer.normalize_str(_LETTER + "".join(character + _LETTER for character in some))
        words = " ".join(word for word, _ in pre_tokenizer.pre_tokenize_str(text))
        for character, between in zip(some, words.split(_LETTER)[1:-1], strict=True):
            if between != character:
                entries[ord(character)] = rows.setdefault(between.replace(character, "\0"), len(rows))
    for plane in _PRIVATE_PLANES:
        entries[plane.start : plane.stop] = rows.setdefault("", len(rows))
    for mark in _MARKS:
        entries[ord(mark)] = rows.setdefault(" \0 ", len(rows))
    replacements = np.full((len(rows), max(map(len, rows))), _NOTHING, np.int32)
    for row, replacement in enumerate(rows):
        replacements[row, : len(replacement)] = [ord(new) or _ITSELF for new in replacement]
    pages = [page.tobytes() for page in entries.astype(">i4").reshape(-1, _PAGE)]  # big-endian: bytes sort as numbers
    starts = {page: index * _PAGE for index, page in enumerate(sorted(set(pages)))}
    distinct = np.frombuffer(b"".join(starts), ">i4").astype(np.int32)
    return np.array([starts[page] for page in pages], np.int32), distinct, replacements


def normalized_characters(settings: TokenizerSettings, others: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """Yields each character that transformers' normalizer does not drop as private, with its replacement.

    A space in a replacement ends a word. Unassigned characters stay as they are, and are left out.

    Args:
      settings: the normalization.
      others: characters that are yielded wherever they are.
    """
    starts, entries, replacements = _code_point_table(
        settings.do_lower_case, settings.strips_accents, settings.tokenize_chinese_chars
    )
    points = {point for block in _ASSIGNABLE for point in block} | {ord(character) for character in others}
    for point in sorted(points.difference(*PRIVATE_USE)):
        row = replacements[entries[starts[point // _PAGE] + point % _PAGE]]
        yield chr(point), "".join(chr(point if new == _ITSELF else new) for new in row if new != _NOTHING)


def _vocabulary_of_marks(settings: TokenizerSettings) -> list[str]:
    """Makes the vocabulary for FastWordpieceTokenizer: marks for the special tokens, no piece that it refuses."""
    marks = dict(zip(settings.special_tokens.values(), _MARKS, strict=True))
    pieces = []
    for index, piece in enumerate(settings.vocabulary):
        # A piece that no word can match keeps its id under a name that no text can have, should it be refused or hold a
        # NUL or private-use character, which the normalizer drops from every text.
        rest = piece.removeprefix("##")
        unusable = not rest or len(rest) > MAX_WORD_CHARS or re.search("[\0\ue000-\uf8ff]", piece)
        pieces.append(marks.get(piece) or (f"\ue100{index}" if unusable else piece))
    return pieces
