"""The first reading of all rows, and the decisions from it.

Enters: blocks. Leaves: the labels, each rejected row, and `Decisions`: the facts about all rows that give a row its
labels and its split. A row is checked here in microseconds, so that bad data ends a run before anything slow begins.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from tfpipe.config.data import SPLITS
from tfpipe.config.run import Config
from tfpipe.data.block import Block, Rejection
from tfpipe.data.labels.cells import LabelForm
from tfpipe.data.labels.names import Labels
from tfpipe.data.rows import Rows, read_rows
from tfpipe.data.split import TRAIN, assign, borders, digests, positions, stratified_borders, turned

STRATUM = np.dtype([("label", "<u8"), ("position", "<f8"), ("given", "i1")], align=True)
"""what is kept of a row where splits are stratified: hash of its label, position in [0, 1), its given split or -1"""


@dataclass
class BlockSurvey:
    """The content of one block."""

    accepted: int
    given: set[int]
    """the splits that the source gives, as indices in `SPLITS`"""
    filtered: int
    filter_values: dict[str, list[str]]
    rejections: list[Rejection]
    label_values: Counter[tuple[int, tuple[str, ...]]]
    """given split, or -1, and values of a row's labels -> rows"""
    without_label: Counter[int]
    """given split, or -1 -> rows without a label, left out or rejected"""
    unlabeled: int
    """rows without a label that are left out"""
    strata: np.ndarray
    """`[rows] STRATUM`; of no row where splits are not stratified"""
    size_bytes: int
    kinds: Counter[str] = field(default_factory=Counter)
    """type of the cells that were read as text, where that is another type -> cells"""
    sliced: set[str] = field(default_factory=set)
    """columns of `report.slices` that have a value in some row"""


@dataclass
class Survey:
    """The results of the first reading, over all blocks."""

    accepted: int = 0
    filtered: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """reason -> rows"""
    rejected_labels: Counter[str | None] = field(default_factory=Counter)
    """label of a rejected row -> rows"""
    label_values: Counter[tuple[int, tuple[str, ...]]] = field(default_factory=Counter)
    """see `BlockSurvey`"""
    without_label: Counter[int] = field(default_factory=Counter)
    unlabeled: int = 0
    given: set[int] = field(default_factory=set)
    filter_values: dict[str, dict[str, None]] = field(default_factory=dict)
    """column of the filter -> the values found there, in their order"""
    strata: list[np.ndarray] = field(default_factory=list)
    blocks: int = 0
    size_bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """type of the cells that were read as text, where that is another type -> cells"""
    sliced: set[str] = field(default_factory=set)
    """columns of `report.slices` that have a value in some row"""

    def add(self, found: BlockSurvey) -> None:
        """Adds another block."""
        self.blocks += 1
        self.size_bytes += found.size_bytes
        self.accepted += found.accepted
        self.filtered += found.filtered
        self.rejected.update(rejection.reason for rejection in found.rejections)
        self.rejected_labels.update(rejection.label for rejection in found.rejections)
        self.label_values.update(found.label_values)
        self.without_label.update(found.without_label)
        self.unlabeled += found.unlabeled
        self.given |= found.given
        for column, values in found.filter_values.items():
            self.filter_values.setdefault(column, {}).update(dict.fromkeys(values))
        self.strata.append(found.strata)
        self.kinds.update(found.kinds)
        self.sliced |= found.sliced

    def rows_of_values(self) -> Counter[str]:
        """Counts the rows that have each label value."""
        counts: Counter[str] = Counter()
        for (_, values), rows in self.label_values.items():
            counts.update(dict.fromkeys(values, rows))
        return counts


@dataclass(frozen=True)
class Decisions:
    """Decisions made from all rows; given them, a row's labels and split depend on the row alone."""

    form: LabelForm
    labels: Labels
    border: tuple[float, float]
    label_borders: dict[int, tuple[float, float]]
    """hash of a label -> its own borders, where splits are stratified"""
    open_train: bool
    """whether rows given for training are divided as well"""


class Surveyor:
    """A function that reads a block's rows and collects the facts that decide about them."""

    def __init__(self, config: Config, form: LabelForm, labels: Labels | None):
        self._config, self._form, self._labels = config, form, labels

    def __call__(self, block: Block) -> BlockSurvey:
        """Surveys a block."""
        config = self._config
        rows = read_rows(block, config, self._form, self._labels)
        strata = np.zeros(len(rows) if config.data.split.stratified else 0, STRATUM)
        if len(strata):
            strata["label"] = hashes(rows.labels, _hash)
            strata["position"] = positions_of(rows, digests(rows.texts, rows.text_pairs, config.seed), config)
            strata["given"] = rows.given
        return BlockSurvey(
            accepted=len(rows),
            given=set(np.unique(rows.given).tolist()) - {-1},
            filtered=rows.filtered,
            filter_values=rows.filter_values,
            rejections=rows.rejections,
            label_values=Counter(zip(rows.given.tolist(), rows.labels, strict=True)),
            without_label=Counter(rows.without_label.tolist()),
            unlabeled=rows.unlabeled,
            strata=strata,
            size_bytes=block.size_bytes,
            kinds=rows.kinds,
            sliced={column for column, values in rows.slices.items() if any(value is not None for value in values)},
        )


def decide(config: Config, form: LabelForm, labels: Labels, survey: Survey) -> Decisions:
    """Decides the labels and the borders between the splits."""
    open_train = bool(survey.given) and len(survey.given) < len(SPLITS)
    border, own = borders(config.data.split, survey.given), {}
    if config.data.split.stratified:
        strata = np.concatenate([np.empty(0, STRATUM), *survey.strata])
        strata = strata[(strata["given"] < 0) | (open_train & (strata["given"] == TRAIN))]
        # The labels were not known when the values were taken down.
        known = {_hash(values): label_hash(labels.of(values), labels) for _, values in survey.label_values}
        before, which = np.unique(strata["label"], return_inverse=True)
        label = np.array([known[each] for each in before.tolist()], np.uint64)[which]
        own = stratified_borders(strata["position"], label, border)
    return Decisions(form, labels, border, own, open_train)


def positions_of(rows: Rows, digest: np.ndarray, config: Config) -> np.ndarray:
    """Returns each row's position in [0, 1), `[rows] float64`: by its group, if there is one, else by its content."""
    if rows.groups is not None:
        digest = digests(rows.groups, None, config.seed)
    return turned(positions(digest), config.data.split)


def label_hashes(rows: Rows, labels: Labels) -> np.ndarray:
    """Hashes labels, equal for rows of the same labels: `[rows] uint64`."""
    return hashes(rows.labels, lambda values: label_hash(labels.of(values), labels))


def label_hash(indices: Iterable[int], labels: Labels) -> int:
    """Returns a hash that rows of these labels share, and no others."""
    return _hash(labels.names[index] for index in indices)


def hashes(labels: list[tuple[str, ...]], hash_of: Callable[[tuple[str, ...]], int]) -> np.ndarray:
    """Returns the hash of each row's labels, `[rows] uint64`; each combination is hashed once."""
    found = {values: hash_of(values) for values in set(labels)}
    return np.array([found[values] for values in labels], np.uint64)


def _hash(values: Iterable[str]) -> int:
    listed = json.dumps(sorted(values)).encode()  # no separator that a name could hold
    return int.from_bytes(hashlib.blake2b(listed, digest_size=8, person=b"tfpipe label").digest(), "little")


def splits_of(position: np.ndarray, given: np.ndarray, label: np.ndarray, decisions: Decisions) -> np.ndarray:
    """Assigns each row to a split, `[rows] int8` indices in `SPLITS`.

    Args:
      position: `[rows] float64`, of `positions_of`.
      given: `[rows] int8`, -1 where the source gives none.
      label: `[rows] uint64`, of `label_hashes`.
      decisions: the borders.
    """
    border: tuple = decisions.border
    if decisions.label_borders:
        values, which = np.unique(label, return_inverse=True)
        own = [decisions.label_borders.get(value, decisions.border) for value in values.tolist()]
        own = np.array(own, np.float64).reshape(-1, 2)  # of no row, too
        border = (own[which, 0], own[which, 1])
    return assign(position, given, border, decisions.open_train)
