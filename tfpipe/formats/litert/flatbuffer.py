"""A LiteRT file as it lies on disk: its operators and its kernels, read without running it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfpipe.encoders.parameters import is_prunable, stored_layer
from tfpipe.errors import InputError

_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
_TYPES = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.INT8: np.int8}
_LAYER = re.compile(r"([^/;]+)/MatMul")


def operators_of(file: Path) -> dict[str, int]:
    """Counts the operators of a file.

    Returns:
      Operator -> its number, the most frequent first.

    Raises:
      InputError: not a LiteRT file, or it has an operator that is not LiteRT's own, which needs a library.
    """
    model, counts = _read(file), Counter()
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = _name(model, operator)
            if name == "CUSTOM":
                custom = model.operatorCodes[operator.opcodeIndex].customCode or b"?"
                raise InputError(
                    f"{file}: operator {custom.decode(errors='replace')} is not one of LiteRT's own; export the model "
                    "without it"
                )
            counts[name] += 1
    return dict(counts.most_common())


def kernels_of(file: Path) -> dict[str, np.ndarray]:
    """Reads the encoder's kernels, each by the name of its product: [out, in] float32 or int8."""
    model, found = _read(file), {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            # Of the layers that the converter has joined, the product's is the last one.
            layers = _LAYER.findall(graph.tensors[operator.outputs[0]].name.decode())
            if _name(model, operator) != "FULLY_CONNECTED" or not layers:
                continue
            kernel, name = graph.tensors[operator.inputs[1]], f"{stored_layer(layers[-1])}.weight"
            if is_prunable(name):
                data = model.buffers[kernel.buffer].data
                found[name] = np.frombuffer(data.tobytes(), _TYPES[kernel.type]).reshape(kernel.shape)
    return found


def _read(file: Path) -> schema.ModelT:
    content = file.read_bytes()
    try:
        if content[4:8] != b"TFL3":
            raise ValueError("it does not begin as one")
        return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    except Exception as error:  # of a damaged file, the reader raises whatever it stumbles over
        raise InputError(f"{file}: not a LiteRT file ({type(error).__name__}: {error}); export it again") from error


def _name(model: schema.ModelT, operator: schema.OperatorT) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    return _NAMES.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
