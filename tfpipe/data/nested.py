"""Dotted names: `review.text` is the field `text` of the object `review`, `messages.1.content` counts in a list.

A field whose own name has the dot comes first. `messages.-1` is the last of a list. A name below a null is null.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

_INDEX = re.compile(r"-?[0-9]{1,9}", re.ASCII)
_DEPTH = 4  # of the names that an error lists


def as_index(part: str) -> int | None:
    """Returns the part of a dotted name that counts in a list, as a number; None for a name."""
    return int(part) if _INDEX.fullmatch(part) else None


@lru_cache(1024)
def splits(name: str) -> tuple[tuple[str, str], ...]:
    """Returns a name's head and its rest for each of its dots, the longest head first."""
    dots = [at for at, character in enumerate(name) if character == "."]
    return tuple((name[:at], name[at + 1 :]) for at in reversed(dots))


def value_at(value: Any, name: str) -> Any:
    """Finds the value that a dotted name means in nested dictionaries and lists.

    Raises:
      KeyError: there is no such value.
    """
    if value is None:
        return None
    if isinstance(value, dict):
        if name in value:
            return value[name]
        for head, rest in splits(name):
            if head in value:
                try:
                    return value_at(value[head], rest)
                except KeyError:
                    continue
    elif isinstance(value, list):
        head, dot, rest = name.partition(".")
        index = as_index(head)
        if index is not None and -len(value) <= index < len(value):
            return value_at(value[index], rest) if dot else value[index]
    raise KeyError(name)


def names_in(value: Any, prefix: str = "", depth: int = _DEPTH) -> Iterator[str]:
    """Yields the dotted names in an object: in a list of objects or of lists, those of its first element."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and value and isinstance(value[0], dict | list) and prefix:
        items = (("0", value[0]),)
    for name, below in items:
        dotted = f"{prefix}.{name}" if prefix else name
        if depth > 1 and isinstance(below, dict | list) and below:
            yield from names_in(below, dotted, depth - 1)
        else:
            yield dotted
    if prefix and not items:
        yield prefix
