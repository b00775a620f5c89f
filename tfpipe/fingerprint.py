"""What decides the output of a stage, as one digest; what differs from it, in words; a seal for what is recorded.

Enters: settings, files from outside the run, outputs of earlier stages. Leaves: the digest under which a stage is
committed and its work goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the SHA-256 of what it says, so that a changed byte is noticed."""
    return record | {"sha256": _digest({name: value for name, value in record.items() if name != "sha256"})}


def is_sealed(record: Any) -> bool:
    """Whether a record says what was sealed."""
    return isinstance(record, dict) and record.get("sha256") == sealed(record)["sha256"]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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
        return _digest(parts)

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


def _changed_leaves(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _changed_leaves(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new
