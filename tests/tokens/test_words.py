"""Words point at the text as it was given, and hold the word pieces that the model reads."""

import itertools
from dataclasses import replace

import pytest
from test_fast_tokenizer import FORMS, HARD
from test_tokenizer import SPECIAL, VARIANTS, english, reviews

from tfpipe.tokens.fast_tokenizer import FastTokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tokens.words import Words

__all__ = ["english", "reviews"]


class Reader:
    """Reads texts by one tokenizer, and checks that the words hold the row's word pieces, in order and apart."""

    def __init__(self, settings, max_length=64):
        self.tokenizer = FastTokenizer(settings, max_length)
        self.words = Words(self.tokenizer)

    def read(self, text):
        count = len(self.tokenizer.encode([text]).ids[0]) - 2
        found = self.words.read(text, count)
        assert sum(word.tokens for word in found.words) == count
        assert all(0 <= word.start < word.end <= len(text) and word.tokens > 0 for word in found.words)
        assert all(one.end <= other.start for one, other in itertools.pairwise(found.words))
        assert (found.words[-1].end if found.words else 0) <= found.read_to <= len(text)
        return found

    def shown(self, text):
        return [text[word.start : word.end] for word in self.read(text).words]


def test_words_are_those_of_the_text_before_normalization(english):
    shown = Reader(english).shown
    assert shown("A JOYLESS, naïve Café") == ["A", "JOYLESS", ",", "naïve", "Café"]
    assert shown("cafe\u0301s  good\u200d") == ["cafe\u0301s", "good\u200d"]
    assert shown("汉字 film") == ["汉", "字", "film"]
    assert shown("a\x00b\u202ec \n [SEP]x") == ["a\x00b\u202ec", "[SEP]", "x"]


def test_apostrophes_within_words_and_points_within_numbers_end_none(english):
    text = "Don't it’s 'quoted' 3.5 1,000. film.It"
    assert Reader(english).shown(text) == ["Don't", "it’s", "'", "quoted", "'", "3.5", "1,000", ".", "film", ".", "It"]


@pytest.mark.parametrize("max_length", [4, 16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_words_of_hard_texts_hold_the_rows_word_pieces(english, variant, max_length):
    reader = Reader(replace(english, **VARIANTS[variant]), max_length)
    for text in HARD:
        reader.read(text)


def test_few_words_of_reviews_are_joined(english, reviews):
    """A stretch counts as one word only where two tokenizers disagree."""
    shown = Reader(english, 256).shown
    words = [word for text in reviews[:50] for word in shown(text)]
    assert len(words) > 500 and max(map(len, words)) < 60


def test_html_is_part_of_the_word_that_it_stands_for(english):
    reader = Reader(replace(english, html=True))
    shown = reader.shown
    text = "don&#39;t&nbsp;miss<br />it &amp;lt; &quot;good&quot;"
    assert shown(text)[:3] == ["don&#39;t", "miss", "it"]
    assert shown(text)[-3:] == ["&quot;", "good", "&quot;"]
    for hard in HARD:
        reader.read(hard)


@pytest.mark.parametrize("form", FORMS)
def test_unicode_forms_keep_the_characters_that_were_given(english, form):
    reader = Reader(replace(english, unicode=form))
    shown = reader.shown
    for hard in HARD:
        reader.read(hard)
    composed = form in ("NFKC", "NFKD")
    assert shown("ﬁne Café ½ … ㎏")[:2] == ["ﬁne", "Café"]
    assert not composed or shown("½ … ㎏ ［SEP］") == ["½", "…", "㎏", "［SEP］"]


def test_stop_words_are_no_words(english):
    reader = Reader(replace(english, stop_words=("is", "s", "the")))
    shown = reader.shown
    assert shown("The film IS good") == ["film", "good"]
    assert "".join(shown("The-film, it’s"))[:5] == "-film"
    for hard in HARD:
        reader.read(hard)


def test_reading_ends_where_the_text_is_cut(english):
    text = "good film " * 20 + "  "
    found = Reader(english, 12).read(text)
    assert len(found.words) == 10 and found.read_to == found.words[-1].end < len(text)
    assert Reader(english, 512).read(text).read_to == len(text)
    assert Reader(english, 4).read("good film \n\t").read_to == len("good film \n\t")  # white space is nothing to read
    within = Reader(english, 5).read("good unbelievablenesses")
    assert within.words[-1].tokens == 2 and within.read_to == len("good unbelievablenesses")


def test_of_a_text_of_a_megabyte_only_the_start_is_looked_at(english):
    reader = Reader(english, 16)
    for text in ("." * 1_000_000, "我" * 1_000_000, "ab" * 500_000 + " film", "film " * 200_000):
        assert len(reader.read(text).words) <= 14


def test_a_stretch_whose_ids_differ_is_one_word():
    """Two combining marks stand in another order in the graph: its ids decide, and the spans follow."""
    settings = TokenizerSettings((*SPECIAL, "a", "-", "##\u302e", "##\u1b44"))
    both = [Reader(settings).shown(f"a {text}-a") for text in ("a\u302e\u1b44", "a\u1b44\u302e")]
    assert sorted(map(len, both)) == [2, 4] and {each[0] for each in both} == {"a"}
