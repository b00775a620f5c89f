"""The content of a folder: texts in a folder per class, a table in parts, or files of rows.

Enters: a folder. Leaves: the parts to read, chosen by the folder's content:

    label=pos/part-0.json         a partitioned table (Spark, DuckDB, pandas): each `key=value` is a column
    part-0.parquet _SUCCESS       files of rows; names that begin with a dot or an underscore are no data
    train.csv test.csv            files of rows, each a split; also with one beginning, as x_train.csv x_test.csv
    train/part-0.csv test/…       a folder per split, of anything in this list
    dataset_dict.json state.json  files that `save_to_disk` of Hugging Face datasets wrote
    pos/1.txt neg/2.txt           a text a file in a folder per class (aclImdb); `unsup` beside them is no class

tfpipe refuses folders in which another file describes the files: tables whose files do not all count (Delta, Iceberg,
Hudi), repositories of Hugging Face, datasets of TensorFlow Datasets. The error says what to write instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from tfpipe.config.data import Data, SplitName
from tfpipe.console import say_once
from tfpipe.data.block import excerpt, wanted_columns
from tfpipe.data.files.formats import format_of, has_known_name
from tfpipe.data.files.known_folders import refuse_known, saved
from tfpipe.data.files.listing import Folder, Part, listed, some
from tfpipe.data.files.streams import COMPRESSIONS
from tfpipe.data.split import split_name
from tfpipe.errors import InputError

UNLABELED_FOLDERS = ("unsup", "unsupervised", "unlabeled", "unlabelled")
_PARTITION = re.compile(r"([^=]+)=(.*)", re.DOTALL)
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_SPLIT_OF_NAME = re.compile(r"([A-Za-z]+)(?:[-_.]?[0-9]+(?:-of-[0-9]+)?)?(?:\.[A-Za-z0-9.]+)?")
_BEGINNING = re.compile("(?:.*[-_.])?", re.DOTALL)


def parts_of(name: str, path: str, data: Data) -> Iterator[Part]:
    """Finds the parts of a folder to read, in a fixed order.

    Args:
      name: of the folder, as it is shown.
      path: of the folder.
      data: the format, where that is set.

    Raises:
      InputError: it holds nothing that can be read as it is; the error describes it and says what to write.
    """
    folder = listed(name, path)
    if data.format == "folder":
        yield _classes(folder, data)
        return
    if "dataset_dict.json" in folder.files or "state.json" in folder.files:
        yield from saved(folder)
        return
    refuse_known(folder)
    yield from _rows(folder, data)


def partition_columns(path: str, data: Data) -> tuple[tuple[str, str | None], ...]:
    """Returns the wanted columns that the folders of a file name as `key=value`, where a pattern matched it."""
    matches = filter(None, map(_PARTITION.fullmatch, path.split("/")[:-1]))
    return tuple(column for column in map(_column, matches) if column[0] in wanted_columns(data))


def _column(match: re.Match[str]) -> tuple[str, str | None]:
    return unquote(match[1]), None if match[2] == _NULL_PARTITION else unquote(match[2])


def _rows(folder: Folder, data: Data, split: SplitName | None = None, columns: tuple = ()) -> Iterator[Part]:
    """Finds the files of a table or of a split."""
    partitions = [_PARTITION.fullmatch(each) for each in folder.folders]
    files = [each for each in folder.files if data.format != "auto" or has_known_name(each)]
    if folder.folders and (files or (columns and not all(partitions))):
        raise _mixed(folder, files)
    if partitions and all(partitions):
        for each in partitions:
            yield from _rows(folder.below(each[0]), data, split, (*columns, _column(each)))
    elif folder.folders and split is None and all(map(split_name, folder.folders)):
        say_once(f"  {folder.name}: splits by the names of its folders: {some(folder.folders)}")
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
        say_once(f"  {folder.name}: not read: {some(unread)}")


def _mixed(folder: Folder, files: list[str]) -> InputError:
    """Returns the error for files and folders beside each other, of which either may be the rows."""
    inside = f"{folder.name.rstrip('/')}/{folder.folders[0]}/*"
    if not files:
        return InputError(
            f"{folder.name}: a part of a table that holds the folder {some(folder.folders)}; move its files to where "
            f"the others lie, or give patterns of both, such as data.source: [{inside}, …]"
        )
    return InputError(
        f"{folder.name}: holds files of rows ({some(files)}) beside folders ({some(folder.folders)}); name what is "
        f"meant: data.source: {folder.name.rstrip('/')}/*{''.join(Path(files[0]).suffixes)}, or {inside}"
    )


def _check_stems(folder: Folder, files: list[str]) -> None:
    """Checks that no two files differ in their format alone, as rows that were written twice.

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


def _splits_by_name(folder: Folder, files: list[str]) -> dict[str, SplitName]:
    """Reads the split of each file from its name: `train.csv`, `test-00000-of-00001.parquet`, `reviews_test.csv`.

    Raises:
      InputError: only some names say a split.
    """
    found = _splits_after("", files)
    if not found:
        # Names are compared by their characters, and not as paths.
        found = _splits_after(_BEGINNING.match(os.path.commonprefix(files))[0], files)  # noqa: RUF071
        found = found if len(set(found.values())) > 1 or len(found) < len(files) else {}
    if found and len(found) < len(files):
        others = some([each for each in files if each not in found])
        raise InputError(
            f"{folder.name}: {some(list(found))} are splits by their names, and {others} are not; name the files of "
            f"each split, data.source: {{train: {folder.name.rstrip('/')}/…, test: …}}, or all by a pattern"
        )
    if found:
        say_once(f"  {folder.name}: splits by the names of its files: {some(files)}")
    return found


def _splits_after(beginning: str, files: list[str]) -> dict[str, SplitName]:
    """Returns the files whose names say a split after a common beginning."""
    matches = {each: _SPLIT_OF_NAME.fullmatch(each, len(beginning)) for each in files}
    return {each: split_name(match[1]) for each, match in matches.items() if match and split_name(match[1])}


def _classes(folder: Folder, data: Data) -> Part:
    """Returns a folder per class.

    Raises:
      InputError: the files in them are no texts.
    """
    pattern = f"{folder.name.rstrip('/')}/*/*"
    if data.format not in ("auto", "folder"):
        raise InputError(
            f"{folder.name}: holds folders ({some(folder.folders)}), and data.format: {data.format} is of files; set "
            f"data.source: {pattern}, or data.format: folder to read each file as a text of its folder's class"
        )
    inside = {name: folder.below(name) for name in folder.folders}
    rows = [f"{name}/{each}" for name, below in inside.items() for each in below.files if has_known_name(each)]
    if rows and data.format == "auto":
        pattern += "".join(Path(rows[0]).suffixes)
        raise InputError(
            f"{folder.name}: {some(rows)} hold rows, and no text of a class; set data.source: {pattern}, after "
            f"renaming the folders to label={folder.folders[0]} and so on if their names are labels; or set "
            "data.format: folder to read each file as a text"
        )
    if deeper := [f"{name}/{each}" for name, below in inside.items() for each in below.folders]:
        say_once(f"  {folder.name}: not read, as they lie deeper than the folders of classes: {some(deeper)}")
    left_out = [name for name in folder.folders if name in UNLABELED_FOLDERS and inside[name].files]
    if len(folder.folders) - len(left_out) < 2 or data.missing is not None:
        left_out = []
    for name in left_out:
        say_once(f"  {folder.name}/{name}: left out, as its texts have no label (data.missing: [] takes it as a class)")
    return Part(folder.name, folder.path, "folder", left_out=tuple(left_out))


def _nothing(folder: Folder) -> InputError:
    advice = ""
    if folder.files:
        advice = f"; {some(folder.files)} are no files of rows by their names: give a pattern and data.format"
    return InputError(
        f"{folder.name}: no file in a folder of it; expected {folder.name}/CLASS/FILE, a text a file, or files of rows "
        f"such as {folder.name}/train.csv{advice}"
    )
