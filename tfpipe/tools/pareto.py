"""The Pareto fronts of a sweep, and how they are shown: a table, and a plot of two panels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib
import rich.box
import rich.markup
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from tfpipe import escaping
from tfpipe.evaluate.shown import amount, change_with_interval, percent


def front(points: Sequence[tuple[float | None, float | None]]) -> set[int]:
    """Finds the points than which no other is better in one value and as good in the other.

    Args:
      points: two values each, the larger the better; a point with None is on no front.

    Returns:
      Their indices.
    """
    known = [index for index, point in enumerate(points) if None not in point]
    return {
        index
        for index in known
        if not any(
            points[other][0] >= points[index][0]
            and points[other][1] >= points[index][1]
            and points[other] != points[index]
            for other in known
        )
    }


def marked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds `on_speed_front` and `on_size_front` to rows; a row that does not answer like its Keras model is on none."""
    accuracy = [row["validation_accuracy"] if row["agrees"] else None for row in rows]
    speed = front([(row["speedup"], value) for row, value in zip(rows, accuracy, strict=True)])
    size = front([(-row["size_bytes"], value) for row, value in zip(rows, accuracy, strict=True)])
    return [row | {"on_speed_front": index in speed, "on_size_front": index in size} for index, row in enumerate(rows)]


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table to standard output."""
    table = Table(
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 1),
        caption="validation accuracy is what to choose by; the change on the test rows has its 95 % interval; front: "
        "nothing is both more accurate on validation rows and faster (speed) or smaller (size)",
    )
    for column in COLUMNS:
        table.add_column(column.heading, no_wrap=column.heading != "point", justify=column.justify)
    for row in rows:
        table.add_row(*map(rich.markup.escape, cells(row, rows)))
    Console(highlight=False, width=max(Console().width, 140)).print(table)


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Writes the table as Markdown."""
    headings = [column.heading for column in COLUMNS]
    lines = [headings, ["---"] * len(headings), *(map(escaping.markdown, cells(row, rows)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _point(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Names the point; a dense model that is the only one belongs to every point."""
    alone = row["variant"] == "dense" and sum(each["variant"] == "dense" for each in rows) == 1
    return "" if alone else row["point"]


def _change(row: dict[str, Any], _: Any) -> str:
    return "" if row["variant"] == "dense" else change_with_interval(row["accuracy_change"], row["accuracy_change_95"])


def _front(row: dict[str, Any], _: Any) -> str:
    marks = [name for name in ("speed", "size") if row[f"on_{name}_front"]]
    marks += [] if row["within_budget"] else ["outside the budget"]
    return ", ".join(marks if row["agrees"] else [*marks, "does not agree with Keras"])


class Column(NamedTuple):
    """A column of the table: its heading, and its cell for a row among all rows."""

    heading: str
    cell: Callable[[dict[str, Any], Sequence[dict[str, Any]]], str]
    justify: Literal["left", "right"] = "right"


COLUMNS = (
    Column("point", _point, "left"),
    Column("variant", lambda row, _: row["variant"], "left"),
    Column("validation %", lambda row, _: percent(row["validation_accuracy"])),
    Column("test %", lambda row, _: percent(row["accuracy"])),
    Column("against dense", _change),
    Column("MB", lambda row, _: amount(row["size_bytes"] / 1e6)),
    Column("ms", lambda row, _: "-" if row["latency_ms"] is None else amount(row["latency_ms"])),
    Column("times as fast", lambda row, _: "-" if row["speedup"] is None else f"{row['speedup']:.2f}"),
    Column("front", _front, "left"),
)


def cells(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Shows a row, one of `rows`, in words: a cell for each column."""
    return [column.cell(row, rows) for column in COLUMNS]


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Plots accuracy on validation rows against latency, relative to dense, and against size; the fronts as lines.

    Args:
      rows: of the table.
      path: SVG file, replaced as a whole.
    """
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    panels = (
        (left, "speed", "latency, share of dense", lambda row: row["speedup"] and 1.0 / row["speedup"]),
        (right, "size", "size, MB", lambda row: row["size_bytes"] / 1e6),
    )
    labels = dict.fromkeys(row["point"] for row in rows if row["variant"] != "dense")
    numbers = {label: str(n) for n, label in enumerate(labels, start=1)}
    for axes, name, label, value in panels:
        drawn = [(value(row), row["validation_accuracy"] * 100, row) for row in rows if value(row) is not None]
        line = sorted((x, y) for x, y, row in drawn if row[f"on_{name}_front"])
        if line:
            ring = {"marker": "o", "markersize": 13, "markerfacecolor": "none", "markeredgecolor": "0.3"}
            axes.plot(*zip(*line, strict=True), color="0.6", linewidth=1, zorder=1, label="Pareto front", **ring)
        for number, variant in enumerate(variants):
            of_variant = [(x, y) for x, y, row in drawn if row["variant"] == variant]
            if of_variant:
                axes.scatter(*zip(*of_variant, strict=True), marker="osD^v"[number % 5], label=variant, zorder=2)
        for x, y, row in drawn:
            if row["variant"] != "dense":
                axes.annotate(numbers[row["point"]], (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    left.set_ylabel("accuracy on validation rows, %")
    right.legend()
    key = "\n".join(f"{number}  {label}" for label, number in numbers.items())
    figure.text(0.0, -0.02, key, va="top", fontsize=8, family="monospace", parse_math=False)
    partial = path.with_name(f".{path.name}.partial")
    # Text as text, and the same file for the same rows.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tfpipe"}):
        figure.savefig(partial, format="svg", bbox_inches="tight", metadata={"Date": None})
    partial.replace(path)
