"""The stage `report`: the results of a run as a table, as `metrics.json`, as a page and as a model card.

Enters: the measurements of `verify`, and the records of all stages. Leaves: `metrics.json`, with every number;
`rows.json`, with texts of test rows; `report.html`, `plots/` and `model_card.md`, which are made of these two; and the
table, printed.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterable
from typing import Any

import yaml

from tfpipe import __version__, escaping, templates
from tfpipe.config.run import Config
from tfpipe.config.types import as_list
from tfpipe.console import say
from tfpipe.devices.processor import INT8_FLAGS, cpu_flags, int8_outlook
from tfpipe.devices.strategy import float32_kept
from tfpipe.evaluate import label_errors, slices
from tfpipe.evaluate.answers import Answers, answers_of_run
from tfpipe.evaluate.artifact_table import COLUMNS, cells, print_table
from tfpipe.evaluate.calibration import FILE as CALIBRATION
from tfpipe.evaluate.loaded import exported_classifier
from tfpipe.evaluate.measures import compared, measures
from tfpipe.evaluate.page.page import write_page
from tfpipe.evaluate.page.rows import examples_of
from tfpipe.evaluate.page.summary import PAGE, data_of, history_of, made_by, settings_of, verdict_of
from tfpipe.evaluate.page.words import explained
from tfpipe.evaluate.shown import percent, rows_measured
from tfpipe.files import without_nan, write_json, write_text
from tfpipe.rundir.record import RECORD, Record, label_names, parse_record
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.variants import STAGE_OF_VARIANT


@float32_kept()
def run(config: Config, stage: StageDirectory) -> None:
    """Gathers the measurements, writes the files and prints the table."""
    parity = json.loads((stage.inputs["verify"] / "parity.json").read_text(encoding="utf-8"))
    published = json.loads((stage.inputs["publish"] / "published.json").read_text(encoding="utf-8"))
    records = {name: parse_record((path / RECORD).read_bytes(), path) for name, path in stage.inputs.items()}
    answers = answers_of_run(config, stage)
    summary = without_nan(_outcome(config, stage, answers, parity, list(published)) | _origin(config, stage, records))
    summary["label_errors"], doubted = label_errors.of_run(config, stage, answers)
    examples = without_nan(_examples(stage, answers, summary["published_variants"], doubted))
    rows = summary["artifacts"]
    write_json(stage.path / "metrics.json", summary)
    write_json(stage.path / "rows.json", examples)
    write_page(stage.path, summary, examples, [column.heading for column in COLUMNS], list(map(cells, rows)))
    write_text(stage.path / "model_card.md", _model_card(config, stage, parity, summary, records))
    print_table(rows, summary["measured_on"])
    _print_paths(stage, rows, published)
    if "int8" in stage.variants:
        say(f"  {'int8 here':<15} {int8_outlook(cpu_flags())}")


def _outcome(
    config: Config, stage: StageDirectory, answers: Answers, parity: dict[str, Any], published: list[str]
) -> dict[str, Any]:
    """Gives the results: artifacts, measures, calibration, published versions."""
    rows, within = parity["artifacts"], parity["within_budget"]
    measured, changes = _measures(config, answers)
    return {
        "name": config.name,
        "task": config.task,
        "labels": list(answers.names),
        "measured_on": rows_measured(rows[0]["rows"], rows[0]["of"]),
        "artifacts": rows,
        "validation_accuracy": parity["validation_accuracy"],
        "within_budget": within,
        "published": published,
        "published_variants": list(dict.fromkeys(("dense", *within))),
        "verdict": verdict_of(rows, within, config.budget),
        "measures": measured,
        "compared_with_dense": changes,
        "slices_metric": slices.METRIC,
        "slices": slices.of_run(answers, stage.inputs["prepare"]),
        "calibration": json.loads((stage.inputs["export"] / CALIBRATION).read_text(encoding="utf-8")),
    }


def _origin(config: Config, stage: StageDirectory, records: dict[str, Record]) -> dict[str, Any]:
    """Gives the origin of the results: data, trainings, settings, the machine and its libraries."""
    notes, verified = records["train"].notes, records["verify"]
    return {
        "encoder": config.encoder.source,
        "source": [str(each) for each in as_list(config.data.source)],
        "made": made_by(config),
        "data": data_of(stage.inputs["prepare"]),
        "history": history_of(stage),
        "training_examples_per_second": notes.get("examples_per_second"),
        "notes": {name: notes.get(name) for name in ("strategy", "precision")},
        "seconds": {name: record.seconds for name, record in records.items()},
        "tfpipe": __version__,
        "versions": verified.versions,
        "machine": verified.machine,
        "saturation": records["quantize"].notes.get("saturation") if "int8" in stage.variants else None,
        "int8_instructions": sorted(cpu_flags() & INT8_FLAGS),
        "settings": settings_of(config),
        "command": f"tfpipe run config.yaml --run-dir ../{config.name}-again",
    }


def _measures(config: Config, answers: Answers) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measures each variant on the test rows, and compares them with dense."""
    measured = {
        variant: measures(
            logits, answers.labels, config.task, answers.names, answers.decisions[variant], seed=config.seed
        )
        for variant, logits in answers.logits.items()
    }
    return measured, compared({variant: answers.right(variant) for variant in answers.logits})


def _examples(
    stage: StageDirectory, answers: Answers, published: list[str], doubted: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Gives the rows that the page shows; words of test rows are marked by the last variant that is published.

    Args:
      stage: at work.
      answers: of the variants to the test rows.
      published: variants.
      doubted: split -> rows that are likely mislabeled.
    """
    found = examples_of(answers, published)
    variant, shown, errors = published[-1], found["mistakes"]["shown"], doubted["test"]
    source = stage.inputs[STAGE_OF_VARIANT[variant]]
    classifier = exported_classifier(source, stage.inputs["export"], variant)
    asked = {(row["row"], row["label"]): row for row in (*shown, *errors)}  # many are in both lists
    method, found_words = explained(classifier, TokenizerSettings.read(source), answers, list(asked.values()))
    words = dict(zip(asked, found_words, strict=True))
    marked = [row | {"explanation": words[row["row"], row["label"]]} for row in (*shown, *errors)]
    return {
        "variant": variant,
        "method": method,
        "rounds": bool(classifier.ranges),
        "changed": found["changed"],
        "mistakes": found["mistakes"] | {"shown": marked[: len(shown)]},
        "label_errors": doubted | {"test": marked[len(shown) :]},
    }


def _print_paths(stage: StageDirectory, rows: list[dict[str, Any]], published: Iterable[str]) -> None:
    files = dict.fromkeys(str(stage.path.parent / row["path"]) for row in rows)
    for title, paths in (
        ("files", files),
        ("published", [stage.path.parent / path for path in published]),
        ("report", [stage.path / PAGE]),
        ("model card", [stage.path / "model_card.md"]),
        ("all numbers", [stage.path / "metrics.json"]),
    ):
        for path in paths:
            say(f"  {title:<15} {path}")
            title = ""


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
