"""Kernels and bytes of a SavedModel, of either form, read from its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfpipe.encoders.parameters import is_prunable, stored_layer
from tfpipe.model.coded import CODES


def kernels(path: Path) -> dict[str, np.ndarray]:
    """Reads the encoder's kernels, float or as codes, variables or constants: [in, out] each."""
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    found = {}
    for key in reader.get_variable_to_shape_map():
        # A checkpoint writes each dot of a name twice.
        name = key.removeprefix("weights/").removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").replace("..", ".")
        if is_prunable(name):
            found[name] = reader.get_tensor(key)
    saved_model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for function in saved_model.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            *_, layer, last = ("", *node.name.split("/"))
            name = f"{stored_layer(layer)}.weight"
            if node.op == "Const" and last == CODES and is_prunable(name):
                found[name] = tf.make_ndarray(node.attr["value"].tensor)
    return found


def size_bytes(path: Path) -> int:
    """Gives the bytes of all files in the directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
