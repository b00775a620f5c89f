"""The fingerprint of a stage (all that decides its output), its differences in words, and a seal for records.

Enters: settings, files from outside the run, outputs of earlier stages, the version of the code. Leaves: the digest
under which a stage is committed and its work resumes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from tfpipe.escaping import printable

_ABSENT = object()


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """Adds to a record the SHA-256 of its content, so that a changed byte is noticed."""
    return record | {"sha256": _digest({name: value for name, value in record.items() if name != "sha256"})}


def is_sealed(record: Any) -> bool:
    """Tells whether a record still has the content that was sealed."""
    return isinstance(record, dict) and record.get("sha256") == sealed(record)["sha256"]


def _digest(value: Any, sort_keys: bool = True) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=sort_keys).encode()).hexdigest()


class Parts(Protocol):
    """The four parts, of a fingerprint or of a record."""

    settings: dict[str, Any]
    files: dict[str, str]
    inputs: dict[str, str]
    code: dict[str, str | int]


@dataclass(frozen=True)
class Fingerprint:
    """Everything that decides a stage's output."""

    settings: dict[str, Any]
    """dotted path -> value as requested"""
    files: dict[str, str]
    """file read from outside the run -> SHA-256 (or a hub revision), in the order in which the stage reads them"""
    inputs: dict[str, str]
    """stage read -> digest of its output"""
    code: dict[str, str | int] = field(default_factory=dict)
    """`tfpipe` -> its major and minor version; `stage` -> the version of what the stage does; `formats` -> the
    names and versions of the artifact formats"""

    @property
    def digest(self) -> str:
        """Computes the SHA-256 over the four parts.

        In `files`, a file counts by its content, not by its path; in `settings`, a path counts as it is written.

        The order of a mapping that a user wrote counts: that of `data.label_names` is the order of the outputs.
        """
        named = (sorted(part.items()) for part in (self.settings, self.inputs, self.code))
        return _digest([*named, list(self.files.values())], sort_keys=False)

    def difference(self, record: Parts) -> str:
        """Explains in one line how the fingerprint of a record differs from this one."""
        settings, inputs = record.settings, record.inputs
        changes = [
            *_changed_code(record.code, self.code),
            *(
                change
                for name in {**settings, **self.settings}
                for change in _changed_values(settings.get(name, _ABSENT), self.settings.get(name, _ABSENT), name)
            ),
            *_changed_files(record.files, self.files),
            *(f"output of {name}" for name in {**inputs, **self.inputs} if inputs.get(name) != self.inputs.get(name)),
        ]
        return printable("; ".join(changes)) or "an unreadable record"


def _changed_code(old: dict[str, str | int], new: dict[str, str | int]) -> Iterator[str]:
    if old.get("tfpipe") != new.get("tfpipe"):
        before = f" {old['tfpipe']}" if "tfpipe" in old else ": unknown version"
        yield f"tfpipe{before} -> {new.get('tfpipe')}"
    elif old.get("stage") != new.get("stage"):
        yield f"tfpipe changed how it works ({old.get('stage')} -> {new.get('stage')})"
    for name in {**old, **new}:
        if name not in ("tfpipe", "stage") and old.get(name) != new.get(name):
            yield f"tfpipe's {name} ({old.get(name, 'none')} -> {new.get(name, 'none')})"


def _changed_values(old: Any, new: Any, key: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _changed_values(old.get(name, _ABSENT), new.get(name, _ABSENT), f"{key}.{name}")
        if old.keys() == new.keys() and list(old) != list(new):
            yield f"{key}: another order: {', '.join(old)} -> {', '.join(new)}"
    elif _shown(old) != _shown(new):
        yield f"{key}: {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)


def _changed_files(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    if list(old.values()) == list(new.values()):
        return
    changed = [path for path, digest in new.items() if digest not in old.values()]
    changed = changed or [path for path, digest in new.items() if old.get(path, digest) != digest]
    if changed or len(old) == len(new):
        yield from (f"content of {path}" for path in changed or ["the input files, in another order"])
    else:
        yield f"{'fewer' if len(new) < len(old) else 'more'} input files"
