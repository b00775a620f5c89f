"""Vocabularies and tokenizer settings: the ids of transformers, or a line that names the file."""

from __future__ import annotations

import functools

from fuzz.harness import TALLIES, VALUES, attempt, fuzz, json_text, mutated, mutated_tree
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer

from tfpipe.encoders.source import vocabulary_of
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import SPECIAL_TOKENS, TokenizerSettings

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "b",
    "##a",
    "##b",
    "the",
    "##s",
    "é",
    "汉",
    ".",
    "the.",
    "İ",
    "ß",
]
CONFIG = {
    "do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True, "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": {"content": "[PAD]", "lstrip": False, "__type": "AddedToken"}, "tokenizer_class": "BertTokenizer",
    "added_tokens_decoder": {"0": {"content": "[PAD]", "special": True}},
}  # fmt: skip
RUST = {
    "normalizer": {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
    "model": {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {piece: number for number, piece in enumerate(PIECES)},
    },
    "added_tokens": [
        {"content": piece, "id": index, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False,
         "special": True}
        for index, piece in enumerate(PIECES[:5])
    ],
}  # fmt: skip
ADDED = {"[MASK]": 4}
MODEL = {"model_type": "bert", "tokenizer_class": "PreTrainedTokenizerFast"}
MAP = {"cls_token": "[CLS]", "additional_special_tokens": []}
CLEANING = {"html": True, "unicode": "NFC", "stop_words": ["the"]}
FILES = {
    "tokenizer_config.json": CONFIG,
    "tokenizer.json": RUST,
    "special_tokens_map.json": MAP,
    "added_tokens.json": ADDED,
    "config.json": MODEL,
    "cleaning.json": CLEANING,
}
VOCABULARY = "\n".join(PIECES).encode() + b"\n"


@st.composite
def directories(draw):
    """Name of a file -> its content; one or two are damaged."""
    contents = {name: json_text(tree).encode() for name, tree in FILES.items()} | {"vocab.txt": VOCABULARY}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(contents)))
        if name == "vocab.txt" or draw(st.integers(0, 3)) == 0:
            contents[name] = draw(mutated([contents[name]], (b"\n", b"[PAD]\n", b"##", b"\n\n")))
        else:
            contents[name] = json_text(draw(mutated_tree([FILES[name]], (*VALUES, "[MASK]", "[X]", ["[X]"])))).encode()
    absent = draw(st.sets(st.sampled_from(sorted(contents)), max_size=2))
    return {name: content for name, content in contents.items() if name not in absent}


def test_tokenizer_files(tmp_path):
    written = tmp_path / "written"

    def check(contents) -> bool:
        for name in (*FILES, "vocab.txt"):
            (tmp_path / name).unlink(missing_ok=True)
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        found, refused = attempt(lambda: TokenizerSettings.read(tmp_path), *FILES, "vocab.txt")
        if refused is None:
            assert all(isinstance(getattr(found, name), str) for name in SPECIAL_TOKENS)
            assert all(isinstance(getattr(found, name), bool) for name in ("do_lower_case", "html"))
            found.write(written)
            assert TokenizerSettings.read(written) == found
            assert vocabulary_of(written) == list(found.vocabulary)  # as near duplicates and the report read it
        return refused is not None

    deep = b"[" * 100_000
    always = [{"vocab.txt": VOCABULARY, name: deep} for name in FILES]
    always += [
        {"vocab.txt": content}
        for content in (b"", b"\n", VOCABULARY * 2, b"\xff\xfe", VOCABULARY.decode().encode("utf-16"))
    ]
    always += [
        {"vocab.txt": VOCABULARY + piece.encode() + b"\n"} for piece in ("\x1c", "\x85", "\u2028", "\0", "\v", "\ufeff")
    ]
    always += [{"vocab.txt": VOCABULARY, "cleaning.json": b'{"stop_words": ["\\ud800"]}'}]
    always += [
        {
            "tokenizer.json": json_text(
                RUST | {"model": RUST["model"] | {"vocab": RUST["model"]["vocab"] | {"\ud800": 17}}}
            ).encode()
        }
    ]
    fuzz("tokenizer files", directories(), check, always)


# Folders as transformers 4 and 5 write them, changed as people and other programs change them.
FIELDS = (
    None, True, False, 0, 1, 4, 7, 50, 100, "", "a", "the", "##", "[MASK]", "[X]", "right", "Left", "mecab", "basic",
    [], {}, ["[MASK]"], ["a"], {"content": "[MASK]", "special": True}, {"content": "a", "normalized": True},
    {"AutoTokenizer": ["x.Y", None]}, "BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast",
    "DistilBertTokenizer", "BertJapaneseTokenizer", "WordPiece", "BPE", "Unigram", "BertNormalizer", "Lowercase",
    "BertPreTokenizer", "Whitespace", "TemplateProcessing",
)  # fmt: skip
MORE_KEYS = (
    "do_lower_case", "strip_accents", "tokenize_chinese_chars", "never_split", "do_basic_tokenize", "clean_text",
    "word_tokenizer_type", "subword_tokenizer_type", "model_max_length", "padding_side", "truncation_side",
    "split_special_tokens", "extra_special_tokens", "additional_special_tokens", "bos_token", "image_token",
    "added_tokens_decoder", "auto_map", "model_input_names", "backend", "tokenizer_file",
)  # fmt: skip
FOLDERS = (
    {"tokenizer_config.json": CONFIG, "config.json": {"model_type": "bert"}},
    {"tokenizer_config.json": CONFIG | {"do_lower_case": False}, "config.json": MODEL,
     "tokenizer.json": RUST | {"normalizer": RUST["normalizer"] | {"lowercase": False}}},
    {"tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "backend": "tokenizers"}, "tokenizer.json": RUST,
     "config.json": {"model_type": "bert"}},
    {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "[MASK]"},
     "tokenizer.json": RUST, "special_tokens_map.json": MAP, "added_tokens.json": ADDED,
     "config.json": {"model_type": "bert"}},
)  # fmt: skip
IN_TEXTS = ["The thes É a\u0301b [MASK] a[MASK]b [mask] 汉a ß İ .a\0b", "[X] ab the. abab \u2028b", "", "a" * 101]


@st.composite
def folders(draw):
    """Name of a file -> its content, of a folder that differs a little from a good one."""
    trees = draw(mutated_tree(FOLDERS, FIELDS, most=2))
    config = trees.get("tokenizer_config.json")
    if isinstance(config, dict) and draw(st.booleans()):
        config[draw(st.sampled_from(MORE_KEYS))] = draw(st.sampled_from(FIELDS))
    vocabulary = draw(st.sampled_from([None, *[VOCABULARY] * 4, VOCABULARY.replace(b"\n", b"\r\n")]))
    if vocabulary and draw(st.integers(0, 9)) == 0:
        vocabulary = draw(mutated([vocabulary], (b"\n", b"a\n", b"\n\n", b" \n", b"\r"), most=2))
    contents = {name: json_text(tree).encode() for name, tree in trees.items() if name in FILES}
    return contents | ({"vocab.txt": vocabulary} if vocabulary is not None else {})


@functools.lru_cache(maxsize=64)
def ids_of(settings: TokenizerSettings) -> list[list[list[int]]]:
    tokenizer = Tokenizer(settings, 16)
    return [tokenizer.encode(*columns)[0].to_list() for columns in ((IN_TEXTS,), (IN_TEXTS, IN_TEXTS[::-1]))]


def test_tokenizer_folders(tmp_path):
    """A folder is read with the ids of transformers' fast tokenizer, or refused."""
    compared = 0

    def check(contents) -> bool:
        nonlocal compared
        for name in (*FILES, "vocab.txt"):
            (tmp_path / name).unlink(missing_ok=True)
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        found, refused = attempt(lambda: TokenizerSettings.read(tmp_path), *FILES, "vocab.txt")
        if refused is None and "cleaning.json" not in contents:
            try:
                reference = AutoTokenizer.from_pretrained(tmp_path)
                expected = [
                    reference(IN_TEXTS, pairs, truncation=True, max_length=16)["input_ids"]
                    for pairs in (None, IN_TEXTS[::-1])
                ]
            except BaseException as error:  # a panic of the tokenizers library is no Exception
                if isinstance(error, KeyboardInterrupt):
                    raise
                return False  # nothing to compare with
            assert ids_of(found) == expected
            compared += 1
        return refused is not None

    fuzz("tokenizer folders", folders(), check, [])
    assert compared > TALLIES["tokenizer folders"].cases // 20  # else the target tests nothing


TEXT = st.lists(
    st.sampled_from([*PIECES, " ", "  ", "the", "thes", "ab", "É", "e\u0301", "[MASK]", "[SEP", "\0", "\u2028", "½",
    "ﬁ", "\ufffd", "x" * 101, "a" * 100])
    | st.text(max_size=3),
    max_size=8,
).map("".join)  # fmt: skip


def same_ids(tokenizer: Tokenizer, reference: BertTokenizer, texts: list[str]) -> None:
    ids = tokenizer.encode(texts)[0].to_list()
    assert ids == reference(texts, truncation=True, max_length=tokenizer.max_length)["input_ids"]


def test_vocabularies(tmp_path):
    alphabet = st.sampled_from(
        [*"ab.#é汉ßſıİ¼\u0301\u00a0\u2028\ufeff\ue000\ufffdΣ", "##", "[", "]", "the", "\x85"]
    ) | st.characters(exclude_categories=("Cs",), exclude_characters="\r\n")
    pieces = st.lists(st.lists(alphabet, max_size=3).map("".join), max_size=12, unique=True)
    marks = st.sampled_from([{}, {}, {"unk_token": "<unk>"}, {"mask_token": "##m"}, {"pad_token": "p!"}])
    cases = st.tuples(pieces, marks, st.lists(TEXT, min_size=1, max_size=4), st.booleans())

    def check(case) -> bool:
        pieces, marks, texts, lower = case
        special = dict(zip(SPECIAL_TOKENS, ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"), strict=True)) | marks
        vocabulary = tuple(dict.fromkeys([*special.values(), *pieces]))
        settings, refused = attempt(
            lambda: TokenizerSettings(vocabulary, do_lower_case=lower, **special), "vocabulary", "_token"
        )
        if refused is None:
            settings.write(tmp_path)
            tokenizer = Tokenizer(settings, 64)
            same_ids(tokenizer, BertTokenizer.from_pretrained(tmp_path), [*texts, "".join(pieces), " ".join(pieces)])
        return refused is not None

    fuzz("tokenizer, vocabularies", cases, check)


def test_texts(tmp_path):
    tokenizers = []
    for lower in (True, False):
        directory = tmp_path / str(lower)
        settings = TokenizerSettings(tuple(PIECES), do_lower_case=lower)
        settings.write(directory)
        tokenizers.append((Tokenizer(settings, 32), BertTokenizer.from_pretrained(directory)))
    # Nothing but text reaches the tokenizer; what a mark that is not in its canonical order becomes, see tokenizer.py.
    texts = st.lists(
        TEXT | mutated([t.encode() for t in ("the [MASK] a\u0301b", "b" * 90, "汉字 é")]).map(decoded),
        min_size=1,
        max_size=5,
    )

    def check(texts: list[str]) -> bool:
        for tokenizer, reference in tokenizers:
            same_ids(tokenizer, reference, texts)
        return False

    fuzz(
        "tokenizer, texts",
        texts,
        check,
        [["a" * 300_000], [" " * 300_000], ["a " * 100_000], ["\0" * 1000], ["[MASK]" * 10_000]],
    )


def decoded(content: bytes) -> str:
    return content.decode("utf-8", "ignore")
