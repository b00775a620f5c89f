"""Paths that come from data: a name in a file that someone else may have written stays below its folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tfpipe.errors import InputError


def path_inside(directory: Path, name: str, where: str, *, through_links: bool = True) -> Path:
    """The path of `name` below a directory.

    Args:
      directory: a local directory.
      name: relative path with `/`, as it was read.
      where: what named it, for the message.
      through_links: whether symbolic links below the directory may lead out of it, as installers and hub caches make
        them.

    Raises:
      InputError: the path leads out of the directory.
    """
    relative = PurePosixPath(name) if isinstance(name, str) and "\0" not in name else None
    path = None if relative is None or not relative.parts else directory / relative
    if (
        path is None
        or relative.is_absolute()
        or ".." in relative.parts
        or not (through_links or path.resolve().is_relative_to(directory.resolve()))
    ):
        raise InputError(f"{where}: the path {name!r} leads out of {directory}; expected a relative path inside it")
    return path


def versions(names: Iterable[str]) -> list[int]:
    """The numbers among the names in a directory of published versions, rising: 1, 2, … as TF Serving counts them."""
    return sorted(int(name) for name in names if re.fullmatch("[1-9][0-9]*", name))
