"""Altered copies of training rows, tokenized: `data.augmentation`.

Enters: training rows as they were tokenized. Leaves: copies that differ from their row to the model. Only words that
the model sees are altered: a copy is made of the cleaned text without stop words, and words behind the cut stay as they
are. A copy with the tokens of its row, or of a held-out row, is left out and counted.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa

from tfpipe.config.run import Config
from tfpipe.data.augment import altered, seen_words
from tfpipe.data.counts import Counts
from tfpipe.data.duplicates import is_among, token_digests
from tfpipe.data.tables import RowTokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

TEXTS = ("text", "text_pair")
_SEED_OF_TEXT = (b"", b"\x01")  # in the seed, so that the two texts of a pair are altered independently


class AlteredRows:
    """A function that makes altered copies of rows; builds the tokenizer's graph once."""

    def __init__(self, config: Config, settings: TokenizerSettings):
        self._config, self._settings = config, settings
        plain = dataclasses.replace(settings, html=False, unicode=None)  # the words are clean already
        pairs = config.data.text_pair_column is not None
        self._encode = RowTokenizer(plain, config.data.max_length, pairs=pairs)
        self._count = RowTokenizer(plain, config.data.max_length, pairs=False)

    def __call__(
        self,
        batch: pa.RecordBatch,
        whole: np.ndarray,
        digest: np.ndarray,
        rows: np.ndarray,
        held_out: np.ndarray,
        counts: Counts,
    ) -> tuple[pa.RecordBatch, np.ndarray, np.ndarray]:
        """Makes `data.augmentation.copies` copies of each row.

        Args:
          batch: the rows.
          whole: `[rows of the batch] int64`, tokens of each before the cut.
          digest: `[rows of the batch, 2] uint64`, of their content, for the seed.
          rows: `[n] int64`, rising: rows of the batch; a row that stands there again gets other copies.
          held_out: `[m] uint64`, sorted: see `finish.Changes`.
          counts: `augmented`, `unchanged` and `equal_to_held_out` are added to.

        Returns:
          The copies; `[copies] int64`, their tokens before the cut; `[copies] int64`, rising: the index in `rows` of
          the row that each was made of.
        """
        settings, copies = self._config.data.augmentation, self._config.data.augmentation.copies
        parents = np.repeat(np.arange(len(rows)), copies)
        first = np.searchsorted(rows, rows)  # a row's first index: its tries are numbered over all its repetitions
        tries = ((parents - first[parents]) * copies + np.arange(len(parents)) % copies + 1).tolist()
        texts = []
        for text, (words, seen) in enumerate(self._words(batch, whole)):
            made = []
            for at, number in zip(rows[parents].tolist(), tries, strict=True):
                key = self._config.seed.to_bytes(8, "little") + digest[at].tobytes() + number.to_bytes(4, "little")
                own, behind = words[at][: seen[at]], words[at][seen[at] :]
                made.append(" ".join(altered(own, settings, key + _SEED_OF_TEXT[text]) + behind))
            texts.append(made)
        input_ids, token_type_ids, row_splits, copies_whole = self._encode(*texts)
        found = token_digests(input_ids, token_type_ids, row_splits)
        before = _digests_of(batch)[rows[parents]]
        changed = (found != before).any(axis=1)
        leaks = changed & is_among(found[:, 0], held_out)
        counts.totals["unchanged"] += int((~changed).sum())
        counts.totals["equal_to_held_out"] += int(leaks.sum())
        kept = np.flatnonzero(changed & ~leaks)
        counts.totals["augmented"] += len(kept)
        columns = {"input_ids": _lists(input_ids, row_splits), "token_type_ids": _lists(token_type_ids, row_splits)}
        columns |= {name: pa.array(made, pa.string()) for name, made in zip(TEXTS, texts, strict=False)}
        columns = {name: column.take(pa.array(kept)) for name, column in columns.items()}
        made_of = batch.take(pa.array(rows[parents[kept]]))
        arrays = [columns.get(name, made_of.column(name)) for name in batch.schema.names]
        return pa.record_batch(arrays, schema=batch.schema), copies_whole[kept], parents[kept]

    def _words(self, batch: pa.RecordBatch, whole: np.ndarray) -> list[tuple[list[list[str]], list[int]]]:
        """Finds, for each text of the rows, the words of every row, and the number of words that the model sees."""
        columns = TEXTS[:1] if batch.column("text_pair").null_count else TEXTS
        lengths = np.diff(batch.column("input_ids").offsets.to_numpy())
        in_second = np.array([sum(types) for types in batch.column("token_type_ids").to_pylist()])
        # [CLS] and [SEP] stand around the first text, [SEP] after the second.
        room = {"text": lengths - in_second - 2, "text_pair": in_second - 1}
        found = []
        for name in columns:
            words = [seen_words(text, self._settings) for text in batch.column(name).to_pylist()]
            seen = [len(each) for each in words]
            cut = np.flatnonzero(whole > lengths).tolist()
            tokens = self._tokens_of(sorted({word for at in cut for word in words[at]}))
            for at in cut:
                ends = np.cumsum([tokens[word] for word in words[at]])
                seen[at] = min(int(np.searchsorted(ends, room[name][at])) + 1, len(ends))
            found.append((words, seen))
        return found

    def _tokens_of(self, words: list[str]) -> dict[str, int]:
        if not words:
            return {}
        *_, whole = self._count(words)
        return dict(zip(words, (whole - 2).tolist(), strict=True))  # without [CLS] and [SEP]


def _digests_of(batch: pa.RecordBatch) -> np.ndarray:
    ids, types = batch.column("input_ids"), batch.column("token_type_ids")
    first = ids.offsets.to_numpy()
    return token_digests(ids.flatten().to_numpy(), types.flatten().to_numpy(), first - first[0])


def _lists(values: np.ndarray, row_splits: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(row_splits, pa.int32()), pa.array(values, pa.int32()))
