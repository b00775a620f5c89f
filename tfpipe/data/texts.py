"""The texts of records: a cell each, or several cells joined by the template of `data.text`.

Numbers, truth values and dates in a text column are read as CSV would have them, bytes as UTF-8. An object or a list is
no text; the reason lists the dotted names in it.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any

import numpy as np

from tfpipe.config.data import Data
from tfpipe.config.template import parse_template
from tfpipe.data.block import as_json, excerpt, scalar_as_text
from tfpipe.data.nested import names_in

_PLAIN = {str, NoneType}
_NO_TEXT = (dict, list, tuple, np.ndarray)
_LISTED_NAMES, _MOST_NAMES = 4, 100
_LIKELY = re.compile(r"\.(text|content|name|label|value)$")  # these are listed first


@dataclass(frozen=True)
class NoText:
    """A cell that can't be a text."""

    value: Any
    reason: str

    def __str__(self) -> str:
        """Returns the value, for an excerpt."""
        return as_json(self.value)


def texts_of(column: Callable[[str], list[Any]], data: Data) -> tuple[list[Any], Counter[str]]:
    """Reads the text of each record, or why it has none, and counts the cells that were not text.

    Args:
      column: gives the cells of a column.
      data: names the columns.
    """
    kinds: Counter[str] = Counter()
    if data.text is None:
        return as_texts(column(data.text_column), "text", "data.text_column", data.text_column, kinds), kinds
    template = parse_template(data.text)
    parts = [as_texts(column(name), "text", "data.text", name, kinds) for name in template.columns]
    texts = []
    for row in zip(*parts, strict=True):
        unusable = next((part for part in row if isinstance(part, NoText)), None)
        texts.append(template.join(tuple([part or "" for part in row])) if unusable is None else unusable)
    return texts, kinds


def as_texts(cells: list[Any], what: str, setting: str, column: str, kinds: Counter[str]) -> list[Any]:
    """Turns cells into texts, None or `NoText`.

    Args:
      cells: of one column.
      what: its part of a record, for reasons.
      setting: names the column.
      column: its name.
      kinds: counts the cells that are neither text nor bytes, by their type.
    """
    if set(map(type, cells)) <= _PLAIN:
        return cells
    texts: list[Any] = []
    for cell in cells:
        if isinstance(cell, bytes):
            cell = cell.decode("utf-8", "surrogateescape")
        elif isinstance(cell, _NO_TEXT):
            cell = NoText(cell, reason_of_nested(cell, what, setting, column))
        elif cell is not None and not isinstance(cell, str):
            kinds[type(cell).__name__] += 1
            cell = scalar_as_text(cell)
        texts.append(cell)
    return texts


def reason_of_nested(value: Any, what: str, setting: str, column: str) -> str:
    """Tells why an object or a list is no text or label, and which names to write instead."""
    kind = "an object" if isinstance(value, dict) else "a list"
    names = sorted(itertools.islice(names_in({column: value}), _MOST_NAMES), key=lambda name: not _LIKELY.search(name))
    names = [excerpt(name) for name in names[:_LISTED_NAMES]]
    if kind == "a list" and names == [column]:  # of what is not nested
        return f"the {what} is a list; join it in the file, or write {setting}: {column}.0 for its first"
    return f"the {what} is {kind}; write {setting}: {' or '.join(names)}"
