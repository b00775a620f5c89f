"""The first reading of all rows, and what is decided from it.

Enters: blocks. Leaves: the labels, each rejected row, and `Decisions`: all that must be known of the other rows to say
what becomes of one. A row is judged here in microseconds, so that bad data ends a run before anything slow begins.

What is kept of a row is `RECORD`, 48 bytes, on disk in `BUCKETS` files by the row's digest, so that equal texts meet in
one of them; memory does not grow with the rows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tfpipe.config import Config
from tfpipe.config_data import SPLITS
from tfpipe.data.block import Block, Rejection
from tfpipe.data.duplicates import Verdict, judge
from tfpipe.data.labels import Labels, separator_of, split_cell
from tfpipe.data.rows import Rows, read_rows
from tfpipe.data.split import TRAIN, assign, borders, digests, places, turned

RECORD = np.dtype(
    [("digest", "<u8", 2), ("row_id", "<i8"), ("label", "<u8"), ("place", "<f8"), ("given", "i1")], align=True
)
BUCKETS = 64


@dataclass
class BlockSurvey:
    """What one block holds."""

    records: np.ndarray
    """`[rows] RECORD`"""
    accepted: int
    given: set[int]
    """the splits that the source gives, as places in `SPLITS`"""
    filtered: int
    filter_values: dict[str, list[str]]
    rejections: list[Rejection]
    label_values: Counter[str]
    """value in the label column -> rows"""
    size_bytes: int


@dataclass
class Survey:
    """What the first reading found, over all blocks."""

    accepted: int = 0
    filtered: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """reason -> rows"""
    label_values: Counter[str] = field(default_factory=Counter)
    given: set[int] = field(default_factory=set)
    blocks: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class Decisions:
    """What was decided from all rows; with it, a block is prepared on its own."""

    labels: Labels
    border: tuple[float, float]
    label_borders: dict[int, tuple[float, float]]
    """hash of a label -> its own borders, where splits are stratified"""
    open_train: bool
    """whether rows given for training are divided as well"""
    dropped: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """`[rows] int64`, sorted: rows that are left out as duplicates"""
    repeats: np.ndarray | None = None
    """`[num_labels] float64`: how often a training row of each label is written; None: once"""
    near_index: Path | None = None
    """where the signatures of the rows that judge lie; None: near duplicates are not looked for"""

    def with_borders(self, label_borders: dict[int, tuple[float, float]]) -> Decisions:
        """The same with borders of each label's own."""
        return replace(self, label_borders=label_borders)


def survey_block(block: Block, config: Config, labels: Labels | None, keep_records: bool = True) -> BlockSurvey:
    """Reads a block's rows and takes down what decides about them; without records, what the labels need."""
    rows = read_rows(block, config, labels)
    records = records_of(rows, config, labels) if keep_records else np.empty(0, RECORD)
    values = Counter(rows.labels)
    given = set(np.unique(rows.given).tolist()) - {-1}
    return BlockSurvey(
        records, len(rows), given, rows.filtered, rows.filter_values, rows.rejections, values, block.size_bytes
    )


def records_of(rows: Rows, config: Config, labels: Labels | None) -> np.ndarray:
    """What is kept of each row: `[rows] RECORD`."""
    records = np.zeros(len(rows), RECORD)
    if len(rows):
        records["digest"] = digests(rows.texts, rows.text_pairs, config.seed)
        records["row_id"], records["given"] = rows.row_ids, rows.given
        records["place"] = _places(rows, config, records["digest"])
        hashes = {cell: label_hash(cell, config, labels) for cell in set(rows.labels)}
        records["label"] = [hashes[cell] for cell in rows.labels]
    return records


def _places(rows: Rows, config: Config, digest: np.ndarray) -> np.ndarray:
    """Where in [0, 1) each row falls: by its group where there is one, else by its content."""
    if rows.groups is not None:
        digest = digests(rows.groups, None, config.seed)
    return turned(places(digest), config.data.split)


def label_hash(cell: str, config: Config, labels: Labels | None) -> int:
    """Equal for cells that mean the same labels."""
    values = split_cell(cell, separator_of(config))
    names = [labels.names[labels.index[value]] for value in values] if labels is not None else values
    joined = "\x1f".join(sorted(set(names))).encode()
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8, person=b"tfpipe label").digest(), "little")


def splits_of(records: np.ndarray, decisions: Decisions) -> np.ndarray:
    """The split of each record, `[rows] int8` places in `SPLITS`."""
    border: tuple = decisions.border
    if decisions.label_borders:
        labels, which = np.unique(records["label"], return_inverse=True)
        own = np.array([decisions.label_borders.get(label, decisions.border) for label in labels.tolist()])
        border = (own[which, 0], own[which, 1])
    return assign(records["place"], records["given"], border, decisions.open_train)


def decide(config: Config, labels: Labels, given: set[int]) -> Decisions:
    """The borders between the splits, the same for all labels.

    Args:
      config: the shares.
      labels: the labels.
      given: the splits that the source gives, as places in `SPLITS`.
    """
    open_train = bool(given) and len(given) < len(SPLITS)
    return Decisions(labels, borders(config.data.split, given), {}, open_train)


def open_rows(records: np.ndarray, decisions: Decisions) -> np.ndarray:
    """The records whose split is not given."""
    return records[(records["given"] < 0) | (decisions.open_train & (records["given"] == TRAIN))]


def judge_bucket(records: np.ndarray, decisions: Decisions, config: Config) -> tuple[Verdict, Counter[int]]:
    """The exact duplicates in some records, all of each digest; and the training rows of each label without them.

    The latter are counted for oversampling alone: hash of the label -> rows.
    """
    split = splits_of(records, decisions)
    verdict, counts = judge(records, split), Counter()
    if config.data.balance == "oversample":
        kept = (split == TRAIN) & ~np.isin(records["row_id"], verdict.dropped(config.data.duplicates.across_splits))
        labels, rows = np.unique(records["label"][kept], return_counts=True)
        counts.update(dict(zip(labels.tolist(), rows.tolist(), strict=True)))
    return verdict, counts


def bucket_of(records: np.ndarray) -> np.ndarray:
    """Equal for equal digests: `[rows] int64` below `BUCKETS`."""
    return (records["digest"][:, 0] >> np.uint64(58)).astype(np.int64)


class Buckets:
    """The records of all rows, on disk, equal digests in one file."""

    def __init__(self, directory: Path):
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._files = [open(directory / f"{number:02x}", "wb+") for number in range(BUCKETS)]  # noqa: SIM115

    def add(self, records: np.ndarray) -> None:
        """Appends records."""
        bucket = bucket_of(records)
        order = np.argsort(bucket, kind="stable")
        ends = np.searchsorted(bucket[order], np.arange(BUCKETS + 1))
        for number, file in enumerate(self._files):
            if ends[number] < ends[number + 1]:
                file.write(records[order[ends[number] : ends[number + 1]]].tobytes())

    def read(self) -> Iterator[np.ndarray]:
        """The records of one bucket after the other, in no order within it."""
        for file in self._files:
            file.flush()
            file.seek(0)
            yield np.frombuffer(file.read(), RECORD)

    def close(self) -> None:
        """Closes the files and removes them."""
        for number, file in enumerate(self._files):
            file.close()
            (self._directory / f"{number:02x}").unlink(missing_ok=True)
        self._directory.rmdir()
