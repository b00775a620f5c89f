"""The run directory: lock, fingerprint, commit, resume.

A stage lives in `<run>/<stage>/` and is committed when its `stage.json` is there, which is written last and atomically.
What lies in a stage's directory without it is work in progress: continued when it was begun under the same fingerprint
by the same versions of tfpipe, Python and the libraries, else cleared. A fingerprint is made of the settings that the
stage reads, as requested, of the SHA-256 of the files that it reads from outside, of the output digests of the stages
before it, and of the version of what the stage does (`fingerprint.py`).

Inside a stage's directory `checkpoints/` is work (removed at the commit) and `logs/` is for people (kept, not part of
the output); everything else is output and hashed.

A run on `gs://` works in a local directory too, of which the store holds the truth (`mirror.py`).
"""

from __future__ import annotations

import fcntl
import functools
import operator
import os
import shutil
import socket
import time
from collections.abc import Iterator
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
from tfpipe.rundir.record import (
    RECORD,
    SAVED_MODEL,
    WORK_RECORD,
    Record,
    Written,
    content_of,
    parse_record,
    parse_work,
)
from tfpipe.rundir.remote import Remote, files_below
from tfpipe.rundir.stage import StageDirectory


class RunDirectory:
    """One run: a local directory, or one that stands for what lies on a store such as `gs://`.

    Of a remote run, what is read is brought here first. Without the lock nothing is written there, and a record is
    read there each time: so the workers of a training that are not its chief open it.
    """

    def __init__(self, path: str | Path):
        self._mirror = Mirror(str(path)) if "://" in str(path) else None
        self.path = Path(path) if self._mirror is None else self._mirror.path
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
                f"run directory {self.path}: can't be written ({error.strerror}); "
                + ("choose another with --run-dir" if self._mirror is None else "set XDG_CACHE_HOME to another")
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
            if self._mirror is not None:
                say(f"{self._mirror.remote}: its copy on this machine is {self.path}")
            self._locked = True
            try:
                yield
            finally:
                self._locked = False
                self._settled.clear()

    def record(self, name: str) -> Record | None:
        """The stage's record, or None where the stage is not committed."""
        counts = self._mirror is None or self._is_settled(name, self._mirror)
        return self._local_record(name) if counts else None

    def why_redo(self, name: str, fingerprint: Fingerprint) -> str | None:
        """None when the committed stage still holds, else the reason why it must be done."""
        record = self.record(name)
        if record is None:
            damaged = self._mirror is None and (self.path / name / RECORD).exists()
            return f"its {RECORD} is damaged, or of another tfpipe" if damaged else "not done yet"
        if record.fingerprint != fingerprint.digest:
            return fingerprint.difference(record)
        if self._mirror is not None:  # what is missing here is brought when it is read; a store has whole files alone
            missing = sorted(record.files_written.keys() - (self.place / name).names_below())
            return f"{missing[0]} is missing" if missing else self._no_longer_published(record)
        for relative, entry in record.files_written.items():
            path = self.path / name / relative
            if not os.path.isfile(path) or path.stat().st_size != entry.size_bytes:
                return f"{relative} is missing or has another size"
        return self._no_longer_published(record)

    def _no_longer_published(self, record: Record) -> str | None:
        """Names a published file that is gone or changed where the run lies; None where all are as they were."""
        for name, entry in record.published.items():
            if entry.sha256 is None:
                if not self.has_file(name):
                    return f"{name} is missing"
                continue
            files = files_below(self.path / name) if self._mirror is None else (self.place / name).files()
            if SAVED_MODEL not in files or sum(files.values()) != entry.size_bytes:
                return f"{name} is missing or has another size"
        return None

    def verified(self, name: str) -> Path:
        """The directory of a committed stage, every file of it checked against its recorded SHA-256.

        Of a remote run, the files that are not here as they were recorded are copied here first.

        Raises:
          InputError: a file was changed after the commit.
        """
        record = self.record(name)
        assert record is not None, f"stage {name} is read before it is committed"
        changed, place = self._changed(name, record.files_written), self.path
        if changed and self._mirror is not None:
            self._mirror.take_files(name, {relative: entry.size_bytes for relative, entry in changed.items()})
            changed, place = self._changed(name, changed), self._mirror.remote
        for relative, entry in changed.items():
            raise InputError(
                f"{place / name / relative}: its content is not what stage {name} wrote (SHA-256 "
                f"{entry.sha256[:12]}… expected); make it again with --redo {name}"
            )
        return self.path / name

    @property
    def place(self) -> Path | Remote:
        """The directory or store of the run, as messages name it."""
        return self.path if self._mirror is None else self._mirror.remote

    def committed(self, name: str) -> Record | None:
        """The stage's record as it is where the run lies, or None; of a remote run, nothing is changed here."""
        return self._local_record(name) if self._mirror is None else self._mirror.committed(name)

    def has_file(self, relative: str) -> bool:
        """Tells whether a file exists where the run lies."""
        return os.path.isfile(self.path / relative) if self._mirror is None else (self.place / relative).exists()

    def names(self, *below: str) -> list[str]:
        """Names in the directory, or in one below it, sorted, where the run lies; empty where there is none."""
        directory = functools.reduce(operator.truediv, below, self.place)
        if isinstance(directory, Remote):
            return directory.children()
        return sorted(os.listdir(directory)) if os.path.isdir(directory) else []

    def take(self, *below: str) -> Path:
        """Gives the local directory of a SavedModel; of a remote run, made to hold what is there."""
        if self._mirror is not None:
            self._mirror.take(*below)
        return self.path.joinpath(*below)

    def adopt(self, name: str, fingerprint: Fingerprint, other: RunDirectory) -> bool:
        """Takes over a stage that another run has committed under the same fingerprint.

        Its files become hard links where the file system has them: no stage ever changes a file in its place.

        Returns:
          Whether it was there to take.
        """
        if other.path == self.path or other.why_redo(name, fingerprint) is not None:
            return False
        partial = self.path / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(other.path / name, partial, copy_function=link)
        if (self.path / name).exists():
            remove(self.path / name)
        if self._mirror is not None:
            self._mirror.begin(name, anew=True)
        partial.rename(self.path / name)
        if self._mirror is not None:
            self._mirror.commit(name, self._local_record(name))
        return True

    @contextmanager
    def stage(self, name: str, fingerprint: Fingerprint) -> Iterator[StageDirectory]:
        """Works on a stage: continues what was begun under the same fingerprint and by the same versions of everything.

        Commits when the block ends well.
        """
        path = self.path / name
        assert self._mirror is None or self._locked, "a remote run is written under its lock alone"
        self.record(name)  # of a remote run, brings its work
        inputs = {other: self.verified(other) for other in fingerprint.inputs}  # before anything is removed
        (path / RECORD).unlink(missing_ok=True)
        work = {"fingerprint": fingerprint.digest, "versions": package_versions()}
        goes_on = _goes_on(name, parse_work(content_of(path / WORK_RECORD)), work)
        if self._mirror is not None:
            self._mirror.begin(name, anew=not goes_on)
        if not goes_on:
            remove(path)
            path.mkdir(parents=True)
            write_json(path / WORK_RECORD, work)
        stage = StageDirectory(name, path, inputs, mirror=self._mirror)
        stage.clear_output()
        started = time.monotonic()
        yield stage
        remove(stage.checkpoints)
        record = stage.record(fingerprint, work["versions"], started)
        write_json(path / RECORD, record.to_json())
        (path / WORK_RECORD).unlink(missing_ok=True)
        if self._mirror is not None:
            self._mirror.commit(name, record)

    def _local_record(self, name: str) -> Record | None:
        try:
            return parse_record((self.path / name / RECORD).read_bytes(), self.path / name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _changed(self, name: str, files: dict[str, Written]) -> dict[str, Written]:
        """Those of a stage's recorded files that are not here as they were recorded."""
        paths = {relative: self.path / name / relative for relative in files}
        return {
            relative: entry
            for relative, entry in files.items()
            if not os.path.isfile(paths[relative]) or sha256_of_file(paths[relative]) != entry.sha256
        }

    def _is_settled(self, name: str, mirror: Mirror) -> bool:
        """Brings a stage's record, or else its work, here; whether a record that is here now counts."""
        if name in self._settled:
            return True
        committed = mirror.take_record(name)
        if not self._locked:
            return committed
        record = None if committed else self._local_record(name)
        # A kill between the two commits. What published is done again: its versions may be another machine's by now.
        ours = record is not None and mirror.begun(name) in (
            None,
            {"fingerprint": record.fingerprint, "versions": record.versions},
        )
        if ours and not record.published and not self._changed(name, record.files_written):
            say(f"  {name} was committed on this machine alone")
            mirror.commit(name, record)
        elif not committed:
            (self.path / name / RECORD).unlink(missing_ok=True)
            mirror.take_work(name)
        self._settled.add(name)
        return True


def _goes_on(name: str, begun: dict[str, Any] | None, now: dict[str, Any]) -> bool:
    """Tells whether work that was begun may go on, and says so where versions alone stand against it."""
    if begun is not None and begun["fingerprint"] == now["fingerprint"] and begun != now:
        others = other_versions(begun["versions"])
        shown = (f"no {package}" if old is None else f"{package} {old}" for package, (old, _) in others.items())
        say("  " + printable(f"{name} begins anew, as it was begun with {', '.join(shown)}"))
    return begun == now
