"""The results of a block as bytes, for other machines: nothing in them is run when they are read.

Enters: numbers, texts, collections, arrays, Arrow batches, and the few classes of `KINDS`. Leaves: the same again, from
NumPy's `.npz` of JSON and arrays. A pickle would run the code that it names, and anyone who can write to a pipeline's
scratch space could name any code.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from tfpipe.data.block import Rejection
from tfpipe.data.counts import Counts
from tfpipe.data.survey import BlockSurvey

KINDS = {kind.__name__: kind for kind in (BlockSurvey, Counts, Rejection)}
_COLLECTIONS = {kind.__name__: kind for kind in (tuple, set, dict, Counter)}
_TREE = "tree"


def to_bytes(value: Any) -> bytes:
    """Writes a value as bytes.

    Raises:
      TypeError: it holds something that the module's docstring does not list.
    """
    arrays: list[np.ndarray] = []
    tree = json.dumps(_plain(value, arrays)).encode()
    content = io.BytesIO()
    np.savez(
        content,
        allow_pickle=False,
        **{_TREE: np.frombuffer(tree, np.uint8)},
        **{str(number): array for number, array in enumerate(arrays)},
    )
    return content.getvalue()


def from_bytes(content: bytes) -> Any:
    """Reads the value again.

    Raises:
      ValueError: the bytes are not of `to_bytes`.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return _value(json.loads(arrays[_TREE].tobytes()), arrays)


def _plain(value: Any, arrays: list[np.ndarray]) -> Any:
    """Turns a value into JSON; a value that JSON lacks becomes `{name of its kind: its content}`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = type(value).__name__
    if isinstance(value, list):
        return [_plain(item, arrays) for item in value]
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, pa.RecordBatch):
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, value.schema) as writer:
            writer.write_batch(value)
        arrays.append(np.frombuffer(stream.getvalue(), np.uint8))
        return {"batch": len(arrays) - 1}
    if _COLLECTIONS.get(kind) is type(value):
        return {kind: _plain([list(item) for item in value.items()] if isinstance(value, dict) else [*value], arrays)}
    if KINDS.get(kind) is type(value):
        return {kind: [[field.name, _plain(getattr(value, field.name), arrays)] for field in fields(value)]}
    raise TypeError(f"{kind} can't be sent")


def _value(tree: Any, arrays: Any) -> Any:
    if isinstance(tree, list):
        return [_value(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "array":
        return arrays[str(content)]
    if kind == "batch":
        with pa.ipc.open_stream(arrays[str(content)].tobytes()) as reader:
            return reader.read_next_batch()
    items = _value(content, arrays)
    if kind in KINDS:
        return KINDS[kind](**dict(items))
    if kind not in _COLLECTIONS:
        raise ValueError(f"{kind!r} is no kind that is sent")
    return _COLLECTIONS[kind](dict(items) if issubclass(_COLLECTIONS[kind], dict) else items)
