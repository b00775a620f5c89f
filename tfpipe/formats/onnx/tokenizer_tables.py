"""BERT's tokenizer as tables of numbers: characters become symbols, and symbols lead through a trie to word pieces.

Enters: tokenizer settings. Leaves: the tables that `tokenizer_graph.py` looks up. A symbol stands for a character of
the vocabulary, for any other letter, or for the end of a word. The results of transformers' normalizer and
pre-tokenizer for each character come from `tokens/tokenizer.py`, so ids are those of transformers.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

import numpy as np

from tfpipe.tokens.tokenizer import PRIVATE_USE, normalized_characters
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

NOTHING, WORD_END, UNKNOWN_LETTER, _FIRST = range(4)
"""symbols; the others stand for characters and special tokens of the vocabulary"""
NOWHERE, WORD_START, WORD_REST, _NEXT = range(4)
"""states of the trie: no piece begins like that; before a word's first piece; before any later one"""
_SPACE = " "


class Tables(NamedTuple):
    """The tables of a tokenizer."""

    pattern: str
    """a regular expression of RE2: a special token, or a character that the normalizer does not drop as private"""
    spellings: dict[str, int]
    """what the pattern finds -> row of `symbols`; anything else is `UNKNOWN_LETTER`"""
    symbols: np.ndarray
    """[spellings, longest] int64, filled up with `NOTHING`; the first row is `UNKNOWN_LETTER`"""
    edges: dict[int, int]
    """state · `alphabet` + symbol -> state; from anything else, `NOWHERE`"""
    alphabet: int
    """how many symbols there are"""
    pieces: np.ndarray
    """[states] int64: id of the piece that ends there, or -1"""
    special_ids: dict[str, int]
    """name of a special token in transformers (`unk_token` and so on) -> id"""


@functools.lru_cache(maxsize=2)  # for the variants of a run
def tables_of(settings: TokenizerSettings) -> Tables:
    """Makes the tables.

    Args:
      settings: without `data.cleaning`, which has no place in them.
    """
    tokens = sorted(settings.special_tokens.values())
    numbers = {text: number for number, text in enumerate([*tokens, *_characters(settings)], _FIRST)}
    rows = {(UNKNOWN_LETTER,): 0, (NOTHING,): 1}
    spellings = {"": 1}  # fills up the shorter texts of a batch
    for token in tokens:
        spellings[token] = rows.setdefault((WORD_END, numbers[token], WORD_END), len(rows))
    for character, text in normalized_characters(settings, others=(each for each in numbers if len(each) == 1)):
        row = tuple(WORD_END if each == _SPACE else numbers.get(each, UNKNOWN_LETTER) for each in text) or (NOTHING,)
        if row != (UNKNOWN_LETTER,):
            spellings[character] = rows.setdefault(row, len(rows))
    symbols = np.full((len(rows), max(map(len, rows))), NOTHING, np.int64)
    for row, index in rows.items():
        symbols[index, : len(row)] = row
    alphabet = _FIRST + len(numbers)
    edges, pieces = _trie(settings, numbers, alphabet)
    kept = "".join(f"\\x{{{start:X}}}-\\x{{{stop - 1:X}}}" for start, stop in _between(PRIVATE_USE))
    pattern = "|".join([*(_escaped(token) for token in tokens), f"[{kept}]"])
    special_ids = {name: settings.vocabulary.index(token) for name, token in settings.special_tokens.items()}
    return Tables(pattern, spellings, symbols, edges, alphabet, pieces, special_ids)


def _characters(settings: TokenizerSettings) -> list[str]:
    """Lists the characters of all pieces that a word can match, sorted."""
    return sorted(set("".join(rest for rest, _ in map(_parts, settings.vocabulary) if _SPACE not in rest)) - {_SPACE})


def _parts(piece: str) -> tuple[str, int]:
    """Splits a piece into its text, and the state before it."""
    rest = piece.removeprefix("##")
    return (rest, WORD_REST) if rest and rest != piece else (piece, WORD_START)


def _trie(settings: TokenizerSettings, numbers: dict[str, int], alphabet: int) -> tuple[dict[int, int], np.ndarray]:
    edges: dict[int, int] = {}
    ends: dict[int, int] = {}
    special = set(settings.special_tokens.values())
    for index, piece in enumerate(settings.vocabulary):
        text, state = _parts(piece)
        if piece and _SPACE not in piece:  # no word has a space
            for part in [piece] if piece in special else text:
                state = edges.setdefault(state * alphabet + numbers[part], _NEXT + len(edges))
            ends[state] = index
    pieces = np.full(_NEXT + len(edges), -1, np.int64)
    pieces[list(ends)] = list(ends.values())
    return edges, pieces


def _between(ranges: tuple[range, ...]) -> list[tuple[int, int]]:
    """Gives the gaps between sorted ranges of code points: start and end of each."""
    stops = [0, *(each.stop for each in ranges)]
    return list(zip(stops, [*(each.start for each in ranges), 0x110000], strict=True))


def _escaped(token: str) -> str:
    return "".join(each if re.fullmatch("[A-Za-z0-9]", each) else f"\\x{{{ord(each):X}}}" for each in token)
