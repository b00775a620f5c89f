"""A tokenizer's files in the transformers layout, read with the precedence of transformers' `AutoTokenizer`.

Enters: `tokenizer_config.json`, `tokenizer.json`, `special_tokens_map.json`, `added_tokens.json`, `vocab.txt`, and the
tokenizer's class in `config.json`. Leaves: vocabulary, normalization and special tokens of `TokenizerSettings`.

Two files can say how texts are normalized. With a class of BERT's, `tokenizer_config.json` and the class's defaults
decide; with `PreTrainedTokenizerFast`, `tokenizer.json` does. All else comes from `tokenizer.json`, if there is one.
Content that gives other ids than BERT's own tokenizer is refused, and not imitated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfpipe.encoders.transformers import CONFIG, VOCABULARY, read_json
from tfpipe.errors import InputError

SPECIAL_TOKENS = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MAX_WORD_CHARS = 100  # transformers turns longer words into [UNK], counted after normalization
ADDED_TOKENS = "added_tokens.json"

# With the suffix "Fast" or without. The first ones are one tokenizer under five names; DistilBertTokenizer is not among
# them, as its answer has no token types.
_BERT = ("BertTokenizer", "ConvBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer")
_FROM_JSON = ("PreTrainedTokenizer", "TokenizersBackend")  # the second is transformers 5's name for the first
# Name in `tokenizer_config.json` -> name in the normalizer of `tokenizer.json`, default.
_NORMALIZATION = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}


class TokenizerFiles:
    """The files of a folder, parsed."""

    def __init__(self, directory: Path):
        """Reads every file but `vocab.txt`.

        Raises:
          InputError: a file is malformed, or another tokenizer's.
        """
        names = ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", ADDED_TOKENS, CONFIG, VOCABULARY)
        self._config_path, self._rust_path, self._map_path, self._added_path, model_path, self._vocabulary_path = (
            directory / name for name in names
        )
        self._config = _read(self._config_path)
        self._rust = _read(self._rust_path) if self._rust_path.exists() else None
        # Since added_tokens_decoder exists, two files of before it no longer count.
        legacy = "added_tokens_decoder" not in self._config
        self._map = _read(self._map_path) if legacy else {}
        self._added = _read(self._added_path) if legacy else {}
        self._settings = self._config | self._map

        place = self._config_path if self._config.get("tokenizer_class") is not None else model_path
        kind = _read(place).get("tokenizer_class")
        # Said nowhere, model_type decides, which is "bert" for every encoder that is opened.
        name = "BertTokenizer" if kind is None else str(kind).removesuffix("Fast")
        if name not in _BERT + _FROM_JSON:
            raise _refused(place, "tokenizer_class", kind, "BertTokenizer")
        self._is_bert = name in _BERT
        if not self._is_bert and self._rust is None:
            raise InputError(f"{place}: tokenizer_class {name} needs tokenizer.json, which is not there; fetch it")

    def vocabulary(self) -> tuple[Path, tuple[str, ...]]:
        """The vocabulary, one piece per id, and the file that it comes from.

        Raises:
          InputError: there is none, it is malformed, or two files differ.
        """
        vocabulary = _read_vocabulary(self._vocabulary_path) if self._vocabulary_path.exists() else None
        if self._rust is None:
            if vocabulary is None:
                raise InputError(
                    f"{self._vocabulary_path}: not found, nor tokenizer.json; put the encoder's vocabulary there"
                )
            return self._vocabulary_path, vocabulary
        found = _wordpiece_vocabulary(self._rust, self._rust_path)
        if vocabulary not in (None, found):
            raise InputError(f"{self._vocabulary_path}: differs from tokenizer.json beside it; remove the wrong one")
        return self._rust_path if vocabulary is None else self._vocabulary_path, found

    def normalization(self) -> dict[str, bool | None]:
        """`do_lower_case`, `strip_accents` and `tokenize_chinese_chars`.

        Raises:
          InputError: one of them is neither true nor false, or `tokenizer.json` normalizes in another way.
        """
        normalizer = _object(self._rust, "normalizer")
        if self._rust is not None:
            self._refuse_unless("normalizer.type", normalizer.get("type"), "BertNormalizer")
            self._refuse_unless("normalizer.clean_text", normalizer.get("clean_text"), True)
        values = {}
        for name, (rust_name, default) in _NORMALIZATION.items():
            if self._is_bert:
                path, key, value = self._place(name), name, self._settings.get(name, default)
            else:
                path, key, value = self._rust_path, f"normalizer.{rust_name}", normalizer.get(rust_name)
            if not (isinstance(value, bool) or (value is None and default is None)):
                raise InputError(f"{path}: {key} is {_shown(value)}; it must be true or false")
            values[name] = value
        return values

    def special_tokens(self) -> dict[str, str]:
        """Name in transformers (`unk_token` and so on) -> token.

        Raises:
          InputError: a token is malformed, or is matched in texts in another way than as it is written.
        """
        # A token that stands in a list of added tokens too has the options of the list.
        listed = {_content(token, place) for place, token, _ in self._lists()}
        tokens = {}
        for name in SPECIAL_TOKENS:
            value, place = self._settings.get(name), self._place(name)
            tokens[name] = _content(value, place) if value else f"[{name.removesuffix('_token').upper()}]"
            if value and tokens[name] not in listed:
                _token(value, place, special=name in self._map)
        return tokens

    def check(self, vocabulary: tuple[str, ...], tokens: dict[str, str]) -> None:
        """Checks that all else in the folder is what BERT's own tokenizer does.

        Args:
          vocabulary: one piece per id.
          tokens: what `special_tokens` gave, all of them in the vocabulary.

        Raises:
          InputError: it says something else.
        """
        self._check_options()
        if self._rust is not None:
            self._check_rust(vocabulary, tokens)
        # A class of BERT's has all five; null takes one away.
        matched = {token for name, token in tokens.items() if self._settings.get(name, self._is_bert)}
        for place, value, special in itertools.chain(self._lists(), self._rust_tokens(), self._further_tokens()):
            if (token := _content(value, place)) not in tokens.values():
                raise InputError(f"{place}: added token {token!r} is not supported; remove it")
            matched.add(_token(value, place, special=special))
        for name, token in tokens.items():
            if token not in matched:
                raise InputError(f"{self._place(name)}: {name} is not set, and {token!r} is no added token; set {name}")

    def _place(self, name: str) -> Path:
        return self._map_path if name in self._map else self._config_path

    def _lists(self) -> Iterator[tuple[Path, Any, bool]]:
        """The tokens that lists of them add: where each stands, as it stands there, whether it is taken as special."""
        if "added_tokens_decoder" in self._config:
            decoder = self._config["added_tokens_decoder"] or {}
            for token in decoder.values() if isinstance(decoder, dict) else [decoder]:
                yield self._config_path, token, False
        else:
            named = [self._settings.get(name) for name in SPECIAL_TOKENS]
            for token in self._added:
                yield self._added_path, {"content": token}, token in named
            yield from self._rust_tokens()

    def _rust_tokens(self) -> Iterator[tuple[Path, Any, bool]]:
        for token in _list(_value(self._rust, "added_tokens")):
            yield self._rust_path, token, True

    def _further_tokens(self) -> Iterator[tuple[Path, Any, bool]]:
        """As `_lists`, those that are added for being named in a way that BERT has no use for."""
        for place, names in ((self._config_path, self._config), (self._map_path, self._map)):
            extra = names.get("extra_special_tokens")
            extra = list(extra.values()) if isinstance(extra, dict) else extra
            others = (names.get(name) for name in ("additional_special_tokens", "bos_token", "eos_token"))
            for token in itertools.chain(*map(_list, (extra, *others))):
                yield place, token, place == self._map_path

    def _check_options(self) -> None:
        """Refuses settings with which transformers gives other ids, or reads other files."""
        for name in ("truncation", "padding"):
            side = str(_object(self._rust, name).get("direction", "right")).lower()
            self._refuse_unless(f"{name}_side", self._settings.get(f"{name}_side", side), "right")
        other_file = "vocab_file" if self._rust is None else "tokenizer_file"
        for key in ("split_special_tokens", "init_inputs", "fast_tokenizer_files", other_file):
            self._refuse_unless(key, self._settings.get(key) or None, None)
        inputs = self._settings.get("model_input_names", ["token_type_ids", "attention_mask"])
        for name in ("token_type_ids", "attention_mask"):
            if not (isinstance(inputs, list) and name in inputs):
                raise InputError(f"{self._place('model_input_names')}: model_input_names lacks {name}; add it")

    def _check_rust(self, vocabulary: tuple[str, ...], tokens: dict[str, str]) -> None:
        """Refuses a `tokenizer.json` with other parts than BERT's."""
        self._refuse_unless("pre_tokenizer.type", _object(self._rust, "pre_tokenizer").get("type"), "BertPreTokenizer")
        self._refuse_unless("model.unk_token", _object(self._rust, "model").get("unk_token"), tokens["unk_token"])
        pad = _object(self._rust, "padding").get("pad_token", tokens["pad_token"])
        if not self._is_bert and "pad_token" not in self._settings:
            self._refuse_unless("padding.pad_token", pad, tokens["pad_token"])
        cls, sep = tokens["cls_token"], tokens["sep_token"]
        ids = {token: vocabulary.index(token) for token in (cls, sep)}
        if not _is_template(_object(self._rust, "post_processor"), cls, sep, ids):
            raise InputError(
                f"{self._rust_path}: post_processor is not BERT's: {cls} A {sep} B {sep} with their ids, and type 1 "
                f"for B {sep} alone; correct it, or give an encoder with BERT's tokenizer"
            )

    def _refuse_unless(self, key: str, value: Any, allowed: Any) -> None:
        if value != allowed:
            raise _refused(self._place(key) if key in self._settings else self._rust_path, key, value, allowed)


def _is_template(processor: dict[str, Any], cls: str, sep: str, ids: dict[str, int]) -> bool:
    """Tells whether a post-processor makes `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, the second text with type 1."""
    if processor.get("type") == "BertProcessing":
        return processor.get("cls") == [cls, ids[cls]] and processor.get("sep") == [sep, ids[sep]]

    def part(kind: str, name: str, type_id: int) -> dict[str, Any]:
        return {kind: {"id": name, "type_id": type_id}}

    single = [part("SpecialToken", cls, 0), part("Sequence", "A", 0), part("SpecialToken", sep, 0)]
    pair = [*single, part("Sequence", "B", 1), part("SpecialToken", sep, 1)]
    written = _object(processor, "special_tokens")
    return (
        processor.get("type") == "TemplateProcessing"
        and processor.get("single") == single
        and processor.get("pair") == pair
        and all(_object(written, token).get("ids") == [ids[token]] for token in (cls, sep))
    )


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _read_vocabulary(path: Path) -> tuple[str, ...]:
    try:
        with open(path, encoding="utf-8") as file:  # not splitlines(): pieces may be U+0085 or U+2028
            return tuple(line.rstrip("\n") for line in file)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't read it as UTF-8 text ({error}); one piece per line is expected") from None


def _wordpiece_vocabulary(rust: dict[str, Any], path: Path) -> tuple[str, ...]:
    """The vocabulary of a `tokenizer.json`, in the order of its ids."""
    model = {"type": "WordPiece"} | _object(rust, "model")  # files of 2020 do not say the type
    expected = {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": MAX_WORD_CHARS}
    for key, value in expected.items():
        if model.get(key) != value:
            raise InputError(
                f"{path}: model.{key} is {_shown(model.get(key))}, not {value!r}; give a BERT WordPiece encoder"
            )
    vocabulary = _object(model, "vocab")
    by_id = {index: piece for piece, index in vocabulary.items() if type(index) is int}
    if not by_id or by_id.keys() != set(range(len(vocabulary))):
        raise InputError(f"{path}: model.vocab must map pieces to the ids 0, 1, 2, ...; give a vocab.txt instead")
    return tuple(by_id[index] for index in range(len(by_id)))


def _content(value: Any, path: Path) -> str:
    """The text of a special token, which transformers writes as a string or as an AddedToken."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise InputError(f"{path}: special token {_shown(value)} must be a string or have a string as its content")
    return content


def _token(value: Any, path: Path, *, special: bool) -> str:
    """The text of a special token that is matched as it is written, wherever it stands in a text."""
    content = _content(value, path)
    fields = value if isinstance(value, dict) else {"special": True}
    fields = {"normalized": not (special or fields.get("special"))} | fields  # as transformers' AddedToken has it
    for option in ("lstrip", "rstrip", "single_word", "normalized"):
        if fields.get(option):
            raise InputError(f"{path}: {option} of {content!r} is true; only false works here, set it so")
    return content


def _value(parent: Any, key: str) -> Any:
    return parent.get(key) if isinstance(parent, dict) else None


def _object(parent: Any, key: str) -> dict[str, Any]:
    value = _value(parent, key)
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    """Wraps a value that is no list; nothing becomes an empty list."""
    return value if isinstance(value, list) else [value] if value else []


def _shown(value: Any) -> str:
    """A value of a file, short enough for a message."""
    return f"a {type(value).__name__}" if isinstance(value, dict | list) else repr(value)[:100]


def _refused(path: Path, key: str, value: Any, allowed: Any) -> InputError:
    rule = "it is not supported" if allowed is None else f"only {allowed!r} works"
    return InputError(f"{path}: {key} is {_shown(value)}; {rule}: correct it, or give an encoder with BERT's tokenizer")
