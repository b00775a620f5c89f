"""An example of what a producer writes: its files, the settings that they need, and the rows that must come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Content = str | bytes | Callable[[Path], Any]


@dataclass(frozen=True)
class Example:
    producer: str
    """name, with the version whose bytes these are"""
    form: str
    files: dict[str, Content]
    """path below a folder -> text, bytes, or a function that writes the file or folder"""
    rows: list[tuple] = field(default_factory=list)
    """(text, label, …) of each usable row; the text of a pair is (text, second text)"""
    settings: dict[str, Any] = field(default_factory=dict)
    """of `data`"""
    task: str = "single_label"
    source: Any = None
    """paths below the folder; None: the first file"""
    read: str = "as it is"
    """how tfpipe reads the form, for people"""
    says: str | None = None
    """part of a line on the console"""
    refused: str | None = None
    """part of the error"""
    rejected: int = 0
    unlabeled: int = 0
    names: tuple[str, ...] | None = None
    """labels in the order of the model's outputs, where the example is about them"""
    splits: tuple[str, ...] | None = None
    """split of each row, where the source gives them"""

    @property
    def id(self) -> str:
        return f"{self.producer}, {self.form}"

    def write(self, folder: Path) -> None:
        """Writes the files below a folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def source_below(self, folder: Path) -> Any:
        """Returns `data.source` with the paths of a folder."""
        return _below(next(iter(self.files)) if self.source is None else self.source, folder)


def _below(source: Any, folder: Path) -> Any:
    if isinstance(source, dict):
        return {split: _below(each, folder) for split, each in source.items()}
    if isinstance(source, list):
        return [_below(each, folder) for each in source]
    return f"hf:{folder}/{source.removeprefix('hf:')}" if source.startswith("hf:") else f"{folder}/{source}"
