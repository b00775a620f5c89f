"""ONNX files, written and checked without copies of the weights.

`onnx.save` and `onnx.checker` each copy a model several times: for BERT-base, 1.4 GB beside the model. A
protobuf is fields one after the other, so that each weight can be written for itself. The checker sees the large
weights as inputs of their types: what it says of the graph is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import helper

from tfpipe.errors import InputError

LARGEST_FILE = 2**31 - 2**20  # bytes of weights; protobuf ends at 2 GiB
_LARGE = 2**16
"""bytes of a weight that the checker sees as an input"""


def save_onnx(model: onnx.ModelProto, path: Path, largest: int = LARGEST_FILE) -> None:
    """Writes a model; its weights go to `<path>.data` beside it where one file would be too large for protobuf.

    Raises:
      InputError: the graph is not valid.
    """
    try:
        if sum(map(_bytes_of, model.graph.initializer)) > largest:
            path.with_name(f"{path.name}.data").unlink(missing_ok=True)  # or it would be appended to
            # onnx moves the weights out of the model that it is given.
            onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
            onnx.checker.check_model(str(path), full_check=True)
        else:
            with path.open("wb") as file:
                file.writelines(serialized(model))
            onnx.checker.check_model(_with_inputs_for_weights(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"export: the ONNX graph is not valid: {' '.join(str(error).split())[:300]}") from error


def serialized(model: onnx.ModelProto) -> Iterator[bytes]:
    """Yields the bytes of `model.SerializeToString()`, weight by weight."""
    start, end = _around(model, "graph")
    first, last = _around(model.graph, "initializer")
    heads = []
    for tensor in model.graph.initializer:
        before, after = _around(tensor, "raw_data")
        if tensor.HasField("raw_data"):
            before += _prefix(tensor, "raw_data", _bytes_of(tensor))
        heads.append(
            (_prefix(model.graph, "initializer", len(before) + _bytes_of(tensor) + len(after)) + before, after)
        )
    length = len(first) + sum(len(before) + len(after) for before, after in heads) + len(last)
    length += sum(map(_bytes_of, model.graph.initializer))
    yield start + _prefix(model, "graph", length) + first
    for tensor, (before, after) in zip(model.graph.initializer, heads, strict=True):
        yield before
        yield tensor.raw_data
        yield after
    yield last + end


def _bytes_of(tensor: onnx.TensorProto) -> int:
    return len(tensor.raw_data)


def _around(message: Message, name: str) -> tuple[bytes, bytes]:
    """Serializes the fields before one, and those after it."""
    parts, number = (type(message)(), type(message)()), message.DESCRIPTOR.fields_by_name[name].number
    for field, value in message.ListFields():
        part = parts[field.number > number]
        if field.number == number:
            continue
        if field.label == FieldDescriptor.LABEL_REPEATED:
            getattr(part, field.name).extend(value)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(part, field.name).CopyFrom(value)
        else:
            setattr(part, field.name, value)
    return parts[0].SerializeToString(), parts[1].SerializeToString()


def _prefix(message: Message, name: str, length: int) -> bytes:
    """Gives what stands before a field of bytes: its number and their count, as protobuf writes them."""
    tag = message.DESCRIPTOR.fields_by_name[name].number << 3 | 2
    return _varint(tag) + _varint(length)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _with_inputs_for_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with inputs in the place of its large weights."""
    start, end = _around(model, "graph")
    light = onnx.ModelProto.FromString(start + end)
    light.graph.ParseFromString(b"".join(_around(model.graph, "initializer")))
    for tensor in model.graph.initializer:
        expected = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if _LARGE <= _bytes_of(tensor) == expected:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            light.graph.initializer.append(tensor)
    return light
