"""The run directory: lock, fingerprint, commit, resume.

A stage lives in `<run>/<stage>/` and is committed when its `stage.json` is there, which is written last and atomically.
What lies in a stage's directory without it is work in progress: continued when it was begun under the same fingerprint,
else cleared. A fingerprint is made of the settings that the stage reads, as requested, of the SHA-256 of the files that
it reads from outside, and of the output digests of the stages before it.

Inside a stage's directory `checkpoints/` is work (removed at the commit) and `logs/` is for people (kept, not part of
the output); everything else is output and hashed.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfpipe.errors import InputError

RECORD = "stage.json"
WORK_RECORD = "work.json"
NOT_OUTPUT = ("checkpoints", "logs", RECORD, WORK_RECORD)

_RECORDED_PACKAGES = (
    "tfpipe", "tensorflow", "tf-keras", "tensorflow-text", "tensorflow-model-optimization", "tf2onnx", "onnx",
    "onnxruntime", "transformers", "keras-nlp", "numpy", "pyarrow",
)  # fmt: skip


@dataclass(frozen=True)
class Fingerprint:
    """Everything that decides a stage's output."""

    settings: dict[str, Any]
    """dotted path -> value as requested"""
    files: dict[str, str]
    """file read from outside the run -> SHA-256 (or a hub revision)"""
    inputs: dict[str, str]
    """stage read -> digest of its output"""

    @property
    def digest(self) -> str:
        """SHA-256 over the three parts. Where a file lies does not matter, only what it holds."""
        parts = {"settings": self.settings, "files": sorted(self.files.values()), "inputs": self.inputs}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def difference(self, record: dict[str, Any]) -> str:
        """Says in one line how a stage's record differs from this fingerprint."""
        changes = [
            f"{key}: {json.dumps(old)} -> {json.dumps(new)}"
            for key, old, new in _changed_leaves(record.get("settings", {}), self.settings)
        ]
        if sorted(record.get("files", {}).values()) != sorted(self.files.values()):
            changed = [path for path, digest in self.files.items() if digest not in record.get("files", {}).values()]
            changes += [f"content of {path}" for path in changed] or ["fewer input files"]
        before = record.get("inputs", {})
        changes += [
            f"output of {name}" for name in {**before, **self.inputs} if before.get(name) != self.inputs.get(name)
        ]
        return "; ".join(changes) or "an unreadable record"


@dataclass
class StageDirectory:
    """What a stage gets to work with: its directory, the committed stages it reads, and a place for its choices."""

    name: str
    path: Path
    inputs: dict[str, Path]
    choices: dict[str, Any] = field(default_factory=dict)
    """what `auto` became, counts, measurements: recorded in stage.json, not part of the output"""

    @property
    def checkpoints(self) -> Path:
        """Work in progress: survives a kill, removed at the commit."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """For people: kept, not hashed."""
        return self.path / "logs"

    def clear_output(self) -> None:
        """Removes what an interrupted try left, checkpoints and logs aside."""
        for child in self.path.iterdir():
            if child.name not in NOT_OUTPUT:
                _remove(child)


class RunDirectory:
    """One run on a local disk."""

    def __init__(self, path: str | Path):
        if "://" in str(path):
            raise InputError(f"run directory {path}: only local paths are supported; copy the finished run afterwards")
        self.path = Path(path)

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
                f"run directory {self.path}: can't be written ({error.strerror}); choose another with --run-dir"
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
            yield

    def record(self, name: str) -> dict[str, Any] | None:
        """The stage's record, or None where the stage is not committed."""
        try:
            record = json.loads((self.path / name / RECORD).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return record if isinstance(record, dict) and isinstance(record.get("files_written"), dict) else None

    def why_redo(self, name: str, fingerprint: Fingerprint) -> str | None:
        """None when the committed stage still holds, else the reason why it must be done."""
        record = self.record(name)
        if record is None:
            return "not done yet"
        if record.get("fingerprint") != fingerprint.digest:
            return fingerprint.difference(record)
        for relative, entry in record["files_written"].items():
            path = self.path / name / relative
            if not path.is_file() or path.stat().st_size != entry["size_bytes"]:
                return f"{relative} is missing or has another size"
        return None

    def verified(self, name: str) -> Path:
        """The directory of a committed stage, every file of it checked against its recorded SHA-256.

        Raises:
          InputError: a file was changed after the commit.
        """
        record = self.record(name)
        assert record is not None, f"stage {name} is read before it is committed"
        for relative, entry in record["files_written"].items():
            path = self.path / name / relative
            if not path.is_file() or sha256_of_file(path) != entry["sha256"]:
                raise InputError(
                    f"{path}: its content is not what stage {name} wrote (SHA-256 {entry['sha256'][:12]}… expected); "
                    f"make it again with --redo {name}"
                )
        return self.path / name

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
        shutil.copytree(other.path / name, partial, copy_function=_link)
        if (self.path / name).exists():
            _remove(self.path / name)
        partial.rename(self.path / name)
        return True

    @contextmanager
    def stage(self, name: str, fingerprint: Fingerprint) -> Iterator[StageDirectory]:
        """Work on a stage: continues what was begun under the same fingerprint, commits when the block ends well."""
        path = self.path / name
        inputs = {other: self.verified(other) for other in fingerprint.inputs}  # before anything is removed
        (path / RECORD).unlink(missing_ok=True)
        try:
            begun = json.loads((path / WORK_RECORD).read_text(encoding="utf-8"))["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            begun = None
        if begun != fingerprint.digest:
            _remove(path)
            path.mkdir(parents=True)
            write_json(path / WORK_RECORD, {"fingerprint": fingerprint.digest})
        stage = StageDirectory(name, path, inputs)
        stage.clear_output()
        started = time.time()
        yield stage
        _remove(stage.checkpoints)
        output = [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file() and file.relative_to(path).parts[0] not in NOT_OUTPUT
        ]
        with ThreadPoolExecutor() as pool:
            digests = pool.map(lambda file: sha256_of_file(file, sync=True), output)
            files = {
                str(file.relative_to(path)): {"sha256": digest, "size_bytes": file.stat().st_size}
                for file, digest in zip(output, digests, strict=True)
            }
        write_json(
            path / RECORD,
            {
                "stage": name,
                "fingerprint": fingerprint.digest,
                "settings": fingerprint.settings,
                "files": fingerprint.files,
                "inputs": fingerprint.inputs,
                "seconds": round(time.time() - started, 1),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "machine": machine(),
                "versions": package_versions(),
                "choices": stage.choices,
                "files_written": files,
                "output": _digest_of(files),
            },
        )
        (path / WORK_RECORD).unlink(missing_ok=True)


def sha256_of_file(path: Path, sync: bool = False) -> str:
    """SHA-256 of a file's content, in hexadecimal; `sync` also flushes it to the disk."""
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a part."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically: whoever holds the run's lock is the only writer."""
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def package_versions() -> dict[str, str]:
    """Versions of what decides a result, Python included."""
    versions = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def machine() -> str:
    """The processor's name and how many of them there are, for records of what was measured where."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} processors"


def _digest_of(files: dict[str, dict[str, Any]]) -> str:
    return hashlib.sha256("\n".join(f"{name} {files[name]['sha256']}" for name in sorted(files)).encode()).hexdigest()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _changed_leaves(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _changed_leaves(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new
