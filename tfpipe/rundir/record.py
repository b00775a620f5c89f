"""Records: the commit of a stage (`stage.json`), and the origin of work in progress (`work.json`).

Enters: the content of a file that someone else may have written. Leaves: a typed record, or None where it is not
whole. A record is sealed with the SHA-256 of its content, and every name in it stays below its folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tfpipe.files import path_inside
from tfpipe.rundir.fingerprint import is_sealed, sealed

RECORD = "stage.json"
WORK_RECORD = "work.json"
CHECKPOINTS = "checkpoints"
LOGS = "logs"
SERVING = "serving"
SAVED_MODEL = "saved_model.pb"
LABELS = "labels.json"
"""in the directory of `prepare`: the names of the labels, in the order of the logits, and the task"""
LOGITS = "logits.safetensors"
"""in the directory of `verify`: what each artifact answers to test rows, and which rows these are"""
VALIDATION_LOGITS = "validation_logits.safetensors"
"""in the directory of a stage that trains: what its classifier answers to the validation rows"""
GOLDEN = "golden.jsonl"
"""golden requests, at the top of every artifact but a SavedModel"""


def last_file(version: str) -> str:
    """Names the file of a published version that is moved to a store last: where it is, the version is whole.

    Args:
      version: `serving/<variant>/<integer>` of a SavedModel, `serving/<format>/<variant>/<integer>` of another format.
    """
    return SAVED_MODEL if version.count("/") == 2 else GOLDEN


class Written(BaseModel):
    """A file that a stage wrote, by its content."""

    model_config = ConfigDict(strict=True, frozen=True)

    sha256: str
    size_bytes: int


class Published(BaseModel):
    """A directory or file that a stage put outside its own directory."""

    model_config = ConfigDict(strict=True, frozen=True)

    sha256: str | None
    """of a version, by `files.sha256_of_directory`; None: a file that people edit, which need but exist"""
    size_bytes: int | None


class Record(BaseModel):
    """A stage's commit: all that decided its output, and all that it wrote."""

    model_config = ConfigDict(strict=True, frozen=True)

    stage: str
    fingerprint: str
    """digest of the four parts that follow: see `rundir/fingerprint.py`"""
    settings: dict[str, Any]
    files: dict[str, str]
    inputs: dict[str, str]
    code: dict[str, str | int]
    seconds: float
    finished: str
    machine: str
    versions: dict[str, str]
    """package -> version"""
    notes: dict[str, Any]
    """what `auto` became, counts, measurements: for people, and no part of the output"""
    published: dict[str, Published]
    """path below the run -> what was put there"""
    files_written: dict[str, Written]
    """path below the stage -> what it holds"""
    output: str
    """digest of the files that other stages may depend on"""

    def to_json(self) -> dict[str, Any]:
        """Gives the content of `stage.json`, sealed."""
        return sealed(self.model_dump(mode="json"))


def parse_record(content: bytes | None, stage: Path) -> Record | None:
    """Reads a stage's record from the content of `stage.json`; None where the record is not whole.

    Args:
      content: of the file.
      stage: the stage's directory on this machine.

    Raises:
      InputError: it names a file outside its directory, or outside its run.
    """
    try:
        tree = json.loads(content or "null")
        if not is_sealed(tree):
            return None
        record = Record.model_validate(tree)
    except (ValueError, RecursionError, ValidationError):
        return None
    for name in record.files_written:
        path_inside(stage, name, str(stage / RECORD))
    for name in (*record.inputs, *record.published):
        path_inside(stage.parent, name, str(stage / RECORD))
    return record


def parse_work(content: bytes | None) -> dict[str, Any] | None:
    """Reads under what work in progress was begun, from the content of `work.json`; None where the record is not whole.

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


def content_of(path: Path) -> bytes | None:
    """Reads a file; None where it can't be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def label_names(prepared: Path) -> tuple[str, ...]:
    """Reads the names of the labels, in the order of the logits, from the directory of `prepare`."""
    return tuple(json.loads((prepared / LABELS).read_text(encoding="utf-8"))["names"])
