"""Columns that are likely to hold the texts and the labels."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tfpipe.data.block import as_text, excerpt
from tfpipe.data.labels.lists import listed

_TEXT_NAMES = (
    "text",
    "sentence",
    "review",
    "comment_text",
    "comment",
    "content",
    "body",
    "tweet",
    "utterance",
    "query",
)
_LABEL_NAMES = ("label", "labels", "sentiment", "category", "class", "intent", "target", "topic", "rating", "stars")
_SWITCHES = {"0", "1", "0.0", "1.0", "-1", "true", "false"}
_EXAMPLES = 3
_MOST_LABELS = 200
_FEWEST_WORDS = 3.0
_FEWEST_SWITCHES = 3
"""columns of zeros and ones that are labels together"""


@dataclass(frozen=True)
class Column:
    """A column of the first rows."""

    name: str
    examples: list[str]
    distinct: int
    """different values"""
    empty: int
    """rows without a value"""
    mean_words: float
    kind: str
    """text, list (of at most one), lists, or switches: zeros and ones alone"""


def columns_of(cells: dict[str, list[Any]]) -> list[Column]:
    """Describes columns by their cells."""
    return [_column(name, values) for name, values in cells.items()]


def _column(name: str, values: list[Any]) -> Column:
    texts = [text for value in values if (text := _shown(value))]
    counts = Counter(texts)
    kind = "text"
    if texts and {text.lower() for text in counts} <= _SWITCHES:
        kind = "switches"
    elif texts and None not in (lists := [listed(text) for text in counts]):
        kind = "lists" if any(len(each) > 1 for each in lists) else "list"
    return Column(
        name=name,
        examples=[excerpt(text) for text, _ in counts.most_common(_EXAMPLES)],
        distinct=len(counts),
        empty=len(values) - len(texts),
        mean_words=round(statistics.fmean(len(text.split()) for text in texts), 1) if texts else 0.0,
        kind=kind,
    )


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else as_text(value)


def text_column_of(columns: list[Column]) -> str | None:
    """Chooses the column of the texts: by its name, else the one with the most words; None if none has several."""
    wordy = [column for column in columns if column.kind == "text" and column.mean_words >= _FEWEST_WORDS]
    named = [column for name in _TEXT_NAMES for column in wordy if column.name.lower() == name]
    longest = sorted(wordy, key=lambda column: -column.mean_words)
    return next((column.name for column in (*named, *longest)), None)


def label_column_of(columns: list[Column]) -> tuple[str | list[str] | None, bool]:
    """Chooses the column of the labels, or the columns of zeros and ones; tells whether a row may have several."""
    text = text_column_of(columns)
    few = [each for each in columns if each.name != text and 1 < each.distinct <= _MOST_LABELS]
    named = [
        each
        for name in _LABEL_NAMES
        for each in columns
        if each.name.lower().split(".")[-1] == name and each.name != text
    ]
    switches = [column.name for column in columns if column.kind == "switches"]
    if not named and len(switches) >= _FEWEST_SWITCHES:
        return switches, True
    chosen = next(iter((*named, *sorted(few, key=lambda column: (column.empty, column.distinct)))), None)
    return (None, False) if chosen is None else (chosen.name, chosen.kind == "lists")
