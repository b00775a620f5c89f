"""The second reading: rows become rows of token ids.

Enters: a block and the decisions from all rows. Leaves: a record batch of the block's rows for each split, a `ROW` of
each for the search for duplicates, and counts. It is a pure function over one block, so blocks are done in any process,
in any order, once.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfpipe.config.data import SPLITS
from tfpipe.config.run import Config
from tfpipe.data.block import Block
from tfpipe.data.counts import Counts
from tfpipe.data.duplicates import ROW, token_digests
from tfpipe.data.rows import Rows, read_rows
from tfpipe.data.scripts import count_scripts
from tfpipe.data.slices import SLICES, slice_batch
from tfpipe.data.split import TRAIN, digests
from tfpipe.data.survey import Decisions, label_hashes, positions_of, splits_of
from tfpipe.tokens.table import TokenRows, record_batch
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

_SAMPLED = 16  # one row of so many is looked at for its scripts


class RowTokenizer:
    """The tokenizer's graph, built once, for texts or pairs of them."""

    def __init__(self, settings: TokenizerSettings, max_length: int, *, pairs: bool):
        tokenizer, texts = Tokenizer(settings, max_length), [tf.TensorSpec([None], tf.string)]
        self._encode = tf.function(tokenizer.encode_counted, 2 * texts if pairs else texts, autograph=False)

    def __call__(self, *texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Tokenizes rows; at least one.

        Args:
          texts: the text of each row; for pairs, another list of the second texts.

        Returns:
          `input_ids` and `token_type_ids`, `[tokens] int32`, of all rows one after the other; `[rows + 1] int64`, where
          each row begins in them; `[rows] int64`, the tokens of each before the cut.
        """
        input_ids, token_type_ids, whole = self._encode(*map(tf.constant, texts))
        return input_ids.values.numpy(), token_type_ids.values.numpy(), input_ids.row_splits.numpy(), whole.numpy()


class TableMaker:
    """A function that turns blocks into rows of token ids."""

    def __init__(self, config: Config, settings: TokenizerSettings, decisions: Decisions):
        self._config, self._decisions = config, decisions
        pairs = config.data.text_pair_column is not None
        self._encode = RowTokenizer(settings, config.data.max_length, pairs=pairs)

    def __call__(self, block: Block) -> tuple[dict[str, pa.RecordBatch], np.ndarray, Counts]:
        """Makes the tables of one block.

        Returns:
          The rows, split by split, a split without a row left out, and the `SLICES` of held-out rows where there are
          some; `[rows] ROW` of all rows; counts.
        """
        rows = read_rows(block, self._config, self._decisions.form, self._decisions.labels)
        counts = Counts()
        counts.totals["rows_read"] = len(rows)
        if not len(rows):
            return {}, np.empty(0, ROW), counts
        digest = digests(rows.texts, rows.text_pairs, self._config.seed)
        sampled = np.flatnonzero(digest[:, 1] % _SAMPLED == 0)
        counts.scripts.update(count_scripts(rows.texts[at] for at in sampled))
        texts = [rows.texts] if rows.text_pairs is None else [rows.texts, rows.text_pairs]
        input_ids, token_type_ids, row_splits, whole = self._encode(*texts)
        table = TokenRows(
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            row_splits=row_splits,
            labels=self._label_vectors(rows.labels),
            row_ids=rows.row_ids,
            copies=np.zeros(len(rows), np.int32),
            texts=rows.texts,
            text_pairs=rows.text_pairs,
            sources=[name.removeprefix(block.file.name.rstrip("/")) for name in rows.names],
            lines=rows.lines,
        )
        found = self._rows(table, rows, digest, whole)
        tables = _by_split(record_batch(table), found["split"])
        held_out = np.flatnonzero(found["split"] != TRAIN)
        if rows.slices and len(held_out):
            tables[SLICES] = slice_batch(rows.row_ids[held_out], rows.slices, held_out)
        return tables, found, counts

    def _rows(self, table: TokenRows, rows: Rows, digest: np.ndarray, whole: np.ndarray) -> np.ndarray:
        found = np.zeros(len(rows), ROW)
        found["digest"] = token_digests(table.input_ids, table.token_type_ids, table.row_splits)
        found["row_id"], found["whole"] = rows.row_ids, whole
        found["label"] = label_hashes(rows, self._decisions.labels)
        position = positions_of(rows, digest, self._config)
        found["split"] = splits_of(position, rows.given, found["label"], self._decisions)
        return found

    def _label_vectors(self, labels: list[tuple[str, ...]]) -> np.ndarray:
        known = {values: number for number, values in enumerate(dict.fromkeys(labels))}
        vectors = np.stack([self._decisions.labels.encode(values) for values in known])
        return vectors[[known[values] for values in labels]]


def _by_split(batch: pa.RecordBatch, split: np.ndarray) -> dict[str, pa.RecordBatch]:
    found = {}
    for index, name in enumerate(SPLITS):
        mask = split == index
        if mask.any():
            found[name] = batch if mask.all() else batch.take(pa.array(np.flatnonzero(mask)))
    return found
