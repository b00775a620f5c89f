"""The names in a folder, and the parts that are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tfpipe.config.data import SplitName
from tfpipe.data.block import excerpt
from tfpipe.data.files.streams import gfile, is_remote

_LISTED = 5


class Part(NamedTuple):
    """A file, or a folder of classes, in a folder."""

    name: str
    path: str
    format: str
    split: SplitName | None = None
    columns: tuple[tuple[str, str | None], ...] = ()
    """columns that the names of folders give, the same for each row"""
    left_out: tuple[str, ...] = ()
    """folders of a folder of classes that are not read"""


@dataclass
class Folder:
    """The names in a folder, sorted."""

    name: str
    path: str
    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    def below(self, name: str) -> Folder:
        """Lists a folder within this one."""
        return listed(f"{self.name.rstrip('/')}/{name}", f"{self.path.rstrip('/')}/{name}")


def listed(name: str, path: str) -> Folder:
    """Lists a folder; names that begin with a dot or an underscore are hidden."""
    found = Folder(name, path)
    for each, is_folder in sorted(_entries(path)):
        if each.startswith((".", "_")):
            found.hidden.append(each)
        else:
            (found.folders if is_folder else found.files).append(each)
    return found


def _entries(path: str) -> Iterator[tuple[str, bool]]:
    if is_remote(path):
        remote, path = gfile(), path.rstrip("/")
        found = {each.rstrip("/").rsplit("/", 1)[1]: remote.isdir(each) for each in remote.glob(f"{path}/*")}
        # Not every store has an entry for a folder of its own.
        yield from (found | {each.rsplit("/", 2)[1]: True for each in remote.glob(f"{path}/*/*")}).items()
        return
    with os.scandir(path) as entries:
        for entry in entries:
            folder = os.path.isdir(entry.path)
            if folder or os.path.isfile(entry.path):  # a link that leads nowhere is neither
                yield entry.name, folder


def some(names: list[str]) -> str:
    """Shows the first of some names."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(map(excerpt, names[:_LISTED])) + more
