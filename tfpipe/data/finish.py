"""The last step: the tables without duplicates, with repeated and altered rows.

Enters: the shards of a block, as they were tokenized, and the decisions about duplicates and balance. Leaves: the
shards that training reads, and counts of their content. Training rows alone are repeated (`data.balance`) and altered
(`data.augmentation`). A shard in which nothing changes is linked, not written again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfpipe.config.data import SPLITS
from tfpipe.config.run import Config
from tfpipe.console import progress_bar
from tfpipe.data.augment import repetitions
from tfpipe.data.block_tables import BlockTables
from tfpipe.data.counts import Counts
from tfpipe.data.duplicates import is_among, save_sorted
from tfpipe.data.labels.names import Labels
from tfpipe.data.runners.local import LocalRunner
from tfpipe.data.split import TRAIN, digests
from tfpipe.data.survey import label_hash
from tfpipe.errors import InputError
from tfpipe.files import link
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import read_shard, shard_path, write_manifest, write_shard
from tfpipe.tokens.tokenizer_settings import TokenizerSettings


@dataclass(frozen=True)
class Changes:
    """Changes that the last step makes, decided from all tokenized rows."""

    dropped: Path
    """file of `[n] int64`, sorted: ids of rows that are left out as duplicates"""
    held_out: Path
    """file of `[n] uint64`, sorted: first half of the digest of held-out rows' tokens; of none if none is altered"""
    repeats: np.ndarray | None
    """`[num_labels] float64`: how often a training row of each label is written; None: once"""


def finish(
    config: Config,
    settings: TokenizerSettings,
    labels: Labels,
    tables: BlockTables,
    dropped: np.ndarray,
    stage: StageDirectory,
    runner: LocalRunner,
) -> Counts:
    """Writes the three tables to their places in the stage.

    Args:
      config: the settings.
      settings: of the tokenizer.
      labels: the labels.
      tables: of all blocks.
      dropped: `[n] int64`: ids of rows that are left out.
      stage: the stage.
      runner: of the work.
    """
    for split in SPLITS:
        (stage.path / split).mkdir(exist_ok=True)
    held_out = [np.empty(0, np.uint64)]
    if config.data.augmentation is not None:
        held_out += [block["digest"][block["split"] != TRAIN, 0] for block in tables]
    changes = Changes(
        save_sorted(stage.checkpoints / "dropped.npy", dropped),
        save_sorted(stage.checkpoints / "held-out.npy", np.concatenate(held_out)),
        _repeats(labels, tables, np.sort(dropped)) if config.data.balance == "oversample" else None,
    )
    module = "tfpipe.data.altered_rows" if config.data.augmentation is not None else None
    counts, names, arguments = Counts(), tables.names, (config, settings, changes, tables, stage.path)
    with progress_bar("writing (blocks)", len(names)) as bar:
        for own in runner.map_tables(names, _Finisher, *arguments, module=module):
            counts.add(own)
            bar.advance(1)
    pad_id = settings.vocabulary.index(settings.pad_token)
    for split in SPLITS:
        shards = sorted(path.name for path in (stage.path / split).glob("part-*.arrow"))
        write_manifest(stage.path / split, shards, num_labels=len(labels.names), pad_id=pad_id)
    return counts


def _repeats(labels: Labels, tables: BlockTables, dropped: np.ndarray) -> np.ndarray:
    """Computes how often to write a training row of each label, so that every label has as many as the commonest."""
    of_label: Counter[int] = Counter()
    for block in tables:
        kept = (block["split"] == TRAIN) & ~is_among(block["row_id"], dropped)
        of_label.update(block["label"][kept].tolist())
    counts = np.array([of_label[label_hash((index,), labels)] for index in range(len(labels.names))], np.float64)
    return np.where(counts, counts.max() / np.maximum(counts, 1), 1.0)


class _Finisher:
    """A function that finishes the shards of a block; made once in each process."""

    def __init__(
        self, config: Config, settings: TokenizerSettings, changes: Changes, made: BlockTables, finished: Path
    ):
        self._seed, self._repeats, self._made, self._finished = config.seed, changes.repeats, made, finished
        self._dropped = np.load(changes.dropped, mmap_mode="r", allow_pickle=False)
        self._held_out = np.load(changes.held_out, mmap_mode="r", allow_pickle=False)
        self._unknown_id = settings.vocabulary.index(settings.unk_token)
        self._altering = None
        if config.data.augmentation is not None:
            from tfpipe.data.altered_rows import AlteredRows  # TensorFlow, which nothing else here needs

            self._altering = AlteredRows(config, settings)

    def __call__(self, name: str) -> Counts:
        """Writes the block's shards."""
        counts, rows = Counts(), self._made.rows(name)
        for index, split in enumerate(SPLITS):
            own = rows[rows["split"] == index]
            kept = ~is_among(own["row_id"], self._dropped)
            if not kept.any():
                continue
            source, target = self._made.shard(split, name), shard_path(self._finished / split, name)
            batch, whole = read_shard(source), own["whole"].astype(np.int64)
            expands = index == TRAIN and (self._altering is not None or self._repeats is not None)
            if not kept.all():
                batch, whole = batch.filter(pa.array(kept)), whole[kept]
            if expands:
                batch, whole = self._expanded(batch, whole, counts)
            if expands or not kept.all():
                write_shard(target, batch)
            else:
                target.unlink(missing_ok=True)  # of an earlier try
                link(source, target)
            self._count(batch, whole, split, counts)
        return counts

    def _expanded(self, batch: pa.RecordBatch, whole: np.ndarray, counts: Counts) -> tuple[pa.RecordBatch, np.ndarray]:
        """Puts repetitions and altered copies behind each training row; returns rows, and tokens before the cut."""
        texts, pairs = batch.column("text").to_pylist(), batch.column("text_pair").to_pylist()
        digest = digests(texts, pairs if pairs[0] is not None else None, self._seed)
        times = np.ones(len(texts), np.int64)
        if self._repeats is not None:
            label = _label_vectors(batch).argmax(axis=1)
            wanted = zip(self._repeats[label].tolist(), digest[:, 1].tolist(), strict=True)
            times[:] = [repetitions(repeats, bits) for repeats, bits in wanted]
            counts.totals["oversampled"] += int((times - 1).sum())
        rows = np.repeat(np.arange(len(texts)), times)
        if self._altering is not None:
            copies, copies_whole, parents = self._altering(batch, whole, digest, rows, self._held_out, counts)
            joined = [pa.concat_arrays(columns) for columns in zip(batch.columns, copies.columns, strict=True)]
            batch = pa.record_batch(joined, schema=batch.schema)
            # After each row, and each of its repetitions, the copies that were made of it.
            order = np.argsort(np.concatenate([np.arange(len(rows)), parents]), kind="stable")
            rows = np.concatenate([rows, len(texts) + np.arange(len(parents))])[order]
            whole = np.concatenate([whole, copies_whole])
        _check_size(batch, rows)
        return _numbered(batch.take(pa.array(rows))), whole[rows]

    def _count(self, batch: pa.RecordBatch, whole: np.ndarray, split: str, counts: Counts) -> None:
        ids = batch.column("input_ids")
        lengths, tokens = np.diff(ids.offsets.to_numpy()), ids.values.to_numpy()
        counts.totals["written"] += len(tokens)
        counts.totals["unknown"] += int(np.count_nonzero(tokens == self._unknown_id))
        counts.totals["cut"] += int((whole - lengths).sum())
        counts.totals["rows_cut"] += int(np.count_nonzero(whole > lengths))
        counts.rows[split] += batch.num_rows
        for label, count in enumerate(np.count_nonzero(_label_vectors(batch), axis=0).tolist()):
            counts.labels[f"{split} {label}"] += count
        for length, count in zip(*np.unique(whole, return_counts=True), strict=True):
            counts.lengths[f"{split} {length}"] += int(count)


def _label_vectors(batch: pa.RecordBatch) -> np.ndarray:
    """Reads the labels of a shard's rows, `[rows, num_labels] float32`; at least one row."""
    return batch.column("labels").flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)


def _check_size(batch: pa.RecordBatch, rows: np.ndarray) -> None:
    # Arrow counts the bytes of a column in 32 bits, and does not say where they are too few.
    for name in ("text", "text_pair"):
        lengths = pc.fill_null(pc.binary_length(batch.column(name)), 0).to_numpy(zero_copy_only=False)
        if lengths[rows].sum(dtype=np.int64) >= 2**31:
            raise InputError(
                f"data.balance or data.augmentation: a block's rows, written {len(rows) / len(lengths):.0f} times, "
                "would take more than 2 GB; set train.class_weights: balanced instead, or shuffle the file"
            )


def _numbered(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Numbers the rows of each id from 0 on, in `copy`; they stand side by side."""
    row_ids = batch.column("row_id").to_numpy()
    first = np.flatnonzero(np.r_[True, row_ids[1:] != row_ids[:-1]])
    copy = np.arange(len(row_ids)) - np.repeat(first, np.diff(np.r_[first, len(row_ids)]))
    column = batch.schema.get_field_index("copy")
    return batch.set_column(column, batch.schema.field(column), pa.array(copy, pa.int32()))
