"""Inspection of an ONNX file of unknown origin, before it is loaded.

ONNX's own operators compute and nothing else. Two risks are left: tensors whose data lie in other files, which must be
beside the model, and operators of other domains, for which ONNX Runtime needs a library. tfpipe never registers one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from tfpipe.errors import InputError
from tfpipe.files import path_inside

MOST_BYTES = 2**31 - 1  # of a protocol buffer

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_RUNTIMES = re.compile(r"(ai\.onnx|com\.microsoft|com\.ms|org\.pytorch)?(\..*)?")
"""domains in which a runtime's own operator may go before a function of the file"""
# Not files: what ONNX Runtime takes for an address in its memory.
_ADDRESS = re.compile(r"\*/.*|.*_ORT_\w*ADDR_.*", re.DOTALL)
# Of ONNX Runtime's own: they call Python, or read a file that an attribute names.
_REFUSED = {"ATen", "PythonOp", "PythonOpGrad", "PyOp", "EPContext"}


def inspect_onnx(path: Path) -> int:
    """Looks at every node and tensor of an ONNX file: ONNX's own operators alone, data beside the file alone.

    Args:
      path: the file; its external data is not read.

    Returns:
      The number of nodes.

    Raises:
      InputError: not an ONNX file, an operator of another domain, an address in memory for the data of a
        tensor, or a path that leads out of the file's directory.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: larger than a protocol buffer may be ({MOST_BYTES:,} bytes)")
        model = onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError) as error:
        raise InputError(f"{path}: can't be loaded or asked (not an ONNX file: {error}); export it again") from error
    count, own = 0, {(each.domain, each.name) for each in model.functions if not _RUNTIMES.fullmatch(each.domain)}
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        part = waiting.pop()
        tensors = list(getattr(part, "initializer", ()))
        sparse = list(getattr(part, "sparse_initializer", ()))
        for node in part.node:
            count += 1
            foreign = node.domain not in _DOMAINS or node.op_type in _REFUSED
            if foreign and (node.domain, node.op_type) not in own:
                raise InputError(
                    f"{path}: operator {node.domain}::{node.op_type} (node {node.name}) is not one of ONNX's own; "
                    "export the model without it"
                )
            for attribute in node.attribute:
                waiting += [attribute.g, *attribute.graphs]
                tensors += [attribute.t, *attribute.tensors]
                sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        for tensor in (*tensors, *(each for pair in sparse for each in (pair.values, pair.indices))):
            for entry in tensor.external_data:
                if entry.key == "location":
                    if _ADDRESS.fullmatch(entry.value):
                        raise InputError(
                            f"{path}: tensor {tensor.name}: its data would be read from memory ({entry.value!r}), "
                            "expected a file; export the model again"
                        )
                    path_inside(path.parent, entry.value, f"{path}: tensor {tensor.name}", through_links=False)
    return count
