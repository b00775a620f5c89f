"""Counts that are taken while tables are made, block by block; no TensorFlow, so adding up needs none."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counts:
    """Counts of the written rows, over some blocks; added up for the statistics."""

    rows: Counter[str] = field(default_factory=Counter)
    """split -> rows"""
    labels: Counter[str] = field(default_factory=Counter)
    """split and index of a label, `train 0` -> rows"""
    lengths: Counter[str] = field(default_factory=Counter)
    """split and tokens of a row before the cut, `train 27` -> rows"""
    scripts: Counter[str] = field(default_factory=Counter)
    """script -> letters, in a sample of the rows"""
    totals: Counter[str] = field(default_factory=Counter)
    """tokens written, cut and unknown; rows cut; altered copies that were made, and that were left out; repetitions"""

    def add(self, other: Counts) -> None:
        """Adds another block's counts."""
        for name in ("rows", "labels", "lengths", "scripts", "totals"):
            getattr(self, name).update(getattr(other, name))

    def to_json(self) -> str:
        """Writes the counts as one line."""
        return json.dumps(vars(self))

    @staticmethod
    def from_json(text: str) -> Counts:
        """Reads the counts that `to_json` wrote."""
        return Counts(**{name: Counter(value) for name, value in json.loads(text).items()})
