"""Rows made of a training row: altered copies, and repetitions that balance the labels.

Enters: the words that the model sees of a text, the settings, and a seed: the run's and the row's content. Leaves: the
words of a copy. The methods are those of EDA (Wei and Zou, 2019), each with a probability for each word. Another method
of augmentation is another branch of `altered`.
"""

from __future__ import annotations

import functools
import io
import random
import re
import unicodedata
import warnings
from pathlib import Path

from tfpipe.config.rows import Augmentation
from tfpipe.errors import InputError
from tfpipe.tokens.tokenizer_settings import HTML, TokenizerSettings

_WORDNET_FILES = tuple(
    name.format(part) for part in ("noun", "verb", "adj", "adv") for name in ("index.{}", "data.{}", "{}.exc")
)

_LEXICOGRAPHER_FILES = 45


def seen_words(text: str, settings: TokenizerSettings) -> list[str]:
    """Lists the words of a text after `data.cleaning`: between white space, without HTML and without stop words."""
    if settings.html:
        for pattern, replacement in HTML:
            text = re.sub(pattern, replacement, text, flags=re.ASCII)
    if settings.unicode is not None:
        text = unicodedata.normalize(settings.unicode, text)
    stop_words = frozenset(settings.stop_words)
    return [word for word in text.split() if word.lower() not in stop_words]


def altered(words: list[str], settings: Augmentation, seed: bytes) -> list[str]:
    """Copies a text's words with changes: other words, or another order. The copy may be unchanged.

    Args:
      words: the text's, in order.
      settings: the probabilities.
      seed: decides everything.
    """
    chance = random.Random(seed)
    words = list(words)
    if settings.synonyms:
        words = [
            chance.choice(found)
            if chance.random() < settings.synonyms and (found := synonyms(word, settings.wordnet))
            else word
            for word in words
        ]
    if settings.swap and len(words) > 1:
        for at in range(len(words)):
            if chance.random() < settings.swap:
                other = chance.randrange(len(words))
                words[at], words[other] = words[other], words[at]
    if settings.deletion and len(words) > 1:
        words = [word for word in words if chance.random() >= settings.deletion] or [chance.choice(words)]
    return words


@functools.lru_cache(maxsize=1 << 16)
def synonyms(word: str, directory: str) -> tuple[str, ...]:
    """Lists the synonyms of a word in WordNet, sorted, single words only, in the word's case."""
    if not word.isalpha():
        return ()
    lemmas = {name for synset in wordnet(directory).synsets(word.lower()) for name in synset.lemma_names()}
    found = sorted(name for name in lemmas if name.isalpha() and name.lower() != word.lower())
    if word.istitle():
        return tuple(name.title() for name in found)
    return tuple(name.upper() if word.isupper() else name for name in found)


def wordnet_files(directory: str) -> list[Path]:
    """Lists the files of WordNet that NLTK reads.

    Raises:
      InputError: a file is missing.
    """
    paths = [Path(directory) / name for name in _WORDNET_FILES]
    missing = next((path.name for path in paths if not path.is_file()), None)
    if missing is not None:
        raise InputError(
            f"data.augmentation.wordnet: no {missing} in {directory}; install WordNet's files, in Debian with "
            "apt-get install wordnet-base, or give the directory that holds them"
        )
    return paths


@functools.lru_cache(maxsize=1)
def wordnet(directory: str):
    """Opens WordNet's own files, read by NLTK.

    Raises:
      InputError: NLTK or the files are missing.
    """
    try:
        import nltk.data
        from nltk.corpus.reader import WordNetCorpusReader
    except ModuleNotFoundError:
        raise InputError(
            "data.augmentation.synonyms needs NLTK; install it with: pip install 'tfpipe[wordnet]'"
        ) from None
    wordnet_files(directory)

    class Reader(WordNetCorpusReader):
        def open(self, file):
            # Debian's package leaves out the names of the lexicographers' files. NLTK asks for them; synonyms don't.
            if file == "lexnames" and not (Path(directory) / file).exists():
                return io.StringIO("".join(f"{number:02d} unnamed 0\n" for number in range(_LEXICOGRAPHER_FILES)))
            return super().open(file)

        def map_wn(self, version="wordnet"):
            return None  # to other WordNets, for other languages: it would look for those

    nltk.data.path.append(directory)  # NLTK reads below these alone
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no other languages
        return Reader(directory, None)


def repetitions(repeats: float, bits: int) -> int:
    """Decides how often a row is written so that its label has `repeats` times its rows on average.

    Args:
      repeats: at least 1.
      bits: 64 random bits of the row: they decide about the fraction.
    """
    whole = int(repeats)
    return whole + ((bits >> 11) / 2**53 < repeats - whole)
