"""Datasets of hubs: their splits, their identity, and how they are loaded.

Enters: `hf:NAME[@REVISION][:CONFIG][#SPLIT]` (Hugging Face datasets: from the hub, or a directory that the library
can load) or `tfds:NAME[#SPLIT]` (TensorFlow Datasets). Leaves: the libraries' own objects, for the readers. No code of
a dataset is run: scripts of Hugging Face and TensorFlow Datasets' community are refused. Without `#SPLIT`, the splits
named train, validation and test, or their usual other names, are given splits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from tfpipe.config.data import SplitName
from tfpipe.console import say_once
from tfpipe.data.split import split_name
from tfpipe.errors import InputError

HUBS = ("hf", "tfds")
_ROWS = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow", ".txt")
_INFOS = ("dataset_infos.json", "dataset_info.json")
_TFDS_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\d.*]+)?")
_SPECIFICATION = re.compile(r"hf:(?P<path>[^@:#]+)(?:@(?P<revision>[^:#]+))?(?::(?P<config>[^#]+))?(?:#(?P<split>.+))?")


def splits(source: str) -> Iterator[tuple[str, SplitName | None]]:
    """Yields each split of the dataset that is used, as a source of its own, and the split of the run that it is."""
    _check_folder(source)
    if "#" in source:
        yield source, None
        return
    names = _hugging_face_splits(source) if source.startswith("hf:") else list(tfds_builder(source).info.splits)
    used = [(f"{source}#{name}", split_name(name)) for name in names if split_name(name)]
    if used and len(used) < len(names):
        unused = ", ".join(name for name in names if not split_name(name))
        say_once(f"  {source}: not read: the splits {unused}; data.source can name them, such as {source}#{unused}")
    yield from used or [(f"{source}#{name}", None) for name in names]


def _check_folder(source: str) -> None:
    """Reports which files of a folder Hugging Face datasets reads, and which beside them it does not.

    Raises:
      InputError: `save_to_disk` wrote the folder, which is read in another way.
    """
    folder = _parse(source)["path"] if source.startswith("hf:") else None
    if folder is None or not os.path.isdir(folder):
        return
    if any(os.path.isfile(os.path.join(folder, name)) for name in ("dataset_dict.json", "state.json")):
        raise InputError(
            f"{source}: a folder that save_to_disk wrote, with caches that hold the same rows again; set data.source: "
            f"{folder}"
        )
    read = sorted({os.path.relpath(path, folder) for path in _files_read(source)})
    there = sorted(
        os.path.relpath(os.path.join(directory, name), folder)
        for directory, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in _ROWS and not name.startswith((".", "_"))
    )
    if unread := [path for path in there if path not in read and os.path.basename(path) not in _INFOS]:
        say_once(
            f"warning: {source}: Hugging Face datasets reads {_some(read)} there, and not {_some(unread)}; give the "
            f"files themselves, such as data.source: {folder}/{unread[0]}, to read others"
        )
    if any(path.endswith((".csv", ".tsv")) for path in read):
        say_once(
            f"  {source}: Hugging Face datasets reads its CSV files as pandas does: None and NA are nulls, 01 is 1; "
            f"give the files themselves, such as data.source: {folder}/{read[0]}, to read them as they stand"
        )


def _files_read(source: str) -> list[str]:
    """Returns the files of a folder that the library reads, in all splits."""
    datasets, asked = _library(source), _parse(source)
    builder = _asking(source, lambda: datasets.load_dataset_builder(asked["path"], name=asked["config"]))
    files = [str(file) for listed in (builder.config.data_files or {}).values() for file in listed]
    return [file.partition("://")[2] if file.startswith(("file://", "local://")) else file for file in files]


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:5]) + (f" and {len(paths) - 5:,} more" if len(paths) > 5 else "") or "nothing"


def identity(source: str) -> str:
    """Returns a text that changes with the content of a dataset's split.

    For Hugging Face, it is the library's hash over the origin and the operations; for TensorFlow Datasets, the name,
    the version, and the rows and bytes of every shard.
    """
    if source.startswith("hf:"):
        return load_hugging_face(source)._fingerprint
    info = tfds_builder(source).info
    shards = {name: (split.shard_lengths, split.num_bytes) for name, split in sorted(info.splits.items())}
    return f"{info.full_name} {source.partition('#')[2]} {shards}"


def load_hugging_face(source: str) -> Any:
    """Loads the `datasets.Dataset` of a split.

    Raises:
      InputError: it can't be loaded, or its README names files of this machine that are not its own.
    """
    datasets, asked = _library(source), _parse(source)
    options = {"revision": asked["revision"], "name": asked["config"]}
    builder = _asking(source, lambda: datasets.load_dataset_builder(asked["path"], **options))
    own = os.path.abspath(asked["path"]) if os.path.isdir(asked["path"]) else None
    for files in (builder.config.data_files or {}).values():
        for file in map(str, files):
            path = file.partition("://")[2] if file.startswith(("file://", "local://")) else file
            inside = own is not None and os.path.commonpath([own, os.path.abspath(path)]) == own
            if "://" not in path and not inside:
                raise InputError(f"{source}: names {file}, a file of this machine that is not part of it; don't use it")
    _asking(source, builder.download_and_prepare)
    return _asking(source, lambda: builder.as_dataset(split=asked["split"]))


def tfds_builder(source: str) -> Any:
    """Makes the `DatasetBuilder` of a dataset, downloaded and prepared."""
    name = source.removeprefix("tfds:").partition("#")[0]
    if not _TFDS_NAME.fullmatch(name):
        raise InputError(
            f"{source}: expected tfds:NAME[/CONFIG][:VERSION][#SPLIT], a dataset of TensorFlow Datasets itself; "
            "those of its community (NAMESPACE:NAME) come with code of their own, which is not run"
        )
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError:
        raise InputError(f"{source}: needs TensorFlow Datasets; install it with: pip install 'tfpipe[tfds]'") from None
    tfds.disable_progress_bar()
    builder = _asking(source, lambda: tfds.builder(name))
    _asking(source, builder.download_and_prepare)
    return builder


def _hugging_face_splits(source: str) -> list[str]:
    datasets, asked = _library(source), _parse(source)
    options = {"revision": asked["revision"], "config_name": asked["config"]}
    return _asking(source, lambda: datasets.get_dataset_split_names(asked["path"], **options))


def _parse(source: str) -> dict[str, str | None]:
    match = _SPECIFICATION.fullmatch(source)
    if match is None:
        raise InputError(f"{source}: expected hf:NAME[@REVISION][:CONFIG][#SPLIT]")
    return match.groupdict()


def _library(source: str) -> Any:
    try:
        import datasets
    except ModuleNotFoundError:
        message = "needs Hugging Face datasets; install it with: pip install 'tfpipe[datasets]'"
        raise InputError(f"{source}: {message}") from None
    datasets.disable_progress_bars()
    return datasets


def _asking(source: str, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception as error:
        # Broad, because the libraries hand through the errors of their own, of hubs and of the system; each of them
        # means that the dataset that the user named can't be had.
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{source}: can't be loaded ({reason}); check the name and the network") from error
