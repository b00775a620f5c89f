"""The table of a run's artifacts: its columns, their cells from a row of `metrics.json`, and its print."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import rich.box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from tfpipe.config.compress import LATENCY_SHAPES
from tfpipe.evaluate.shown import amount, change_with_interval, percent, with_interval


def print_table(rows: list[dict[str, Any]], measured_on: str) -> None:
    """Prints the table of artifacts to standard output."""
    table = Table(
        box=rich.box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        caption=f"accuracy on {measured_on}, and its change on the same rows, with 95 % intervals; latency (batch, "
        "tokens) in ms, - where nothing is timed (the Keras model, rows that are cut shorter); Δlogit (largest) and "
        "agreement against the Keras model of the same variant",
    )
    for number, column in enumerate(COLUMNS):
        table.add_column(column.heading, justify="left" if number < 2 else "right", no_wrap=True)
    before = None
    for row in rows:
        if before not in (None, row["variant"]):
            table.add_section()
        before = row["variant"]
        table.add_row(*cells(row))
    # Standard output: the table is the result. Narrower, it would lose numbers.
    unlimited = Console(width=1000)
    needed = Measurement.get(unlimited, unlimited.options, table).maximum
    Console(highlight=False, width=max(Console().width, needed)).print(table)


def _change(row: dict[str, Any]) -> str:
    """Shows the paired change of accuracy in points, with its interval."""
    if row["variant"] == "dense" and not row["accuracy_change"]:
        return ""
    return change_with_interval(row["accuracy_change"], row["accuracy_change_95"])


def _latency(shape: str) -> Callable[[dict[str, Any]], str]:
    def cell(row: dict[str, Any]) -> str:
        latency = row["latency_ms"][shape]
        return "-" if latency is None else amount(latency)

    return cell


def _difference(value: float | None) -> str:
    """Shows a difference of logits; null, as JSON has no NaN, where an artifact's logits are not finite."""
    return "not finite" if value is None else f"{value:.1e}"


class Column(NamedTuple):
    """A column of the table: its heading, and its cell from a row of `metrics.json`."""

    heading: str
    cell: Callable[[dict[str, Any]], str]


COLUMNS = (
    Column("variant", lambda row: row["variant"]),
    Column("artifact", lambda row: row["artifact"]),
    Column("accuracy %", lambda row: with_interval(row["accuracy"], row["accuracy_95"])),
    Column("against dense", _change),
    Column("MB", lambda row: amount(row["size_bytes"] / 1e6)),
    Column("zeros", lambda row: f"{percent(row['sparsity'], 1)}%"),
    *(Column(shape, _latency(shape)) for shape in LATENCY_SHAPES),
    Column("Δlogit", lambda row: _difference(row["max_abs_logit_diff"])),
    Column("agreement", lambda row: f"{percent(row['label_agreement'])}%"),
)


def cells(row: dict[str, Any]) -> list[str]:
    """Shows a row in words, a cell for each column."""
    return [column.cell(row) for column in COLUMNS]
