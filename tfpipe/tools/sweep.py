"""`tfpipe sweep`: a run for each point of a grid, shared stages done once, the results in a table and a plot.

Enters: a configuration and a grid. Leaves, in one directory: a run directory for each point, `sweep.json`, `sweep.md`
and `pareto.svg`. A run is one of `tfpipe run --until verify`; results that hold are not made again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tfpipe import pipeline
from tfpipe.artifacts import format_named
from tfpipe.config.compress import LATENCY_SHAPES
from tfpipe.config.file import load_config, read_yaml
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.devices.cluster import workers_of
from tfpipe.errors import GateError, InputError
from tfpipe.escaping import code, markdown
from tfpipe.evaluate import sanity
from tfpipe.evaluate.benchmark import time_in_turn
from tfpipe.evaluate.full_batch import full_batch, timing_tokenizer
from tfpipe.evaluate.shown import rows_measured
from tfpipe.files import write_json, write_text
from tfpipe.formats.base import Requests
from tfpipe.provenance import machine
from tfpipe.rundir.directory import RunDirectory
from tfpipe.stages.feasible import check_feasible
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools.pareto import markdown_table, marked, plot, print_table
from tfpipe.variants import STAGE_OF_VARIANT

TOGETHER = 8  # files timed in turn: all that are loaded at once
LONGEST_NAME = 120


def run(config: Path, grid: list[str], directory: Path | None, overrides: list[str]) -> None:
    """Runs every point and shows the results.

    Args:
      config: YAML file.
      grid: `a.b=V1,V2`, each a setting and its values, in YAML.
      directory: of the sweep; None: runs/NAME-sweep.
      overrides: `a.b=VALUE`, for all points.

    Raises:
      InputError: a point is not a valid configuration (found before any point runs), or could not run.
      GateError: no point passed its gates.
    """
    axes = [parse_axis(each) for each in grid]
    if len({name for name, _ in axes}) < len(axes):
        raise InputError("sweep: a setting stands in two --grid options; give all its values in one")
    points = {}
    for values in itertools.product(*(values for _, values in axes)):
        settings = [f"{name}={as_yaml(value)}" for (name, _), value in zip(axes, values, strict=True)]
        points[" ".join(settings)] = load_config(config, [*overrides, *settings])
    first = next(iter(points.values()))
    if any(workers_of(point.train.strategy) is not None for point in points.values()):
        raise InputError(
            "sweep: runs on one machine, but TF_CONFIG names several workers; unset it, or give --set "
            "train.strategy=one_device or mirrored"
        )
    for name in ("budget", "verify"):
        if len({getattr(point, name).model_dump_json() for point in points.values()}) > 1:
            raise InputError(
                f"sweep: --grid {name}…: all points are measured and checked alike, or they could not be compared; "
                "give it with --set"
            )
    sweep(points, directory or Path("runs") / f"{first.name}-sweep")


def sweep(points: Mapping[str, Config], directory: Path) -> list[dict[str, Any]]:
    """Runs points one after the other; each takes over the same stages from others in the directory.

    Args:
      points: label -> configuration, all with the same `budget` and `verify`.
      directory: of their runs, the table and the plot; held by a lock meanwhile.

    Returns:
      The rows of the table: see `rows_of`.

    Raises:
      InputError: a point could not run; all others have.
      GateError: no point passed its gates.
    """
    for label, config in points.items():
        try:
            check_feasible(config)
        except InputError as error:
            raise InputError(f"{label}: {error}") from None
    rows, failures, wrong = [], {}, []
    with RunDirectory(directory).lock():
        for number, (label, config) in enumerate(points.items(), start=1):
            say(f"== point {number} of {len(points)}: {label}")
            started = time.monotonic()
            run = RunDirectory(directory / "points" / slug(label))
            others = [RunDirectory(path) for path in sorted((directory / "points").glob("*")) if path != run.path]
            try:
                # The table of the sweep takes the place of its runs' reports.
                pipeline.run(config, run, until="verify", others=others)
            except GateError as error:
                failures[label] = str(error)
            except InputError as error:
                failures[label] = str(error)
                wrong.append(label)
            if label in failures:
                say(f"   {failures[label]}")
            say(f"== point {number} of {len(points)}: {time.monotonic() - started:.0f} s")
            if label not in wrong:
                rows += rows_of(label, config, run)
                _write(directory, rows, failures)  # after each: an interrupted sweep has a table of what is done
        if rows:
            _time_together(rows, next(iter(points.values())))
            _write(directory, rows, failures)
            print_table(marked(_once(rows)))
            say(f"  test accuracy: {_measured(rows)}")
            best = max(_once(rows), key=lambda row: row["accuracy"])
            if warning := sanity.looked_at(len(_once(rows)), best["accuracy"], best["rows"]):
                say(f"warning: {warning}")
            for name in ("sweep.md", "sweep.json", "pareto.svg"):
                say(f"  {directory / name}")
    if wrong:
        raise InputError(f"sweep: {len(wrong)} of {len(points)} points could not run; {wrong[0]}: {failures[wrong[0]]}")
    if len(failures) == len(points):
        label, failure = next(iter(failures.items()))
        raise GateError(f"sweep: no point passed its gates; {label}: {failure}")
    return rows


def rows_of(label: str, config: Config, run: RunDirectory) -> list[dict[str, Any]]:
    """Gathers the measurements of one run, by variant: of the artifact that its budget is about.

    Returns:
      `point, variant, validation_accuracy, rows, of, accuracy, accuracy_change, accuracy_change_95, size_bytes,
      latency_ms, speedup` (over the dense artifact of the same run; in the end, of the first), `within_budget`,
      `agrees` (with its Keras model, within the gates), `model` (digest of what the artifact is made of), `file`,
      `run`.
    """
    parity = json.loads((run.path / "verify" / "parity.json").read_text(encoding="utf-8"))
    shape = config.budget.latency_shape
    chosen = [row for row in parity["artifacts"] if row["artifact"] == config.budget.artifact]
    dense = next(row["latency_ms"][shape] for row in chosen if row["variant"] == "dense")
    rows = []
    for row in chosen:
        latency = row["latency_ms"][shape]
        source = run.record(STAGE_OF_VARIANT[row["variant"]]).output
        rows.append(
            {
                "point": label,
                "variant": row["variant"],
                "validation_accuracy": parity["validation_accuracy"][row["variant"]],
                **{name: row[name] for name in ("rows", "of", "accuracy", "accuracy_change", "accuracy_change_95")},
                "size_bytes": row["size_bytes"],
                "latency_ms": latency,
                "speedup": dense / latency if dense and latency else None,
                "within_budget": row["variant"] == "dense" or row["variant"] in parity["within_budget"],
                "agrees": row["agrees"],
                "model": hashlib.sha256(f"{source} {config.export.model_dump_json()}".encode()).hexdigest(),
                "file": str(run.path / row["path"]),
                "run": str(run.path),
            }
        )
    return rows


def _time_together(rows: list[dict[str, Any]], config: Config) -> None:
    """Times the files in turn, in place of the times that their runs measured apart; the first in every group."""
    batches: dict[TokenizerSettings, Requests] = {}
    timed = [row for row in _once(rows) if row["latency_ms"] is not None]
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for start in range(1, max(len(timed), 2), TOGETHER - 1):
        group = [*timed[:1], *timed[start : start + TOGETHER - 1]]
        calls = {(row["variant"], row["model"]): _call(row, rows[0], config, batches) for row in group}
        latency = time_in_turn(calls, config.verify.latency_runs)
        first = next(iter(latency.values()), None)
        for key, value in latency.items():
            found.setdefault(key, (value, first / value))
    for row in rows:
        row["latency_ms"], row["speedup"] = found.get((row["variant"], row["model"]), (None, None))


def _call(
    row: dict[str, Any], first: dict[str, Any], config: Config, batches: dict[TokenizerSettings, Requests]
) -> Callable[[], np.ndarray]:
    """Makes a call that answers by a row's file, with the same texts as all others, one batch for each tokenizer."""
    answer, *_ = format_named(config.budget.artifact).code.load(Path(row["file"]), config.verify.threads)
    settings = TokenizerSettings.read(Path(row["run"]) / STAGE_OF_VARIANT[row["variant"]])
    if settings not in batches:
        table = TokenTable.open(Path(first["run"]) / "prepare" / "test")
        shape, pairs = LATENCY_SHAPES[config.budget.latency_shape], config.data.text_pair_column is not None
        batches[settings] = full_batch(table, timing_tokenizer(settings), *shape, pairs=pairs, seed=config.seed)
    return partial(answer.ask, batches[settings])


def _once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lists the rows; a model that several points share, such as the dense one, at the first of them alone."""
    shown: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        first = shown.setdefault((row["variant"], row["model"]), {**row, "same_as": []})
        if first["point"] != row["point"]:
            first["same_as"].append(row["point"])
    return list(shown.values())


def _measured(rows: list[dict[str, Any]]) -> str:
    return "; ".join(dict.fromkeys(rows_measured(row["rows"], row["of"]) for row in rows))


def _write(directory: Path, rows: list[dict[str, Any]], failures: dict[str, str]) -> None:
    shown = marked(_once(rows))
    write_json(directory / "sweep.json", {"machine": machine(), "rows": shown, "failures": failures})
    told = "".join(f"\n{code(label)} is not published: {markdown(failure)}\n" for label, failure in failures.items())
    about = f"Test accuracy: {_measured(rows)}. Latencies of {machine()}."
    write_text(directory / "sweep.md", f"{markdown_table(shown)}\n{about}\n{told}")
    plot(shown, directory / "pareto.svg")


def parse_axis(text: str) -> tuple[str, list[Any]]:
    """Parses `a.b=V1,V2` into the setting and its values.

    Raises:
      InputError: the text is not of this form.
    """
    name, separator, values = text.partition("=")
    parsed = read_yaml(f"[{values}]", where=f"--grid {text}: ")
    if not separator or not name or not parsed:
        raise InputError(f"--grid {text}: expected a.b=V1,V2, for example --grid prune.sparsity=0.5,0.8")
    if len({as_yaml(value) for value in parsed}) < len(parsed):
        raise InputError(f"--grid {text}: a value stands there twice")
    return name, parsed


def as_yaml(value: Any) -> str:
    """Writes a value on one line, as `--set` takes it; a mapping keeps its order, which may be the outputs' order."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).removesuffix("\n...\n").strip()


def slug(label: str) -> str:
    """Turns a label into the name of a directory, with a digest where a part of the label is lost."""
    name = re.sub(r"[^A-Za-z0-9.=+-]+", "_", label).strip("_.")
    if name == label.replace(" ", "_") and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
