"""The limits of a TF Serving release: operators and types of a SavedModel, checked before it leaves the export.

The server loads a graph with the operators that it was linked with and nothing else: no Python, no other library. A
missing operator shows only when the model is loaded, in production. `operators/` lists the operators of each release; a
file's head states its source.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from pathlib import Path

from tensorflow.core.framework import attr_value_pb2, node_def_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tfpipe.errors import InputError

# JSON of the REST interface has no half types, and processors without them would convert at every operator.
_HALF_TYPES = {
    value
    for name, value in types_pb2.DataType.items()
    if name.removesuffix("_REF") in ("DT_HALF", "DT_BFLOAT16") or name.startswith("DT_FLOAT8")
}


def linked_operators(serving_version: str) -> frozenset[str]:
    """Lists the operators that a release of tensorflow_model_server links."""
    file = importlib.resources.files("tfpipe.formats.saved_model") / "operators" / f"{serving_version}.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def check_saved_model(directory: Path, serving_version: str) -> int:
    """Checks every node of a SavedModel, functions included.

    Args:
      directory: of the SavedModel.
      serving_version: TF Serving release that must load it.

    Returns:
      The number of different operators.

    Raises:
      InputError: the release lacks an operator, or a type is of half precision.
    """
    saved_model = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    linked, seen = linked_operators(serving_version), set()
    for meta_graph in saved_model.meta_graphs:
        library = meta_graph.graph_def.library
        own = {function.signature.name for function in library.function}
        for where, node in nodes_of(meta_graph.graph_def):
            seen.add(node.op)
            if node.op not in linked and node.op not in own:
                raise InputError(
                    f"export: operator {node.op} ({where}) is not in TF Serving {serving_version}; "
                    "set export.serving_version to the release that will serve the model"
                )
            for name, attribute in node.attr.items():
                if half := _HALF_TYPES.intersection(_types_of(attribute)):
                    found = types_pb2.DataType.Name(half.pop())
                    raise InputError(f"export: {node.op} ({where}) has {name} {found}; a SavedModel must be float32")
        for node in meta_graph.object_graph_def.nodes:
            if node.variable.dtype in _HALF_TYPES:
                found = types_pb2.DataType.Name(node.variable.dtype)
                raise InputError(f"export: variable {node.variable.name} is {found}; a SavedModel must be float32")
    return len(seen)


def nodes_of(graph_def) -> Iterator[tuple[str, node_def_pb2.NodeDef]]:
    """Yields every node of a graph and of its functions, with the words for its place."""
    for node in graph_def.node:
        yield f"node {node.name}", node
    for function in graph_def.library.function:
        for node in function.node_def:
            yield f"node {node.name} of function {function.signature.name}", node


def _types_of(attribute: attr_value_pb2.AttrValue) -> Iterator[int]:
    yield attribute.type
    yield attribute.tensor.dtype
    yield from attribute.list.type
    yield from (tensor.dtype for tensor in attribute.list.tensor)
