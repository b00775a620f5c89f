from pathlib import Path

import pytest
from conftest import write_wordnet

from tfpipe.config.rows import Augmentation
from tfpipe.data.augment import altered as altered_words
from tfpipe.data.augment import repetitions, synonyms, wordnet
from tfpipe.errors import InputError

TEXT = "this is a very good film about a boy and his dog"


def settings(**changes):
    return Augmentation(**{"synonyms": 0.0, "swap": 0.0, "deletion": 0.0} | changes)


def altered(text, settings, seed):
    return " ".join(altered_words(text.split(), settings, seed))


def seeds(count=300):
    return [str(n).encode() for n in range(count)]


@pytest.fixture(scope="module")
def tiny_wordnet(tmp_path_factory) -> str:
    """Two synsets: {film, movie, moving_picture} and {good, fine}."""
    directory = tmp_path_factory.mktemp("wordnet")
    return write_wordnet(directory, noun=["film", "movie", "moving_picture"], adj=["good", "fine"])


def test_everything_is_decided_by_the_seed(tiny_wordnet):
    both = settings(synonyms=0.5, swap=0.2, deletion=0.2, wordnet=tiny_wordnet)
    first = [altered(TEXT, both, seed) for seed in seeds()]
    assert first == [altered(TEXT, both, seed) for seed in seeds()]
    assert len(set(first)) > 200


def test_deletion_has_its_probability_and_leaves_a_word():
    lengths = [len(altered(TEXT, settings(deletion=0.25), seed).split()) for seed in seeds()]
    assert abs(sum(lengths) / len(lengths) / len(TEXT.split()) - 0.75) < 0.03
    assert all(altered("one two", settings(deletion=1.0), seed) in ("one", "two") for seed in seeds(20))
    assert altered("one", settings(deletion=1.0), b"") == "one"


def test_swap_keeps_the_words():
    for seed in seeds(50):
        assert sorted(altered(TEXT, settings(swap=0.5), seed).split()) == sorted(TEXT.split())


def test_synonyms_are_those_of_wordnet(tiny_wordnet):
    assert synonyms("film", tiny_wordnet) == ("movie",)  # moving_picture is two words
    assert synonyms("Film", tiny_wordnet) == ("Movie",) and synonyms("GOOD", tiny_wordnet) == ("FINE",)
    assert synonyms("film2", tiny_wordnet) == synonyms("dog", tiny_wordnet) == ()
    changed = altered(TEXT, settings(synonyms=1.0, wordnet=tiny_wordnet), b"")
    assert changed == "this is a very fine movie about a boy and his dog"
    counts = sum("movie" in altered(TEXT, settings(synonyms=0.3, wordnet=tiny_wordnet), seed) for seed in seeds())
    assert abs(counts / 300 - 0.3) < 0.08


def test_missing_files_say_what_to_install(tmp_path):
    wordnet.cache_clear()
    with pytest.raises(InputError, match=r"no index\.noun in .*; .* apt-get install wordnet-base"):
        synonyms("film", str(tmp_path))


@pytest.mark.skipif(
    not Path("/usr/share/wordnet/data.noun").exists(), reason="Debian's package wordnet-base is not there"
)
def test_the_package_of_debian():
    wordnet.cache_clear()
    assert {"movie", "picture", "flick"} <= set(synonyms("film", "/usr/share/wordnet"))


def test_repetitions_have_the_mean_that_is_asked_for():
    places = [(n * 0x9E3779B97F4A7C15) % 2**64 for n in range(10_000)]
    assert abs(sum(repetitions(2.3, place) for place in places) / 10_000 - 2.3) < 0.02
    assert {repetitions(3.0, place) for place in places} == {3}
