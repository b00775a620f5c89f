"""The output of a scoring while it is made: a directory of parts, and a record of the scoring.

    OUTPUT.parts/
        scoring.json            the files, the model, the settings: a scoring resumes where these are the same
        00000-00000.part        the rows of a block, answered; written whole
        00000-00000.rejected    the rows of the block that can't be answered

At the end the parts become `OUTPUT`, which is put in its place whole, and beside it `OUTPUT.rejected.jsonl`, if rows
were rejected. The same input and the same model give the same bytes, wherever a scoring was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from tfpipe.data.block import Rejection, excerpt
from tfpipe.data.rejected import rejection_line
from tfpipe.errors import InputError
from tfpipe.files import remove, write_json
from tfpipe.rundir.fingerprint import is_sealed, sealed
from tfpipe.tools.predict import written
from tfpipe.tools.predict.options import exists_already
from tfpipe.tools.predict.written import Layout

RECORD = "scoring.json"
_JOINED = "joined.json"
"""the bytes of the output that was made of the parts"""
_PART, _REJECTED = ".part", ".rejected"


class Parts:
    """The parts of one output, held by one process."""

    def __init__(self, output: Path):
        self.output = output
        self.directory = output.with_name(f"{output.name}.parts")
        self.rejected = output.with_name(f"{output.name}.rejected.jsonl")
        self._overwrite = False

    @contextmanager
    def held(self, *, overwrite: bool) -> Iterator[None]:
        """Holds the directory for this process.

        Args:
          overwrite: whether an output that exists may be replaced, and parts of another scoring removed.

        Raises:
          InputError: the output exists, can't be written, or another process writes it.
        """
        self.check(overwrite=overwrite)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = open(self.directory / ".lock", "w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise InputError(
                f"--output {self.output}: can't be written ({error.strerror}); give another path"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"--output {self.output}: another process is writing it; wait for it, or give another name"
                ) from None
            self._overwrite = overwrite
            try:
                yield
            except BaseException:
                if not any(self.directory.glob(f"*{_PART}")):  # nothing to go on after
                    shutil.rmtree(self.directory, ignore_errors=True)
                raise

    def check(self, *, overwrite: bool) -> None:
        """Checks that the output may be written; removes the parts if they have been joined.

        Raises:
          InputError: the output exists.
        """
        if not self.output.exists():
            return
        try:
            joined = json.loads((self.directory / _JOINED).read_text(encoding="utf-8"))["bytes"]
        except (OSError, ValueError, LookupError, TypeError):
            joined = None
        if joined == self.output.stat().st_size:  # killed before they were removed
            shutil.rmtree(self.directory)
        if not overwrite:
            raise exists_already(self.output)

    def begin(self, scoring: dict[str, Any], *, overwrite: bool) -> frozenset[str]:
        """Begins a scoring, or resumes one.

        Args:
          scoring: all that decides the answers, as JSON.
          overwrite: whether the parts of another scoring may be removed.

        Raises:
          InputError: the parts are another scoring's; names the difference.

        Returns:
          The names of the blocks that are done.
        """
        path = self.directory / RECORD
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            before = None
        if isinstance(before, dict) and is_sealed(before) and not _differing(before.get("scoring"), scoring):
            return frozenset(each.stem for each in self.directory.glob(f"*{_PART}"))
        begun = any(self.directory.glob(f"*{_PART}"))
        if begun and not overwrite:
            differing = "its record is damaged"
            if isinstance(before, dict) and isinstance(before.get("scoring"), dict):
                differing = "; ".join(_differing(before["scoring"], scoring)) or differing
            raise InputError(
                f"{self.directory}: parts of a scoring that was stopped: {differing}; give the command that began "
                "it to resume it, or --overwrite to drop them"
            )
        for each in self.directory.iterdir():
            if each.name != ".lock":
                remove(each)
        write_json(path, sealed({"scoring": scoring}))
        return frozenset()

    def store(self, name: str, content: bytes, rejections: list[Rejection]) -> None:
        """Stores the part of a block: when the call returns, the part is on the disk."""
        lines = "".join(map(rejection_line, rejections))
        if lines:
            _write(self.directory / f"{name}{_REJECTED}", lines.encode())
        _write(self.directory / f"{name}{_PART}", content)

    def join(self, layout: Layout) -> Counter[str]:
        """Joins the parts into the output, and removes them.

        Returns:
          Reason for rejections -> number of rows.
        """
        parts = sorted(self.directory.glob(f"*{_PART}"), key=_place)
        temporary = self.directory / f"joined{self.output.suffix}"
        if layout.format == "parquet":
            _join_parquet(parts, temporary)
        else:
            with open(temporary, "wb") as file:
                file.write(written.header(layout))
                for each in parts:
                    _append(each, file)
                _flush(file)
        reasons = self._join_rejected()
        if not self._overwrite and self.output.exists():
            raise InputError(
                f"--output {self.output}: was made by another meanwhile; move it, and give the same command again"
            )
        write_json(self.directory / _JOINED, {"bytes": temporary.stat().st_size})
        os.replace(temporary, self.output)
        shutil.rmtree(self.directory)
        return reasons

    def _join_rejected(self) -> Counter[str]:
        """Writes the list of the rejected rows; without any, removes an older list."""
        found, reasons = sorted(self.directory.glob(f"*{_REJECTED}"), key=_place), Counter()
        if not found:
            self.rejected.unlink(missing_ok=True)
            return reasons
        temporary = self.directory / "rejected.jsonl"
        with open(temporary, "wb") as file:
            for each in found:
                with open(each, encoding="utf-8") as lines:
                    reasons.update(json.loads(line)["reason"] for line in lines)
                _append(each, file)
            _flush(file)
        os.replace(temporary, self.rejected)
        return reasons


def _differing(before: Any, now: Any, name: str = "") -> list[str]:
    """Lists the differences of two scorings, as `settings text_column was a, is b`; a server's may differ a little."""
    if isinstance(before, dict) and isinstance(now, dict):
        if "content" in before and "content" in now:  # of models: a place is no difference, and says which they were
            if before["content"] != now["content"]:
                return [f"{name} was {before.get('name')}, is {now.get('name')}, with other content"]
            before = before | {"name": now.get("name")}
        keys = dict.fromkeys((*before, *now))
        return [each for key in keys for each in _differing(before.get(key), now.get(key), f"{name} {key}".strip())]
    if name.endswith("probes") and np.shape(before) == np.shape(now):
        return [] if np.allclose(before, now, atol=1e-3) else ["the server answers otherwise: its model was replaced"]
    return [] if before == now else [f"{name} was {_shown(before)}, is {_shown(now)}"]


def _shown(value: Any) -> str:
    return "not given" if value is None else excerpt(value if isinstance(value, str) else json.dumps(value))


def _place(part: Path) -> tuple[int, ...]:
    """Parses the number of the file, and of the block in it."""
    return tuple(map(int, part.stem.split("-")))


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "wb") as file:
        file.write(content)
        _flush(file)
    os.replace(temporary, path)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _append(path: Path, file: BinaryIO) -> None:
    with open(path, "rb") as part:
        shutil.copyfileobj(part, file, 1 << 20)


def _join_parquet(parts: list[Path], target: Path) -> None:
    """Writes parts as one file, a row group for each. A column that has several types is written as text."""
    parts = [each for each in parts if each.stat().st_size]  # of a block without a row
    schemas, as_text = [pyarrow.parquet.read_schema(each) for each in parts], set()
    while True:
        schema = _one_schema(schemas, as_text)
        try:
            with pyarrow.parquet.ParquetWriter(target, schema, compression="zstd") as writer:
                for each in parts:
                    table = pyarrow.parquet.ParquetFile(each).read()
                    writer.write_table(pa.table([_as(table, field) for field in schema], schema=schema))
            return
        except _OtherType as error:
            as_text.add(str(error))


class _OtherType(Exception):
    """A column whose values do not fit the common type of all parts; its name."""


def _one_schema(schemas: list[pa.Schema], as_text: set[str]) -> pa.Schema:
    types: dict[str, list[pa.Schema]] = {}
    for schema in dict.fromkeys(schemas):
        for field in schema:
            types.setdefault(field.name, []).append(pa.schema([field.remove_metadata()]))
    fields = []
    for name, several in types.items():
        try:
            field = pa.unify_schemas(list(dict.fromkeys(several)), promote_options="permissive").field(0)
        except pa.ArrowException:
            as_text = as_text | {name}
        if name in as_text:
            field = pa.field(name, pa.string())
        fields.append(field.with_nullable(True) if not pa.types.is_null(field.type) else pa.field(name, pa.string()))
    return pa.schema(fields)


def _as(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(table.num_rows, field.type)
    column = table.column(field.name)
    try:
        return column.cast(field.type)
    except pa.ArrowException:
        if not pa.types.is_string(field.type):
            raise _OtherType(field.name) from None
        return written.as_text(column.to_pylist())
