"""Ids without TensorFlow: those of the graph, for every character, setting, cut and cleaning."""

import random
import subprocess
import sys
import unicodedata
from dataclasses import replace

import pytest
from test_tokenizer import EDGE_TEXTS, KEPT_MARKS, SPECIAL, VARIANTS, alphabet_settings, english, reviews

from tfpipe.evaluate.golden import HARD_TEXTS
from tfpipe.tokens.fast_tokenizer import FastTokenizer, can_repeat
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

__all__ = ["english", "reviews"]

HARD = [*EDGE_TEXTS, *(text.decode("utf-8", "ignore") for text in HARD_TEXTS.values())]
FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def assert_equal(settings, max_length, texts, pairs=None):
    found = FastTokenizer(settings, max_length).encode(texts, pairs)
    ids, type_ids = (rows.to_list() for rows in Tokenizer(settings, max_length).encode(texts, pairs))
    rows = zip(texts, pairs or texts, (row.tolist() for row in found.ids), ids, strict=True)
    wrong = [row for row in rows if row[2] != row[3]]
    assert not wrong, f"{len(wrong)} of {len(texts)} differ, first: {wrong[0]!a}"
    assert [sum(types) for types in type_ids] == [
        len(row) - first for row, first in zip(ids, found.first_lengths, strict=True)
    ]


@pytest.mark.parametrize("max_length", [4, 5, 64, 8192])
@pytest.mark.parametrize("variant", VARIANTS)
def test_hard_texts_equal_the_graph(english, variant, max_length):
    settings = replace(english, **VARIANTS[variant])
    assert can_repeat(settings) is None
    assert_equal(settings, max_length, HARD)
    assert_equal(settings, max_length, HARD, [*HARD[1:], HARD[0]])


def test_reviews_equal_the_graph(english, reviews):
    texts = random.Random(0).sample(reviews, 3000)
    assert_equal(english, 256, texts)
    assert_equal(english, 64, texts[:1500], texts[1500:])


@pytest.mark.parametrize("variant", ["uncased_accents", "cased", "chinese_words"])
def test_every_code_point_equals_the_graph(variant):
    settings = alphabet_settings(**VARIANTS[variant])
    points = [chr(point) for point in [*range(0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE0200)]]
    texts = [" ".join(f"x{point}Y" for point in points[start : start + 64]) for start in range(0, len(points), 64)]
    assert_equal(settings, 100_000, texts)


def test_marks_whose_order_only_the_graph_keeps_are_the_graphs():
    settings = TokenizerSettings((*SPECIAL, "a", "##\u302e", "##\u1b44"))
    assert "U+1B44, U+302E" in can_repeat(settings)
    assert_equal(settings, 16, ["a\u302e\u1b44", "a\u1b44\u302e"])
    assert can_repeat(replace(settings, strip_accents=False)) is None
    assert_equal(replace(settings, strip_accents=False), 16, ["a\u302e\u1b44", "a\u1b44\u302e"])


def test_marks_that_no_piece_has_do_not_matter(english):
    assert can_repeat(english) is None
    source = random.Random(4)
    assert_equal(english, 64, ["a" + "".join(source.choices(KEPT_MARKS, k=6)) for _ in range(500)])


HTML = [
    "a<br />b<BR>c<bR\t/>d<br\v/>e<br\u00a0/>f<br / >g< br>",
    "&lt;br&gt; &amp;lt; &amp;amp;quot; &quot;x&quot; &apos;&#39;&#039;&#x27;&#X27; &nbsp;a&#160;b&#xa0;c",
    "<br" + " " * 3000 + "/>" + "a " * 500,
    "<br" + " " * 3000 + "a " * 500,
    "x" * 329 + " <br />" * 300,
]


@pytest.mark.parametrize("form", [None, *FORMS])
def test_cleaning_equals_the_graph(english, form):
    settings = replace(english, html=True, unicode=form)
    assert can_repeat(settings) is None
    assert_equal(settings, 64, [*HARD, *HTML])
    assert_equal(settings, 64, [*HARD, *HTML], [*HTML, *HARD])


@pytest.mark.parametrize("form", FORMS)
def test_every_code_point_is_composed_as_by_the_graph(form):
    """Characters that are newer than Python's Unicode too."""
    settings = replace(alphabet_settings(do_lower_case=False), unicode=form)
    points = [chr(point) for point in [*range(0xD800), *range(0xE000, 0x32000)]]
    texts = [" ".join(f"x{point}Y" for point in points[start : start + 64]) for start in range(0, len(points), 64)]
    marks = [point for point in points if unicodedata.combining(point)]
    source = random.Random(1)
    texts += ["".join(source.choices(["a", "e", "<", "=", "\u1100", "\u1161", " ", *marks], k=9)) for _ in range(5000)]
    texts += ["".join(source.choices(points, k=9)) for _ in range(5000)]
    assert_equal(settings, 100_000, texts)


def test_stop_words_are_the_graphs(english):
    settings = replace(english, stop_words=("the", "film"))
    assert "stop words" in can_repeat(settings)
    assert_equal(settings, 16, ["The film, the FILM and a film", *HARD])


LONG = [
    "a" * 3_000_000,
    "字" * 300_000,
    "." * 300_000,
    " " * 3_000_000 + "a",
    "\u200b" * 300_000 + " a b",
    "[SEP]" * 50_000,
    "e\u0301" * 300_000,
    "word " * 500_000,
    "a" + "\u0315\u0300" * 10_000,
]


@pytest.mark.parametrize("max_length", [8, 64])
def test_long_texts_equal_the_graph(english, max_length):
    assert_equal(english, max_length, LONG)
    assert_equal(english, max_length, LONG[1:], LONG[:-1])
    assert_equal(replace(english, unicode="NFD", html=True), max_length, LONG)


def test_what_is_remembered_is_bounded(english, monkeypatch):
    monkeypatch.setattr("tfpipe.tokens.stretches._REMEMBERED", 100)
    texts = [f"word{number} and {'x' * number}" for number in range(1000)]
    tokenizer, graph = FastTokenizer(english, 16), Tokenizer(english, 16)
    found = [row.tolist() for start in range(0, 1000, 30) for row in tokenizer.encode(texts[start : start + 30]).ids]
    assert found == graph.encode(texts)[0].to_list()
    assert len(tokenizer.stretches._known) <= 100


def test_rows_are_padded(english):
    found = FastTokenizer(english, 16).encode(["a film", ""], ["of note", "one"])
    dense = {
        name: value.numpy().tolist()
        for name, value in Tokenizer(english, 16).dense(["a film", ""], ["of note", "one"]).items()
    }
    assert {name: value.tolist() for name, value in found.padded([0, 1], 0).items()} == dense
    assert FastTokenizer(english, 16).encode([]).ids == []


def test_tensorflow_is_not_imported():
    script = (
        "import sys\n"
        "from tfpipe.tokens.tokenizer_settings import TokenizerSettings\n"
        "from tfpipe.tokens.fast_tokenizer import FastTokenizer\n"
        "s = TokenizerSettings(('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a'), html=True, unicode='NFKC')\n"
        "FastTokenizer(s, 8).encode(['a b\\u0301'])\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
