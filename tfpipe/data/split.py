"""The split of a row, and whether the row came before: both from its content alone.

Enters: a row's texts and the seed. Leaves: "train", "validation" or "test". A hash decides, so that neither the order
of the rows, nor rows added later, nor the number of machines moves a row to another split, and exact duplicates can't
leak from training into what judges it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from tfpipe import config

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def content_digest(text: str, text_pair: str | None, salt: bytes = b"") -> bytes:
    """BLAKE2b (RFC 7693, 16 bytes) of a row's texts; the label is no part of it.

    The first text's length stands before it, so that no two different pairs hash the same bytes.
    """
    first = text.encode()
    hasher = hashlib.blake2b(len(first).to_bytes(8, "little") + first, digest_size=16, salt=salt, person=b"tfpipe row")
    if text_pair is not None:
        hasher.update(b"\x01" + text_pair.encode())
    return hasher.digest()


def split_of(text: str, text_pair: str | None, seed: int, split: config.Split) -> SplitName:
    """The split of a row: a pure function of its texts, the seed and the shares.

    Args:
      text: the first or only text.
      text_pair: the second text, or None.
      seed: seed of the run; another seed deals all rows anew.
      split: the shares; moving a border moves only the rows between the old border and the new one.
    """
    digest = content_digest(text, text_pair, salt=seed.to_bytes(8, "little"))
    # 53 bits fill a float64 exactly: 64 would let the largest values round up to 1.
    place = (int.from_bytes(digest[:8], "little") >> 11) / 2**53
    if place < split.train:
        return "train"
    return "validation" if place < split.train + split.validation else "test"


@dataclass
class Duplicates:
    """Which texts came before, and with which labels. Two hashes a row are kept, not the texts."""

    repeated: set[bytes] = field(default_factory=set)
    """digests of the texts that came more than once"""
    conflicting: set[bytes] = field(default_factory=set)
    """digests of those that came with different labels"""
    dropped: int = 0
    """rows that the caller left out for being identical to an earlier one"""
    _texts: set[bytes] = field(default_factory=set)
    _labelled: set[bytes] = field(default_factory=set)

    def seen(self, text: str, text_pair: str | None, labels: bytes) -> bool:
        """Whether the same texts came before with the same labels; remembers them.

        Args:
          text: the first or only text.
          text_pair: the second text, or None.
          labels: the label vector's bytes, or anything else that is equal for equal labels.
        """
        content = content_digest(text, text_pair)
        labelled = hashlib.blake2b(labels, digest_size=16, salt=content, person=b"tfpipe labels").digest()
        known = labelled in self._labelled
        if content in self._texts:
            self.repeated.add(content)
            if not known:
                self.conflicting.add(content)
        self._texts.add(content)
        self._labelled.add(labelled)
        return known
