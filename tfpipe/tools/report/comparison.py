"""Runs side by side: a row each, and the facts that a reader must know before comparing them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from tfpipe.config.file import flattened
from tfpipe.evaluate.page.tables import NOTHING
from tfpipe.evaluate.sanity import MANY_LOOKS
from tfpipe.evaluate.shown import amount, change_with_interval, percent, with_interval
from tfpipe.tools.report.paired import Paired, paired
from tfpipe.tools.report.runs import Run, looks

_OWN = ("name",)  # settings that differ in any two runs


class Row(NamedTuple):
    """A run in a comparison."""

    run: Run
    against: Paired | None
    """the first run; None: it is the first, or they have no rows in common"""


class Column(NamedTuple):
    """A column of the table: its heading, and its cell for a row."""

    heading: str
    cell: Callable[[Row], str]


class Comparison(NamedTuple):
    """Finished runs side by side."""

    rows: list[Row]
    notes: list[str]
    """a sentence each"""


def _change(row: Row) -> str:
    against = row.against
    return NOTHING if against is None else change_with_interval(against.change, (against.low, against.high))


def _latency(row: Row) -> str:
    return NOTHING if row.run.latency_ms is None else amount(row.run.latency_ms)


COLUMNS = (
    Column("run", lambda row: row.run.name),
    Column("artifact", lambda row: f"{row.run.variant} {row.run.best['artifact']}"),
    Column("validation %", lambda row: percent(row.run.summary["validation_accuracy"][row.run.variant])),
    Column("accuracy %", lambda row: with_interval(row.run.best["accuracy"], row.run.best["accuracy_95"])),
    Column("against the first", _change),
    Column("p", lambda row: NOTHING if row.against is None else f"{row.against.p:.3g}"),
    Column("macro F1 %", lambda row: percent(row.run.best["macro_f1"])),
    Column("calibration error %", lambda row: percent(row.run.best["calibration_error"])),
    Column("MB", lambda row: amount(row.run.best["size_bytes"] / 1e6)),
    Column("ms", _latency),
    Column("at", lambda row: row.run.summary["verdict"]["shape"]),
)


def cells(row: Row) -> list[str]:
    """Shows a row in words, a cell for each column."""
    return [column.cell(row) for column in COLUMNS]


def compare(runs: list[Run]) -> Comparison:
    """Compares runs with the first of them."""
    tests, notes = paired(runs)
    if any(run.summary["labels"] != runs[0].summary["labels"] for run in runs):
        notes.insert(0, "The runs have different labels: their accuracies answer different questions.")
    elif any(run.prepared != runs[0].prepared for run in runs):
        notes.insert(0, "The runs have different test rows: their accuracies differ by the rows, too.")
    if len({run.summary["machine"] for run in runs}) > 1:
        notes.append("The runs were measured on different machines: their latencies can't be compared.")
    notes.append(_looked_at(looks(runs)))
    return Comparison([Row(run, test) for run, test in zip(runs, tests, strict=True)], notes)


def differing_settings(runs: list[Run]) -> dict[str, list[str]]:
    """Lists the settings that differ: dotted path -> value in each run; a default is a dash."""
    settings = [flattened(run.summary["settings"]) for run in runs]
    paths = dict.fromkeys(path for each in settings for path in each if path not in _OWN)
    shown = {path: [_value(each, path) for each in settings] for path in paths}
    return {path: values for path, values in shown.items() if len(set(values)) > 1}


def _value(settings: dict, path: str) -> str:
    value = settings.get(path, NOTHING)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _looked_at(count: int) -> str:
    if count == 1:
        return "One run has looked at these test rows."
    told = f"{count} runs have looked at these test rows (those given, and those in directories beside them)."
    advice = "Choose by the validation rows: the best of several on a test is better on it than on new texts."
    if count < MANY_LOOKS:
        return f"{told} {advice}"
    return f"Warning: {told} A test that many runs have looked at is no longer a test. {advice}"
