"""The mirror of a run on this machine: there is no store, so nothing is copied."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tfpipe.rundir.record import RECORD, Record, parse_record
from tfpipe.rundir.remote import files_below


class NoMirror:
    """A run's directory on this machine, with the methods of `Mirror` that a run needs."""

    another = "choose another with --run-dir"
    needs_lock = False

    def __init__(self, path: Path = Path()):
        self.path = self.location = path

    def announce(self) -> None:
        """Reports nothing: there is one directory."""

    def take_record(self, name: str) -> bool:
        """Tells that the record here counts, or that there is none."""
        return True

    def committed(self, name: str) -> Record | None:
        """Reads a stage's record; None where there is none that can be read."""
        try:
            return parse_record((self.path / name / RECORD).read_bytes(), self.path / name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_damaged(self, name: str) -> bool:
        """Tells whether there is a record; callers ask where it can't be read."""
        return (self.path / name / RECORD).exists()

    def lacks(self, name: str, record: Record) -> str | None:
        """Names a file of a committed stage that is missing or has another size; None where all are there."""
        for relative, entry in record.files_written.items():
            path = self.path / name / relative
            if not os.path.isfile(path) or path.stat().st_size != entry.size_bytes:
                return f"{relative} is missing or has another size"
        return None

    def has_file(self, relative: str) -> bool:
        """Tells whether a file exists."""
        return os.path.isfile(self.path / relative)

    def names(self, *below: str) -> list[str]:
        """Lists the names in a directory, sorted; empty where there is none."""
        directory = self.path.joinpath(*below)
        return sorted(os.listdir(directory)) if os.path.isdir(directory) else []

    def files(self, name: str) -> dict[str, int]:
        """Lists the files below a directory: relative name -> size in bytes."""
        return files_below(self.path / name)

    def take_files(self, name: str, sizes: Mapping[str, int]) -> None:
        """Copies nothing: the files are here."""

    def take(self, *below: str) -> None:
        """Copies nothing: the files are here."""

    def begin(self, name: str, *, anew: bool) -> None:
        """Takes nothing back: no other place knows of the stage."""

    def commit(self, name: str, record: Record) -> None:
        """Copies nothing: the record that was written commits the stage."""

    def keep(self, name: str, marker: str) -> None:
        """Copies nothing: another try on this machine finds the checkpoints."""
