"""The plots of a page, by the measures that exist: each with a name, a title and a sentence for those who see none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from tfpipe.evaluate.page import figures
from tfpipe.evaluate.page.svg import Plot, drawn
from tfpipe.evaluate.page.tables import of_shape


def plots_of(summary: Mapping[str, Any]) -> dict[str, Plot]:
    """Draws the plots of a run: name -> plot.

    Args:
      summary: of `metrics.json`.
    """
    return {plot.name: plot for plot in _plots(summary)}


def reliability_series(summary: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Gives the bins of the reliability diagram: those of the variant that the page is about."""
    variant = summary["verdict"]["variant"]
    facts = summary["calibration"][variant]
    series = {"validation, before": facts["reliability_before"], "validation, after": facts["reliability_after"]}
    return series | {"test, after": summary["measures"][variant]["reliability"]}


def coverage_curves(summary: Mapping[str, Any]) -> dict[str, list[dict[str, float]]]:
    """Gives coverage and precision of each variant that has one label a row."""
    return {variant: facts["coverage"] for variant, facts in summary["calibration"].items() if facts["coverage"]}


def _plots(summary: Mapping[str, Any]) -> Iterator[Plot]:
    variant, shape = summary["verdict"]["variant"], summary["verdict"]["shape"]
    yield drawn(
        "lengths",
        "Length of the rows, in tokens",
        "A histogram for each split: which share of its rows has how many tokens.",
        partial(figures.lengths, summary["data"]["lengths"]),
    )
    for score, unit in (("loss", "loss"), ("accuracy", "accuracy, %")):
        if summary["history"]:
            yield drawn(
                score,
                f"{score.capitalize()} on the validation rows",
                f"The {score} after each evaluation, a line for each training.",
                partial(figures.learning, summary["history"], score, unit),
            )
    if curves := summary["measures"][variant]["precision_recall"]:
        yield drawn(
            "precision-recall",
            f"Precision and recall of {variant}",
            "Precision over recall on the test rows, as the probability from which on a label is given falls.",
            partial(figures.precision_recall, curves),
        )
    if any(reliability_series(summary).values()):
        yield drawn(
            "reliability",
            f"Reliability of {variant}",
            "How often answers are right over how probable they are, before and after calibration; on the diagonal, "
            "probabilities are right.",
            partial(figures.reliability, reliability_series(summary)),
        )
    if curves := coverage_curves(summary):
        yield drawn(
            "coverage",
            "Coverage and precision",
            "Which share of the answers is right where only the surest rows are answered, on the validation rows.",
            partial(figures.coverage, curves),
        )
    if any(row["latency_ms"][shape] is not None for row in summary["artifacts"]):
        yield drawn(
            "trade-off",
            "Accuracy, latency and size",
            f"A point for each artifact: its accuracy on the test rows over its latency for {of_shape(shape)}; the "
            "area is its size on disk.",
            partial(figures.trade_off, summary["artifacts"], shape),
        )
