"""The plots of a page: from the numbers of `metrics.json` to figures, drawn in the colors of `ink.py`.

Labels and names are texts of unknown origin: they are cut to a line that fits, and none of them is a formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfpipe import escaping
from tfpipe.evaluate.page.ink import DASHES, FAINT, LINE, MARKERS, SERIES, TEXT
from tfpipe.evaluate.page.tables import of_shape

WIDTH, HEIGHT = 5.2, 3.3  # inches: in a phone's width, text of 10 points can still be read
_LONGEST = 24  # characters of a label


def lengths(data: Mapping[str, Any]) -> Figure:
    """Draws how long the rows of each split are, in tokens, as shares of the split's rows."""
    figure, axes = _axes("tokens of a row", "share of rows, %")
    edges = data["edges"]
    for number, (split, counts) in enumerate(data["rows"].items()):
        shares = 100.0 * np.array(counts) / max(sum(counts), 1)
        axes.stairs(shares, edges, label=short(split), **_look(number))
    return _finished(figure, axes)


def learning(history: Mapping[str, Sequence[Mapping[str, Any]]], score: str, unit: str) -> Figure:
    """Draws a score of validation rows over the epochs of each training; the stages stand one after the other."""
    figure, axes = _axes("epochs, one training after the other", unit)
    start = 0.0
    for number, (stage, entries) in enumerate(history.items()):
        epochs = [start + entry["epoch"] for entry in entries]
        values = [math.nan if entry.get(score) is None else entry[score] for entry in entries]
        scaled = [value * 100.0 for value in values] if unit.endswith("%") else values
        axes.plot(
            epochs, scaled, label=short(stage), marker=MARKERS[number % len(MARKERS)], markersize=6, **_look(number)
        )
        start = epochs[-1] if epochs else start
    axes.set_xlim(left=0.0)
    return _finished(figure, axes)


def precision_recall(curves: Mapping[str, Any]) -> Figure:
    """Draws precision over recall, a line for each label, or one for all together."""
    figure, axes = _axes("recall, %", "precision, %")
    for number, curve in enumerate(curves["curves"]):
        recall, precision = (100.0 * np.array(curve[name]) for name in ("recall", "precision"))
        axes.plot(recall, precision, label=short(curve["label"] or "all labels"), **_look(number))
    _square(axes)
    return _finished(figure, axes)


def reliability(series: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draws how often a model is right over how sure it is: name of some answers -> their bins."""
    figure, axes = _axes("mean probability of the answers, %", "right, %")
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1.0, linestyle=(0, (1.5, 1.5)), label="as it should be")
    for number, (name, bins) in enumerate(series.items()):
        points = [(each["confidence"] * 100.0, each["accuracy"] * 100.0) for each in bins]
        if points:
            look = _look(number) | {"marker": MARKERS[number % len(MARKERS)], "markersize": 5}
            axes.plot(*zip(*points, strict=True), label=short(name), **look)
    least = min((each["confidence"] for bins in series.values() for each in bins), default=0.0)
    _square(axes, math.floor(least * 10.0) * 10.0)
    return _finished(figure, axes)


def coverage(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Draws the share of right answers over the share of answered rows, the surest first: variant -> points."""
    figure, axes = _axes("rows that are answered, %", "of these right, %")
    for number, (variant, points) in enumerate(curves.items()):
        drawn = [(each["coverage"] * 100.0, each["precision"] * 100.0) for each in points]
        axes.plot(*zip(*drawn, strict=True), label=short(variant), **_look(number))
    axes.set_xlim(0.0, 102.0)
    axes.set_ylim(top=101.0)
    return _finished(figure, axes)


def trade_off(artifacts: Sequence[Mapping[str, Any]], shape: str) -> Figure:
    """Draws accuracy over latency, a point for each artifact, whose area is its size on disk."""
    figure, axes = _axes(f"milliseconds for {of_shape(shape)}", "accuracy, %")
    measured = [row for row in artifacts if row["latency_ms"][shape] is not None]
    variants = list(dict.fromkeys(row["variant"] for row in measured))
    kinds = list(dict.fromkeys(row["artifact"] for row in measured))
    largest = max((row["size_bytes"] for row in measured), default=1)
    for number, variant in enumerate(variants):
        for row in (each for each in measured if each["variant"] == variant):
            x, y, color = row["latency_ms"][shape], row["accuracy"] * 100.0, SERIES[number % len(SERIES)]
            low, high = (bound * 100.0 for bound in row["accuracy_95"])
            axes.plot([x, x], [low, high], color=color, linewidth=0.8, alpha=0.5)
            area = 30.0 + 150.0 * row["size_bytes"] / largest
            look = {"marker": MARKERS[kinds.index(row["artifact"]) % len(MARKERS)], "s": area, "alpha": 0.75}
            axes.scatter([x], [y], color=color, linewidths=0.8, **look)
        axes.plot([], [], color=SERIES[number % len(SERIES)], linewidth=5, label=short(variant))
    for number, kind in enumerate(kinds):
        look = {"marker": MARKERS[number % len(MARKERS)], "linestyle": "none"}
        axes.plot([], [], color=FAINT, markersize=6, label=short(kind), **look)
    axes.set_xlim(left=0.0)
    return _finished(figure, axes)


def compared(runs: Sequence[tuple[str, Mapping[str, Any], float | None]]) -> Figure:
    """Draws accuracy over latency, a point for each run.

    Args:
      runs: name, row of its artifact, latency in milliseconds.
    """
    figure, axes = _axes("milliseconds", "accuracy, %")
    largest = max(row["size_bytes"] for _, row, _ in runs)
    for number, (name, row, latency_ms) in enumerate(runs):
        if latency_ms is None:
            continue
        color, (low, high) = SERIES[number % len(SERIES)], row["accuracy_95"]
        axes.plot([latency_ms] * 2, [low * 100.0, high * 100.0], color=color, linewidth=0.8, alpha=0.5)
        look = {"marker": MARKERS[number % len(MARKERS)], "s": 30.0 + 150.0 * row["size_bytes"] / largest}
        axes.scatter([latency_ms], [row["accuracy"] * 100.0], color=color, alpha=0.75, linewidths=0.8, **look)
        axes.plot([], [], color=color, linestyle="none", marker=look["marker"], label=short(name))
    axes.set_xlim(left=0.0)
    return _finished(figure, axes)


def short(text: str) -> str:
    """Cuts a name to the room that a plot has: one line of visible characters."""
    shown = escaping.SURROGATES.sub("\ufffd", escaping.visible(" ".join(text.split())))
    # An underscore at the beginning would hide a line from the legend.
    shown = f"\u200b{shown}" if shown.startswith("_") else shown
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _axes(horizontal: str, vertical: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.set_xlabel(horizontal, color=TEXT)
    axes.set_ylabel(vertical, color=TEXT)
    axes.tick_params(color=LINE, labelcolor=TEXT)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_edgecolor(LINE)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def _finished(figure: Figure, axes: Axes) -> Figure:
    """Puts the legend below the plot, where it hides nothing; the figure grows by its lines."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = _columns(labels)
        figure.set_figheight(HEIGHT + 0.2 * math.ceil(len(labels) / columns))
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9.5, columnspacing=1.4
        )
        for text in legend.get_texts():
            text.set_color(TEXT)
    return figure


def _columns(labels: Iterable[str]) -> int:
    longest = max(map(len, labels))
    return 4 if longest <= 8 else 3 if longest <= 13 else 2


def _look(number: int) -> dict[str, Any]:
    return {
        "color": SERIES[number % len(SERIES)],
        "linestyle": DASHES[(number // len(SERIES) + number) % len(DASHES)],
        "linewidth": 1.8,
    }


def _square(axes: Axes, least: float = 0.0) -> None:
    axes.set_xlim(least - 2.0, 102.0)
    axes.set_ylim(-2.0, 102.0)
