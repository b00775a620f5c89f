"""Folders of tokenizer files: the ids of transformers' AutoTokenizer, or a line that names the file and the field."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tfpipe.errors import InputError
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

SPECIAL = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
PIECES = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] Paris paris is Is École ecole école film ##s a A b ab ##b é É e 汉 字 汉字 [ ] "
    "mask sep MASK SEP ##mask ## ½ < > x <x> <X> ! aa [X]"
).split()
TEXTS = [
    "Paris Is École films",
    "E\u0301cole é É \u0301",
    "汉字 a汉b 豈",
    "a\0b \x01A\x7f\u200d \ue000 \ufffd",
    "a\u00a0b\u3000A\tb\u2028a",
    "[MASK] a[MASK]b [mask] [Mask] [SEP] [CLS][PAD] [UNK] [sep]",
    " [MASK] , [ MASK] <x> <X> a<x>b [X]",
    "½ ﬁ ! aa?",
    "a" * 101,
    "a a a a a a a a b b b b b b",
    "",
    "unknown words",
]
PAIRS = [*TEXTS[3:], *TEXTS[:3]]
MAX_LENGTH = 11
VARIANTS = [
    {"do_lower_case": lower, "strip_accents": strip, "tokenize_chinese_chars": chinese}
    for lower, strip, chinese in (
        (True, None, True), (False, None, True), (True, False, True), (False, True, True), (True, None, False),
    )
]  # fmt: skip


def added_token(piece: str, **changes) -> dict:
    options = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": PIECES.index(piece), "content": piece} | options | changes


def rust_of(variant: dict) -> dict:
    """A `tokenizer.json`, as transformers writes it."""
    template = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    template += [{"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    tokens = {token: {"id": token, "ids": [PIECES.index(token)], "tokens": [token]} for token in ("[CLS]", "[SEP]")}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(piece) for piece in PIECES[:5]],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": variant["tokenize_chinese_chars"],
            "strip_accents": variant["strip_accents"],
            "lowercase": variant["do_lower_case"],
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": [*template, *second],
            "special_tokens": tokens,
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {piece: number for number, piece in enumerate(PIECES)},
        },
    }


def folder_of(config: dict | None, normalizer: dict | None, vocabulary: bool = True) -> dict:
    """Name of a file -> its content; None where it is not there."""
    return {
        "config.json": {"model_type": "bert"},
        "tokenizer_config.json": config,
        "tokenizer.json": None if normalizer is None else rust_of(normalizer),
        "special_tokens_map.json": None,
        "added_tokens.json": None,
        "vocab.txt": PIECES if vocabulary else None,
    }


def write(folder: dict, directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name, content in folder.items():
        if content is not None:
            text = "".join(f"{piece}\n" for piece in content) if name == "vocab.txt" else json.dumps(content)
            (directory / name).write_text(text, encoding="utf-8")
    return directory


@functools.lru_cache(maxsize=64)
def answers_of(found: TokenizerSettings) -> list[tuple[dict, dict]]:
    """What tfpipe makes of the texts, and of the pairs: rows of their own length, and padded."""
    tokenizer, answers = Tokenizer(found, MAX_LENGTH), []
    for columns in ((TEXTS,), (TEXTS, PAIRS)):
        ids, types = tokenizer.encode(*map(tf.constant, columns))
        dense = {name: value.numpy().tolist() for name, value in tokenizer.dense(*map(tf.constant, columns)).items()}
        answers.append(({"input_ids": ids.to_list(), "token_type_ids": types.to_list()}, dense))
    return answers


def compare(found: TokenizerSettings, reference: PreTrainedTokenizerBase) -> None:
    """Fails where the ids, the types or the masks differ."""
    # The generic class of transformers 5 makes token types, and hands them out where they are asked for.
    encode = functools.partial(reference, truncation=True, max_length=MAX_LENGTH, return_token_type_ids=True)
    for (rows, dense), pairs in zip(answers_of(found), (None, PAIRS), strict=True):
        expected = dict(encode(TEXTS, pairs))
        assert rows == {name: expected[name] for name in rows}
        if reference.pad_token is not None:
            assert dense == encode(TEXTS, pairs, padding=True)


def outcome(folder: dict, directory: Path) -> str:
    """`equal`, `refused`, or `nothing to compare` where transformers reads no tokenizer; fails where ids differ."""
    write(folder, directory)
    try:
        found = TokenizerSettings.read(directory)
    except InputError as error:
        assert "\n" not in str(error)
        assert any(f"{directory / name}: " in str(error) for name, content in folder.items()), error
        return "refused"
    try:
        reference = AutoTokenizer.from_pretrained(directory)
        reference(TEXTS)
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return "nothing to compare"
    compare(found, reference)
    return "equal"


NAMED = [{}, SPECIAL]
BERT_CLASSES = [None, "BertTokenizer", "BertTokenizerFast", "ElectraTokenizer", "ConvBertTokenizerFast"]
BERT_CLASSES += ["MobileBertTokenizer", "SqueezeBertTokenizer", "LayoutLMTokenizerFast", "LxmertTokenizer"]


def in_effect(said: dict) -> tuple:
    """What texts go through."""
    lower, strip = said.get("do_lower_case", True), said.get("strip_accents")
    return lower, lower if strip is None else strip, said.get("tokenize_chinese_chars", True)


@pytest.mark.parametrize("name", BERT_CLASSES)
def test_classes_of_bert_read_the_configuration(tmp_path, name):
    """Every ordinary folder is read, whichever files are there, unless two of them normalize differently."""
    said = [{}, *VARIANTS, {"do_lower_case": False}, {"strip_accents": True}]
    normalizers = [None, *VARIANTS[:4]]
    for config, normalizer, named, vocabulary in itertools.product(said, normalizers, NAMED, (True, False)):
        if normalizer is not None or vocabulary:
            kind = {} if name is None else {"tokenizer_class": name}
            folder = folder_of({**config, **named, **kind}, normalizer, vocabulary)
            expected = "equal" if normalizer is None or in_effect(config) == in_effect(normalizer) else "refused"
            assert outcome(folder, tmp_path / "folder") == expected, (config, normalizer, named, vocabulary)


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "PreTrainedTokenizer"])
def test_the_generic_class_reads_tokenizer_json(tmp_path, name):
    for config, normalizer, named, vocabulary in itertools.product(
        [{}, {"do_lower_case": True}, {"do_lower_case": "no"}], VARIANTS, NAMED, (True, False)
    ):
        folder = folder_of({"tokenizer_class": name, **config, **named}, normalizer, vocabulary)
        opposite = config.get("do_lower_case") is True and not normalizer["do_lower_case"]
        expected = "refused" if opposite else "equal"
        assert outcome(folder, tmp_path / "folder") == expected, (config, normalizer, named, vocabulary)
    folder = folder_of({"tokenizer_class": name}, None)
    assert outcome(folder, tmp_path / "folder") == "refused"


def test_the_class_may_stand_in_the_configuration_of_the_model(tmp_path):
    for name in ("PreTrainedTokenizerFast", "BertTokenizer"):
        folder = folder_of({}, VARIANTS[0])
        folder["config.json"]["tokenizer_class"] = name
        assert outcome(folder, tmp_path / "folder") == "equal"
        folder["config.json"]["tokenizer_class"] = "BertJapaneseTokenizer"
        assert outcome(folder, tmp_path / "folder") == "refused"
        folder["tokenizer_config.json"]["tokenizer_class"] = name
        assert outcome(folder, tmp_path / "folder") == "equal"


# What a folder can say beside the ordinary: file, path inside it, value; `Ellipsis` takes the value away.
CONFIG, RUST, MAP = "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"
NFC_FIRST = {"type": "Sequence", "normalizers": [{"type": "NFC"}, rust_of(VARIANTS[1])["normalizer"]]}
MASK_AT_4 = {"4": {key: value for key, value in added_token("[MASK]").items() if key != "id"}}


def other_template(pair_type: int = 1, sep: str = "[SEP]", ids: tuple[int, ...] = (3,)) -> dict:
    processor = rust_of(VARIANTS[0])["post_processor"]
    text = json.dumps(processor).replace('"B", "type_id": 1', f'"B", "type_id": {pair_type}')
    processor = json.loads(text.replace("[SEP]", sep))
    processor["special_tokens"][sep]["ids"] = list(ids)
    return processor


OTHERS = "DistilBert DPRContextEncoder DPRReader Funnel Herbert LayoutLMv2 MPNet ProphetNet RetriBert RoCBert RoFormer "
OTHERS = (OTHERS + "Splinter Tapas TFBert X").split()
READ = [
    (MAP, "", SPECIAL),
    (MAP, "", {"mask_token": added_token("[MASK]")}),
    (MAP, "", {"additional_special_tokens": ["[MASK]"]}),
    (CONFIG, "mask_token", {"__type": "AddedToken"} | MASK_AT_4["4"]),
    (CONFIG, "added_tokens_decoder", MASK_AT_4),
    (CONFIG, "added_tokens_decoder", {}),
    (CONFIG, "bos_token", "[CLS]"),
    (CONFIG, "eos_token", None),
    (CONFIG, "additional_special_tokens", []),
    (CONFIG, "extra_special_tokens", {}),
    (CONFIG, "model_max_length", 7),
    (CONFIG, "padding_side", "right"),
    (CONFIG, "never_split", None),
    (CONFIG, "never_split", ["[MASK]", "[UNK]"]),
    (CONFIG, "do_basic_tokenize", True),
    (CONFIG, "clean_text", True),
    (CONFIG, "word_tokenizer_type", "basic"),
    (CONFIG, "subword_tokenizer_type", "wordpiece"),
    (CONFIG, "wordpieces_prefix", "##"),
    (CONFIG, "auto_map", {"AutoModel": "x.Y"}),
    (CONFIG, "more_token", "[MASK]"),
    (CONFIG, "add_bos_token", False),
    (CONFIG, "tokenizer_file", None),
    (CONFIG, "name_or_path", "bert-base-uncased"),
    (CONFIG, "split_special_tokens", False),
    (CONFIG, "model_input_names", ["input_ids", "token_type_ids", "attention_mask"]),
    (CONFIG, "backend", "tokenizers"),
    (CONFIG, "local_files_only", False),
    (RUST, "truncation", {"direction": "Right", "max_length": 6, "strategy": "OnlyFirst", "stride": 2}),
    (
        RUST,
        "padding",
        {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": 4, "pad_id": 0, "pad_type_id": 1}
        | {"pad_token": "[PAD]"},
    ),
    (RUST, "post_processor", {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}),
    (RUST, "model.type", ...),
    (RUST, "decoder", None),
    (RUST, "added_tokens.4.special", False),
    (RUST, "normalizer.strip_accents", ...),
    ("added_tokens.json", "", {}),
]
REFUSED = [
    (CONFIG, "tokenizer_class", "BertJapaneseTokenizer"),
    *((CONFIG, "tokenizer_class", f"{name}Tokenizer") for name in OTHERS),
    (CONFIG, "tokenizer_class", "RobertaTokenizerFast"),
    (CONFIG, "tokenizer_class", 3),
    (CONFIG, "truncation_side", "left"),
    (CONFIG, "padding_side", "left"),
    (CONFIG, "split_special_tokens", True),
    (CONFIG, "model_input_names", ["input_ids", "attention_mask"]),
    (CONFIG, "model_input_names", ["input_ids", "token_type_ids"]),
    (CONFIG, "bos_token", "<x>"),
    (CONFIG, "eos_token", "a"),
    (CONFIG, "additional_special_tokens", ["<x>"]),
    (CONFIG, "extra_special_tokens", {"more": "<x>"}),
    (CONFIG, "added_tokens_decoder", {"4": {"content": "[MASK]"}}),  # normalized, as it is not special
    (CONFIG, "added_tokens_decoder", {"41": added_token("<x>", id=...)}),
    (CONFIG, "added_tokens_decoder", {"7": MASK_AT_4["4"]}),
    (CONFIG, "fast_tokenizer_files", ["tokenizer.4.0.0.json"]),
    (CONFIG, "never_split", ["Paris"]),
    (CONFIG, "never_split", "Paris"),
    (CONFIG, "do_basic_tokenize", False),
    (CONFIG, "do_basic_tokenize", None),  # as good as false
    (CONFIG, "clean_text", False),
    (CONFIG, "word_tokenizer_type", "mecab"),
    (CONFIG, "subword_tokenizer_type", "character"),
    (CONFIG, "wordpieces_prefix", "@@"),
    (CONFIG, "max_input_chars_per_word", 50),
    (CONFIG, "auto_map", {"AutoTokenizer": ["x.Y", None]}),
    (CONFIG, "auto_map", ["x.Y", None]),
    (CONFIG, "more_token", "<x>"),
    (CONFIG, "more_token", {"__type": "AddedToken"} | MASK_AT_4["4"] | {"content": "<x>"}),
    (MAP, "", {"more_token": "<x>"}),
    (MAP, "", {"additional_special_tokens": ["<x>"]}),
    (RUST, "truncation", {"direction": "Left", "max_length": 6, "strategy": "LongestFirst", "stride": 0}),
    (RUST, "normalizer", NFC_FIRST),
    (RUST, "normalizer", {"type": "Lowercase"}),
    (RUST, "normalizer", None),
    (RUST, "normalizer.clean_text", False),
    (RUST, "pre_tokenizer", {"type": "Whitespace"}),
    (RUST, "pre_tokenizer", None),
    (RUST, "post_processor", None),
    (RUST, "post_processor", other_template(pair_type=0)),
    (RUST, "post_processor", other_template(sep="[X]", ids=(41,))),
    (RUST, "post_processor", other_template(ids=(4,))),
    (RUST, "post_processor", {"type": "BertProcessing", "sep": ["[SEP]", 4], "cls": ["[CLS]", 2]}),
    (RUST, "model.unk_token", "[X]"),
    (RUST, "model.max_input_chars_per_word", 50),
    (RUST, "model.continuing_subword_prefix", "@@"),
    (RUST, "model.vocab.x", ...),
    (RUST, "added_tokens.4.normalized", True),
    (RUST, "added_tokens.4.single_word", True),
    (RUST, "added_tokens.5", added_token("<x>")),
    (RUST, "added_tokens.4.id", 7),
    ("added_tokens.json", "", {"<x>": 38}),
    ("added_tokens.json", "", {"[MASK]": 7}),
]
# Refused or read, as the rest of the folder has it.
EITHER = [
    (MAP, "", {"mask_token": added_token("<x>")}),
    (CONFIG, "sep_token", "[X]"),
    (CONFIG, "unk_token", "[X]"),
    (CONFIG, "mask_token", None),
    (CONFIG, "mask_token", ""),
    (CONFIG, "cls_token", None),
    (CONFIG, "pad_token", ...),
    (CONFIG, "mask_token", {"__type": "AddedToken", "content": "[MASK]", "normalized": True}),
    (CONFIG, "mask_token", {"__type": "AddedToken", "content": "[MASK]"}),
    (CONFIG, "mask_token", {"__type": "AddedToken", "content": "[MASK]", "single_word": True}),
    (MAP, "", {"mask_token": {"content": "[MASK]", "single_word": True}}),
    (MAP, "", {"mask_token": None}),
    (MAP, "", {"mask_token": "[X]"}),
    (MAP, "", {"tokenizer_class": "DistilBertTokenizer"}),
    ("added_tokens.json", "", {"[MASK]": 4}),
    (RUST, "added_tokens", []),
    (RUST, "added_tokens", ...),
    (RUST, "added_tokens.4", ...),
    (MAP, "", {"do_lower_case": False}),
    (CONFIG, "tokenizer_file", "elsewhere/tokenizer.json"),
    (CONFIG, "vocab_file", "elsewhere/vocab.txt"),
    (CONFIG, "from_slow", True),
    (CONFIG, "tokenizer_class", "TokenizersBackend"),
    (CONFIG, "tokenizer_class", "DPRReaderTokenizer"),
    (CONFIG, "do_lower_case", None),
    (CONFIG, "strip_accents", None),
    (CONFIG, "tokenize_chinese_chars", 1),
    (RUST, "post_processor", {"type": "Sequence", "processors": [other_template()]}),
    (RUST, "padding", {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None, "pad_id": 5,
     "pad_type_id": 0, "pad_token": "Paris"}),
]  # fmt: skip


def changed(folder: dict, change: tuple) -> dict:
    name, path, value = change
    folder, value = copy.deepcopy(folder), copy.deepcopy(value)
    if folder[name] is None and path:
        return folder
    if not path:
        folder[name] = value
        return folder
    *parents, last = path.split(".")
    node = folder[name]
    for key in parents:
        node = node[int(key) if isinstance(node, list) else key]
    if isinstance(node, list):
        node[int(last) : int(last) + 1] = [] if value is ... else [value]
    elif value is ...:
        node.pop(last, None)
    else:
        if isinstance(value, dict) and path == "added_tokens_decoder":
            value = {index: {k: v for k, v in token.items() if v is not ...} for index, token in value.items()}
        node[last] = value
    return folder


BERT = folder_of({"tokenizer_class": "BertTokenizer", **SPECIAL}, VARIANTS[0])
GENERIC = folder_of({"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL}, VARIANTS[1], vocabulary=False)
PLAIN = folder_of({"tokenizer_class": "BertTokenizer"}, None)
BASES = {"bert": BERT, "generic": GENERIC, "plain": PLAIN}


@pytest.mark.parametrize("base", BASES)
def test_single_changes(tmp_path, base):
    """What changes no id is read, all else is refused by the name of a file; nothing is read otherwise."""
    folder, wrong = BASES[base], []
    for expected, changes in (("equal", READ), ("refused", REFUSED), (None, EITHER)):
        for change in changes:
            new = changed(folder, change)
            found = outcome(new, tmp_path / "folder")
            if expected is not None and found not in (expected, "nothing to compare") and new != folder:
                wrong.append((found, change))
    assert not wrong


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    base=st.sampled_from(sorted(BASES)),
    normalizer=st.sampled_from(VARIANTS),
    config=st.fixed_dictionaries({}, optional={"do_lower_case": st.booleans(), "strip_accents": st.booleans()}),
    changes=st.lists(st.sampled_from([*READ, *EITHER, *REFUSED[4:20]]), max_size=3),
)
def test_combined_changes(tmp_path_factory, base, normalizer, config, changes):
    folder = copy.deepcopy(BASES[base])
    folder["tokenizer_config.json"] |= config
    if folder["tokenizer.json"] is not None:
        folder["tokenizer.json"]["normalizer"] = rust_of(normalizer)["normalizer"]
    for change in changes:
        if "." not in change[1]:  # a path into what another change took away
            folder = changed(folder, change)
    outcome(folder, tmp_path_factory.getbasetemp() / "combined")


PLAIN_TEXT = "".join(f"{piece}\n" for piece in PIECES)
FORMS = {
    "lines of Windows": PLAIN_TEXT.replace("\n", "\r\n"),
    "no line end at the end": PLAIN_TEXT.removesuffix("\n"),
    "blank lines at the end": PLAIN_TEXT + "\n\r\n\n",
    "a blank line": PLAIN_TEXT.replace("Paris\n", "Paris\n\n"),
    "pieces of white space": PLAIN_TEXT.replace("Paris\n", "Paris\n\u2028\n\x85\n\x1c\n\u3000\n"),
    "a piece that begins with white space": PLAIN_TEXT.replace("Paris\n", "Paris\n a\n"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("config", [{}, {"do_lower_case": False}, None])
def test_forms_of_vocab_txt(tmp_path, form, config):
    """Also without tokenizer_config.json: then texts are lower-cased."""
    folder = folder_of(config, None)

    def check(directory: Path) -> None:
        found = TokenizerSettings.read(directory)
        assert found.do_lower_case == (config is None or config.get("do_lower_case", True))
        compare(found, AutoTokenizer.from_pretrained(directory))

    directory = write(folder, tmp_path / "folder")
    (directory / "vocab.txt").write_bytes(FORMS[form].encode())
    check(directory)
    TokenizerSettings.read(directory).write(directory)
    check(directory)


@pytest.mark.parametrize("lower", [True, False])
def test_tokenizer_json_alone(tmp_path, lower):
    """Without tokenizer_config.json, transformers lower-cases whatever tokenizer.json says."""
    folder = folder_of(None, VARIANTS[0 if lower else 1], vocabulary=False)
    assert outcome(folder, tmp_path / "folder") == ("equal" if lower else "refused")
    if not lower:
        message = (
            r"tokenizer_config.json: do_lower_case is True by default, but tokenizer.json has normalizer.lowercase"
        )
        with pytest.raises(InputError, match=message):
            TokenizerSettings.read(tmp_path / "folder")


TOKEN = st.text(st.sampled_from("$AB:0;[]##bxXé \t\u00a0\u3000\ue000\\{}\"'字%|"), min_size=2, max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    variant=st.sampled_from(VARIANTS),
    tokens=st.dictionaries(st.sampled_from(sorted(SPECIAL)), TOKEN, max_size=2),
)
def test_written_settings_load_in_transformers(tmp_path_factory, variant, tokens):
    """Whatever settings are allowed, AutoTokenizer reads the same ones."""
    directory = tmp_path_factory.getbasetemp() / "written"
    write(GENERIC | {"added_tokens.json": {"<x>": 38}}, directory)  # an older tokenizer's files
    named = SPECIAL | tokens
    texts = ["a {} b{}É".format(*pair) for pair in itertools.product(named.values(), repeat=2)]
    texts += [text.lower() for text in texts]
    try:
        written = TokenizerSettings(tuple(dict.fromkeys([*PIECES, *named.values()])), **variant, **named)
    except InputError:
        return
    written.write(directory)
    assert TokenizerSettings.read(directory) == written
    reference = AutoTokenizer.from_pretrained(directory)
    ids, types = Tokenizer(written, 64).encode(texts, texts[::-1])
    expected = reference(texts, texts[::-1], truncation=True, max_length=64)
    assert ids.to_list() == expected["input_ids"] and types.to_list() == expected["token_type_ids"]
