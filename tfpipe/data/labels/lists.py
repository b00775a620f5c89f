"""Lists of labels in a text, as other tools write a cell that holds several labels.

Enters: one cell. Leaves: its elements, or None for a text that is no list. Each cell tells its form by itself:

    ["a","b"]  {"choices":["a","b"]}      JSON; Label Studio
    ['a', "it's"]  ('a',)  {'a'}          Python
    ['a' 'b']  [0 1 1]  [1. 0.]           NumPy, also as pandas and Hugging Face datasets write arrays
    [a, 'Funny, dry', NULL]               DuckDB; Java, Trino and Spark without the quotes
    {a,"b c",NULL}                        PostgreSQL
    <a><b>                                Stack Exchange
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

_TAGS = re.compile(r"(?:<[^<>]+>)+")
_ITEM = re.compile(
    r"""\s*(?:np\.\w+\()?              # NumPy 2 names the type of a number or text that stands in a Python list
    (?: '((?:[^'\\]|\\.)*)' | "((?:[^"\\]|\\.)*)" | ([^\s,'"\[\](){}<>](?:[^,'"\[\](){}<>]*[^\s,'"\[\](){}<>])?) )
    \)?\s*(,|$|(?=['"]))""",
    re.VERBOSE | re.DOTALL,
)
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)|True|False")
_NULLS = {"null", "NULL", "None", "nan", "NaN"}
CHOICES = "choices"
"""key of Label Studio's objects"""


def listed(text: str) -> list[Any] | None:
    """Reads a list of labels.

    Args:
      text: a cell, without white space around it.

    Returns:
      The elements: text, numbers, truth values, or None for a null. None for a text that is no such list.
    """
    if len(text) < 2 or _BRACKETS.get(text[0], ">" if text[0] == "<" else None) != text[-1]:
        return None
    if text[0] == "<":
        return text[1:-1].split("><") if _TAGS.fullmatch(text) else None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _elements(text[1:-1], text[0])
    if isinstance(found, dict):
        found = found.get(CHOICES) if found else []  # PostgreSQL's empty array is JSON's empty object
    return found if isinstance(found, list) and not any(isinstance(each, list | dict) for each in found) else None


def _elements(inside: str, bracket: str) -> list[Any] | None:
    if not inside.strip():
        return []
    words = inside.split()
    if "..." in words:
        return None  # NumPy leaves out the middle of a long array
    if bracket == "[" and all(map(_NUMBER.fullmatch, words)):
        return [_bare(word) for word in words]
    found, at, commas = [], 0, 0
    while at < len(inside):
        item = _ITEM.match(inside, at)
        if item is None:
            return None
        single, double, bare, end = item.groups()
        if bare is not None and bracket == "(":
            return None  # a remark in parentheses, and no list
        found.append(_bare(bare) if bare is not None else _quoted(single, double, postgres=bracket == "{"))
        at, commas = item.end(), commas + (end == ",")
    # Between NumPy's texts is no comma, and between all others is one.
    if commas not in (0, len(found) - 1, len(found)) or (not commas and len(found) > 1 and bracket != "["):
        return None
    return None if commas == len(found) and bracket == "{" else found


def _bare(word: str) -> Any:
    if word in _NULLS:
        return None
    if word in ("True", "False", "true", "false"):
        return word in ("True", "true")
    return float(word) if "." in word and _NUMBER.fullmatch(word) else word


def _quoted(single: str | None, double: str | None, *, postgres: bool) -> str:
    if postgres and double is not None:
        return re.sub(r"\\(.)", r"\1", double, flags=re.DOTALL)
    body, quote = (double, '"') if single is None else (single, "'")
    if "\\" not in body:
        return body
    try:
        return ast.literal_eval(quote + body.replace("\n", "\\n") + quote)
    except (ValueError, SyntaxError):
        return body
