"""Batches for timing latencies: real text, each row of exactly as many tokens as the shape says.

The tokenizer looks a word up once, however often a batch has it, so that one repeated word would cost next to nothing.
Here each text is made of test rows of its own: their words, one after the other, up to the number of tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import tensorflow as tf

from tfpipe.config.compress import LATENCY_SHAPES
from tfpipe.formats.base import Requests
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

CHARACTERS_PER_TOKEN = 16  # of text to cut from; where it makes too few tokens, words of one token fill up
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"

Column = Callable[[Sequence[int]], list[str | None]]
Count = Callable[[Sequence[str]], np.ndarray]


def timing_tokenizer(settings: TokenizerSettings) -> Tokenizer:
    """Makes a tokenizer that has room for the longest rows that are timed."""
    return Tokenizer(settings, max(length for _, length in LATENCY_SHAPES.values()))


def full_batches(table: TokenTable, tokenizer: Tokenizer, *, pairs: bool, seed: int) -> dict[str, Requests]:
    """Makes a full batch for each shape at which latencies are measured: see `full_batch`."""
    make = partial(full_batch, table, tokenizer, pairs=pairs, seed=seed)
    return {name: make(*shape) for name, shape in LATENCY_SHAPES.items()}


def full_batch(
    table: TokenTable, tokenizer: Tokenizer, batch_size: int, length: int, *, pairs: bool, seed: int
) -> Requests:
    """Makes a batch of texts that needs no padding, and the same as token ids.

    Args:
      table: rows whose texts make those of the batch: each text has rows of its own, while there are enough.
      tokenizer: that of the model; its `max_length` is at least `length`.
      batch_size: number of texts.
      length: tokens of each, special tokens included; at least 4.
      pairs: whether texts come in pairs, which have `length` tokens together.
      seed: the same seed takes the same rows.

    Raises:
      ValueError: the tokenizer cuts rows at fewer tokens.
    """
    if tokenizer.max_length < length:
        raise ValueError(f"rows of {length} tokens, but the tokenizer cuts them at {tokenizer.max_length}")

    def tokens_of(texts: Sequence[str]) -> np.ndarray:
        return tokenizer.encode_counted(tf.constant(texts))[2].numpy() - 2  # [CLS] and [SEP]

    random = np.random.default_rng(seed)
    rows = random.permutation(table.sample(batch_size * length, seed))
    rows = np.resize(rows, max(len(rows), batch_size))
    first = (length - 3) // 2 if pairs else length - 2

    def made_of(column: Column, room: int) -> list[str]:
        """Makes texts of `room` tokens, the n-th of every `batch_size`-th row from the n-th on."""
        long = [_joined(column, rows[n::batch_size], CHARACTERS_PER_TOKEN * room) for n in range(batch_size)]
        texts = _cut(long, room, tokens_of)
        missing = room - tokens_of(texts)
        words = _words_of_one_token(long, tokens_of) or [tokenizer.settings.unk_token]
        return [" ".join([text, *random.choice(words, lack)]) for text, lack in zip(texts, missing, strict=True)]

    texts = made_of(table.texts, first)
    seconds = made_of(table.text_pairs, length - 3 - first) if pairs else None
    columns = (tf.constant(each) for each in (texts, seconds) if each is not None)
    return Requests({name: value.numpy() for name, value in tokenizer.dense(*columns).items()}, texts, seconds)


def _joined(column: Column, rows: np.ndarray, characters: int) -> str:
    """Joins the texts of rows, repeated in turn, to as many characters as are asked for."""
    parts, missing = [], characters
    for row in itertools.cycle(rows):
        parts.append((column([row])[0] or "")[:missing])
        missing -= len(parts[-1]) + 1
        if missing <= 0:
            break
    return " ".join(parts)


def _cut(texts: list[str], room: int, tokens_of: Count) -> list[str]:
    """Cuts each text to about its longest beginning of at most `room` tokens: by bisection, all texts at once."""
    low, high = np.zeros(len(texts), int), np.array([len(text) + 1 for text in texts])
    while (high - low > 1).any():
        middle = (low + high) // 2
        fits = tokens_of([text[:end] for text, end in zip(texts, middle, strict=True)]) <= room
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return [text[:end] for text, end in zip(texts, low, strict=True)]


def _words_of_one_token(texts: list[str], tokens_of: Count) -> list[str]:
    """Finds words that add a token after any text: of the texts, else their characters, else letters and digits."""
    for found in (" ".join(texts).split(), "".join(texts), _LETTERS):
        # Neither punctuation nor a mark: those may have a meaning together with what stands before them.
        words = sorted({word for word in found if word.isalnum()})
        counts = tokens_of(words) if words else []
        if single := [word for word, count in zip(words, counts, strict=True) if count == 1]:
            return single
    return []
