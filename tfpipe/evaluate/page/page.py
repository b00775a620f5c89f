"""The page of a run: `metrics.json` and `rows.json` -> `report.html`, and its plots as PNG files.

A number of the page is one of `metrics.json`; only its form is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import markupsafe
import yaml

from tfpipe.artifacts import REFERENCE
from tfpipe.evaluate.page import plot_tables, tables
from tfpipe.evaluate.page.html import Content, framed
from tfpipe.evaluate.page.plots import coverage_curves, plots_of, reliability_series
from tfpipe.evaluate.page.sections import SECTIONS
from tfpipe.evaluate.page.summary import PAGE, artifact_of
from tfpipe.evaluate.page.svg import Plot
from tfpipe.evaluate.page.tables import TEMPLATES, of_shape, stacked, table
from tfpipe.evaluate.page.words import from_json
from tfpipe.evaluate.shown import amount, change_with_interval, percent
from tfpipe.files import write_text
from tfpipe.templates import render_html

MOST_LABELS = 20
"""labels up to which the confusion is a matrix"""


class _Tables:
    """The tables of both modules by one name, for templates."""

    def __getattr__(self, name: str) -> Any:
        return getattr(tables, name) if hasattr(tables, name) else getattr(plot_tables, name)


def write_page(
    directory: Path, summary: Mapping[str, Any], rows: Mapping[str, Any], headings: Sequence[str], cells: Sequence[Any]
) -> None:
    """Writes `report.html` and `plots/NAME.png`.

    Args:
      directory: of the report.
      summary: of `metrics.json`.
      rows: of `rows.json`.
      headings: of the table of artifacts.
      cells: its rows.
    """
    plots = plots_of(summary)
    (directory / "plots").mkdir(exist_ok=True)
    for plot in plots.values():
        (directory / "plots" / f"{plot.name}.png").write_bytes(plot.png)
    write_text(directory / PAGE, page(summary, rows, headings, cells, plots))


def page(
    summary: Mapping[str, Any],
    rows: Mapping[str, Any],
    headings: Sequence[str],
    cells: Sequence[Any],
    plots: Mapping[str, Plot],
) -> str:
    """Renders the page: see `write_page`."""
    values = {
        "s": summary,
        "rows": rows,
        "chosen": summary["verdict"]["variant"],
        "headings": headings,
        "cells": [[*row[:2], *map(stacked, row[2:])] for row in cells],
        "plots": plots,
        "plot": lambda name: _plot(plots, name),
        "table": table,
        "tables": _Tables(),
        "names": _names,
        "percent": percent,
        "text_of": _text_of,
        "most_labels": MOST_LABELS,
        "shape": of_shape(summary["verdict"]["shape"]),
        "reliability": reliability_series(summary),
        "coverage": coverage_curves(summary),
        "seconds": [(name, f"{value:,.1f}") for name, value in summary["seconds"].items()],
        "settings": yaml.safe_dump(summary["settings"], sort_keys=False, allow_unicode=True, width=100).rstrip(),
    }
    sections = [
        Content(each.name, each.title, render_html(TEMPLATES / f"{each.name}.html.jinja", **values))
        for each in SECTIONS
        if each.is_shown(summary, rows)
    ]
    foot = f"tfpipe {summary['tfpipe']}"
    return framed(f"{summary['name']}: tfpipe report", _head(summary), sections, foot)


def _head(summary: Mapping[str, Any]) -> markupsafe.Markup:
    verdict = summary["verdict"]
    best = artifact_of(summary, verdict["variant"], verdict["artifact"])
    dense = artifact_of(summary, "dense", verdict["artifact"]) or artifact_of(summary, "dense", REFERENCE.name)
    latency, before = (row["latency_ms"][verdict["shape"]] for row in (best, dense))
    compressed = best["variant"] != "dense"
    change = stacked(change_with_interval(best["accuracy_change"], best["accuracy_change_95"]))
    return render_html(
        TEMPLATES / "head.html.jinja",
        s=summary,
        best=best,
        percent=percent,
        interval=" to ".join(map(percent, best["accuracy_95"])),
        shape=of_shape(verdict["shape"]),
        change=change if compressed else None,
        size=amount(best["size_bytes"] / 1e6),
        latency=None if latency is None else amount(latency),
        times_smaller=_times(dense["size_bytes"], best["size_bytes"]),
        times_faster=_times(before, latency),
        calibration_error=percent(best["calibration_error"]),
    )


def _times(before: float | None, after: float | None) -> str | None:
    """Writes the factor by which a number is smaller; None where it is not, or was not measured."""
    factor = before / after if before and after else 1.0
    return f"{factor:.1f}" if factor >= 1.05 else None


def _plot(plots: Mapping[str, Plot], name: str) -> markupsafe.Markup:
    return render_html(TEMPLATES / "plot.html.jinja", plot=plots[name]) if name in plots else markupsafe.Markup()


def _text_of(row: Mapping[str, Any]) -> markupsafe.Markup:
    """Shows the text of a row, words marked where they are explained."""
    return render_html(TEMPLATES / "words.html.jinja", row=row, explanation=from_json)


def _names(labels: str | Sequence[str]) -> str:
    """Writes the labels of a row in words."""
    if isinstance(labels, str):
        return labels or "no label"
    return ", ".join(labels) or "no label"
