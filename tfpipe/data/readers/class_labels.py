"""Classes that a file declares, as Hugging Face's ClassLabel does: numbers in its rows, names in its metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tfpipe.data.nested_arrow import is_list, steps_to
from tfpipe.errors import InputError

_METADATA = b"huggingface"


def declared(schema: pa.Schema, columns: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Reads the classes that Hugging Face datasets writes into Parquet and Arrow files.

    Args:
      schema: of a file, with its metadata.
      columns: names, dotted where they are nested.

    Returns:
      Column -> names of its classes, for columns that have some.
    """
    try:
        features = json.loads((schema.metadata or {})[_METADATA])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    found = {column: _declared(schema, features, column) for column in columns}
    return {column: names for column, names in found.items() if names is not None}


def _declared(schema: pa.Schema, features: Any, column: str) -> tuple[str, ...] | None:
    steps = steps_to(schema, column)
    if steps is None:
        return None
    try:
        kind, feature = schema.field(steps[0]).type, features[steps[0]]
        for step in steps[1:]:
            kind, feature = _below(kind, feature, step)
        return _names(feature) if _holds_integers(kind) else None
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None


def _below(kind: pa.DataType, feature: Any, step: str | int) -> tuple[pa.DataType, Any]:
    """Returns the type and the feature of a field, or of the elements of a list."""
    if isinstance(step, int):
        return kind.value_type, feature[0] if isinstance(feature, list) else feature["feature"]
    # A Sequence of objects was an object of lists, until datasets 4.
    fields = feature["feature"] if feature.get("_type") == "Sequence" else feature
    return kind.field(step).type, fields[step]


def _names(feature: Any) -> tuple[str, ...] | None:
    if isinstance(feature, list) and len(feature) == 1:  # how a list was written once
        return _names(feature[0])
    if isinstance(feature.get("feature"), dict):
        return _names(feature["feature"])
    names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _holds_integers(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or (is_list(kind) and pa.types.is_integer(kind.value_type))


def with_names(batch: pa.RecordBatch, names: dict[str, tuple[str, ...]], where: str) -> pa.RecordBatch:
    """Replaces the numbers of classes in a batch by names; see `declared` and `named`."""
    for place, column in enumerate(batch.schema.names):
        if column in names:
            batch = batch.set_column(place, column, named(batch.column(place), names[column], where))
    return batch


def named(column: pa.Array, names: tuple[str, ...], where: str) -> pa.Array:
    """Replaces numbers of classes, or lists of them, by names; negative numbers, which mean no label, by a null.

    Raises:
      InputError: a number is none of the classes.
    """
    if is_list(column.type):
        rows = [row and [one for one in row if one is None or one >= 0] for row in column.to_pylist()]
        flat = pa.array(rows, pa.list_(pa.int64()))
        return pa.ListArray.from_arrays(flat.offsets, named(flat.values, names, where), mask=flat.is_null())
    numbers = pc.if_else(pc.less(column, 0), None, column)
    try:
        return pa.array(names, pa.string()).take(numbers)
    except pa.ArrowIndexError:
        raise InputError(
            f"{where}: class {pc.max(column).as_py()} in a column that declares {len(names)} classes, from 0 on; "
            "write the file again"
        ) from None
