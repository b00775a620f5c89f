"""Kernels and bytes of a SavedModel, of either form, read from its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from tfpipe.encoders.parameters import is_prunable


def kernels(path: Path) -> dict[str, np.ndarray]:
    """Reads the encoder's kernels, float or as codes: [in, out] each."""
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    found = {}
    for key in reader.get_variable_to_shape_map():
        # A checkpoint writes each dot of a name twice.
        name = key.removeprefix("weights/").removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").replace("..", ".")
        if is_prunable(name):
            found[name] = reader.get_tensor(key)
    return found


def size_bytes(path: Path) -> int:
    """Gives the bytes of all files in the directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
