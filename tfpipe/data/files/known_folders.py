"""Folders in which one file describes the others: tables with a log, repositories, saved datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfpipe.config.data import SplitName
from tfpipe.console import say_once
from tfpipe.data.block import excerpt
from tfpipe.data.files.formats import has_known_name
from tfpipe.data.files.listing import Folder, Part, some
from tfpipe.data.files.streams import READ_ERRORS, open_bytes
from tfpipe.data.split import split_name
from tfpipe.errors import InputError
from tfpipe.files import path_inside

_TABLES = {"_delta_log": "Delta", ".hoodie": "Hudi"}


def refuse_known(folder: Folder) -> None:
    """Refuses a folder whose files do not all count, or that a library reads.

    Raises:
      InputError: the folder is of this kind; says what to write.
    """
    _refuse_tables(folder)
    if {"features.json", "dataset_info.json"} <= set(folder.files):
        dataset = excerpt(str(_read(folder, "dataset_info.json").get("name")))
        raise InputError(
            f"{folder.name}: a dataset of TensorFlow Datasets, whose features.json says what its files hold; set "
            f"data.source: tfds:{dataset}, and TFDS_DATA_DIR in the environment to the folder in which {dataset} lies"
        )
    if (rows := _first_rows(folder)) and _is_repository(folder):
        raise InputError(
            f"{folder.name}: a repository of Hugging Face, whose README says what {rows} holds; set data.source: "
            f"hf:{folder.name}"
        )


def _refuse_tables(folder: Folder) -> None:
    kind = next((kind for mark, kind in _TABLES.items() if mark in folder.hidden), None)
    if kind is None and "metadata" in folder.folders:
        kind = "Iceberg" if any(each.endswith(".metadata.json") for each in folder.below("metadata").files) else None
    if kind is not None:
        tool = "Spark" if kind == "Hudi" else f"DuckDB's {kind.lower()} extension"
        raise InputError(
            f"{folder.name}: {'an' if kind == 'Iceberg' else 'a'} {kind} table, whose log says which of its files "
            f"count; write its rows as Parquet, for example with {tool}, and name that file"
        )


def _is_repository(folder: Folder) -> bool:
    """Tells whether a README of Hugging Face lists the files."""
    if "dataset_infos.json" in folder.files:
        return True
    if "README.md" not in folder.files:
        return False
    with open_bytes(f"{folder.path.rstrip('/')}/README.md") as stream:
        head = stream.read(1 << 16).decode("utf-8", "replace")
    card = head.split("\n---", 1)[0]
    return head.startswith("---") and any(f"\n{key}:" in card for key in ("configs", "dataset_info"))


def _first_rows(folder: Folder) -> str | None:
    """Returns a file of rows in the folder, or in a folder of it."""
    for below in (folder, *map(folder.below, folder.folders)):
        for each in below.files:
            if has_known_name(each):
                return f"{below.name}/{each}".removeprefix(folder.name).lstrip("/")
    return None


def saved(folder: Folder) -> Iterator[Part]:
    """Finds the files that `save_to_disk` of Hugging Face datasets lists; caches lie beside them."""
    if "state.json" in folder.files:
        yield from _saved_split(folder, None)
        return
    names = _read(folder, "dataset_dict.json").get("splits", [])
    known = [name for name in names if isinstance(name, str) and name in folder.folders]
    used = [name for name in known if split_name(name)] or known
    if not used or len(known) < len(names):
        raise InputError(f"{folder.name}/dataset_dict.json: names splits that are not there; save the dataset again")
    if len(used) < len(known):
        unused = some([name for name in known if name not in used])
        say_once(f"  {folder.name}: not read: {unused}, which is no split of training; data.source can name it")
    for name in used:
        yield from _saved_split(folder.below(name), split_name(name))


def _saved_split(folder: Folder, split: SplitName | None) -> Iterator[Part]:
    state = _read(folder, "state.json")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise InputError(f"{folder.name}: holds rows and a choice of them; save it again, after flatten_indices()")
    listed = state.get("_data_files")
    for entry in listed if isinstance(listed, list) else ():
        file = entry.get("filename") if isinstance(entry, dict) else None
        inside = path_inside(Path(folder.path), file, f"{folder.name}/state.json")
        yield Part(f"{folder.name}/{file}", f"{folder.path.rstrip('/')}/{inside.name}", "arrow", split)


def _read(folder: Folder, file: str) -> dict[str, Any]:
    try:
        with open_bytes(f"{folder.path.rstrip('/')}/{file}") as stream:
            found = json.loads(stream.read(1 << 24))
    except (ValueError, RecursionError, *READ_ERRORS) as error:
        raise InputError(f"{folder.name}/{file}: not JSON ({error}); save the dataset again") from error
    return found if isinstance(found, dict) else {}
