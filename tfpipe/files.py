"""Files: written whole or not at all, their hashes, removed, linked."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any


def sha256_of_directory(path: Path) -> str:
    """SHA-256 of the files in a directory, their names and content, in hexadecimal."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest_of({str(file.relative_to(path)): {"sha256": sha256_of_file(file)} for file in files})


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


def digest_of(files: dict[str, dict[str, Any]]) -> str:
    """SHA-256 over names of files and the SHA-256 of each, in hexadecimal."""
    return hashlib.sha256("\n".join(f"{name} {files[name]['sha256']}" for name in sorted(files)).encode()).hexdigest()


def link(source: str, target: str) -> None:
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
