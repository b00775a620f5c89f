"""The template of `data.text`: several columns as one text, such as `{title}\\n{body}`.

A column's name stands in braces; `{{` and `}}` stand for a brace. An empty part leaves nothing behind, and white space
at both ends of the text is stripped, so that a client can join the same text with a replacement and a strip.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_PIECE = re.compile(r"(\{\{|\}\})|\{([^{}]+)\}|([{}])")


@dataclass(frozen=True)
class Template:
    """A template, parsed."""

    literals: tuple[str, ...]
    """what stands before each column, and after the last"""
    columns: tuple[str, ...]
    """the columns in their order; one may occur several times"""

    def join(self, parts: tuple[str, ...]) -> str:
        """Joins the texts of the columns; "" where all of them are blank, whatever stands between them."""
        if not any(part and not part.isspace() for part in parts):
            return ""
        pieces = [literal + part for literal, part in zip(self.literals, parts, strict=False)]
        return ("".join(pieces) + self.literals[-1]).strip()


@lru_cache
def parse_template(text: str) -> Template:
    """Parses a template.

    Raises:
      ValueError: it names no column, or a brace stands alone; says how to write it.
    """
    literals, columns, at = [""], [], 0
    for piece in _PIECE.finditer(text):
        literals[-1] += text[at : piece.start()]
        at = piece.end()
        brace, column, alone = piece.groups()
        if alone:
            raise ValueError(
                f"data.text {text!r}: the {alone} stands alone; write {{COLUMN}}, or {alone * 2} for a brace"
            )
        if column is None:
            literals[-1] += brace[0]
        else:
            columns.append(column)
            literals.append("")
    literals[-1] += text[at:]
    if not columns:
        raise ValueError(f"data.text {text!r} names no column; write columns in braces, such as '{{title}} {{body}}'")
    return Template(tuple(literals), tuple(columns))
