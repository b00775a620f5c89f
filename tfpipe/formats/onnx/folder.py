"""The place of the ONNX file in its folder, where transformers, optimum and transformers.js look for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tfpipe.errors import InputError

if TYPE_CHECKING:
    from tfpipe.model.classifier import Classifier

# The names by which optimum and transformers.js know a float file and one of 8 bits.
FLOAT_FILE, QUANTIZED_FILE = "onnx/model.onnx", "onnx/model_quantized.onnx"


def new_graph_file(classifier: Classifier, folder: Path) -> Path:
    """Gives the path of a classifier's ONNX file, whose directory it makes."""
    file = folder / (QUANTIZED_FILE if classifier.quantization else FLOAT_FILE)
    file.parent.mkdir(parents=True)
    return file


def graph_file(folder: Path) -> Path:
    """Finds the ONNX file of a folder.

    Raises:
      InputError: there is none.
    """
    for name in (FLOAT_FILE, QUANTIZED_FILE):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: neither {FLOAT_FILE} nor {QUANTIZED_FILE} there; export it again")
