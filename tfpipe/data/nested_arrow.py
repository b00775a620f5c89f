"""Dotted names (`data/nested.py`) in Arrow's types: fields of structs, places of lists.

A column that is wanted by a dotted name is taken out of its struct or list here, so that a block holds the wanted
values alone. A list that is too short gives a null, and so does a name below a null.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfpipe.data.nested import as_index, splits

Steps = tuple[str | int, ...]
"""the way to a value: the name of a column, then names of fields and places in lists"""


def steps_to(schema: pa.Schema | pa.StructType, name: str) -> Steps | None:
    """Finds the way to the value that a dotted name means; None where there is none."""
    if isinstance(schema, pa.DataType) and is_list(schema):
        head, dot, rest = name.partition(".")
        index = as_index(head)
        if index is None:
            return None
        below = steps_to(schema.value_type, rest) if dot else ()
        return None if below is None else (index, *below)
    if isinstance(schema, pa.DataType) and not pa.types.is_struct(schema):
        return None
    if schema.get_field_index(name) >= 0:
        return (name,)
    for head, rest in splits(name):
        if schema.get_field_index(head) >= 0:
            below = steps_to(schema.field(head).type, rest)
            if below is not None:
                return (head, *below)
    return None


def names_of(schema: pa.Schema) -> list[str]:
    """Lists the columns by their names, those with fields by the dotted names of these."""
    found = [(field.name, name) for field in schema for name in _names(field.name, field.type)]
    return [name for column, name in found if name == column or name not in schema.names]


def _names(name: str, kind: pa.DataType) -> Iterator[str]:
    if pa.types.is_struct(kind) and kind.num_fields:
        for field in kind:
            yield from _names(f"{name}.{field.name}", field.type)
    elif is_list(kind) and (pa.types.is_struct(kind.value_type) or is_list(kind.value_type)):
        yield from _names(f"{name}.0", kind.value_type)
    else:
        yield name


def value_of(batch: pa.RecordBatch, steps: Steps) -> pa.Array:
    """Takes a column, or a nested value, out of a batch: `[rows]` values, null where there is none."""
    values = batch.column(steps[0])
    for step in steps[1:]:
        values = pc.struct_field(values, [step]) if isinstance(step, str) else _item(values, step)
    return values


def parquet_columns(paths: Sequence[str], steps: Steps) -> list[str]:
    """Chooses the leaves of a Parquet file that are needed.

    Args:
      paths: of all leaves, as the file's schema has them, where a list adds names of its own.
      steps: the way to the wanted value.
    """
    places = [at for at, step in enumerate(steps) if isinstance(step, int)]
    if not places:
        return [".".join(steps)]
    head, tail = ".".join(steps[: places[0]]), "".join(f".{step}" for step in steps[places[-1] + 1 :])
    below = [path for path in paths if tail and path.startswith(f"{head}.") and path.endswith(tail)]
    return below or [head]


def is_list(kind: pa.DataType) -> bool:
    """Tells whether values of a type are lists, of a fixed length or not."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _item(lists: pa.Array, index: int) -> pa.Array:
    """Takes an item of each list."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    values = lists.flatten()  # without what lies behind nulls
    begins = np.cumsum(lengths) - lengths
    place = index if index >= 0 else lengths + index
    absent = (place >= lengths) | (place < 0)
    return values.take(pa.array(np.where(absent, 0, begins + place), mask=absent))
