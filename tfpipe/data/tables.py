"""The second reading: rows become rows of token ids.

Enters: a block and what was decided from all rows. Leaves: a record batch of the block's rows for each split, and
counts. A pure function over one block, so blocks are done in any process, in any order, once.
"""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfpipe.config import Config
from tfpipe.config_data import SPLITS, SplitName
from tfpipe.data.augment import altered, repetitions
from tfpipe.data.block import Block
from tfpipe.data.counts import Counts
from tfpipe.data.near_duplicates import NearIndex, signatures
from tfpipe.data.rows import read_rows
from tfpipe.data.scripts import count_scripts
from tfpipe.data.split import TRAIN
from tfpipe.data.survey import Decisions, records_of, splits_of
from tfpipe.data.token_table import TokenRows, record_batch
from tfpipe.data.tokenizer import Tokenizer
from tfpipe.data.tokenizer_settings import TokenizerSettings

_SAMPLED = 16  # one row of so many is looked at for its scripts


class TableMaker:
    """Turns blocks into rows of token ids; builds the tokenizer's graph once."""

    def __init__(self, config: Config, settings: TokenizerSettings, decisions: Decisions):
        self._config, self._decisions = config, decisions
        ids = {piece: index for index, piece in enumerate(settings.vocabulary)}
        self.pad_id, self._unknown_id = ids[settings.pad_token], ids[settings.unk_token]
        self._pairs = config.data.text_pair_column is not None
        spec = tf.TensorSpec([None], tf.string)
        tokenizer = Tokenizer(settings, config.data.max_length)
        self._encode = tf.function(tokenizer.encode_counted, input_signature=[spec, spec] if self._pairs else [spec])
        near = decisions.near_index
        self._near = None if near is None else NearIndex(near, config.data.duplicates.near_similarity)

    def __call__(self, block: Block) -> tuple[dict[SplitName, pa.RecordBatch], Counts]:
        """The rows of one block, split by split; a split without a row is left out."""
        config, decisions, counts = self._config, self._decisions, Counts()
        rows = read_rows(block, config, decisions.labels)
        counts.totals["rows_read"] = len(rows)
        records = records_of(rows, config, decisions.labels)
        digest, split = records["digest"], splits_of(records, decisions)
        keep = ~np.isin(rows.row_ids, decisions.dropped)
        if self._near is not None and keep.any():
            self._drop_near(rows, split, keep, counts)
        source, copies, texts, pairs = self._expand(rows, split, keep, digest, counts)
        if not len(source):
            return {}, counts
        given = [tf.constant(texts)] + ([tf.constant(pairs)] if self._pairs else [])
        input_ids, token_type_ids, whole = self._encode(*given)
        table = TokenRows(
            input_ids=input_ids.values.numpy(),
            token_type_ids=token_type_ids.values.numpy(),
            row_splits=input_ids.row_splits.numpy(),
            labels=self._label_vectors([rows.labels[at] for at in source]),
            row_ids=rows.row_ids[source],
            copies=copies,
            texts=texts,
            text_pairs=pairs,
            sources=[rows.names[at] for at in source],
            lines=[rows.lines[at] for at in source],
        )
        split = split[source]
        self._count(table, whole.numpy(), split, counts)
        counts.scripts.update(
            count_scripts(text for text, own in zip(texts, digest[source, 1], strict=True) if not own % _SAMPLED)
        )
        batch = record_batch(table)
        found = {}
        for place, name in enumerate(SPLITS):
            mask = split == place
            if mask.any():
                found[name] = batch if mask.all() else batch.take(pa.array(np.flatnonzero(mask)))
        return found, counts

    def _drop_near(self, rows, split: np.ndarray, keep: np.ndarray, counts: Counts) -> None:
        started = time.perf_counter()
        judged = np.flatnonzero(keep & (split < len(SPLITS) - 1))
        texts = [rows.texts[at] for at in judged]
        pairs = None if rows.text_pairs is None else [rows.text_pairs[at] for at in judged]
        if not texts:
            return
        which, others, similarity = self._near.nearest(signatures(texts, pairs), split[judged])
        found = judged[which]
        counts.totals["near_microseconds"] += round((time.perf_counter() - started) * 1e6)
        counts.near += [
            [int(row), int(other), round(float(value), 3)]
            for row, other, value in zip(rows.row_ids[found], others, similarity, strict=True)
        ]
        if self._config.data.duplicates.across_splits == "remove":
            keep[found] = False

    def _expand(self, rows, split: np.ndarray, keep: np.ndarray, digest: np.ndarray, counts: Counts):
        """A row maps to rows: its repetitions, and the altered copies of each."""
        kept = np.flatnonzero(keep)
        decisions, augmentation = self._decisions, self._config.data.augmentation
        repeats = decisions.repeats
        pairs = rows.text_pairs
        if repeats is None and augmentation is None:
            texts = [rows.texts[at] for at in kept]
            return kept, np.zeros(len(kept), np.int32), texts, None if pairs is None else [pairs[at] for at in kept]
        source, copies, texts, second = [], [], [], []
        seed = self._config.seed.to_bytes(8, "little")
        for at in kept.tolist():
            times, copy, tries = 1, 0, 0
            if split[at] == TRAIN and repeats is not None:
                label = decisions.labels.index[rows.labels[at]]
                times = repetitions(float(repeats[label]), int(digest[at, 1]))
            for _ in range(times):
                made = [(rows.texts[at], pairs[at] if pairs is not None else None)]
                for _ in range(augmentation.copies if augmentation is not None and split[at] == TRAIN else 0):
                    tries += 1
                    key = seed + digest[at].tobytes() + tries.to_bytes(4, "little")
                    new = tuple(None if text is None else altered(text, augmentation, key) for text in made[0])
                    changed = new != tuple(None if text is None else " ".join(text.split()) for text in made[0])
                    counts.totals["augmented" if changed else "unchanged"] += 1
                    if changed:
                        made.append(new)
                for text, pair in made:
                    source.append(at)
                    copies.append(copy)
                    texts.append(text)
                    second.append(pair)
                    copy += 1
            counts.totals["oversampled"] += times - 1
        return np.array(source, np.int64), np.array(copies, np.int32), texts, None if pairs is None else second

    def _label_vectors(self, cells: list[str]) -> np.ndarray:
        known = {cell: number for number, cell in enumerate(dict.fromkeys(cells))}
        vectors = np.stack([self._decisions.labels.encode(cell) for cell in known])
        return vectors[[known[cell] for cell in cells]]

    def _count(self, table: TokenRows, whole: np.ndarray, split: np.ndarray, counts: Counts) -> None:
        lengths = np.diff(table.row_splits)
        counts.totals["written"] += len(table.input_ids)
        counts.totals["unknown"] += int(np.count_nonzero(table.input_ids == self._unknown_id))
        counts.totals["cut"] += int((whole - lengths).sum())
        counts.totals["rows_cut"] += int(np.count_nonzero(whole > lengths))
        for place, name in enumerate(SPLITS):
            mask = split == place
            if not mask.any():
                continue
            counts.rows[name] += int(mask.sum())
            for label, count in enumerate(np.count_nonzero(table.labels[mask], axis=0).tolist()):
                counts.labels[f"{name} {label}"] += count
            for length, count in zip(*np.unique(whole[mask], return_counts=True), strict=True):
                counts.lengths[f"{name} {length}"] += int(count)
