"""Writing systems of a text: the Unicode property Script of its letters."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable

import numpy as np
import regex

_SCRIPTS = (
    "Latin", "Cyrillic", "Greek", "Han", "Hiragana", "Katakana", "Hangul", "Arabic", "Hebrew", "Devanagari",
    "Bengali", "Tamil", "Telugu", "Kannada", "Malayalam", "Gujarati", "Gurmukhi", "Sinhala", "Thai", "Lao", "Khmer",
    "Myanmar", "Tibetan", "Georgian", "Armenian", "Ethiopic", "Mongolian",
)  # fmt: skip


def count_scripts(texts: Iterable[str]) -> Counter[str]:
    """Counts the letters of each script; `Other` for the rarer ones."""
    joined = "".join(texts).encode("utf-32-le", "replace")
    points, counts = np.unique(np.frombuffer(joined, "<u4"), return_counts=True)
    found: Counter[str] = Counter()
    for point, count in zip(points.tolist(), counts.tolist(), strict=True):
        script = _script(chr(point))
        if script is not None:
            found[script] += count
    return found


@functools.cache
def _script(character: str) -> str | None:
    if not character.isalpha():
        return None
    return next((script for script in _SCRIPTS if regex.match(rf"\p{{Script={script}}}", character)), "Other")
