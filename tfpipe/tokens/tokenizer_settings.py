"""The settings of a BERT tokenizer, and its files in the transformers layout.

Enters: the result of `tokenizer_files.py`. Leaves: settings of which `tokenizer.py` makes a graph, and the files that
transformers reads.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfpipe.encoders.transformers import TOKENIZER, TOKENIZER_CONFIG, VOCABULARY, read_json
from tfpipe.encoders.vocabulary import MAX_WORD_CHARS, read_vocabulary, shown
from tfpipe.errors import InputError
from tfpipe.escaping import SURROGATES
from tfpipe.tokens.tokenizer_files import ADDED_TOKENS, SPECIAL_TOKENS, TokenizerFiles
from tfpipe.tokens.tokenizer_json import wordpiece

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tfpipe.config.rows import Cleaning

CLEANING = "cleaning.json"
_MAX_PIECE_BYTES = 256  # of tensorflow-text's FastWordpieceTokenizer; a longer piece that a word can match is refused
# The HTML that `data.cleaning.html` undoes, in this order: `&amp;lt;` was written for `&lt;`.
HTML = (
    (r"(?i)<br\s*/?>", " "),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", '"'),
    ("&(?:apos|#0?39|#x27);", "'"),
    ("&(?:nbsp|#160|#xa0);", "\u00a0"),
    ("&amp;", "&"),
)


@dataclass(frozen=True)
class TokenizerSettings:
    """The settings of a BERT tokenizer: its vocabulary, one piece per id, and the rest under transformers' names."""

    vocabulary: tuple[str, ...]
    do_lower_case: bool = True
    strip_accents: bool | None = None  # None: as do_lower_case says
    tokenize_chinese_chars: bool = True
    unk_token: str = "[UNK]"
    sep_token: str = "[SEP]"
    pad_token: str = "[PAD]"
    cls_token: str = "[CLS]"
    mask_token: str = "[MASK]"
    html: bool = False  # from here on what transformers has not: `data.cleaning`
    unicode: str | None = None
    stop_words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ids: dict[str, int] = {}
        for index, piece in enumerate(self.vocabulary):
            if ids.setdefault(piece, index) != index:
                raise InputError(
                    f"vocabulary: {shown(piece)} has two ids, {ids[piece]} and {index}; every piece must be there once"
                )
            if SURROGATES.search(piece):
                raise InputError(f"vocabulary: piece {index}, {shown(piece)}, is not Unicode text; take the piece out")
            if "\n" in piece or "\r" in piece:
                raise InputError(
                    f"vocabulary: piece {index}, {shown(piece)}, has a line break; pieces are one line each"
                )
            if piece != (cut := piece.rstrip()) and cut:
                raise InputError(
                    f"vocabulary: piece {index}, {shown(piece)}, ends in white space, which transformers 5 cuts off "
                    "and transformers 4 keeps; take the white space or the piece out"
                )
            rest = piece.removeprefix("##")
            if _MAX_PIECE_BYTES // 4 < len(rest) <= MAX_WORD_CHARS and len(rest.encode()) > _MAX_PIECE_BYTES:
                raise InputError(
                    f"vocabulary: piece {index}, {shown(piece)}, has {len(rest.encode())} bytes; pieces of up to "
                    f"{_MAX_PIECE_BYTES} bytes are supported, take the piece out"
                )
        for name, token in self.special_tokens.items():
            if token not in ids:
                raise InputError(f"vocabulary: {name} {token!r} is missing; add it, or name the token that is used")
            # Then the token is never one word of normalized text, and its id comes from the written token alone.
            if re.search("[ \0\ue000-\uf8ff]", token):  # words are looked up one by one, and marks are private-use
                raise InputError(f"{name}: {token!r} must not have a space or a NUL character, nor a private-use one")
            # transformers puts both into a template, where these have a meaning.
            if name in ("cls_token", "sep_token") and (":" in token or token.startswith("$")):
                raise InputError(f"{name}: {token!r} must not have a colon nor begin with $; rename the token")
            rest = token.removeprefix("##")  # the rest of a continuing piece is part of a word
            if len(rest) < 2 or not re.search(r"[!-/:-@\[-`{-~]", rest):
                raise InputError(
                    f"{name}: {token!r} must have an ASCII punctuation character and one more character, ## at its "
                    "start aside"
                )
        for (name, token), (other_name, other) in itertools.permutations(self.special_tokens.items(), 2):
            if other in token or any(token.endswith(other[:length]) for length in range(1, len(other))):
                raise InputError(f"{name} {token!r} and {other_name} {other!r} must not overlap; rename one of them")

    @property
    def special_tokens(self) -> dict[str, str]:
        """Gives the special tokens: name in transformers (`unk_token` and so on) -> token."""
        return {name: getattr(self, name) for name in SPECIAL_TOKENS}

    @property
    def strips_accents(self) -> bool:
        """Tells whether accents are taken off."""
        return self.do_lower_case if self.strip_accents is None else self.strip_accents

    @property
    def is_cleaning(self) -> bool:
        """Tells whether texts are cleaned (`data.cleaning`), for which transformers has no setting."""
        return bool(self.html or self.unicode or self.stop_words)

    @classmethod
    def read(cls, directory: Path) -> TokenizerSettings:
        """Reads a folder in the transformers layout: the ids are those of its `AutoTokenizer`.

        Raises:
          InputError: a file is missing or malformed, or asks for something that this tokenizer does not do.
        """
        directory = Path(directory)
        files = TokenizerFiles(directory)
        path, vocabulary = read_vocabulary(directory)
        values = {**files.normalization(), **files.special_tokens()}
        if (directory / CLEANING).exists():
            values |= _read_cleaning(directory / CLEANING)
        try:
            settings = cls(vocabulary=vocabulary, **values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        files.check(vocabulary, settings.special_tokens)
        return settings

    def cleaned(self, cleaning: Cleaning) -> TokenizerSettings:
        """Adds the cleaning that a run's configuration asks for."""
        words = cleaning.stop_words
        if words == "english":
            from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

            words = ENGLISH_STOP_WORDS
        lower = cleaning.lower_case and not self.do_lower_case
        cleaned = dataclasses.replace(
            self,
            html=cleaning.html,
            unicode=cleaning.unicode,
            **({"do_lower_case": True, "strip_accents": bool(self.strip_accents)} if lower else {}),
        )
        return dataclasses.replace(cleaned, stop_words=tuple(sorted({cleaned._one_word(word) for word in words})))

    def _one_word(self, word: str) -> str:
        """Normalizes a stop word as texts are, in lower case, for comparison."""
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer

        normalizer = BertNormalizer(
            handle_chinese_chars=self.tokenize_chinese_chars,
            strip_accents=self.strip_accents,
            lowercase=self.do_lower_case,
        )
        text = word if self.unicode is None else unicodedata.normalize(self.unicode, word)
        words = [part for part, _ in BertPreTokenizer().pre_tokenize_str(normalizer.normalize_str(text))]
        if len(words) != 1:
            raise InputError(
                f"data.cleaning.stop_words: {word!r} is {len(words)} words to the tokenizer; give single words"
            )
        return words[0].lower()

    def wordpiece(self, max_length: int | None = None) -> Tokenizer:
        """Makes the tokenizer of the tokenizers library, without `data.cleaning`.

        Args:
          max_length: tokens at which it cuts a text, special ones included; None: it cuts none.
        """
        return wordpiece(
            self.vocabulary,
            self.special_tokens,
            do_lower_case=self.do_lower_case,
            strip_accents=self.strip_accents,
            tokenize_chinese_chars=self.tokenize_chinese_chars,
            max_length=max_length,
        )

    def write(self, directory: Path, max_length: int | None = None) -> None:
        """Writes the files that transformers, tokenizers and transformers.js read, and `cleaning.json`.

        These are `vocab.txt`, `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`. None of them has
        a place for `data.cleaning`: `cleaning.json` holds it, if there is any.

        Args:
          directory: where they go.
          max_length: tokens at which a text is cut, special ones included; None: the files name no length.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del config["vocabulary"]
        cleaning = {name: config.pop(name) for name in ("html", "unicode", "stop_words")}
        for name in (CLEANING, ADDED_TOKENS):  # an older tokenizer's, which would be believed
            (directory / name).unlink(missing_ok=True)
        if self.is_cleaning:
            (directory / CLEANING).write_text(
                json.dumps(cleaning, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        (directory / TOKENIZER).write_text(self.wordpiece(max_length).to_str() + "\n", encoding="utf-8")
        config["tokenizer_class"] = "BertTokenizer"
        if max_length is not None:  # or transformers cuts nothing, and answers long texts otherwise, or not at all
            config["model_max_length"] = max_length
        for name, content in ((TOKENIZER_CONFIG, config), ("special_tokens_map.json", self.special_tokens)):
            (directory / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        with open(directory / VOCABULARY, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{piece}\n" for piece in self.vocabulary)


def _read_cleaning(path: Path) -> dict[str, Any]:
    """Reads `cleaning.json`, as `write` wrote it."""
    given = {"html": False, "unicode": None, "stop_words": []} | read_json(path)
    words = given["stop_words"]
    if (
        len(given) != 3
        or not isinstance(given["html"], bool)
        or given["unicode"] not in (None, "NFC", "NFD", "NFKC", "NFKD")
        or not (isinstance(words, list) and all(isinstance(word, str) and word for word in words))
        or SURROGATES.search("".join(words))
    ):
        raise InputError(f"{path}: not as tfpipe wrote it; prepare the data again")
    return given | {"stop_words": tuple(words)}
