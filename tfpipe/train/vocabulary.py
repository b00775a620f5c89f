"""The part of the vocabulary that a training can change: a smaller embedding table, the same result.

A word piece that occurs in no row has no gradient, so its moments stay zero and its embedding only decays. Adam and
gradient descent need not touch it at every step. In an epoch of short texts most of the vocabulary is like that, and
its update is a good part of the cost of a step beside its tokens. So the model trains on the pieces that occur, with
the rows renumbered. The others are put back at the end, decayed as often as they would have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tfpipe.encoders.architecture import Architecture
from tfpipe.tokens.table import TokenTable

_TABLE = "word_embeddings.weight"


def whole_table(weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """Finds the word embeddings among weights in transformers' naming: [word pieces, hidden]."""
    (table,) = (value for name, value in weights.items() if name.endswith(_TABLE))
    return table


class ActiveVocabulary:
    """The word pieces that occur in some tables, or all of them."""

    def __init__(self, tables: Sequence[TokenTable], vocab_size: int, *, whole: bool = False):
        """Reads the tables' tokens once.

        Args:
          tables: the rows that the model will see, evaluation included.
          vocab_size: pieces of the whole vocabulary.
          whole: whether to keep all of it.
        """
        used = np.ones(vocab_size, bool) if whole else np.zeros(vocab_size, bool)
        for table in tables:
            used[table.distinct_ids()] = True
        self._ids = np.flatnonzero(used)
        self._vocab_size = vocab_size
        self._number = np.zeros(vocab_size, np.int32)
        self._number[self._ids] = np.arange(len(self._ids), dtype=np.int32)

    def __str__(self) -> str:
        if len(self._ids) == self._vocab_size:
            return f"all {self._vocab_size:,} word pieces are trained"
        return f"{len(self._ids):,} of {self._vocab_size:,} word pieces occur; the others are left out and put back"

    def renumbered(self, table: TokenTable) -> TokenTable:
        """Returns the same rows with the ids of the smaller table."""
        return table.renumbered(self._number)

    def architecture(self, architecture: Architecture) -> Architecture:
        """Returns the encoder with the smaller table."""
        return replace(architecture, vocab_size=len(self._ids))

    def taken(self, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the weights, in transformers' naming, with the smaller table."""
        return {name: value[self._ids] if name.endswith(_TABLE) else value for name, value in weights.items()}

    def put_back(self, trained: dict[str, np.ndarray], table: np.ndarray, decay: float) -> dict[str, np.ndarray]:
        """Returns the trained weights with the whole table.

        Args:
          trained: the weights after training, with the smaller table.
          table: the whole table before it, [word pieces, hidden] float32; see `whole_table`.
          decay: what weight decay left of an embedding without a gradient.
        """
        whole = (table * np.float32(decay)).astype(np.float32)
        (name,) = (name for name in trained if name.endswith(_TABLE))
        whole[self._ids] = trained[name]
        return trained | {name: whole}
