"""The run directory: lock, fingerprint, commit, resume.

A stage lives in `<run>/<stage>/` and is committed when its `stage.json` is there, which is written last and atomically.
A stage's directory without `stage.json` is work in progress. The work resumes if it was begun under the same
fingerprint by the same versions of tfpipe, Python and the libraries, else it is cleared. A fingerprint is made of the
settings that the stage reads, as requested, of the SHA-256 of the files that it reads from outside, of the output
digests of the stages before it, and of the version of the stage's code (`fingerprint.py`).

Inside a stage's directory `checkpoints/` is work (removed at the commit) and `logs/` is for people (kept, not part of
the output); everything else is output and hashed.

A run on `gs://` works in a local directory too, of which the store holds the truth (`mirror.py`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfpipe.console import say
from tfpipe.errors import InputError
from tfpipe.escaping import printable
from tfpipe.files import link, remove, sha256_of_file, write_json
from tfpipe.provenance import other_versions, package_versions
from tfpipe.rundir.fingerprint import Fingerprint
from tfpipe.rundir.mirror import Mirror
from tfpipe.rundir.no_mirror import NoMirror
from tfpipe.rundir.record import (
    RECORD,
    WORK_RECORD,
    Record,
    Written,
    content_of,
    last_file,
    parse_work,
)
from tfpipe.rundir.remote import Remote
from tfpipe.rundir.stage import StageDirectory


class RunDirectory:
    """One run: a local directory, or one that stands for a directory on a store such as `gs://`.

    Files of a remote run are brought here before they are read. Without the lock, nothing is written there, and a
    record is read there each time. The workers of a training other than its chief open the run this way.
    """

    def __init__(self, path: str | Path):
        self._mirror = Mirror(str(path)) if "://" in str(path) else NoMirror(Path(path))
        self.path = self._mirror.path
        self._here = NoMirror(self.path)
        self._locked = False
        self._settled: set[str] = set()  # stages that are here as they are there, as long as the lock is held

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the directory for one process; the kernel releases it however the process ends.

        Raises:
          InputError: another process holds it, or the directory can't be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise InputError(
                f"run directory {self.path}: can't be written ({error.strerror}); {self._mirror.another}"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise InputError(
                    f"{self.path}: in use by another run ({file.read().strip() or 'unknown'}); "
                    "wait for it, or choose another --run-dir"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            self._mirror.announce()
            self._locked = True
            try:
                yield
            finally:
                self._locked = False
                self._settled.clear()

    def record(self, name: str) -> Record | None:
        """Returns the stage's record, or None where the stage is not committed."""
        return self._here.committed(name) if self._is_settled(name) else None

    def why_redo(self, name: str, fingerprint: Fingerprint) -> str | None:
        """Returns None where the committed stage still holds, else the reason why it must be done."""
        record = self.record(name)
        if record is None:
            damaged = self._mirror.is_damaged(name)
            return f"its {RECORD} is damaged, or of another tfpipe" if damaged else "not done yet"
        if record.fingerprint != fingerprint.digest:
            return fingerprint.difference(record)
        return self._mirror.lacks(name, record) or self._no_longer_published(record)

    def _no_longer_published(self, record: Record) -> str | None:
        """Names a published file that is gone or changed where the run lies; None where all are as they were."""
        for name, entry in record.published.items():
            if entry.sha256 is None:
                if not self.has_file(name):
                    return f"{name} is missing"
                continue
            files = self._mirror.files(name)
            if last_file(name) not in files or sum(files.values()) != entry.size_bytes:
                return f"{name} is missing or has another size"
        return None

    def verified(self, name: str, only: Collection[str] = ()) -> Path:
        """Returns the directory of a committed stage, every file of it checked against its recorded SHA-256.

        For a remote run, the files that are not here as they were recorded are copied here first.

        Args:
          name: of the stage.
          only: paths of the files that are needed; none: all.

        Raises:
          InputError: a file was changed after the commit.
        """
        record = self.record(name)
        assert record is not None, f"stage {name} is read before it is committed"
        needed = record.files_written
        if only:
            needed = {relative: entry for relative, entry in needed.items() if relative in only}
        changed = self._changed(name, needed)
        if changed:
            self._mirror.take_files(name, {relative: entry.size_bytes for relative, entry in changed.items()})
        for relative, entry in self._changed(name, changed).items():
            raise InputError(
                f"{self.location / name / relative}: its content is not what stage {name} wrote (SHA-256 "
                f"{entry.sha256[:12]}… expected); make it again with --redo {name}"
            )
        return self.path / name

    @property
    def location(self) -> Path | Remote:
        """Gives the directory or store of the run, as messages name it."""
        return self._mirror.location

    def committed(self, name: str) -> Record | None:
        """Reads the stage's record where the run lies, or None; for a remote run, changes nothing here."""
        return self._mirror.committed(name)

    def has_file(self, relative: str) -> bool:
        """Tells whether a file exists where the run lies."""
        return self._mirror.has_file(relative)

    def names(self, *below: str) -> list[str]:
        """Lists the names in the directory, or in one below it, sorted, where the run lies; empty if there is none."""
        return self._mirror.names(*below)

    def take(self, *below: str) -> Path:
        """Gives the local directory of a SavedModel, with the same files as where the run lies."""
        self._mirror.take(*below)
        return self.path.joinpath(*below)

    def adopt(self, name: str, fingerprint: Fingerprint, other: RunDirectory) -> bool:
        """Takes over a stage that another run has committed under the same fingerprint.

        Its files become hard links where the file system has them: no stage ever changes a file in its place.

        Returns:
          Whether the other run had the stage.
        """
        if other.path == self.path or other.why_redo(name, fingerprint) is not None:
            return False
        partial = self.path / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(other.path / name, partial, copy_function=link)
        if (self.path / name).exists():
            remove(self.path / name)
        self._mirror.begin(name, anew=True)
        partial.rename(self.path / name)
        self._mirror.commit(name, self._here.committed(name))
        return True

    @contextmanager
    def stage(self, name: str, fingerprint: Fingerprint) -> Iterator[StageDirectory]:
        """Works on a stage: resumes work that the same versions of everything began under the same fingerprint.

        Commits when the block ends well.
        """
        path = self.path / name
        assert self._locked or not self._mirror.needs_lock, "a remote run is written under its lock alone"
        self.record(name)  # of a remote run, brings its work
        inputs = {other: self.verified(other) for other in fingerprint.inputs}  # before anything is removed
        (path / RECORD).unlink(missing_ok=True)
        work = {"fingerprint": fingerprint.digest, "versions": package_versions()}
        goes_on = _goes_on(name, parse_work(content_of(path / WORK_RECORD)), work)
        self._mirror.begin(name, anew=not goes_on)
        if not goes_on:
            remove(path)
            path.mkdir(parents=True)
            write_json(path / WORK_RECORD, work)
        stage = StageDirectory(name, path, inputs, mirror=self._mirror, settings=fingerprint.settings)
        stage.clear_output()
        started = time.monotonic()
        yield stage
        remove(stage.checkpoints)
        record = stage.record(fingerprint, work["versions"], started)
        write_json(path / RECORD, record.to_json())
        (path / WORK_RECORD).unlink(missing_ok=True)
        self._mirror.commit(name, record)

    def _changed(self, name: str, files: dict[str, Written]) -> dict[str, Written]:
        """Lists those of a stage's recorded files that are not here as they were recorded."""
        paths = {relative: self.path / name / relative for relative in files}
        return {
            relative: entry
            for relative, entry in files.items()
            if not os.path.isfile(paths[relative]) or sha256_of_file(paths[relative]) != entry.sha256
        }

    def _is_settled(self, name: str) -> bool:
        """Brings a stage's record, or else its work, here; tells whether a record here now counts."""
        if name in self._settled:
            return True
        committed = self._mirror.take_record(name)
        if not self._locked:
            return committed
        if not committed:
            self._bring_work(name)
        self._settled.add(name)
        return True

    def _bring_work(self, name: str) -> None:
        """Brings the work on a stage here. If only this machine committed the stage, commits it on the store too."""
        record = self._here.committed(name)
        # A kill between the two commits. What published is done again: its versions may be another machine's by now.
        ours = record is not None and self._mirror.begun(name) in (
            None,
            {"fingerprint": record.fingerprint, "versions": record.versions},
        )
        if ours and not record.published and not self._changed(name, record.files_written):
            say(f"  {name} was committed on this machine alone")
            self._mirror.commit(name, record)
            return
        (self.path / name / RECORD).unlink(missing_ok=True)
        self._mirror.take_work(name)


def _goes_on(name: str, begun: dict[str, Any] | None, now: dict[str, Any]) -> bool:
    """Tells whether work that was begun may resume, and reports versions that alone stand against it."""
    if begun is not None and begun["fingerprint"] == now["fingerprint"] and begun != now:
        others = other_versions(begun["versions"])
        shown = (f"no {package}" if old is None else f"{package} {old}" for package, (old, _) in others.items())
        say("  " + printable(f"{name} begins anew, as it was begun with {', '.join(shown)}"))
    return begun == now
