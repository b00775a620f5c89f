"""BERT WordPiece as a TensorFlow graph: one tokenizer for preparing data and for serving raw text.

Enters: UTF-8 text, `[batch] string`. Leaves: token ids, ragged or padded, equal to those of transformers'
`BertTokenizerFast`. tensorflow-text's own BERT tokenizers differ from it where Unicode gets hard, so its normalizer
and pre-tokenizer are run here on every code point once, and the graph looks the results up:

    text -> special tokens become private-use marks -> code points -> table -> words -> word pieces -> cut, [CLS], [SEP]

Only core operators and TFText's WhitespaceTokenize and FastWordpiece are used: stock TF Serving links these, while it
lacks tensorflow-text's trimmers. A table by code point can't reorder combining marks, which transformers does when
accents are stripped. What is left to reorder are the marks that its Unicode data does not strip (spacing viramas,
musical stems, marks newer than its data), two of different class side by side in non-canonical order. Ids differ only
if the vocabulary has such marks; in any other case the word is [UNK] in either order.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from tfpipe.errors import InputError

SPECIAL_TOKENS = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_WORD_CHARS = 100  # transformers turns longer words into [UNK], counted after normalization
MAX_PIECE_BYTES = 4 * MAX_WORD_CHARS  # a longer piece can't match any word that is short enough

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


@dataclass(frozen=True)
class TokenizerSettings:
    """What a BERT tokenizer is made of: its vocabulary, one piece per id, and the names transformers gives the rest."""

    vocabulary: tuple[str, ...]
    do_lower_case: bool = True
    strip_accents: bool | None = None  # None: as do_lower_case says
    tokenize_chinese_chars: bool = True
    unk_token: str = "[UNK]"
    sep_token: str = "[SEP]"
    pad_token: str = "[PAD]"
    cls_token: str = "[CLS]"
    mask_token: str = "[MASK]"

    def __post_init__(self) -> None:
        ids: dict[str, int] = {}
        for index, piece in enumerate(self.vocabulary):
            if ids.setdefault(piece, index) != index:
                raise InputError(
                    f"vocabulary: {piece!r} has two ids, {ids[piece]} and {index}; every piece must be there once"
                )
            if "\n" in piece or "\r" in piece:
                raise InputError(f"vocabulary: piece {index}, {piece!r}, has a line break; pieces are one line each")
        for name, token in self.special_tokens.items():
            if token not in ids:
                raise InputError(f"vocabulary: {name} {token!r} is missing; add it, or name the token that is used")
            # Then the token is never one word of normalized text, and its id comes from the written token alone.
            if len(token) < 2 or not re.search(r"[!-/:-@\[-`{-~]", token):
                raise InputError(f"{name}: {token!r} must have an ASCII punctuation character and one more character")
        for (name, token), (other_name, other) in itertools.permutations(self.special_tokens.items(), 2):
            if other in token or any(token.endswith(other[:length]) for length in range(1, len(other))):
                raise InputError(f"{name} {token!r} and {other_name} {other!r} must not overlap; rename one of them")

    @property
    def special_tokens(self) -> dict[str, str]:
        """Name in transformers (`unk_token` and so on) -> token."""
        return {name: getattr(self, name) for name in SPECIAL_TOKENS}

    @classmethod
    def read(cls, directory: Path) -> TokenizerSettings:
        """Reads `vocab.txt` (else `tokenizer.json`) and `tokenizer_config.json`, with transformers' precedence.

        Raises:
          InputError: a file is missing or malformed, or says something that this tokenizer does not do.
        """
        directory = Path(directory)
        paths = {name: directory / f"{name}.json" for name in ("tokenizer_config", "tokenizer", "special_tokens_map")}
        config, rust, names = (_read_json(path) if path.exists() else {} for path in paths.values())
        # Since added_tokens_decoder exists, the map of special tokens no longer overrides the configuration.
        names = config if "added_tokens_decoder" in config else {**config, **names}
        path = paths["tokenizer_config"]
        values: dict[str, Any] = {name: _token(names[name], path) for name in SPECIAL_TOKENS if names.get(name)}
        for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
            values[name] = config.get(name, name != "strip_accents" or None)
            if not (isinstance(values[name], bool) or (name == "strip_accents" and values[name] is None)):
                raise InputError(f"{path}: {name} is {values[name]!r}; it must be true or false")

        vocabulary_path = directory / "vocab.txt"
        if vocabulary_path.exists():
            vocabulary = _read_vocabulary(vocabulary_path)
            if "model" in rust and _wordpiece_vocabulary(rust, paths["tokenizer"]) != vocabulary:
                raise InputError(f"{vocabulary_path}: differs from tokenizer.json beside it; remove the wrong one")
        elif rust:
            vocabulary_path = paths["tokenizer"]
            vocabulary = _wordpiece_vocabulary(rust, vocabulary_path)
        else:
            raise InputError(f"{vocabulary_path}: not found, nor tokenizer.json; put the encoder's vocabulary there")
        try:
            settings = cls(vocabulary=vocabulary, **values)
        except InputError as error:
            raise InputError(f"{vocabulary_path}: {error}") from None

        decoder = config.get("added_tokens_decoder") or {}
        added = {
            paths["tokenizer_config"]: list(decoder.values()) if isinstance(decoder, dict) else [decoder],
            paths["special_tokens_map"]: names.get("additional_special_tokens") or [],
            paths["tokenizer"]: rust.get("added_tokens") or [],
        }
        for path, tokens in added.items():
            for token in tokens if isinstance(tokens, list) else [tokens]:
                if _token(token, path) not in settings.special_tokens.values():
                    raise InputError(f"{path}: added token {_token(token, path)!r} is not supported; remove it")
        return settings

    def write(self, directory: Path) -> None:
        """Writes `vocab.txt`, `tokenizer_config.json`, `special_tokens_map.json`, as transformers reads them."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del config["vocabulary"]
        config["tokenizer_class"] = "BertTokenizer"
        for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", self.special_tokens)):
            (directory / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        with open(directory / "vocab.txt", "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{piece}\n" for piece in self.vocabulary)


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
            settings.do_lower_case, settings.strip_accents, settings.tokenize_chinese_chars
        )
        self._page_starts = tf.constant(starts)
        self._entries = tf.constant(entries)
        self._replacements = tf.constant(replacements)
        self._whitespace = tensorflow_text.WhitespaceTokenizer()
        self._wordpiece = tensorflow_text.FastWordpieceTokenizer(
            vocab=_vocabulary_of_marks(settings),
            unknown_token=_MARKS[SPECIAL_TOKENS.index("unk_token")],
            max_bytes_per_word=MAX_PIECE_BYTES,
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
        first = self._tokenize(text)
        rows = first.nrows()
        cls = tf.fill([rows, 1], self._special_ids["cls_token"])
        sep = tf.fill([rows, 1], self._special_ids["sep_token"])
        if text_pair is None:
            first = _cut(first, tf.minimum(first.row_lengths(), self.max_length - 2))
            input_ids = tf.concat([cls, first, sep], axis=1)
            return input_ids, tf.zeros_like(input_ids)
        second = self._tokenize(text_pair)
        limits = _longest_first(first.row_lengths(), second.row_lengths(), self.max_length - 3)
        head = tf.concat([cls, _cut(first, limits[0]), sep], axis=1)
        tail = tf.concat([_cut(second, limits[1]), sep], axis=1)
        return tf.concat([head, tail], axis=1), tf.concat([tf.zeros_like(head), tf.ones_like(tail)], axis=1)

    def dense(self, text: tf.Tensor, text_pair: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Turns texts into the inputs of the encoder, padded to the longest row.

        Args:
          text: `[batch] string`.
          text_pair: `[batch] string`, or None.

        Returns:
          `input_ids`, `attention_mask`, `token_type_ids`, each `[batch, longest row] int32`.
        """
        input_ids, token_type_ids = self.encode(text, text_pair)
        return {
            "input_ids": input_ids.to_tensor(self._special_ids["pad_token"]),
            "attention_mask": tf.ones_like(input_ids).to_tensor(),
            "token_type_ids": token_type_ids.to_tensor(),
        }

    def _tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Word pieces of whole texts, `[batch] string` -> ragged `[batch, (pieces)] int32`, no [CLS] or [SEP]."""
        text = tf.strings.regex_replace(text, f"[{_MARKS[0]}-{_MARKS[-1]}]", _DROPPED)
        for mark, token in zip(_MARKS, self.settings.special_tokens.values(), strict=True):
            text = tf.strings.regex_replace(text, re.escape(token), mark)
        words = self._whitespace.tokenize(self._normalize(text))
        too_long = tf.strings.length(words.values, unit="UTF8_CHAR") > MAX_WORD_CHARS
        unknown = _MARKS[SPECIAL_TOKENS.index("unk_token")]
        words = words.with_values(tf.where(too_long, unknown, words.values))
        return self._wordpiece.tokenize(words).merge_dims(1, 2)

    def _normalize(self, text: tf.Tensor) -> tf.Tensor:
        """Normalized text with a space wherever a word ends, `[batch] string` -> `[batch] string`."""
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
    """The first `lengths` (`[batch] int64`) ids of each row of a ragged `[batch, (length)]`."""
    starts = ids.row_starts()
    return tf.gather(ids.values, tf.ragged.range(starts, starts + lengths))


def _longest_first(first: tf.Tensor, second: tf.Tensor, room: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Lengths, `[batch] int64`, to which a pair is cut: as `truncate_encodings` of the tokenizers library does it.

    The shorter text is kept whole if that leaves the longer one at least as much; else both get half, and what
    is odd goes to the longer one, or to the second one of two equals.
    """
    short_limit = tf.minimum(tf.minimum(first, second), room // 2)
    long_limit = tf.minimum(tf.maximum(first, second), room - short_limit)
    swap = first > second
    return tf.where(swap, long_limit, short_limit), tf.where(swap, short_limit, long_limit)


@functools.lru_cache(maxsize=8)
def _code_point_table(
    do_lower_case: bool, strip_accents: bool | None, tokenize_chinese_chars: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What becomes of each code point in transformers' normalizer and pre-tokenizer.

    Returns:
      `page_starts [4352] int32`, where the page of 256 code points starts in `entries [256 x pages] int32`, which are
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
    for code_point in itertools.chain(*_ASSIGNABLE):
        character = chr(code_point)
        # Between two letters it shows where words end: "a!a" becomes "a ! a".
        words = pre_tokenizer.pre_tokenize_str(f"a{normalizer.normalize_str(character)}a")
        replacement = " ".join(word for word, _ in words)[1:-1].replace(character, "\0")
        if replacement != "\0":
            entries[code_point] = rows.setdefault(replacement, len(rows))
    for plane in _PRIVATE_PLANES:
        entries[plane.start : plane.stop] = rows.setdefault("", len(rows))
    for mark in _MARKS:
        entries[ord(mark)] = rows.setdefault(" \0 ", len(rows))
    replacements = np.full((len(rows), max(map(len, rows))), _NOTHING, np.int32)
    for row, replacement in enumerate(rows):
        replacements[row, : len(replacement)] = [ord(new) or _ITSELF for new in replacement]
    pages, page_of = np.unique(entries.reshape(-1, _PAGE), axis=0, return_inverse=True)
    return (page_of.reshape(-1) * _PAGE).astype(np.int32), pages.reshape(-1), replacements


def _vocabulary_of_marks(settings: TokenizerSettings) -> list[str]:
    """The vocabulary for FastWordpieceTokenizer: marks in place of the special tokens, nothing that it refuses."""
    marks = dict(zip(settings.special_tokens.values(), _MARKS, strict=True))
    pieces = []
    for index, piece in enumerate(settings.vocabulary):
        # A piece that no word can match keeps its id under a name that no text can have, should it be refused or be a
        # private-use character, which the normalizer drops from every text.
        unusable = piece in ("", "##") or len(piece.encode()) > MAX_PIECE_BYTES or re.search("[\ue000-\uf8ff]", piece)
        pieces.append(f"\ue100{index}" if unusable else marks.get(piece, piece))
    return pieces


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't read it as JSON ({error}); fetch the encoder's files again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object; fetch the encoder's files again")
    return content


def _read_vocabulary(path: Path) -> tuple[str, ...]:
    try:
        with open(path, encoding="utf-8") as file:  # not splitlines(): pieces may be U+0085 or U+2028
            return tuple(line.rstrip("\n") for line in file)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't read it as UTF-8 text ({error}); one piece per line is expected") from None


def _wordpiece_vocabulary(rust: dict[str, Any], path: Path) -> tuple[str, ...]:
    """The vocabulary of a `tokenizer.json`, in the order of its ids."""
    model = rust.get("model") if isinstance(rust.get("model"), dict) else {}
    expected = {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": MAX_WORD_CHARS}
    for key, value in expected.items():
        if model.get(key) != value:
            raise InputError(f"{path}: model.{key} is {model.get(key)!r}, not {value!r}; give a BERT WordPiece encoder")
    vocabulary = model.get("vocab") if isinstance(model.get("vocab"), dict) else {}
    by_id = {index: piece for piece, index in vocabulary.items() if isinstance(index, int)}
    if not by_id or by_id.keys() != set(range(len(vocabulary))):
        raise InputError(f"{path}: model.vocab must map pieces to the ids 0, 1, 2, ...; give a vocab.txt instead")
    return tuple(by_id[index] for index in range(len(by_id)))


def _token(value: Any, path: Path) -> str:
    """The text of a special token, which transformers writes as a string or as an AddedToken."""
    fields = value if isinstance(value, dict) else {"content": value}
    if not isinstance(fields.get("content"), str):
        raise InputError(f"{path}: special token {value!r} must be a string or have a string as its content")
    for option in ("lstrip", "rstrip", "single_word", "normalized"):
        if fields.get(option):
            raise InputError(f"{path}: {option} of {fields['content']!r} is true; only false works here, set it so")
    return fields["content"]
