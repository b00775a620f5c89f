"""The page of a comparison: the table, a plot, scores, and the settings that differ."""

from __future__ import annotations

from functools import partial
from importlib import resources
from pathlib import Path

from matplotlib.figure import Figure

from tfpipe import __version__
from tfpipe.evaluate.page.figures import compared
from tfpipe.evaluate.page.html import Content, framed
from tfpipe.evaluate.page.svg import drawn
from tfpipe.evaluate.page.tables import TEMPLATES, heading, score, stacked, table
from tfpipe.files import write_text
from tfpipe.templates import render_html
from tfpipe.tools.report.comparison import COLUMNS, Comparison, cells, differing_settings

_TEMPLATES = resources.files("tfpipe.tools.report")


def write(comparison: Comparison, output: Path) -> None:
    """Writes the page of a comparison; an existing file is replaced as a whole.

    Args:
      comparison: of runs.
      output: file of HTML.
    """
    runs = [row.run for row in comparison.rows]
    head = render_html(_TEMPLATES / "head.html.jinja", runs=runs, notes=comparison.notes)
    title = f"{len(runs)} runs: tfpipe report"
    sections = [
        Content("comparison", "Comparison", _table(comparison)),
        Content("measures", "Measures", _scores(comparison)),
        Content("settings", "Settings that differ", _settings(comparison)),
    ]
    write_text(output, framed(title, head, sections, f"tfpipe {__version__}"))


def _table(comparison: Comparison):
    runs = [row.run for row in comparison.rows]
    rows = [[first, artifact, *map(stacked, rest)] for first, artifact, *rest in map(cells, comparison.rows)]
    plot = drawn(
        "trade-off",
        "Accuracy and latency",
        "A point for each run: the accuracy of its artifact on the test rows, with its interval, over its latency; the "
        "area is its size on disk.",
        partial(_figure, comparison),
    )
    return render_html(
        _TEMPLATES / "comparison.html.jinja",
        table=table("Runs", [column.heading for column in COLUMNS], rows, words=2),
        plot=render_html(TEMPLATES / "plot.html.jinja", plot=plot) if any(run.latency_ms for run in runs) else "",
    )


def _figure(comparison: Comparison) -> Figure:
    return compared([(row.run.name, row.run.best, row.run.latency_ms) for row in comparison.rows])


def _scores(comparison: Comparison):
    runs = [row.run for row in comparison.rows]
    names = dict.fromkeys(name for run in runs for name in run.score)
    undefined = {"value": None, "low": None, "high": None}
    rows = [[heading(name), *(stacked(score(name, run.score.get(name, undefined))) for run in runs)] for name in names]
    return table(
        "Scores of the Keras model of each run's variant on its test rows, with 95 % intervals",
        ["score", *(run.name for run in runs)],
        rows,
    )


def _settings(comparison: Comparison):
    runs = [row.run for row in comparison.rows]
    rows = [[path, *values] for path, values in differing_settings(runs).items()]
    if not rows:
        return render_html(_TEMPLATES / "no_settings.html.jinja")
    headings = ["setting", *(run.name for run in runs)]
    return table("Settings that differ from each other; a dash is the default", headings, rows, words=len(headings))
