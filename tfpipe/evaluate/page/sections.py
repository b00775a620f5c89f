"""The sections of a page: a template each, in their order, with the condition under which it has something to show.

A new section is a template in `templates/` and a row here. It gets `metrics.json` (`s`) and `rows.json` (`rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Section(NamedTuple):
    """A section of a page."""

    name: str
    """of its template, and of its anchor"""
    title: str
    is_shown: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] = lambda summary, rows: True
    """by what is in `metrics.json` and `rows.json`"""


def _has_curves(summary: Mapping[str, Any], rows: Mapping[str, Any]) -> bool:
    return bool(summary["measures"][summary["verdict"]["variant"]]["precision_recall"])


SECTIONS = (
    Section("artifacts", "Artifacts"),
    Section("measures", "Measures"),
    Section("labels", "Labels and confusion"),
    Section("curves", "Precision and recall", _has_curves),
    Section("calibration", "Calibration"),
    Section("slices", "Slices", lambda summary, rows: bool(summary.get("slices"))),
    Section("compression", "What compression changed", lambda summary, rows: bool(rows["changed"])),
    Section("mistakes", "Worst mistakes", lambda summary, rows: bool(rows["mistakes"]["shown"])),
    Section("label_errors", "Labels that look wrong", lambda summary, rows: bool(summary.get("label_errors"))),
    Section("data", "Data"),
    Section("training", "Training", lambda summary, rows: bool(summary["history"])),
    Section("run", "The run"),
)
