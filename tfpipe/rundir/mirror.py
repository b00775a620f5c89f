"""The other side of a run directory that lies on a store such as `gs://`: the order in which files are copied.

A run works in a local directory, so that every stage has plain files (memory-mapped tables, safetensors, ONNX). Its
commits are copied to the store. A stage that was committed there is copied here when another stage reads it. The store
holds the truth. Nothing larger than a file is atomic there, so all depends on the order:

    a commit        the files, the published artifacts, then `stage.json`; after it, the work is removed
    a redo          `work.json` and `stage.json` are removed, then all else
    a checkpoint    its files, the file that names it, `work.json`; after it, unneeded files are removed
    a version       beside its place, then moved into it, `saved_model.pb` last; a whole version is left alone

So a kill at any instant leaves the old state or the new one. Nothing keeps two machines off one run.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfpipe.console import say
from tfpipe.errors import InputError
from tfpipe.files import versions
from tfpipe.rundir.record import (
    CHECKPOINTS,
    LOGS,
    RECORD,
    SERVING,
    WORK_RECORD,
    Record,
    content_of,
    last_file,
    parse_record,
    parse_work,
)
from tfpipe.rundir.remote import Remote, files_below


class Mirror:
    """A run's directory on a store, and the local one that stands for it on this machine."""

    another = "set XDG_CACHE_HOME to another"
    """advice where the directory on this machine can't be written"""
    needs_lock = True
    """whether stages are written under the run's lock alone"""

    def __init__(self, url: str):
        if re.search(r"[*?\[\\]", url):
            raise InputError(f"run directory {url}: * ? [ \\ are patterns there; choose a name without them")
        self.location = Remote(url.rstrip("/"))
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = re.sub(r"[^\w.-]+", "-", self.location.url.rpartition("/")[2])
        digest = hashlib.sha256(self.location.url.encode()).hexdigest()[:12]
        self.path = cache / "tfpipe" / "runs" / f"{name}-{digest}"
        self._kept: dict[str, dict[str, tuple[int, int]]] = {}  # stage -> its work that was copied: size, time

    def announce(self) -> None:
        """Reports where the copy of the run is."""
        say(f"{self.location}: its copy on this machine is {self.path}")

    def take_record(self, name: str) -> bool:
        """Replaces a stage's record here by the one that is committed there; its files follow when they are read.

        Returns:
          Whether the stage is committed there; if not, nothing is changed here.
        """
        source, local = self.location / name, self.path / name
        content = (source / RECORD).read_bytes()
        record = parse_record(content, local)
        if record is None:
            return False
        if content != content_of(local / RECORD):
            (local / RECORD).unlink(missing_ok=True)
            for file in files_below(local):
                hidden = Path(file).name.startswith(".")  # what another reader is just copying
                if file not in record.files_written and not file.startswith(f"{LOGS}/") and not hidden:
                    (local / file).unlink(missing_ok=True)
            source.download(local, {RECORD: 0})
        return True

    def committed(self, name: str) -> Record | None:
        """Reads a stage's record as it is committed there, or None; changes nothing here."""
        return parse_record((self.location / name / RECORD).read_bytes(), self.path / name)

    def is_damaged(self, name: str) -> bool:
        """Tells whether the record here is unreadable: never, as a record that is damaged there is not brought here."""
        return False

    def lacks(self, name: str, record: Record) -> str | None:
        """Names a file of a committed stage that is missing there; a store has whole files alone.

        A file that is missing here is brought when it is read.
        """
        missing = sorted(record.files_written.keys() - (self.location / name).names_below())
        return f"{missing[0]} is missing" if missing else None

    def has_file(self, relative: str) -> bool:
        """Tells whether a file exists there."""
        return (self.location / relative).exists()

    def names(self, *below: str) -> list[str]:
        """Lists the names in a directory there, sorted; empty where there is none."""
        return self._there(*below).children()

    def files(self, name: str) -> dict[str, int]:
        """Lists the files below a directory there: relative name -> size in bytes."""
        return (self.location / name).files()

    def take_files(self, name: str, sizes: Mapping[str, int]) -> None:
        """Copies files of a committed stage here: relative names, and their sizes in bytes."""
        (self.location / name).download(self.path / name, sizes)

    def begun(self, name: str) -> dict[str, Any] | None:
        """Reads under what the work on a stage was begun there, see `parse_work`; None without work to resume."""
        return parse_work((self.location / name / WORK_RECORD).read_bytes())

    def take_work(self, name: str) -> None:
        """Replaces the local work in progress on a stage by the store's. If the store has none, keeps the local one."""
        source, local = self.location / name, self.path / name
        content = (source / WORK_RECORD).read_bytes()
        if content is None:
            return
        if content != content_of(local / WORK_RECORD) or not (source / CHECKPOINTS).holds(local / CHECKPOINTS):
            (local / WORK_RECORD).unlink(missing_ok=True)
            (source / CHECKPOINTS).replace(local / CHECKPOINTS)
            logs = {f"{LOGS}/{file}": size for file, size in (source / LOGS).files().items()}
            source.download(local, {file: size for file, size in logs.items() if not (local / file).exists()})
            source.download(local, {WORK_RECORD: 0})

    def take_published(self) -> None:
        """Brings the newest version of each published artifact here, so that the next version is numbered after it."""
        above = [f"{SERVING}/{name}" for name in (self.location / SERVING).children()]
        for directory in above:
            children = (self.location / directory).children()
            if directory.count("/") == 1 and not versions(children):
                above += [f"{directory}/{child}" for child in children]
                continue
            numbered = (f"{directory}/{number}" for number in versions(children)[::-1])
            newest = next((each for each in numbered if (self.location / each / last_file(each)).exists()), None)
            if newest is not None:
                self.take(newest)

    def take(self, *below: str) -> None:
        """Copies files until the directory here, or one below it, holds the files that are there, and no other."""
        there, local = self._there(*below), self.path.joinpath(*below)
        if not there.holds(local):
            there.replace(local)

    def begin(self, name: str, *, anew: bool) -> None:
        """Takes back a stage's commit there before the stage is redone; with `anew`, its work as well."""
        files = [path.name for path in self.path.iterdir() if path.is_file() and not path.name.startswith(".")]
        self.location.upload(self.path, files)  # first: whether the store can be written is known before work is lost
        stage = self.location / name
        if anew:
            self._kept.pop(name, None)
            (stage / WORK_RECORD).remove()
        (stage / RECORD).remove()
        if anew:
            stage.remove()
        self.take_published()

    def commit(self, name: str, record: Record) -> None:
        """Copies a committed stage there: its files, its published artifacts, its record last."""
        target, local = self.location / name, self.path / name
        logs = [f"{LOGS}/{file}" for file in files_below(local / LOGS)]
        target.upload(local, [*record.files_written, *logs])
        for name, entry in record.published.items():
            if entry.sha256 is not None:
                (self.location / name).publish(self.path / name, last=last_file(name))
        self.location.upload(self.path, [name for name, entry in record.published.items() if entry.sha256 is None])
        target.upload(local, [RECORD])
        for work in (WORK_RECORD, CHECKPOINTS):
            (target / work).remove()

    def keep(self, name: str, marker: str) -> None:
        """Copies a stage's checkpoints and logs there; after them, the marker that names the whole checkpoints."""
        target, local = self.location / name, self.path / name
        now = {
            f"{part}/{file}": ((local / part / file).stat().st_size, (local / part / file).stat().st_mtime_ns)
            for part in (CHECKPOINTS, LOGS)
            for file in files_below(local / part)
        }
        before, named = self._kept.get(name, {}), f"{CHECKPOINTS}/{marker}"
        target.upload(local, [file for file in now if now[file] != before.get(file) and file != named])
        for last in (named, WORK_RECORD):
            target.upload(local, [last])
        self._kept[name] = now
        checkpoints = target / CHECKPOINTS
        for child in checkpoints.children():
            if not (local / CHECKPOINTS / child).exists():
                (checkpoints / child).remove()

    def _there(self, *below: str) -> Remote:
        return functools.reduce(operator.truediv, below, self.location)
