"""Finished runs: their numbers, and the facts that decide whether two of them can be compared.

Enters: the directory of a run, or its address on a store. Leaves: its `metrics.json` and the records of its stages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfpipe.config.file import config_of, read_yaml
from tfpipe.errors import InputError
from tfpipe.evaluate.page.summary import artifact_of
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.record import Record
from tfpipe.stages.table import stages_of

REPORT = "report"
_NEEDED = ("verdict", "measures", "artifacts", "settings")


class NoRun(InputError):
    """A path that holds no run."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    name: str
    """as it was given"""
    directory: RunDirectory
    records: dict[str, Record]
    """stage -> its record"""
    summary: dict[str, Any]
    """of `metrics.json`"""

    @property
    def variant(self) -> str:
        """Names the variant that its report begins with."""
        return self.summary["verdict"]["variant"]

    @property
    def best(self) -> dict[str, Any]:
        """Gives the row of the artifact that its report begins with."""
        return artifact_of(self.summary, self.variant, self.summary["verdict"]["artifact"])

    @property
    def latency_ms(self) -> float | None:
        """Gives the latency of that artifact."""
        return self.best["latency_ms"][self.summary["verdict"]["shape"]]

    @property
    def score(self) -> dict[str, Any]:
        """Gives the scores of that variant, by name."""
        return self.summary["measures"][self.variant]["scores"]

    @property
    def prepared(self) -> str:
        """Gives the digest of its data: runs that share it have the same rows in the same splits."""
        return self.records["prepare"].output


def open_run(name: str) -> Run:
    """Reads a run.

    Raises:
      InputError: there is none, a stage is missing, or its report is of another tfpipe or of an earlier result.
    """
    directory = RunDirectory(name)
    if not directory.has_file("config.yaml"):
        raise NoRun(f"{name}: no run is there; give the directory of one, such as runs/quickstart")
    content = (directory.location / "config.yaml").read_bytes().decode("utf-8", "replace")
    where = str(directory.location / "config.yaml")
    config = config_of(read_yaml(content, where=f"{where}: "), None, where)
    records: dict[str, Record] = {}
    for stage in stages_of(config):
        record = directory.committed(stage.name)
        if record is None:
            raise InputError(f"{name}: stage {stage.name} is not done; finish the run with `tfpipe run`")
        redone = [other for other, at in records.items() if record.inputs.get(other, at.output) != at.output]
        if redone:
            raise InputError(f"{name}: {redone[0]} was done again after {stage.name}; finish the run with `tfpipe run`")
        records[stage.name] = record
    path = directory.verified(REPORT)
    try:
        summary = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
        if not all(part in summary for part in _NEEDED):
            raise ValueError("a part is missing")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{name}: its metrics.json is of another tfpipe; make it again with `tfpipe run … --redo report`"
        ) from error
    return Run(name, directory, records, summary)


def looks(runs: list[Run]) -> int:
    """Counts the runs that have looked at the test rows of the first: the given ones, and those beside them.

    Args:
      runs: that are compared.
    """
    given = [run for run in runs if run.prepared == runs[0].prepared]
    seen = {run.directory.path.resolve() for run in given}
    for run in given:
        if not isinstance(run.directory.location, Path):
            continue
        for other in map(Path.resolve, run.directory.path.resolve().parent.iterdir()):
            if other not in seen and (other / "config.yaml").is_file() and _looked(other, runs[0].prepared):
                seen.add(other)
    return len(seen)


def _looked(path: Path, prepared: str) -> bool:
    """Tells whether a run has the same rows, and has verified artifacts on them."""
    try:
        directory = RunDirectory(path)
        record = directory.committed("prepare")
        return record is not None and record.output == prepared and directory.committed("verify") is not None
    except InputError:
        return False
