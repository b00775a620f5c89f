"""The facts of a finished run for a tracker: parameters, measures, tags, files. Without TensorFlow and MLflow.

Enters: a run whose stages up to `verify` are committed, and are of its configuration. Leaves: flat names and values.
The points of a sweep are such runs, but have no report: its files are listed where they exist.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tfpipe.config.file import config_of, flattened, read_yaml, setting
from tfpipe.config.run import Config
from tfpipe.errors import InputError
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.record import Record
from tfpipe.stages.table import stages_of
from tfpipe.variants import STAGE_OF_VARIANT, VARIANTS

NEEDED = "verify"
"""the last stage that a run must have done: its gates say whether the run is of use"""
HISTORY = "history.json"
_READ = ("parity.json", "metrics.json", "report.html", "model_card.md")
"""files that people read; the page holds its plots and texts"""


class Measure(NamedTuple):
    """A number that was measured."""

    name: str
    """parts are separated by `/`, by which MLflow groups its charts"""
    value: float
    step: int = 0
    """of the training; 0 for what has no steps"""


@dataclass(frozen=True)
class Finished:
    """A run that is done, at least up to `verify`."""

    run: RunDirectory
    config: Config
    records: dict[str, Record]
    """stage -> its record"""
    parity: dict[str, Any]
    """what `verify` measured"""

    @property
    def name(self) -> str:
        """Gives the run's name; for a point of a sweep, with its directory's, as all points have one name."""
        own = self.run.path.name
        point = self.run.path.parent.name == "points"
        return f"{self.config.name} {own}" if point else self.config.name

    def digest(self, *more: str) -> str:
        """Gives a SHA-256 that tells this run from others, and from itself before a stage was done again.

        Args:
          *more: further parts of the digest.
        """
        seals = [record.to_json()["sha256"] for record in self.records.values()]
        return hashlib.sha256("\n".join([*seals, *more]).encode()).hexdigest()

    def parameters(self) -> dict[str, str]:
        """Gives every setting as it was requested, defaults too: dotted path -> text, other types as JSON."""
        found = flattened(self.config.model_dump(mode="json"))
        return {
            path: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for path, value in found.items()
        }

    def measures(self) -> list[Measure]:
        """Lists the measurements: each evaluation of each training, each artifact, the seconds of each stage."""
        found = [
            *self._of_trainings(),
            *self._of_report(),
            *(each for row in self.parity["artifacts"] for each in _of_artifact(row)),
            *(
                Measure(f"{variant}/validation_accuracy", value)
                for variant, value in self.parity["validation_accuracy"].items()
            ),
            *(Measure(f"seconds/{name}", record.seconds) for name, record in self.records.items()),
        ]
        return [each for each in found if math.isfinite(each.value)]

    def tags(self) -> dict[str, str]:
        """Gives the origin of the run: machine, versions, digests of outputs, the values that `auto` became."""
        verified, notes = self.records[NEEDED], self.records["train"].notes
        return {
            "tfpipe.run_directory": str(self.run.location),
            "tfpipe.machine": verified.machine,
            "tfpipe.within_budget": ", ".join(self.parity["within_budget"]),
            **{f"tfpipe.train.{name}": value for name, value in notes.items() if isinstance(value, str)},
            **{f"tfpipe.versions.{name}": version for name, version in verified.versions.items()},
            **{f"tfpipe.output.{name}": record.output for name, record in self.records.items()},
        }

    def files(self) -> list[Path]:
        """Lists the files that people read: the report's, where there is one, and `parity.json`."""
        stages = [name for name in (NEEDED, "report") if name in self.records]
        found = [self.run.verified(name) / file for name in stages for file in sorted(self.records[name].files_written)]
        return [path for path in found if path.name in _READ]

    def variant(self, asked: str | None) -> str:
        """Chooses the variant that goes along: the last one within the budget, which the run was for.

        Args:
          asked: the variant that was asked for, if any.

        Raises:
          InputError: the run has no such variant, or it is outside the budget.
        """
        usable = ["dense", *self.parity["within_budget"]]
        ordered = [each.name for each in VARIANTS if each.name in usable]
        if asked is None:
            return ordered[-1]
        if asked not in ordered:
            made = asked in STAGE_OF_VARIANT and STAGE_OF_VARIANT[asked] in self.records
            reason = "is outside the budget" if made else "is no variant of this run"
            raise InputError(f"--variant {asked}: {reason}; expected one of {', '.join(ordered)}")
        return asked

    def _of_trainings(self) -> Iterator[Measure]:
        for name, record in self.records.items():
            if HISTORY not in record.files_written:
                continue
            for entry in json.loads((self.run.verified(name) / HISTORY).read_text(encoding="utf-8")):
                for measure, value in entry.items():
                    if measure != "step" and value is not None:
                        shown = measure if measure == "epoch" else f"validation/{measure}"
                        yield Measure(f"{name}/{shown}", float(value), entry["step"])
            if "examples_per_second" in record.notes:
                yield Measure(f"{name}/examples_per_second", record.notes["examples_per_second"])

    def _of_report(self) -> Iterator[Measure]:
        """Yields the scores of each variant on the test rows, and its calibration."""
        if "report" not in self.records:
            return
        report = json.loads((self.run.verified("report") / "metrics.json").read_text(encoding="utf-8"))
        for variant, measured in report["measures"].items():
            yield Measure(f"{variant}/temperature", report["calibration"][variant]["temperature"])
            for name, score in measured["scores"].items():
                if score["value"] is not None:
                    yield Measure(f"{variant}/test/{name}", score["value"])


def finished(run: RunDirectory) -> Finished:
    """Reads a run.

    Raises:
      InputError: there is no run, it is not done, or its stages are not all of one configuration.
    """
    if not run.has_file("config.yaml"):
        raise InputError(f"{run.location}: no run is there; give the directory of one, such as runs/quickstart")
    where = str(run.location / "config.yaml")
    content = (run.location / "config.yaml").read_bytes().decode("utf-8", "replace")
    config = config_of(read_yaml(content, where=f"{where}: "), None, where)
    records: dict[str, Record] = {}
    for stage in stages_of(config):
        record = run.committed(stage.name)
        if record is None and NEEDED in records:
            continue
        if record is None:
            raise InputError(f"{run.location}: {stage.name} is not done; finish it with `tfpipe run`")
        wanted = {path: setting(config, path) for path in stage.recorded(config)}
        if changed := next((path for path in wanted if record.settings.get(path) != wanted[path]), None):
            raise InputError(
                f"{run.location}: {stage.name} was done with another {changed} than config.yaml has; finish the run "
                "with `tfpipe run`"
            )
        redone = [name for name, at in records.items() if record.inputs.get(name, at.output) != at.output]
        if redone:
            raise InputError(
                f"{run.location}: {redone[0]} was done again after {stage.name}; finish the run with `tfpipe run`"
            )
        records[stage.name] = record
    parity = json.loads((run.verified(NEEDED) / "parity.json").read_text(encoding="utf-8"))
    return Finished(run, config, records, parity)


def _of_artifact(row: dict[str, Any]) -> Iterator[Measure]:
    """Yields the numbers of an artifact: those of a shape by its name, those of an interval by `low` and `high`."""
    place = f"{row['variant']}/{row['artifact']}"
    for name, value in row.items():
        if isinstance(value, list):
            for end, each in zip(("low", "high"), value, strict=True):
                yield Measure(f"{place}/{name}_{end}", each)
        elif isinstance(value, dict):
            for shape, each in value.items():
                if each is not None:
                    yield Measure(f"{place}/{name}/{shape}", each)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield Measure(f"{place}/{name}", float(value))
