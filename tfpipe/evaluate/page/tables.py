"""Tables of a page: from the content of `metrics.json` to rows of text. Every number is one of that file, rounded."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import markupsafe

from tfpipe.config.compress import LATENCY_SHAPES
from tfpipe.evaluate.shown import change_with_interval, percent
from tfpipe.metrics import SCORES
from tfpipe.templates import render_html

TEMPLATES = resources.files("tfpipe.evaluate.page") / "templates"
NOTHING = "–"
_TALL = 25  # rows from which a table scrolls in a window of its own
_PLAIN = ("loss", "brier", "matthews", "auroc", "average_precision")
"""scores that are no shares of rows or labels"""
_MOST_PAIRS = 20


class Cell(NamedTuple):
    """A cell that has more than its text."""

    text: str
    look: str = ""
    """class of the style sheet"""
    note: str = ""


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str | Cell]], words: int = 1):
    """Makes a table that scrolls within the page and that a keyboard reaches.

    Args:
      caption: of the table; once in a page.
      headings: of the columns.
      rows: of cells, the first of which names the row.
      words: columns from the left whose cells are words, not numbers.
    """
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    return render_html(
        TEMPLATES / "table.html.jinja",
        caption=caption,
        headings=headings,
        rows=cells,
        words=words,
        tall=len(cells) > _TALL,
    )


def stacked(shown: str) -> Cell:
    """Puts the interval of `VALUE (LOW to HIGH)` below its value."""
    value, separator, interval = shown.partition(" (")
    return Cell(value, note=interval.removesuffix(")") if separator else "")


def score(name: str, entry: Mapping[str, float | None]) -> str:
    """Writes a score with its interval: shares in percent, other scores as they are."""
    if entry["value"] is None:
        return NOTHING
    write = _number if name in _PLAIN else percent
    shown = write(entry["value"])
    return shown if entry["low"] is None else f"{shown} ({write(entry['low'])} to {write(entry['high'])})"


def heading(name: str) -> str:
    """Names a score, with its unit."""
    return name.replace("_", " ") + ("" if name in _PLAIN else ", %")


def share(value: float | None) -> str:
    """Writes a share in percent; a dash where it is not defined."""
    return NOTHING if value is None else percent(value)


def number(value: float | None) -> str:
    """Writes a number to four digits; a dash where it is not defined."""
    return NOTHING if value is None else _number(value)


def scores(measures: Mapping[str, Any]) -> markupsafe.Markup:
    """Shows all scores of all variants."""
    names = next(iter(measures.values()))["scores"]
    rows = [
        [
            Cell(heading(name), note=SCORES[name]),
            *(stacked(score(name, each["scores"][name])) for each in measures.values()),
        ]
        for name in names
    ]
    return table("Scores of each variant, with 95 % intervals", ["score", *measures], rows)


def against_dense(changes: Mapping[str, Any]) -> markupsafe.Markup:
    """Shows the changes of each variant, on the same rows."""
    rows = [
        [
            variant,
            stacked(change_with_interval(each["change"], (each["low"], each["high"]))),
            f"{each['won']:,}",
            f"{each['lost']:,}",
            f"{each['p']:.3g}",
        ]
        for variant, each in changes.items()
    ]
    headings = ["variant", "change of accuracy, points", "rows won", "rows lost", "p (McNemar, Holm)"]
    return table("Change against dense, on the same test rows", headings, rows)


def by_label(variant: str, measures: Mapping[str, Any]) -> markupsafe.Markup:
    """Shows precision, recall and more of each label."""
    rows = [
        [
            each["label"],
            f"{each['support']:,}",
            f"{each['answers']:,}",
            share(each["precision"]),
            NOTHING if each["recall"] is None else stacked(_with_bounds(each["recall"], each["recall_95"])),
            share(each["f1"]),
            number(each["auroc"]),
            number(each["average_precision"]),
        ]
        for each in measures["by_label"]
    ]
    headings = ["label", "rows", "answers", "precision %", "recall %", "F1 %", "AUROC", "average precision"]
    return table(f"Labels of {variant}", headings, rows)


def confusion(variant: str, measures: Mapping[str, Any], names: Sequence[str], most: int) -> markupsafe.Markup:
    """Shows which labels are taken for which: a matrix, the most frequent pairs of many labels, or a row a label."""
    counts = measures["confusion"]
    if counts and isinstance(counts[0][0], list):
        return _confusion_of_each(variant, counts, names)
    if len(names) > most:
        return _most_confused(variant, measures)
    rows = []
    for at, (name, row) in enumerate(zip(names, counts, strict=True)):
        total = sum(row)
        cells = [
            Cell(f"{count:,}", _heat(count / total if total else 0.0, right=at == other), _of(count, total))
            for other, count in enumerate(row)
        ]
        rows.append([name, *cells])
    return table(f"Confusion of {variant}: rows of a label, by the label that is answered", ["label", *names], rows)


def _confusion_of_each(variant: str, counts: Sequence[Any], names: Sequence[str]) -> markupsafe.Markup:
    rows = []
    for name, ((without, false), (missed, found)) in zip(names, counts, strict=True):
        have, lack = missed + found, without + false
        rows.append(
            [
                name,
                Cell(f"{found:,}", _heat(found / have if have else 0.0, right=True), _of(found, have)),
                Cell(f"{missed:,}", _heat(missed / have if have else 0.0, right=False), _of(missed, have)),
                Cell(f"{false:,}", _heat(false / lack if lack else 0.0, right=False), _of(false, lack)),
                Cell(f"{without:,}", _heat(without / lack if lack else 0.0, right=True), _of(without, lack)),
            ]
        )
    headings = ["label", "has it, given", "has it, not given", "has it not, given", "has it not, not given"]
    return table(f"Confusion of {variant}, by label", headings, rows)


def _most_confused(variant: str, measures: Mapping[str, Any]) -> markupsafe.Markup:
    support = {each["label"]: each["support"] for each in measures["by_label"]}
    rows = [
        [each["label"], each["answer"], f"{each['rows']:,}", share(each["rows"] / support[each["label"]])]
        for each in measures["most_confused"][:_MOST_PAIRS]
    ]
    headings = ["label", "is answered as", "rows", "of its rows, %"]
    return table(f"Labels that {variant} confuses most", headings, rows, words=2)


def _heat(share: float, *, right: bool) -> str:
    # Few rows of a label are wrong in one way: small shares need levels of their own.
    level = bisect.bisect_right((0.005, 0.2, 0.4, 0.6, 0.8) if right else (0.005, 0.05, 0.1, 0.2, 0.4), share)
    return f"heat {'right' if right else 'wrong'}-{level}"


def _of(count: int, total: int) -> str:
    return f"{percent(count / total, 1)} %" if total else NOTHING


def _with_bounds(value: float, bounds: Sequence[float]) -> str:
    return f"{percent(value)} ({percent(bounds[0])} to {percent(bounds[1])})"


def _number(value: float) -> str:
    return f"{value:.4f}"


def of_shape(shape: str) -> str:
    """Names the texts of a shape at which latencies are measured: `b32_s64` is 32 texts of 64 tokens."""
    texts, tokens = LATENCY_SHAPES[shape]
    return f"{texts} text{'' if texts == 1 else 's'} of {tokens} tokens"
