"""What a BERT tokenizer is made of, and its files in the transformers layout.

Enters: `vocab.txt` or `tokenizer.json`, and `tokenizer_config.json`. Leaves: settings that `tokenizer.py` makes a graph
of. What that graph does not do, such as added tokens, is refused here and not imitated.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfpipe.config_data import Cleaning
from tfpipe.errors import InputError
from tfpipe.escaping import SURROGATES

SPECIAL_TOKENS = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
CLEANING = "cleaning.json"
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
MAX_WORD_CHARS = 100  # transformers turns longer words into [UNK], counted after normalization


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
    html: bool = False  # from here on what transformers has not: `data.cleaning` and `data.tokenizer`
    unicode: str | None = None
    stop_words: tuple[str, ...] = ()
    fast: bool = False

    def __post_init__(self) -> None:
        ids: dict[str, int] = {}
        for index, piece in enumerate(self.vocabulary):
            if ids.setdefault(piece, index) != index:
                raise InputError(
                    f"vocabulary: {piece!r} has two ids, {ids[piece]} and {index}; every piece must be there once"
                )
            if SURROGATES.search(piece):
                raise InputError(f"vocabulary: piece {index}, {piece!r}, is not Unicode text; take the piece out")
            if "\n" in piece or "\r" in piece:
                raise InputError(f"vocabulary: piece {index}, {piece!r}, has a line break; pieces are one line each")
        for name, token in self.special_tokens.items():
            if token not in ids:
                raise InputError(f"vocabulary: {name} {token!r} is missing; add it, or name the token that is used")
            # Then the token is never one word of normalized text, and its id comes from the written token alone.
            if " " in token or "\0" in token:  # words are looked up one by one
                raise InputError(f"{name}: {token!r} must not have a space or a NUL character")
            if len(token) < 2 or not re.search(r"[!-/:-@\[-`{-~]", token):
                raise InputError(f"{name}: {token!r} must have an ASCII punctuation character and one more character")
        if self.fast and (self.strip_accents not in (None, self.do_lower_case) or not self.tokenize_chinese_chars):
            raise InputError(
                "data.tokenizer: fast strips accents where it lower-cases, and splits Chinese characters; this "
                "vocabulary's tokenizer_config.json says otherwise: use data.tokenizer: exact"
            )
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

        if (directory / CLEANING).exists():
            values |= _read_cleaning(directory / CLEANING)
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

    def cleaned(self, cleaning: Cleaning, *, fast: bool) -> TokenizerSettings:
        """The same tokenizer, with what a run's configuration asks for before it."""
        words = cleaning.stop_words
        if words == "english":
            from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

            words = ENGLISH_STOP_WORDS
        lower = cleaning.lower_case and not self.do_lower_case
        if lower and fast:
            raise InputError(
                "data.cleaning.lower_case: with data.tokenizer: fast, lower-casing strips accents too; use "
                "data.tokenizer: exact"
            )
        cleaned = dataclasses.replace(
            self,
            html=cleaning.html,
            unicode=cleaning.unicode,
            fast=fast,
            **({"do_lower_case": True, "strip_accents": bool(self.strip_accents)} if lower else {}),
        )
        return dataclasses.replace(cleaned, stop_words=tuple(sorted({cleaned._one_word(word) for word in words})))

    def _one_word(self, word: str) -> str:
        """A stop word as it is compared: normalized as texts are, whatever its case."""
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

    def write(self, directory: Path) -> None:
        """Writes `vocab.txt`, `tokenizer_config.json`, `special_tokens_map.json`, as transformers reads them.

        What transformers has no setting for goes to `cleaning.json`, where it is asked for.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del config["vocabulary"]
        cleaning = {name: config.pop(name) for name in ("html", "unicode", "stop_words", "fast")}
        (directory / CLEANING).unlink(missing_ok=True)
        if any(cleaning.values()):
            (directory / CLEANING).write_text(
                json.dumps(cleaning, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        config["tokenizer_class"] = "BertTokenizer"
        for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", self.special_tokens)):
            (directory / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        with open(directory / "vocab.txt", "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{piece}\n" for piece in self.vocabulary)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: can't read it as JSON ({error}); fetch the encoder's files again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object; fetch the encoder's files again")
    return content


def _read_cleaning(path: Path) -> dict[str, Any]:
    """What `write` put into `cleaning.json`."""
    given = {"html": False, "unicode": None, "stop_words": [], "fast": False} | _read_json(path)
    words = given["stop_words"]
    if (
        len(given) != 4
        or not all(isinstance(given[name], bool) for name in ("html", "fast"))
        or given["unicode"] not in (None, "NFC", "NFD", "NFKC", "NFKD")
        or not (isinstance(words, list) and all(isinstance(word, str) and word for word in words))
        or SURROGATES.search("".join(words))
    ):
        raise InputError(f"{path}: not as tfpipe wrote it; prepare the data again")
    return given | {"stop_words": tuple(words)}


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
    by_id = {index: piece for piece, index in vocabulary.items() if type(index) is int}
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
