"""The other side of a run directory that lies on a store such as `gs://`: what is copied, when, in which order.

A run works in a local directory, so that every stage goes on with plain files (memory-mapped tables, safetensors,
ONNX). What it commits is copied to the store; what was committed there is copied here when a stage reads it. What the
store holds is the truth, and as nothing larger than a file is atomic there, order is all there is:

    a commit        the files, what the stage published, then `stage.json`; after it, the work is removed
    a redo          `work.json` and `stage.json` are removed, then all else
    a checkpoint    its files, the file that names it, `work.json`; after it, what is no longer needed is removed
    a version       beside its place, then moved into it, `saved_model.pb` last; one that is whole is left alone

So a kill at any instant leaves the old state or the new one. Nothing keeps two machines off one run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfpipe.errors import InputError
from tfpipe.files import path_inside, versions
from tfpipe.rundir.fingerprint import is_sealed
from tfpipe.rundir.remote import Remote, files_below

RECORD = "stage.json"
WORK_RECORD = "work.json"
CHECKPOINTS = "checkpoints"
LOGS = "logs"
SERVING = "serving"
SAVED_MODEL = "saved_model.pb"


class Mirror:
    """A run's directory on a store, and the local one that stands for it on this machine."""

    def __init__(self, url: str):
        if re.search(r"[*?\[\\]", url):
            raise InputError(f"run directory {url}: * ? [ \\ are patterns there; choose a name without them")
        self.remote = Remote(url.rstrip("/"))
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = re.sub(r"[^\w.-]+", "-", self.remote.url.rpartition("/")[2])
        digest = hashlib.sha256(self.remote.url.encode()).hexdigest()[:12]
        self.path = cache / "tfpipe" / "runs" / f"{name}-{digest}"
        self._kept: dict[str, dict[str, tuple[int, int]]] = {}  # stage -> its work that was copied: size, time

    def take_record(self, name: str) -> bool:
        """Makes a stage's record here the one that is committed there; its files follow when they are read.

        Returns:
          Whether the stage is committed there; if not, nothing is changed here.
        """
        source, local = self.remote / name, self.path / name
        content = (source / RECORD).read_bytes()
        record = parse_record(content, local)
        if record is None:
            return False
        if content != content_of(local / RECORD):
            (local / RECORD).unlink(missing_ok=True)
            for file in files_below(local):
                hidden = Path(file).name.startswith(".")  # what another reader is just copying
                if file not in record["files_written"] and not file.startswith(f"{LOGS}/") and not hidden:
                    (local / file).unlink(missing_ok=True)
            source.download(local, {RECORD: 0})
        return True

    def committed(self, name: str) -> dict[str, Any] | None:
        """A stage's record as it is committed there, or None; nothing is changed here."""
        return parse_record((self.remote / name / RECORD).read_bytes(), self.path / name)

    def take_files(self, name: str, sizes: Mapping[str, int]) -> None:
        """Copies files of a committed stage here: relative names, and their sizes in bytes."""
        (self.remote / name).download(self.path / name, sizes)

    def begun(self, name: str) -> dict[str, Any] | None:
        """Reads what work on a stage goes on under there, see `parse_work`; None where there is none to go on from."""
        return parse_work((self.remote / name / WORK_RECORD).read_bytes())

    def take_work(self, name: str) -> None:
        """Makes the work on a stage here, its checkpoints, the one that is kept there; where none is, it stays."""
        source, local = self.remote / name, self.path / name
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
        """Brings the newest version of each published model here: what is published next is numbered after it."""
        for variant in (self.remote / SERVING).children():
            there = self.remote / SERVING / variant
            numbers = versions(there.children())[::-1]
            newest = next((each for each in numbers if (there / each / SAVED_MODEL).exists()), None)
            if newest is not None:
                self.take(f"{SERVING}/{variant}/{newest}")

    def take(self, *below: str) -> None:
        """Makes the directory here, or one below it, hold the files that are there, and no other."""
        there, local = functools.reduce(operator.truediv, below, self.remote), self.path.joinpath(*below)
        if not there.holds(local):
            there.replace(local)

    def begin(self, name: str, *, anew: bool) -> None:
        """Takes back a stage's commit there, before it is done again; `anew` its work as well."""
        files = [path.name for path in self.path.iterdir() if path.is_file() and not path.name.startswith(".")]
        self.remote.upload(self.path, files)  # first: whether the store can be written is known before work is lost
        stage = self.remote / name
        if anew:
            self._kept.pop(name, None)
            (stage / WORK_RECORD).remove()
        (stage / RECORD).remove()
        if anew:
            stage.remove()
        self.take_published()

    def commit(self, name: str, record: dict[str, Any]) -> None:
        """Copies a committed stage there, its record last, and what it published before that."""
        target, local = self.remote / name, self.path / name
        logs = [f"{LOGS}/{file}" for file in files_below(local / LOGS)]
        target.upload(local, [*record["files_written"], *logs])
        published = record.get("choices", {}).get("published", ())
        for version in published:
            (self.remote / version).publish(self.path / version, last=SAVED_MODEL)
        if published:
            beside = [path.name for path in (self.path / SERVING).iterdir() if path.is_file()]
            (self.remote / SERVING).upload(self.path / SERVING, beside)
        target.upload(local, [RECORD])
        for work in (WORK_RECORD, CHECKPOINTS):
            (target / work).remove()

    def keep(self, name: str, marker: str) -> None:
        """Copies a stage's checkpoints and logs there, the file of the checkpoints that names what is whole last."""
        target, local = self.remote / name, self.path / name
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


def parse_record(content: bytes | None, stage: Path) -> dict[str, Any] | None:
    """A stage's record from the content of `stage.json`; None where that is not a whole one.

    Args:
      content: of the file.
      stage: the stage's directory on this machine.

    Raises:
      InputError: it names a file outside its directory, or outside its run.
    """
    try:
        record = json.loads(content or "null")
        if not is_sealed(record) or not _is_whole(record):
            return None
    except (ValueError, RecursionError):
        return None
    for name in record["files_written"]:
        path_inside(stage, name, str(stage / RECORD))
    choices = record["choices"]
    for name in (*record["inputs"], *choices.get("published", ()), *choices.get("published_bytes", ())):
        path_inside(stage.parent, name, str(stage / RECORD))
    return record


def parse_work(content: bytes | None) -> dict[str, Any] | None:
    """Reads what work in progress was begun under, from the content of `work.json`; None where that is not whole.

    Returns:
      `fingerprint` and `versions`: as in a stage's record.
    """
    try:
        work = json.loads(content or "null")
    except (ValueError, RecursionError):
        return None
    kinds = (("fingerprint", str), ("versions", dict))
    whole = isinstance(work, dict) and all(isinstance(work.get(name), kind) for name, kind in kinds)
    return work if whole else None


def _is_whole(record: dict[str, Any]) -> bool:
    """Whether a record has what is read of it, each of its kind."""
    kinds = {"fingerprint": str, "output": str} | dict.fromkeys(("settings", "files", "inputs", "choices"), dict)
    if not all(isinstance(record.get(name), kind) for name, kind in kinds.items()):
        return False
    texts = [*record["files"].values(), *record["inputs"].values()]
    written, published = record.get("files_written"), record["choices"].get("published", {})
    sizes = record["choices"].get("published_bytes", {})
    if not all(isinstance(each, dict) for each in (written, published, sizes)):
        return False
    if not all(type(size) is int for size in sizes.values()):
        return False
    for entry in written.values():
        if not isinstance(entry, dict) or type(entry.get("size_bytes")) is not int:
            return False
        texts.append(entry.get("sha256"))
    return all(isinstance(text, str) for text in [*texts, *published.values()])


def content_of(path: Path) -> bytes | None:
    """Reads a file; None where that can't be done."""
    try:
        return path.read_bytes()
    except OSError:
        return None
