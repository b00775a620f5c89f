"""Files: written whole or not at all, their hashes, removed, linked; paths that stay below their folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from tfpipe.errors import InputError


def sha256_of_directory(path: Path) -> str:
    """Computes the SHA-256 of a directory's files, names and content, in hexadecimal."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest_of({str(file.relative_to(path)): {"sha256": sha256_of_file(file)} for file in files})


def sha256_of_file(path: Path, sync: bool = False) -> str:
    """Computes the SHA-256 of a file's content, in hexadecimal; `sync` also flushes the file to the disk."""
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a part."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def without_nan(value: Any) -> Any:
    """Replaces NaN and infinities by null in a tree of JSON, which has no form for them."""
    if isinstance(value, dict):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_line(value: Any, default: Callable[[Any], Any]) -> str:
    """Writes a line of JSON Lines that can be encoded as UTF-8: NaN is null, half a character has its JSON escape.

    Args:
      value: a tree of JSON, and what `default` makes JSON of.
      default: of `json.dumps`.
    """
    try:
        line = json.dumps(value, ensure_ascii=False, default=default, allow_nan=False)
        line.encode()
    except ValueError:  # NaN, which JSON has not; half a character, which it can name and UTF-8 has not
        line = json.dumps(without_nan(value), default=default)
    return f"{line}\n"


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically. The holder of the run's lock is the only writer."""
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def digest_of(files: dict[str, dict[str, Any]]) -> str:
    """Computes the SHA-256 over names of files and the SHA-256 of each, in hexadecimal."""
    return hashlib.sha256("\n".join(f"{name} {files[name]['sha256']}" for name in sorted(files)).encode()).hexdigest()


def link(source: str | Path, target: str | Path) -> None:
    """Links a file under another name; copies it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def remove(path: Path) -> None:
    """Removes a file or a directory, if there is one; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def path_inside(directory: Path, name: str, where: str, *, through_links: bool = True) -> Path:
    """Returns the path of `name` below a directory.

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
    """Lists the numbers among the names in a directory of published versions, rising: 1, 2, … as in TF Serving."""
    return sorted(int(name) for name in names if re.fullmatch("[1-9][0-9]*", name))
