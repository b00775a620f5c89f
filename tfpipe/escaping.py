"""Text of unknown origin in Markdown and on a terminal: shown as it is, with any content.

Labels, sources and versions end up in model cards and tables, which sites render as HTML: none of them may become a
tag, a link (GitHub makes links of bare addresses too), a column or the end of a block. Texts and labels also reach
terminals, which some characters control.
"""

from __future__ import annotations

import html
import re

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""what a terminal obeys, or turns the direction of what follows; tabs and line breaks apart"""

_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
"""what a page or an SVG can't hold, or what turns the direction of all that follows; marks of direction stay"""

SURROGATES = re.compile("[\ud800-\udfff]")
"""what is no character: bytes that are not UTF-8, as errors="surrogateescape" marks them, and what JSON writes so"""

# Where GitHub finds a link in running text: after a scheme, www, or the name of a mailbox.
_LINK = re.compile(r"((?:https?|ftp):)(?=//)|(www)(?=\.)|(?<=[\w.+-])(?=@[\w.-]*\.)", re.IGNORECASE)


def markdown(value: object) -> str:
    """Escapes running text, or a cell of a table: on one line, without markup."""
    escaped = html.escape(" ".join(str(value).split()), quote=False)
    escaped = re.sub(r"([\\`*\[\]|~#!$]|(?<!\w)_|_(?!\w))", r"\\\1", escaped)  # within a word, _ is no markup
    return _LINK.sub(lambda match: f"{match[0]}<!-- -->", escaped)  # mail is found behind \ and entities


def code(value: object) -> str:
    """Makes a span of code, on one line."""
    shown = " ".join(str(value).split())
    ticks = "`" * (_longest_ticks(shown) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{space}{shown}{space}{ticks}"


def block(content: str, language: str) -> str:
    """Makes a block of code."""
    ticks = "`" * max(3, _longest_ticks(content) + 1)
    return f"{ticks}{language}\n{content}\n{ticks}"


def printable(value: str) -> str:
    """Makes one line for a terminal: no control characters, and none that turn the direction of what follows."""
    return without_commands(" ".join(value.split()))


def without_commands(value: str) -> str:
    """Cleans text for a terminal, lines and spaces kept: no control characters, none that turn the direction."""
    return _COMMANDS.sub("\ufffd", value)


def visible(value: str) -> str:
    """Cleans text for a page, lines and spaces kept: no invisible characters, none that turn the direction."""
    return _UNSEEN.sub("\ufffd", value.replace("\r\n", "\n"))


def _longest_ticks(content: str) -> int:
    return max(map(len, re.findall("`+", content)), default=0)
