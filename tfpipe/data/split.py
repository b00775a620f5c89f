"""The split of a row: by a hash of its content.

Enters: texts, the seed, the splits that the source gives. Leaves: a position in [0, 1) for each row, and from it
"train", "validation" or "test". A hash decides, so that neither the order of the rows, nor the number of files or
machines, nor rows added later move a row to another split. Equal texts can't be in two splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from tfpipe.config.data import SPLITS, SplitName
from tfpipe.config.rows import Split

TRAIN, VALIDATION, TEST = range(len(SPLITS))
_FEWEST_TO_STRATIFY = 10
_SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip


def split_name(value: str) -> SplitName | None:
    """Returns the split that a value such as `dev` or `Test` names, None for any other."""
    return _SPLIT_NAMES.get(value.strip().lower())


def content_digest(text: str, text_pair: str | None, salt: bytes = b"") -> bytes:
    """Hashes a row's texts by BLAKE2b (RFC 7693, 16 bytes), without the label.

    The length of the first text stands before it, so that no two different pairs hash the same bytes.
    """
    first = text.encode()
    hasher = hashlib.blake2b(len(first).to_bytes(8, "little") + first, digest_size=16, salt=salt, person=b"tfpipe row")
    if text_pair is not None:
        hasher.update(b"\x01" + text_pair.encode())
    return hasher.digest()


def digests(texts: Sequence[str], text_pairs: Iterable[str] | None, seed: int) -> np.ndarray:
    """Hashes the content of each row: `[rows, 2] uint64`. Another seed gives other digests."""
    salt = seed.to_bytes(8, "little")
    pairs = text_pairs if text_pairs is not None else [None] * len(texts)
    joined = b"".join(content_digest(text, pair, salt) for text, pair in zip(texts, pairs, strict=True))
    return np.frombuffer(joined, "<u8").reshape(-1, 2)


def positions(digest: np.ndarray) -> np.ndarray:
    """Spreads digests evenly over [0, 1): `[rows, 2] uint64` -> `[rows] float64`."""
    # 53 bits fill a float64 exactly: 64 would let the largest values round up to 1.
    return (digest[:, 0] >> np.uint64(11)).astype(np.float64) / 2**53


def borders(split: Split, given: set[int]) -> tuple[float, float]:
    """Computes where, among the rows whose split is open, validation and test begin.

    Args:
      split: the shares.
      given: the splits that the source gives, as indices in `SPLITS`. Another split is taken from the rows that it
        gives for training, with its share.
    """
    if split.folds is not None:
        rest = 1 - 1 / split.folds
        return rest * split.train / (split.train + split.validation), rest
    if not given:
        return split.train, split.train + split.validation
    validation = 0.0 if VALIDATION in given else split.validation
    test = 0.0 if TEST in given else split.test
    return 1 - validation - test, 1 - test


def turned(position: np.ndarray, split: Split) -> np.ndarray:
    """Turns the positions so that the fold that is tested comes last."""
    return position if split.folds is None else (position - (split.fold + 1) / split.folds) % 1.0


def stratified_borders(
    position: np.ndarray, label: np.ndarray, border: tuple[float, float]
) -> dict[int, tuple[float, float]]:
    """Computes borders for each label, so that its distinct texts have the given shares exactly, to a text.

    Rows of one text stay together, however many there are. A label of fewer than ten texts gets no borders: rounded,
    its share of test would always be none, or too much.

    Args:
      position: `[rows] float64`, of the rows whose split is open; equal for rows of one text.
      label: `[rows] uint64`.
      border: the borders in shares.
    """
    order = np.lexsort((position, label))
    position, (labels, starts) = position[order], np.unique(label[order], return_index=True)
    found = {}
    for value, first, last in zip(labels.tolist(), starts, [*starts[1:], len(position)], strict=True):
        own = np.unique(position[first:last])
        if len(own) < _FEWEST_TO_STRATIFY:
            continue
        ranks = (round(share * len(own)) for share in border)
        # A row is before a border if its position is smaller.
        found[value] = tuple(float(own[rank]) if rank < len(own) else 1.0 for rank in ranks)
    return found


def assign(
    position: np.ndarray, given: np.ndarray, border: tuple[np.ndarray | float, np.ndarray | float], open_train: bool
) -> np.ndarray:
    """Assigns each row to a split, `[rows] int8` indices in `SPLITS`.

    Args:
      position: `[rows] float64`, after `turned`.
      given: `[rows] int8`, -1 where the source gives none.
      border: where validation and test begin, for all rows or for each.
      open_train: whether rows given for training are divided as well, as the source lacks a split.
    """
    by_position = (position >= border[0]).astype(np.int8) + (position >= border[1]).astype(np.int8)
    is_open = (given < 0) | (open_train & (given == TRAIN))
    return np.where(is_open, by_position, given).astype(np.int8)
