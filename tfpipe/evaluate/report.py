"""The stage `report`: one row per artefact, as a table, as `metrics.json` and as `model_card.md`.

Enters: everything. Leaves: `metrics.json`, `model_card.md`; prints the table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import rich.box
import yaml
from rich.console import Console
from rich.table import Table

from tfpipe import metrics
from tfpipe.config import Config
from tfpipe.console import say
from tfpipe.evaluate.artifacts import load_artifacts
from tfpipe.evaluate.benchmark import SHAPES, measure_latency
from tfpipe.export.export import STAGE_OF_VARIANT
from tfpipe.model.weights import load_classifier
from tfpipe.rundir import RECORD, StageDirectory, write_json, write_text
from tfpipe.train.devices import cpu_flags, int8_outlook


def run(config: Config, stage: StageDirectory) -> None:
    """Measures latency, gathers the rest, writes and prints."""
    artifacts = [
        artifact
        for variant in config.variants
        for artifact in load_artifacts(
            variant,
            load_classifier(stage.inputs[STAGE_OF_VARIANT[variant]]),
            stage.inputs[STAGE_OF_VARIANT[variant]],
            stage.inputs["export"] / variant,
            config.report.threads,
        )
    ]
    latency = measure_latency(artifacts, config.report.latency_runs, config.data.text_pair_column is not None)
    parity = json.loads((stage.inputs["verify"] / "parity.json").read_text(encoding="utf-8"))
    comparisons = {
        (entry["variant"], entry["artifact"]): entry
        for entry in sorted(parity["comparisons"], key=lambda entry: entry["batch_size"])
    }  # of the larger batch size, where all rows answered
    records = {name: _record(path) for name, path in stage.inputs.items()}
    rows = []
    for artifact in artifacts:
        entry = comparisons[artifact.variant, artifact.kind]
        low, high = metrics.wilson_interval(entry["accuracy"], entry["rows"])
        rows.append(
            {
                "variant": artifact.variant,
                "artifact": artifact.kind,
                "split": "test",
                "rows": entry["rows"],
                "accuracy": entry["accuracy"],
                "accuracy_95": [low, high],
                "macro_f1": entry["macro_f1"],
                "calibration_error": entry["calibration_error"],
                "size_bytes": artifact.size_bytes,
                "latency_ms": latency[artifact.variant, artifact.kind],
                "max_abs_logit_diff": entry["max_abs_logit_diff"],
                "label_agreement": entry["label_agreement"],
                "mean_abs_probability_diff": entry["mean_abs_probability_diff"],
                "sparsity": artifact.sparsity,
                "path": str(artifact.path.relative_to(stage.path.parent)),
            }
        )
    summary = {
        "name": config.name,
        "artifacts": rows,
        "validation_accuracy": parity["validation_accuracy"],
        "training_examples_per_second": records["train"]["choices"].get("examples_per_second"),
        "seconds": {name: record["seconds"] for name, record in records.items()},
        "versions": records["verify"]["versions"],
        "machine": records["verify"]["machine"],
        "int8_instructions": sorted(cpu_flags() & {"avx512_vnni", "avx_vnni", "amx_int8"}),
    }
    write_json(stage.path / "metrics.json", summary)
    write_text(stage.path / "model_card.md", _model_card(config, stage, summary, records))
    _print_table(rows)
    _print_paths(stage, rows, records["verify"]["choices"]["published"])
    if "int8" in config.variants:
        say(f"  {'int8 here':<15} {int8_outlook(cpu_flags())}")


def _record(directory: Path) -> dict[str, Any]:
    return json.loads((directory / RECORD).read_text(encoding="utf-8"))


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = Table(
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 1),
        caption="test split; accuracy with its 95 % interval; latency (batch, tokens) in ms, - where rows are cut "
        "shorter; Δlogit (largest) and agreement against the Keras model of the same variant",
    )
    for heading in ("variant", "artefact"):
        table.add_column(heading, no_wrap=True)
    for heading in _headings():
        table.add_column(heading, justify="right", no_wrap=True)
    before = None
    for row in rows:
        if before not in (None, row["variant"]):
            table.add_section()
        before = row["variant"]
        table.add_row(*_cells(row))
    # Standard output: the table is the result. Narrower, it would lose numbers.
    Console(highlight=False, width=max(Console().width, 118)).print(table)


def _print_paths(stage: StageDirectory, rows: list[dict[str, Any]], published: list[str]) -> None:
    files = dict.fromkeys(str(stage.path.parent / row["path"]) for row in rows)
    for title, paths in (
        ("files", files),
        ("for TF Serving", [stage.path.parent / path for path in published]),
        ("model card", [stage.path / "model_card.md"]),
        ("all numbers", [stage.path / "metrics.json"]),
    ):
        for path in paths:
            say(f"  {title:<15} {path}")
            title = ""


def _headings() -> tuple[str, ...]:
    return ("accuracy %", "MB", "zeros", *SHAPES, "Δlogit", "agreement")


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["accuracy_95"]
    latency = row["latency_ms"]
    return [
        row["variant"],
        row["artifact"],
        f"{row['accuracy'] * 100:.2f} ±{(high - low) * 50:.2f}",
        f"{row['size_bytes'] / 1e6:.1f}",
        f"{row['sparsity']:.1%}",
        *("-" if latency[shape] is None else f"{latency[shape]:.1f}" for shape in SHAPES),
        f"{row['max_abs_logit_diff']:.1e}",
        f"{row['label_agreement']:.2%}",
    ]


def _model_card(config: Config, stage: StageDirectory, summary: dict[str, Any], records: dict[str, Any]) -> str:
    template = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    ).from_string((Path(__file__).parent / "model_card.md.jinja").read_text(encoding="utf-8"))
    statistics = json.loads((stage.inputs["prepare"] / "statistics.json").read_text(encoding="utf-8"))
    labels = json.loads((stage.inputs["prepare"] / "labels.json").read_text(encoding="utf-8"))["names"]
    return template.render(
        config=config,
        shown_config=yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True), sort_keys=False).rstrip(),
        statistics=statistics,
        labels=labels,
        summary=summary,
        records=records,
        headings=["variant", "artefact", *_headings(), "path"],
        cells=[[*_cells(row), f"`{row['path']}`"] for row in summary["artifacts"]],
    )
