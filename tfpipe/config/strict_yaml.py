"""YAML that can be read in one way only, and fast.

Enters: text. Leaves: dictionaries, lists and scalars, of which no two places share one. The reader refuses YAML 1.1
that says something else than its author meant: a key that stands twice, 010 for 8, 1:30 for 90, 0b11 for 3, 1_0 for 10,
half a character. It also refuses content that grows when it is read: aliases of aliases, merges of merges.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from tfpipe.escaping import SURROGATES

MOST_BYTES = 1 << 20  # PyYAML reads about 100 KB a second
_MOST_VALUES = 200_000  # with every alias written out
_MOST_DIGITS = 1000
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map")}
_MERGE = "tag:yaml.org,2002:merge"


def read(text: str) -> Any:
    """Reads the value that a document holds.

    Raises:
      yaml.YAMLError, ValueError: it is malformed, ambiguous, or too large; the message says where.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES >> 20} MB of text")
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if _values(loader, root, {}) > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES:,} values, with aliases written out")
        return _unshared(loader.construct_document(root))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (LookupError, AttributeError, TypeError, OverflowError) as error:  # KeyError for !!bool x, …
        raise ValueError(f"{type(error).__name__} {error}") from error
    finally:
        loader.dispose()


def _values(loader: yaml.SafeLoader, node: yaml.Node, known: dict[int, int]) -> int:
    """Counts the values of a node with every alias in it written out, and checks each node once."""
    if id(node) in known:
        if not known[id(node)]:
            raise yaml.MarkedYAMLError(problem="an alias of what it stands in", problem_mark=node.start_mark)
        return known[id(node)]
    known[id(node)] = 0
    if node.tag not in _TAGS:
        raise yaml.MarkedYAMLError(problem=f"the tag {node.tag} has no meaning here", problem_mark=node.start_mark)
    count = 1
    if isinstance(node, yaml.MappingNode):
        keys = set()
        for key, value in node.value:
            if key.tag != _MERGE:
                count += _values(loader, key, known)
                if isinstance(key, yaml.ScalarNode) and (name := loader.construct_object(key)) in keys:
                    raise yaml.MarkedYAMLError(problem=f"the key {name} stands twice", problem_mark=key.start_mark)
                keys.add(name if isinstance(key, yaml.ScalarNode) else id(key))
            count += _values(loader, value, known)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_values(loader, value, known) for value in node.value)
    else:
        _check_scalar(node)
    known[id(node)] = count
    return count


def _check_scalar(node: yaml.ScalarNode) -> None:
    kind, text = node.tag.rpartition(":")[2], node.value
    if half := SURROGATES.search(text):
        problem = f"\\u{ord(half[0]):04x} is half a character; write the character, or its number, such as \\U0001f600"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    if kind not in ("int", "float"):
        return
    if len(text) > _MOST_DIGITS:
        raise yaml.MarkedYAMLError(problem=f"a number of {len(text)} characters", problem_mark=node.start_mark)
    digits = text.lstrip("+-")
    if ":" in text:
        counts = "counts by sixties"
    elif "_" in text:
        counts = "is read without _"
    elif kind == "int" and digits.startswith("0b"):
        counts = "counts in binary"
    elif kind == "int" and re.match(r"0\d", digits):
        counts = "counts in octal"
    else:
        return
    problem = f"{text} {counts} in YAML 1.1; put it in quotes, or write the number in decimal"
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _unshared(value: Any) -> Any:
    """Copies a value so that no two places share a part: each can be changed alone."""
    if isinstance(value, dict):
        return {key: _unshared(each) for key, each in value.items()}
    return [_unshared(each) for each in value] if isinstance(value, list) else value
