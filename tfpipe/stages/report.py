"""The stage `report`: one row per artifact, as a table, as `metrics.json` and as `model_card.md`.

Enters: what `verify` measured, and the records of all stages. Leaves: `metrics.json` and `model_card.md`; prints the
table.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import rich.box
import yaml
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from safetensors.numpy import load_file

from tfpipe import escaping, metrics, templates
from tfpipe.artifacts import REFERENCE
from tfpipe.config.compress import LATENCY_SHAPES
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.devices.processor import INT8_FLAGS, cpu_flags, int8_outlook
from tfpipe.evaluate.calibration import FILE as CALIBRATION
from tfpipe.evaluate.calibration import calibration_of
from tfpipe.evaluate.measures import compared, measures
from tfpipe.evaluate.shown import amount, change_with_interval, percent, rows_measured, with_interval
from tfpipe.files import write_json, write_text
from tfpipe.rundir.record import LOGITS, RECORD, Record, label_names, parse_record
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import TokenTable


def run(config: Config, stage: StageDirectory) -> None:
    """Gathers what was measured, writes and prints."""
    parity = json.loads((stage.inputs["verify"] / "parity.json").read_text(encoding="utf-8"))
    published = json.loads((stage.inputs["publish"] / "published.json").read_text(encoding="utf-8"))
    records = {name: parse_record((path / RECORD).read_bytes(), path) for name, path in stage.inputs.items()}
    rows = parity["artifacts"]
    measured, changes = _measures(config, stage)
    summary = {
        "name": config.name,
        "measured_on": rows_measured(rows[0]["rows"], rows[0]["of"]),
        "artifacts": rows,
        "validation_accuracy": parity["validation_accuracy"],
        "within_budget": parity["within_budget"],
        "measures": measured,
        "compared_with_dense": changes,
        "calibration": json.loads((stage.inputs["export"] / CALIBRATION).read_text(encoding="utf-8")),
        "training_examples_per_second": records["train"].notes.get("examples_per_second"),
        "seconds": {name: record.seconds for name, record in records.items()},
        "versions": records["verify"].versions,
        "machine": records["verify"].machine,
        "saturation": records["quantize"].notes.get("saturation") if "int8" in stage.variants else None,
        "int8_instructions": sorted(cpu_flags() & INT8_FLAGS),
    }
    write_json(stage.path / "metrics.json", summary)
    write_text(stage.path / "model_card.md", _model_card(config, stage, parity, summary, records))
    _print_table(rows, summary["measured_on"])
    _print_paths(stage, rows, published)
    if "int8" in stage.variants:
        say(f"  {'int8 here':<15} {int8_outlook(cpu_flags())}")


def _measures(config: Config, stage: StageDirectory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measures the Keras model of each variant on the test rows that `verify` asked, and compares them with dense."""
    answers, exported = load_file(stage.inputs["verify"] / LOGITS), stage.inputs["export"]
    labels = TokenTable.open(stage.inputs["prepare"] / "test").labels[answers["rows"]]
    names = label_names(stage.inputs["prepare"])
    measured, right = {}, {}
    for variant in stage.variants:
        logits, decision = answers[f"{variant}.{REFERENCE.name}"], calibration_of(exported, variant).decision
        measured[variant] = measures(logits, labels, config.task, names, decision, seed=config.seed)
        right[variant] = metrics.correct(logits, labels, config.task, decision)
    return measured, compared(right)


def _print_table(rows: list[dict[str, Any]], measured_on: str) -> None:
    table = Table(
        box=rich.box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        caption=f"accuracy on {measured_on}, and its change on the same rows, with 95 % intervals; latency (batch, "
        "tokens) in ms, - where rows are cut shorter; Δlogit (largest) and agreement against the Keras model of the "
        "same variant",
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


def _print_paths(stage: StageDirectory, rows: list[dict[str, Any]], published: Iterable[str]) -> None:
    files = dict.fromkeys(str(stage.path.parent / row["path"]) for row in rows)
    for title, paths in (
        ("files", files),
        ("published", [stage.path.parent / path for path in published]),
        ("model card", [stage.path / "model_card.md"]),
        ("all numbers", [stage.path / "metrics.json"]),
    ):
        for path in paths:
            say(f"  {title:<15} {path}")
            title = ""


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


class Column(NamedTuple):
    """A column of the table: its heading, and what it makes of a row of `metrics.json`."""

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
    Column("Δlogit", lambda row: f"{row['max_abs_logit_diff']:.1e}"),
    Column("agreement", lambda row: f"{percent(row['label_agreement'])}%"),
)


def cells(row: dict[str, Any]) -> list[str]:
    """Shows a row in words, a cell for each column."""
    return [column.cell(row) for column in COLUMNS]


def _model_card(
    config: Config,
    stage: StageDirectory,
    parity: dict[str, Any],
    summary: dict[str, Any],
    records: dict[str, Record],
) -> str:
    file = importlib.resources.files("tfpipe.evaluate") / "templates" / "model_card.md.jinja"
    shown_config = yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    statistics = json.loads((stage.inputs["prepare"] / "statistics.json").read_text(encoding="utf-8"))
    labels = label_names(stage.inputs["prepare"])
    return templates.render(
        file,
        {"percent": percent},
        config=config,
        shown_config=escaping.block(shown_config.rstrip(), "yaml"),
        statistics=statistics,
        labels=labels,
        summary=summary,
        parity=parity,
        records=records,
        headings=[*(column.heading for column in COLUMNS), "path"],
        cells=[[*map(escaping.markdown, cells(row)), escaping.code(row["path"])] for row in summary["artifacts"]],
    )
