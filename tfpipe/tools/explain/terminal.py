"""Explanations on a terminal: words by color, for the label or against it; elsewhere each word with its number."""

from __future__ import annotations

import re

from rich.console import Console
from rich.text import Text

from tfpipe.escaping import printable, without_commands
from tfpipe.evaluate.explained import ExplainedText, ExplainedWord, Explanation
from tfpipe.evaluate.explained_html import sum_of

# Blue for the label, orange against it, which most people who see few colors can tell apart. Both colors of a word
# are given, so that it can be read on a dark terminal and on a light one.
_STYLES = {
    1: "black on #d6e6f7",
    2: "black on #a9cdee",
    3: "black on #6fa8dc",
    4: "white on #2a6cab",
    5: "bold white on #0b4f8a",
    -1: "black on #fde3cf",
    -2: "black on #f9c49a",
    -3: "black on #f29b55",
    -4: "white on #b85510",
    -5: "bold white on #963f00",
}
_FEW_COLORS = {1: "blue", -1: "yellow"} | dict.fromkeys((2, 3), "bold blue") | dict.fromkeys((-2, -3), "bold yellow")
_FEW_COLORS |= dict.fromkeys((4, 5), "white on blue") | dict.fromkeys((-4, -5), "black on yellow")
"""for terminals of 8 or 16 colors"""
_STRONGEST = 5


def console() -> Console:
    """Opens standard output, for colors where it is a terminal that has some."""
    found = Console(highlight=False, markup=False)
    return found if found.is_terminal else Console(highlight=False, markup=False, soft_wrap=True)


def show(explanation: Explanation, where: Console) -> None:
    """Prints an explanation: the label, the text, its strongest words with their logits, and their sum."""
    e = explanation
    head = f"{printable(e.label)}, probability {e.probability:.4f}"
    if not e.is_answer:
        head += f"  (the answer is {printable(e.answer)})" if e.answer else "  (the answer is none of the labels)"
    where.print(Text(head, style="bold"))
    in_color = where.is_terminal and where.color_system is not None and not where.no_color
    styles = _FEW_COLORS if where.color_system in ("standard", "windows") else _STYLES
    for text in e.texts:
        where.print(_marked(text, e, styles) if in_color else Text(_numbered(text, e)))
    for name, words in zip(("for", "against"), e.strongest(_STRONGEST), strict=True):
        if words:
            where.print(Text(f"  {name:<8} {'   '.join(_word(word, e) for word in words)}"))
    where.print(Text(f"  {sum_of(e)}", style="dim"))
    where.print()


def _word(word: ExplainedWord, e: Explanation) -> str:
    return f"{printable(word.text)} {e.signed(word.attribution)}"


def _marked(text: ExplainedText, e: Explanation, styles: dict[int, str]) -> Text:
    shown = Text()
    for part in text.segments():
        style = "dim strike" if not part.is_read else ""
        shown.append(_on_one_line(part.text), styles.get(e.level(part.word), "") if part.word else style)
    return shown


def _numbered(text: ExplainedText, e: Explanation) -> str:
    parts = []
    for part in text.segments():
        shown = _on_one_line(part.text)
        if not part.is_read:
            shown = f" [not read: {shown.strip()}]"
        elif part.word is not None and (number := e.signed(part.word.attribution)) and float(number):
            shown = f"{shown}[{number}]"
        parts.append(shown)
    return "".join(parts)


def _on_one_line(text: str) -> str:
    return without_commands(re.sub(r"\s+", " ", text))
