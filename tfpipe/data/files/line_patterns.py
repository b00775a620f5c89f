"""Patterns of lines and of file names: `{label} {text}`, `{text}@{label}`, `rt-{label}.txt`.

A name in braces is a column, all else stands for itself. The text's column takes as much as it can, another column as
little as it can: `{text}@{label}` splits at the last @, and `{label} {text}` at the first blank.
"""

from __future__ import annotations

import re
from pathlib import PurePath

from tfpipe.config.data import Data, pattern_columns
from tfpipe.data.files.streams import COMPRESSIONS
from tfpipe.errors import InputError

_SUFFIXES = ("txt", "text", "data", "dat", *(suffix[1:] for suffix in COMPRESSIONS))
_WORD = r"[\w:+./-]{1,40}"
_AFTER_A_BLANK = r"[A-Z]+:\w+|[-+]?\d"  # any text begins with a word and a blank
_MOST_LABELS = 200  # of lines that are taken for label and text


def line_columns(data: Data) -> list[str]:
    """Returns the columns of a line, in their order."""
    return [data.text_column] if data.line is None else pattern_columns(data.line)


def line_expression(data: Data) -> re.Pattern[str]:
    """Makes the expression that matches a line; a group for each of `line_columns`."""
    return _expression(data.line or f"{{{data.text_column}}}", data.text_column)


def file_values(path: str, name: str, data: Data) -> dict[str, str]:
    """Reads the values in the name of a file, by `data.file_name`: column -> value.

    Args:
      path: of the file; the pattern is that of its last parts.
      name: of the file, as it is shown.
      data: the pattern; None: there are no such columns.

    Raises:
      InputError: the name does not fit.
    """
    if data.file_name is None:
        return {}
    parts = data.file_name.count("/") + 1
    end = "/".join(PurePath(path).parts[-parts:])
    match = _expression(data.file_name, None).fullmatch(end)
    if match is None:
        raise InputError(f"{name}: {end!r} does not fit data.file_name {data.file_name!r}; correct one of them")
    return dict(zip(pattern_columns(data.file_name), match.groups(), strict=True))


def _expression(pattern: str, text: str | None) -> re.Pattern[str]:
    """Makes a regular expression of a pattern. In a name (`text` is None), * stands for anything within a part."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    literals = [re.escape(each) if text is not None else re.escape(each).replace(r"\*", "[^/]*") for each in parts[::2]]
    groups = ["([^/]+?)" if text is None else "(.*)" if column == text else "(.*?)" for column in parts[1::2]]
    return re.compile("".join(a + b for a, b in zip(literals, [*groups, ""], strict=True)), re.DOTALL)


def matching_pattern(lines: list[str], data: Data) -> str | None:
    """Returns a pattern that fits each of some lines and gives few labels, a word each; None without such a pattern."""
    text, label = f"{{{data.text_column}}}", f"{{{data.label_column}}}"
    if text == label:  # of a reader that wants no label
        return None
    of_label = pattern_columns(label)[0]
    for pattern in (
        *(f"{label}\t{text}", f"{text}\t{label}", f"{text}@{label}", f"{label} ||| {text}", f"{text} ||| {label}"),
        *(f"{label},{text}", f"{label};{text}", f"{label}|{text}", f"{label} {text}", f"{text},{label}"),
    ):
        matches = [_expression(pattern, data.text_column).fullmatch(line) for line in lines]
        if not all(matches):
            continue
        at = pattern_columns(pattern).index(of_label)
        if _are_labels([match.groups()[at] for match in matches], _AFTER_A_BLANK if " {" in pattern else _WORD):
            return pattern
    return None


def _are_labels(found: list[str], form: str) -> bool:
    words = all(re.fullmatch(form, label) for label in found)
    return words and len(found) >= 4 and len(set(found)) <= min(_MOST_LABELS, len(found) // 3)


def proposed_file_name(path: str) -> str:
    """Returns the name of a file as a pattern, with the label in place of its last word."""
    name = PurePath(path).name
    words = [match for match in re.finditer(r"[^\W_]+", name) if match[0].lower() not in _SUFFIXES]
    if not words:
        return "{label}"
    return name[: words[-1].start()] + "{label}" + name[words[-1].end() :]
