"""A tokenizer's files in the transformers layout, read with the precedence of transformers' `AutoTokenizer`.

Enters: `tokenizer_config.json`, `tokenizer.json`, `special_tokens_map.json`, `added_tokens.json`, `vocab.txt`, and the
tokenizer's class in `config.json`. Leaves: vocabulary, normalization and special tokens of `TokenizerSettings`.

Two files can say how texts are normalized. With a class of BERT's, `tokenizer_config.json` and the class's defaults
decide; with `PreTrainedTokenizerFast`, `tokenizer.json` does. If the two differ, tfpipe refuses the folder, since the
tokenizers library would give other ids than transformers. All else comes from `tokenizer.json`, if there is one.
tfpipe refuses content that gives other ids than BERT's own tokenizer, or that transformers 4 and 5 read differently.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfpipe.encoders.transformers import CONFIG, TOKENIZER, TOKENIZER_CONFIG, read_json
from tfpipe.encoders.vocabulary import shown
from tfpipe.errors import InputError

SPECIAL_TOKENS = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
ADDED_TOKENS = "added_tokens.json"

# With the suffix "Fast" or without. The first ones are one tokenizer under many names. Not among them: DistilBert's and
# RetriBert's answers have no token types, Funnel's [CLS] has its own type, and transformers 5 lower-cases for DPR's
# whatever do_lower_case says.
_BERT = (
    "BertTokenizer", "ConvBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer",
    "LayoutLMTokenizer", "LxmertTokenizer",
)  # fmt: skip
_FROM_JSON = ("PreTrainedTokenizer", "TokenizersBackend")  # the second is transformers 5's name for the first
# Name in `tokenizer_config.json` -> name in the normalizer of `tokenizer.json`, default.
_NORMALIZATION = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}
# What a setting may say, wherever it stands, although AutoTokenizer has no use for it: transformers' slow tokenizers,
# the Japanese one, and the makers of some encoders mean another tokenizer by any other value.
_STATED = {
    "do_basic_tokenize": (True,),
    "do_word_tokenize": (True,),
    "do_subword_tokenize": (True,),
    "word_tokenizer_type": ("basic", None),
    "subword_tokenizer_type": ("wordpiece", None),
    "clean_text": (True,),
    "wordpieces_prefix": ("##",),
    "max_input_chars_per_word": (100,),
}


class TokenizerFiles:
    """The files of a folder, parsed."""

    def __init__(self, directory: Path):
        """Reads every file but `vocab.txt`.

        Raises:
          InputError: a file is malformed, or another tokenizer's.
        """
        names = (TOKENIZER_CONFIG, TOKENIZER, "special_tokens_map.json", ADDED_TOKENS, CONFIG)
        self._config_path, self._rust_path, self._map_path, self._added_path, model_path = (
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

    def normalization(self) -> dict[str, bool | None]:
        """Reads `do_lower_case`, `strip_accents` and `tokenize_chinese_chars`.

        Raises:
          InputError: a value is neither true nor false, or `tokenizer.json` normalizes in another way.
        """
        normalizer = _object(self._rust, "normalizer")
        if self._rust is not None:
            self._refuse_unless("normalizer.type", normalizer.get("type"), "BertNormalizer")
            self._refuse_unless("normalizer.clean_text", normalizer.get("clean_text"), True)
        stated, written = {}, {}
        for name, (rust_name, default) in _NORMALIZATION.items():
            places = [(stated, self._place(name), name, self._settings.get(name, default))] if self._is_bert else []
            if self._rust is not None:
                places.append((written, self._rust_path, f"normalizer.{rust_name}", normalizer.get(rust_name)))
            for values, path, key, value in places:
                if not (isinstance(value, bool) or (value is None and default is None)):
                    raise InputError(f"{path}: {key} is {shown(value)}; it must be true or false")
                values[name] = value
        self._check_one_answer(stated, written)
        return stated if self._is_bert else written

    def _check_one_answer(self, stated: dict[str, bool | None], written: dict[str, bool | None]) -> None:
        """Refuses two files that normalize texts differently: programs differ in the file that they follow."""
        if self._rust is None:
            return
        if not self._is_bert:  # then tokenizer.json alone counts, and a setting may not say the opposite
            settings = {name: self._settings.get(name) for name in written}
            stated = written | {name: value for name, value in settings.items() if isinstance(value, bool)}
        for name, value in _in_effect(stated).items():
            if value != _in_effect(written)[name]:
                by_default = "" if name in self._settings else " by default"
                raise InputError(
                    f"{self._place(name)}: {name} is {stated[name]}{by_default}, but {self._rust_path.name} has "
                    f"normalizer.{_NORMALIZATION[name][0]} {written[name]}; correct the wrong one"
                )

    def special_tokens(self) -> dict[str, str]:
        """Reads the special tokens: name in transformers (`unk_token` and so on) -> token.

        Raises:
          InputError: a token is malformed, or texts match it in another way than as it is written.
        """
        # A token that stands in a list of added tokens too has the options of the list.
        listed = {_content(token, place) for place, token, *_ in self._lists()}
        tokens = {}
        for name in SPECIAL_TOKENS:
            value, place = self._settings.get(name), self._place(name)
            tokens[name] = _content(value, place) if value else f"[{name.removesuffix('_token').upper()}]"
            if value and tokens[name] not in listed:
                _token(value, place, special=name in self._map)
        return tokens

    def check(self, vocabulary: tuple[str, ...], tokens: dict[str, str]) -> None:
        """Checks that all else in the folder agrees with BERT's own tokenizer.

        Args:
          vocabulary: one piece per id.
          tokens: result of `special_tokens`, all of them in the vocabulary.

        Raises:
          InputError: it does not.
        """
        self._check_options(tokens)
        if self._rust is not None:
            self._check_rust(vocabulary, tokens)
        # A class of BERT's has all five; null takes one away.
        matched = {token for name, token in tokens.items() if self._settings.get(name, self._is_bert)}
        for place, value, special, index in itertools.chain(self._lists(), self._rust_tokens(), self._further_tokens()):
            if (token := _content(value, place)) not in tokens.values():
                raise InputError(f"{place}: added token {token!r} is not supported; remove it if no text has it")
            matched.add(_token(value, place, special=special))
            if index is not ... and str(index) != str(vocabulary.index(token)):
                raise InputError(
                    f"{place}: added token {token!r} has id {shown(index)}, and {vocabulary.index(token)} in the "
                    "vocabulary; correct the wrong one"
                )
        for name, token in tokens.items():
            if token not in matched:
                raise InputError(f"{self._place(name)}: {name} is not set, and {token!r} is no added token; set {name}")

    def _place(self, name: str) -> Path:
        return self._map_path if name in self._map else self._config_path

    def _lists(self) -> Iterator[tuple[Path, Any, bool, Any]]:
        """Yields the tokens that lists add: their place, the token, whether it counts as special, its id or `...`."""
        if "added_tokens_decoder" in self._config:
            decoder = self._config["added_tokens_decoder"] or {}
            for index, token in decoder.items() if isinstance(decoder, dict) else [(..., decoder)]:
                yield self._config_path, token, False, index
        else:
            named = [self._settings.get(name) for name in SPECIAL_TOKENS]
            for token, index in self._added.items():
                yield self._added_path, {"content": token}, token in named, index
            yield from self._rust_tokens()

    def _rust_tokens(self) -> Iterator[tuple[Path, Any, bool, Any]]:
        for token in _list(_value(self._rust, "added_tokens")):
            yield self._rust_path, token, True, _value(token, "id")

    def _further_tokens(self) -> Iterator[tuple[Path, Any, bool, Any]]:
        """Yields, as `_lists` does, tokens that are added under names that BERT has no use for."""
        for place, names in ((self._config_path, self._config), (self._map_path, self._map)):
            extra = names.get("extra_special_tokens")
            extra = list(extra.values()) if isinstance(extra, dict) else extra
            # transformers 5 adds the value of every key that ends like this.
            others = (
                value
                for name, value in names.items()
                if name.endswith("_token") and name not in SPECIAL_TOKENS and isinstance(value, str | dict)
            )
            for token in itertools.chain(*map(_list, (extra, names.get("additional_special_tokens"), *others))):
                yield place, token, place == self._map_path, ...

    def _check_options(self, tokens: dict[str, str]) -> None:
        """Refuses settings with which transformers gives other ids, or reads other files."""
        for name in ("truncation", "padding"):
            side = str(_object(self._rust, name).get("direction", "right")).lower()
            self._refuse_unless(f"{name}_side", self._settings.get(f"{name}_side", side), "right")
        for key, allowed in _STATED.items():
            if key in self._settings and self._settings[key] not in allowed:
                self._refuse_unless(key, self._settings[key], allowed[0])
        for token in _list(self._settings.get("never_split")):
            if token not in tokens.values():  # these are never split
                raise _refused(self._place("never_split"), "never_split", token, None)
        if auto_map := self._settings.get("auto_map"):
            own = auto_map.get("AutoTokenizer") if isinstance(auto_map, dict) else auto_map
            self._refuse_unless("auto_map", own, None)
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


def _in_effect(values: dict[str, bool | None]) -> dict[str, bool]:
    """Returns the options that texts go through: if `strip_accents` is None, it is that of `do_lower_case`."""
    strip = values["strip_accents"]
    return {**values, "strip_accents": values["do_lower_case"] if strip is None else strip}


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


def _content(value: Any, path: Path) -> str:
    """Returns the text of a special token, which transformers writes as a string or as an AddedToken."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise InputError(f"{path}: special token {shown(value)} must be a string or have a string as its content")
    return content


def _token(value: Any, path: Path, *, special: bool) -> str:
    """Returns the text of a special token, and checks that it is matched as it is written, anywhere in a text."""
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
    """Wraps a value that is no list; an empty value becomes an empty list."""
    return value if isinstance(value, list) else [value] if value else []


def _refused(path: Path, key: str, value: Any, allowed: Any) -> InputError:
    rule = "it is not supported" if allowed is None else f"only {allowed!r} works"
    return InputError(f"{path}: {key} is {shown(value)}; {rule}: correct it, or give an encoder with BERT's tokenizer")
