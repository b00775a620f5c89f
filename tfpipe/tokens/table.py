"""Token tables: the rows of one split, ready to be read at random.

Enters: tokenized rows. Leaves: Arrow IPC files and `table.json`, which lists them; from these, batches of a fixed shape
for any choice of rows. The files are memory-mapped and read without a copy. A file is one record batch without
compression, so that its tokens are one flat array.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tfpipe.errors import InputError
from tfpipe.files import path_inside, write_json

MANIFEST = "table.json"
SOURCES = "sources.json"
FILE_SHIFT = 40  # bits of a row's number in its file; above them in its id, the number of the file
SCHEMA = pa.schema(
    [
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("token_type_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("labels", pa.list_(pa.float32()), nullable=False),
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("copy", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("text_pair", pa.string()),
        pa.field("source", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
    ]
)


class TokenRows(NamedTuple):
    """Rows on their way into a token table, column by column."""

    input_ids: np.ndarray
    """`[tokens] int32`, of all rows one after the other, special tokens included"""
    token_type_ids: np.ndarray
    """`[tokens] int32`"""
    row_splits: np.ndarray
    """`[rows + 1] int`, where each row begins in them"""
    labels: np.ndarray
    """`[rows, num_labels] float32`"""
    row_ids: np.ndarray
    """`[rows] int64`, what identifies each row among those of all files (`rows.row_id`)"""
    copies: np.ndarray
    """`[rows] int32`: 0 for the row of the source, n for the n-th copy made of it, which has its `row_id`"""
    texts: list[str]
    text_pairs: list[str] | None
    sources: list[str]
    """file of each row below its source, `/CLASS/NAME` in a folder of classes; empty where the source is the file"""
    lines: list[int]
    """line of the file on which each row starts"""


def record_batch(rows: TokenRows) -> pa.RecordBatch:
    """Puts the rows into Arrow's columns."""
    num_labels = rows.labels.shape[1]
    offsets = pa.array(rows.row_splits, pa.int32())
    label_offsets = pa.array(np.arange(len(rows.labels) + 1) * num_labels, pa.int32())
    columns = [
        pa.ListArray.from_arrays(offsets, pa.array(rows.input_ids, pa.int32())),
        pa.ListArray.from_arrays(offsets, pa.array(rows.token_type_ids, pa.int32())),
        pa.ListArray.from_arrays(label_offsets, pa.array(rows.labels.ravel(), pa.float32())),
        pa.array(rows.row_ids, pa.int64()),
        pa.array(rows.copies, pa.int32()),
        pa.array(rows.texts, pa.string()),
        pa.nulls(len(rows.texts), pa.string()) if rows.text_pairs is None else pa.array(rows.text_pairs, pa.string()),
        pa.array(rows.sources, pa.string()).dictionary_encode(),
        pa.array(rows.lines, pa.int64()),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def shard_path(directory: Path, block: str) -> Path:
    """Names the shard of a block in a table's directory."""
    return directory / f"part-{block}.arrow"


def read_shard(path: Path) -> pa.RecordBatch:
    """Opens a shard that `write_shard` wrote, memory-mapped."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
        return reader.get_batch(0)


def write_shard(path: Path, batch: pa.RecordBatch, schema: pa.Schema = SCHEMA) -> None:
    """Writes a shard, which appears under its name only when it is whole."""
    temporary = path.with_name(f".{path.name}.temporary")
    with open(temporary, "wb") as file:
        with pa.ipc.new_file(file, schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_manifest(directory: Path, shards: list[str], *, num_labels: int, pad_id: int) -> None:
    """Writes `table.json`, which makes a table of the shards in a directory.

    Args:
      directory: of the table.
      shards: names of the files, in the order of their rows; none for an empty table.
      num_labels: length of every label vector.
      pad_id: the token id that fills a batch.
    """
    write_json(directory / MANIFEST, {"num_labels": num_labels, "pad_id": pad_id, "shards": shards})


class TokenTable:
    """A token table on disk, memory-mapped: opening it reads offsets and labels, a batch reads its own tokens.

    Attributes:
      num_rows: rows in the table.
      num_labels: length of a label vector.
      pad_id: the token id that fills a batch.
      lengths: `[rows] int32`, tokens per row.
      labels: `[rows, num_labels] float32`.
      row_ids: `[rows] int64`, ids of the rows among those of all files; of a copy, the row that it was made of.
      copies: `[rows] int32`, 0 for a row of the source, n for the n-th copy made of it.
      lines: `[rows] int64`, lines of the source.
    """

    def __init__(self, shards: list[pa.RecordBatch], *, num_labels: int, pad_id: int, sources: Sequence[str] = ()):
        self.num_labels, self.pad_id = num_labels, pad_id
        self._sources = sources
        self._shards = shards
        if not shards:  # a table of no rows
            shards = self._shards = [pa.RecordBatch.from_pylist([], schema=SCHEMA)]
        self._number: np.ndarray | None = None  # id -> id, where the rows were renumbered
        self._input_ids = [_flat(shard, "input_ids") for shard in shards]
        self._token_type_ids = [_flat(shard, "token_type_ids") for shard in shards]
        offsets = [_offsets(shard, "input_ids") for shard in shards]
        self.lengths = _joined([np.diff(each) for each in offsets])
        self._starts = _joined([each[:-1] for each in offsets])  # within its shard
        self._first_rows = np.cumsum([0, *(shard.num_rows for shard in shards)])
        self.num_rows = int(self._first_rows[-1])
        self.labels = _joined([_flat(shard, "labels").reshape(-1, num_labels) for shard in shards])
        self.row_ids = _joined([shard.column("row_id").to_numpy() for shard in shards])
        self.copies = _joined([shard.column("copy").to_numpy() for shard in shards])
        self.lines = _joined([shard.column("line").to_numpy() for shard in shards])

    @staticmethod
    def open(directory: Path) -> TokenTable:
        """Opens the table in a directory.

        Raises:
          InputError: a file is missing, cut short or not the writer's.
        """
        try:
            manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
            num_labels, pad_id, names = (manifest[name] for name in ("num_labels", "pad_id", "shards"))
            if not all(type(number) is int for number in (num_labels, pad_id)):
                raise TypeError("num_labels and pad_id must be numbers")
            if not 1 <= num_labels < 2**31 or not 0 <= pad_id < 2**31:
                raise ValueError("num_labels or pad_id out of range")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise TypeError("shards must be names")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{directory}: no token table; make it again with --redo prepare") from error
        paths = [path_inside(directory, name, str(directory / MANIFEST)) for name in names]
        shards = [_open_shard(path, num_labels) for path in paths]
        return TokenTable(shards, num_labels=num_labels, pad_id=pad_id, sources=_read_sources(directory.parent))

    def distinct_ids(self) -> np.ndarray:
        """Lists the token ids that occur, the padding's among them, rising: `[n] int32`."""
        found = [np.unique(shard) for shard in self._input_ids]
        return np.unique(np.concatenate([*found, [self.pad_id]])).astype(np.int32)

    def renumbered(self, number: np.ndarray) -> TokenTable:
        """Returns the same table, on the same memory, with other token ids.

        Args:
          number: `[vocabulary] int32`, id -> new id.
        """
        table = copy.copy(self)
        table._number, table.pad_id = number, int(number[self.pad_id])
        return table

    def sample(self, rows: int, seed: int) -> np.ndarray:
        """Draws rows at random from the whole table: a file's first rows may be of one label or of one length.

        Args:
          rows: number of rows; at most all of the table.
          seed: the same seed draws the same rows, and a smaller sample is a subset of a larger one.

        Returns:
          `[n] int64`, rising indices in the table.
        """
        return np.sort(np.random.default_rng(seed).permutation(self.num_rows)[:rows])

    def texts(self, rows: Iterable[int]) -> list[str]:
        """Reads the first or only text of each row."""
        return [self._cell("text", row) for row in rows]

    def text_pairs(self, rows: Iterable[int]) -> list[str | None]:
        """Reads the second text of each row; None for a row without one."""
        return [self._cell("text_pair", row) for row in rows]

    def locations(self, rows: Iterable[int]) -> list[str]:
        """Gives each row's id and its place in its source, for messages."""
        return [f"{self.row_ids[row]} ({self._file(row)}:{self.lines[row]})" for row in rows]

    def sources(self, rows: Iterable[int]) -> list[str]:
        """Names the file of each row, as it is shown."""
        return [self._file(row) for row in rows]

    def batch(self, examples: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Puts the given rows of the table into one batch: examples side by side in the batch's rows, then padding.

        Args:
          examples: `[rows, slots] int64`, indices in the table; -1 is an empty slot.
          length: tokens of a row of the batch; the examples of a row must fit together.

        Returns:
          `[rows, length] int32`: `input_ids`; `token_type_ids`; `segment_ids`, the example's slot from 1 on, 0 for
          padding; `position_ids`, from 0 in each example. `[rows, slots]`: `cls_index`, int32, where in its row each
          example starts, 0 for an empty slot; `weights`, float32, 1 for an example, 0 for an empty slot. `labels`:
          `[rows, slots, num_labels] float32`.

        Raises:
          IndexError: no such example.
          ValueError: the examples of a row are longer than `length`.
        """
        examples = np.asarray(examples, np.int64)
        if examples.size and (examples.min() < -1 or examples.max() >= self.num_rows):
            raise IndexError(f"rows {examples.min()} to {examples.max()} of a table of {self.num_rows} rows")
        occupied = examples >= 0
        filled = examples[occupied]
        lengths = np.zeros(examples.shape, np.int64)
        lengths[occupied] = self.lengths[filled]
        ends = np.cumsum(lengths, axis=1)
        if ends.size and ends[:, -1].max() > length:
            raise ValueError(f"{ends[:, -1].max()} tokens do not fit into a row of {length}")
        starts = ends - lengths
        # One entry a token from here on: its position in its example, then where it comes from and where it goes.
        tokens = lengths[occupied]
        positions = np.arange(tokens.sum()) - np.repeat(np.cumsum(tokens) - tokens, tokens)
        sources = np.repeat(self._starts[filled], tokens) + positions  # in the flat tokens of the example's shard
        rows, slots = np.nonzero(occupied)
        targets = np.repeat(rows * length + starts[occupied], tokens) + positions  # in the flat batch
        names = ("input_ids", "token_type_ids", "segment_ids", "position_ids")
        batch = {name: np.zeros((len(examples), length), np.int32) for name in names}
        batch["input_ids"].fill(self.pad_id)
        for name, shards in (("input_ids", self._input_ids), ("token_type_ids", self._token_type_ids)):
            self._gather(shards, filled, tokens, sources, targets, batch[name].ravel())
        if self._number is not None:
            batch["input_ids"].ravel()[targets] = self._number[batch["input_ids"].ravel()[targets]]
        batch["segment_ids"].ravel()[targets] = np.repeat(slots + 1, tokens)
        batch["position_ids"].ravel()[targets] = positions
        labels = np.zeros((*examples.shape, self.num_labels), np.float32)
        labels[occupied] = self.labels[filled]
        cls_index = np.where(occupied, starts, 0).astype(np.int32)
        return {**batch, "cls_index": cls_index, "labels": labels, "weights": occupied.astype(np.float32)}

    def padded(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Puts the given rows of the table one below the other, padded to the longest: the inputs of an encoder.

        Args:
          rows: `[batch] int64`, indices in the table; at least one.

        Returns:
          `input_ids`, `attention_mask` (1 for a token), `token_type_ids`: `[batch, length] int32`.
        """
        batch = self.batch(np.asarray(rows)[:, None], int(self.lengths[rows].max()))
        return {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["segment_ids"],
            "token_type_ids": batch["token_type_ids"],
        }

    def _gather(self, shards, examples, tokens, sources, targets, result) -> None:
        if len(shards) == 1:
            result[targets] = shards[0][sources]
            return
        shard_of = np.repeat(np.searchsorted(self._first_rows, examples, side="right") - 1, tokens)
        for shard in np.unique(shard_of):
            here = shard_of == shard
            result[targets[here]] = shards[shard][sources[here]]

    def _file(self, row: int) -> str:
        number = int(self.row_ids[row]) >> FILE_SHIFT
        named = self._sources[number] if number < len(self._sources) else f"file {number}"
        return named.rstrip("/") + self._cell("source", row)

    def _cell(self, column: str, row: int) -> str | None:
        if not 0 <= row < self.num_rows:
            raise IndexError(f"row {row} of a table of {self.num_rows} rows")
        shard = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        return self._shards[shard].column(column)[int(row - self._first_rows[shard])].as_py()


def write_sources(directory: Path, names: list[str]) -> None:
    """Writes `sources.json`, the names of the files of which the tables in a directory were made, for messages."""
    write_json(directory / SOURCES, names)


def _read_sources(directory: Path) -> list[str]:
    try:
        names = json.loads((directory / SOURCES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _open_shard(path: Path, num_labels: int) -> pa.RecordBatch:
    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            if not reader.schema.equals(SCHEMA) or reader.num_record_batches != 1:
                raise pa.ArrowInvalid("another schema")
            shard = reader.get_batch(0)
        shard.validate()
        for column in ("input_ids", "token_type_ids", "labels"):
            offsets = _offsets(shard, column)
            if offsets[0] != 0 or np.any(np.diff(offsets) < 0) or offsets[-1] != len(_flat(shard, column)):
                raise pa.ArrowInvalid(f"offsets of {column}")
        if not np.array_equal(_offsets(shard, "input_ids"), _offsets(shard, "token_type_ids")):
            raise pa.ArrowInvalid("as many input_ids as token_type_ids expected")
        if np.any(np.diff(_offsets(shard, "labels")) != num_labels):
            raise pa.ArrowInvalid(f"{num_labels} labels a row expected")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a whole token table ({reason}); make it again with --redo prepare") from error
    return shard


def _flat(shard: pa.RecordBatch, column: str) -> np.ndarray:
    return shard.column(column).values.to_numpy(zero_copy_only=True)


def _offsets(shard: pa.RecordBatch, column: str) -> np.ndarray:
    return shard.column(column).offsets.to_numpy(zero_copy_only=True)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
