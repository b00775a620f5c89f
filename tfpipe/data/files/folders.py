"""What a folder holds: texts in a folder per class, a table in parts, or files of rows.

Enters: a folder. Leaves: what is read of it, by what is in it:

    label=pos/part-0.json         a partitioned table (Spark, DuckDB, pandas): each `key=value` is a column
    part-0.parquet _SUCCESS       files of rows; names that begin with a dot or an underscore are no data
    train.csv test.csv            files of rows, each a split; also with one beginning, as x_train.csv x_test.csv
    train/part-0.csv test/…       a folder per split, of anything in this list
    dataset_dict.json state.json  what `save_to_disk` of Hugging Face datasets wrote
    pos/1.txt neg/2.txt           a text a file in a folder per class (aclImdb); `unsup` beside them is no class

Tables whose files do not all count (Delta, Iceberg, Hudi), repositories of Hugging Face and datasets of TensorFlow
Datasets, in which another file says what the files are, are refused with what to write.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from tfpipe.config.data import Data, SplitName
from tfpipe.console import say_once
from tfpipe.data.block import excerpt, wanted_columns
from tfpipe.data.files.formats import format_of, has_known_name
from tfpipe.data.files.streams import COMPRESSIONS, READ_ERRORS, gfile, is_remote, open_bytes
from tfpipe.data.split import split_name
from tfpipe.errors import InputError
from tfpipe.files import path_inside

UNLABELED_FOLDERS = ("unsup", "unsupervised", "unlabeled", "unlabelled")
_PARTITION = re.compile(r"([^=]+)=(.*)", re.DOTALL)
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_SPLIT_OF_NAME = re.compile(r"([A-Za-z]+)(?:[-_.]?[0-9]+(?:-of-[0-9]+)?)?(?:\.[A-Za-z0-9.]+)?")
_BEGINNING = re.compile("(?:.*[-_.])?", re.DOTALL)
_TABLES = {"_delta_log": "Delta", ".hoodie": "Hudi"}
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
class _Folder:
    """The names in a folder, sorted."""

    name: str
    path: str
    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    def below(self, name: str) -> _Folder:
        return _listed(f"{self.name.rstrip('/')}/{name}", f"{self.path.rstrip('/')}/{name}")


def parts_of(name: str, path: str, data: Data) -> Iterator[Part]:
    """Finds what is read of a folder, in a fixed order.

    Args:
      name: of the folder, as it is shown.
      path: of the folder.
      data: the format, where that is set.

    Raises:
      InputError: it holds nothing that can be read as it is; says what it is and what to write.
    """
    folder = _listed(name, path)
    if data.format == "folder":
        yield _classes(folder, data)
        return
    _refuse_tables(folder)
    if {"features.json", "dataset_info.json"} <= set(folder.files):
        dataset = excerpt(str(_read(folder, "dataset_info.json").get("name")))
        raise InputError(
            f"{name}: a dataset of TensorFlow Datasets, whose features.json says what its files hold; set data.source: "
            f"tfds:{dataset}, and TFDS_DATA_DIR in the environment to the folder in which {dataset} lies"
        )
    if "dataset_dict.json" in folder.files or "state.json" in folder.files:
        yield from _saved(folder)
        return
    if (rows := _first_rows(folder)) and _is_repository(folder):
        raise InputError(
            f"{name}: a repository of Hugging Face, whose README says what {rows} holds; set data.source: hf:{name}"
        )
    yield from _rows(folder, data)


def partition_columns(path: str, data: Data) -> tuple[tuple[str, str | None], ...]:
    """The wanted columns that the folders of a file name as `key=value`, where a pattern matched it."""
    matches = filter(None, map(_PARTITION.fullmatch, path.split("/")[:-1]))
    return tuple(column for column in map(_column, matches) if column[0] in wanted_columns(data))


def _column(match: re.Match[str]) -> tuple[str, str | None]:
    return unquote(match[1]), None if match[2] == _NULL_PARTITION else unquote(match[2])


def _rows(folder: _Folder, data: Data, split: SplitName | None = None, columns: tuple = ()) -> Iterator[Part]:
    """Finds the files of a table or of a split."""
    partitions = [_PARTITION.fullmatch(each) for each in folder.folders]
    files = [each for each in folder.files if data.format != "auto" or has_known_name(each)]
    if folder.folders and (files or (columns and not all(partitions))):
        raise _mixed(folder, files)
    if partitions and all(partitions):
        for each in partitions:
            yield from _rows(folder.below(each[0]), data, split, (*columns, _column(each)))
    elif folder.folders and split is None and all(map(split_name, folder.folders)):
        say_once(f"  {folder.name}: splits by the names of its folders: {_some(folder.folders)}")
        for each in folder.folders:
            yield from _rows(folder.below(each), data, split_name(each))
    elif folder.folders:
        yield _classes(folder, data)._replace(split=split)
    elif not files and not columns:
        raise _nothing(folder)
    _check_stems(folder, files)
    own = {} if split or columns else _splits_by_name(folder, files)
    for each in files:
        name, path = f"{folder.name.rstrip('/')}/{each}", f"{folder.path.rstrip('/')}/{each}"
        yield Part(name, path, format_of(name, path, data), split or own.get(each), columns)
    hidden = [each for each in folder.hidden if each.startswith("_") and has_known_name(each)]
    if unread := [each for each in folder.files if each not in files] + hidden:
        say_once(f"  {folder.name}: not read: {_some(unread)}")


def _mixed(folder: _Folder, files: list[str]) -> InputError:
    """The error for files and folders beside each other, of which either may be the rows."""
    inside = f"{folder.name.rstrip('/')}/{folder.folders[0]}/*"
    if not files:
        return InputError(
            f"{folder.name}: a part of a table that holds the folder {_some(folder.folders)}; move its files to where "
            f"the others lie, or give patterns of both, such as data.source: [{inside}, …]"
        )
    return InputError(
        f"{folder.name}: holds files of rows ({_some(files)}) beside folders ({_some(folder.folders)}); name what is "
        f"meant: data.source: {folder.name.rstrip('/')}/*{''.join(Path(files[0]).suffixes)}, or {inside}"
    )


def _check_stems(folder: _Folder, files: list[str]) -> None:
    """Whether no two files differ in their format alone, as rows that were written twice.

    Raises:
      InputError: some do.
    """
    known: dict[str, str] = {}
    for each in filter(has_known_name, files):
        stem = Path(each).stem if Path(each).suffix not in COMPRESSIONS else Path(Path(each).stem).stem
        if known.setdefault(stem, each) != each:
            raise InputError(
                f"{folder.name}: {excerpt(known[stem])} and {excerpt(each)} look like the same rows in two formats; "
                f"name the files that are meant, such as data.source: {folder.name.rstrip('/')}/{excerpt(each)}"
            )


def _splits_by_name(folder: _Folder, files: list[str]) -> dict[str, SplitName]:
    """The split that each file's name says, such as `train.csv`, `test-00000-of-00001.parquet` or `reviews_test.csv`.

    Raises:
      InputError: only some names say one.
    """
    found = _splits_after("", files)
    if not found:
        # Names are compared by their characters, and not as paths.
        found = _splits_after(_BEGINNING.match(os.path.commonprefix(files))[0], files)  # noqa: RUF071
        found = found if len(set(found.values())) > 1 else {}
    if found and len(found) < len(files):
        others = _some([each for each in files if each not in found])
        raise InputError(
            f"{folder.name}: {_some(list(found))} are splits by their names, and {others} are not; name the files of "
            f"each split, data.source: {{train: {folder.name.rstrip('/')}/…, test: …}}, or all by a pattern"
        )
    if found:
        say_once(f"  {folder.name}: splits by the names of its files: {_some(files)}")
    return found


def _splits_after(beginning: str, files: list[str]) -> dict[str, SplitName]:
    """The files whose names say a split after a beginning that all share."""
    matches = {each: _SPLIT_OF_NAME.fullmatch(each, len(beginning)) for each in files}
    return {each: split_name(match[1]) for each, match in matches.items() if match and split_name(match[1])}


def _classes(folder: _Folder, data: Data) -> Part:
    """A folder per class.

    Raises:
      InputError: the files in them are no texts.
    """
    pattern = f"{folder.name.rstrip('/')}/*/*"
    if data.format not in ("auto", "folder"):
        raise InputError(
            f"{folder.name}: holds folders ({_some(folder.folders)}), and data.format: {data.format} is of files; set "
            f"data.source: {pattern}, or data.format: folder to read each file as a text of its folder's class"
        )
    inside = {name: folder.below(name) for name in folder.folders}
    rows = [f"{name}/{each}" for name, below in inside.items() for each in below.files if has_known_name(each)]
    if rows and data.format == "auto":
        pattern += "".join(Path(rows[0]).suffixes)
        raise InputError(
            f"{folder.name}: {_some(rows)} holds rows, and is no text of a class; set data.source: {pattern}, after "
            f"renaming the folders to label={folder.folders[0]} and so on if their names are labels; or set "
            "data.format: folder to read each file as a text"
        )
    if deeper := [f"{name}/{each}" for name, below in inside.items() for each in below.folders]:
        say_once(f"  {folder.name}: not read, as they lie deeper than the folders of classes: {_some(deeper)}")
    left_out = [name for name in folder.folders if name in UNLABELED_FOLDERS and inside[name].files]
    if len(folder.folders) - len(left_out) < 2 or data.missing is not None:
        left_out = []
    for name in left_out:
        say_once(f"  {folder.name}/{name}: left out, as its texts have no label (data.missing: [] takes it as a class)")
    return Part(folder.name, folder.path, "folder", left_out=tuple(left_out))


def _refuse_tables(folder: _Folder) -> None:
    kind = next((kind for mark, kind in _TABLES.items() if mark in folder.hidden), None)
    if kind is None and "metadata" in folder.folders:
        kind = "Iceberg" if any(each.endswith(".metadata.json") for each in folder.below("metadata").files) else None
    if kind is not None:
        tool = "Spark" if kind == "Hudi" else f"DuckDB's {kind.lower()} extension"
        raise InputError(
            f"{folder.name}: {'an' if kind == 'Iceberg' else 'a'} {kind} table, whose log says which of its files "
            f"count; write its rows as Parquet, for example with {tool}, and name that file"
        )


def _is_repository(folder: _Folder) -> bool:
    """Whether a README of Hugging Face tells of the files."""
    if "dataset_infos.json" in folder.files:
        return True
    if "README.md" not in folder.files:
        return False
    with open_bytes(f"{folder.path.rstrip('/')}/README.md") as stream:
        head = stream.read(1 << 16).decode("utf-8", "replace")
    card = head.split("\n---", 1)[0]
    return head.startswith("---") and any(f"\n{key}:" in card for key in ("configs", "dataset_info"))


def _first_rows(folder: _Folder) -> str | None:
    """A file of rows in the folder, or in a folder of it."""
    for below in (folder, *map(folder.below, folder.folders)):
        for each in below.files:
            if has_known_name(each):
                return f"{below.name}/{each}".removeprefix(folder.name).lstrip("/")
    return None


def _saved(folder: _Folder) -> Iterator[Part]:
    """The files that `save_to_disk` of Hugging Face datasets lists; caches lie beside them."""
    if "state.json" in folder.files:
        yield from _saved_split(folder, None)
        return
    names = _read(folder, "dataset_dict.json").get("splits", [])
    known = [name for name in names if isinstance(name, str) and name in folder.folders]
    used = [name for name in known if split_name(name)] or known
    if not used or len(known) < len(names):
        raise InputError(f"{folder.name}/dataset_dict.json: names splits that are not there; save the dataset again")
    if len(used) < len(known):
        unused = _some([name for name in known if name not in used])
        say_once(f"  {folder.name}: not read: {unused}, which is no split of training; data.source can name it")
    for name in used:
        yield from _saved_split(folder.below(name), split_name(name))


def _saved_split(folder: _Folder, split: SplitName | None) -> Iterator[Part]:
    state = _read(folder, "state.json")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise InputError(f"{folder.name}: holds rows and a choice of them; save it again, after flatten_indices()")
    listed = state.get("_data_files")
    for entry in listed if isinstance(listed, list) else ():
        file = entry.get("filename") if isinstance(entry, dict) else None
        inside = path_inside(Path(folder.path), file, f"{folder.name}/state.json")
        yield Part(f"{folder.name}/{file}", f"{folder.path.rstrip('/')}/{inside.name}", "arrow", split)


def _read(folder: _Folder, file: str) -> dict[str, Any]:
    try:
        with open_bytes(f"{folder.path.rstrip('/')}/{file}") as stream:
            found = json.loads(stream.read(1 << 24))
    except (ValueError, RecursionError, *READ_ERRORS) as error:
        raise InputError(f"{folder.name}/{file}: not JSON ({error}); save the dataset again") from error
    return found if isinstance(found, dict) else {}


def _nothing(folder: _Folder) -> InputError:
    advice = ""
    if folder.files:
        advice = f"; {_some(folder.files)} are no files of rows by their names: give a pattern and data.format"
    return InputError(
        f"{folder.name}: no file in a folder of it; expected {folder.name}/CLASS/FILE, a text a file, or files of rows "
        f"such as {folder.name}/train.csv{advice}"
    )


def _listed(name: str, path: str) -> _Folder:
    found = _Folder(name, path)
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


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(map(excerpt, names[:_LISTED])) + more
