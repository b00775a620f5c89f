r"""Backslash escapes in delimited files, as databases and R write them.

Without quotes, PostgreSQL (`COPY`), MySQL and Hive write `\n`, `\t`, `\\` for a character, or put a backslash before a
separator or a line end. Within quotes, R, Spark and MySQL escape a quote alone. `\N`, which stands for a missing
value, remains, as does a backslash before any other character.
"""

from __future__ import annotations

import re

# A character that was escaped is hidden from csv as a surrogate, which no decoded text holds. A backslash before a line
# end is left to csv, which counts lines.
_HIDDEN = 0xD800
_SHOWN = {_HIDDEN + code: code for code in range(128)}
_MARK = re.compile("[\ud800-\ud87f]")
_ESCAPE = re.compile(r"\\(?![\r\n])(.?)", re.DOTALL)
_CONTROL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ONE = re.compile(r"\\(.?)", re.DOTALL)
_NULL = re.compile(r"(?:^|\t)\\N(?=[\t\r\n])", re.MULTILINE)


def hidden(text: str, separator: str, quoting: bool) -> str:
    """Returns a text for csv: each escape becomes the character that it stands for, hidden."""
    if "\\" not in text:
        return text
    control = {} if quoting else _CONTROL
    plain = ('"', "\\") if quoting else ('"', "\\", separator)

    def replaced(match: re.Match) -> str:
        character = match[1]
        meant = control.get(character, character if character in plain else None)
        return chr(_HIDDEN + ord("\\")) + character if not meant else chr(_HIDDEN + ord(meant))

    return _ESCAPE.sub(replaced, text)


def shown(cells: list[str]) -> list[str]:
    """Returns the cells with the characters that were hidden."""
    return [cell.translate(_SHOWN) if not cell.isascii() and _MARK.search(cell) else cell for cell in cells]


def without_escapes(content: bytes) -> bytes:
    """Replaces escaped bytes that look like a quote or a line end by other bytes, keeping the length."""
    if b"\\" not in content:
        return content
    return content.replace(b"\\\\", b"__").replace(b'\\"', b"__").replace(b"\\\n", b"__")


def look_escaped(text: str, quoting: bool | None) -> bool:
    r"""Tells whether all backslashes of a text between tabs are escapes, such as of PostgreSQL, or a cell is `\N`."""
    found = set(_ONE.findall(text))
    if quoting:
        return '"' in found and found <= {'"', "\\"}
    return bool(found) and (_NULL.search(text) is not None or found <= {*_CONTROL, "\\", "N", "\n", "\t", '"'})
