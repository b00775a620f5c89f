"""A stage at work: the directory that it fills, and the record of its files.

Enters: the directories of the stages that it reads. Leaves: files, and a `Record` of them with their SHA-256, which
`RunDirectory.stage` writes last.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfpipe.files import digest_of, remove, sha256_of_file
from tfpipe.provenance import machine
from tfpipe.rundir.fingerprint import Fingerprint
from tfpipe.rundir.mirror import Mirror
from tfpipe.rundir.no_mirror import NoMirror
from tfpipe.rundir.record import CHECKPOINTS, LOGS, RECORD, WORK_RECORD, Published, Record, Written
from tfpipe.variants import VARIANTS

NOT_OUTPUT = (CHECKPOINTS, LOGS, RECORD, WORK_RECORD)


@dataclass
class StageDirectory:
    """The directory of a stage at work, with the committed stages that it reads, its notes and its published files."""

    name: str
    path: Path
    inputs: dict[str, Path]
    notes: dict[str, Any] = field(default_factory=dict)
    """what `auto` became, counts, measurements: recorded in stage.json, not part of the output"""
    published: dict[str, Published] = field(default_factory=dict)
    """what it put elsewhere in the run, by its path there"""
    mirror: Mirror | NoMirror = field(default_factory=NoMirror)
    """where the run lies"""
    settings: dict[str, Any] = field(default_factory=dict)
    """those that decide its output, as its record will hold them: dotted path -> value"""
    listings: set[str] = field(default_factory=set)
    """files that name places of this machine, for people: kept and checked as output, but no stage's result depends on
    them, so the digest of the output leaves them out"""

    @property
    def variants(self) -> tuple[str, ...]:
        """Gives the variants that the stages before it have made, in their order."""
        return tuple(variant.name for variant in VARIANTS if variant.stage in self.inputs)

    @property
    def checkpoints(self) -> Path:
        """Gives the directory of work in progress: it survives a kill, and is removed at the commit."""
        return self.path / CHECKPOINTS

    @property
    def logs(self) -> Path:
        """Gives the directory of logs for people: kept, not hashed."""
        return self.path / LOGS

    def keep(self, marker: str) -> None:
        """Copies `checkpoints/` to where the run lies, so that another machine can resume; a local run needs no copy.

        Args:
          marker: the file in `checkpoints/` that names the whole checkpoints; written after them, here and there.
        """
        self.mirror.keep(self.name, marker)

    def clear_output(self) -> None:
        """Removes the files of an interrupted try, except checkpoints and logs."""
        for child in self.path.iterdir():
            if child.name not in NOT_OUTPUT:
                remove(child)

    def record(self, fingerprint: Fingerprint, versions: dict[str, str], started: float) -> Record:
        """Hashes and flushes the files that the stage has written, and makes their record.

        Args:
          fingerprint: under which the stage was done.
          versions: package -> version, under which its work was begun.
          started: `time.monotonic()` when it began.
        """
        output = [
            file
            for file in sorted(self.path.rglob("*"))
            if file.is_file() and file.relative_to(self.path).parts[0] not in NOT_OUTPUT
        ]
        with ThreadPoolExecutor() as pool:
            digests = pool.map(lambda file: sha256_of_file(file, sync=True), output)
            written = {
                str(file.relative_to(self.path)): Written(sha256=digest, size_bytes=file.stat().st_size)
                for file, digest in zip(output, digests, strict=True)
            }
        result = {name: {"sha256": entry.sha256} for name, entry in written.items() if name not in self.listings}
        return Record(
            stage=self.name,
            fingerprint=fingerprint.digest,
            settings=fingerprint.settings,
            files=fingerprint.files,
            inputs=fingerprint.inputs,
            code=fingerprint.code,
            seconds=round(time.monotonic() - started, 1),
            finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            machine=machine(),
            versions=versions,
            notes=json.loads(json.dumps(self.notes)),  # as they will be read
            published=self.published,
            files_written=written,
            output=digest_of(result),
        )
