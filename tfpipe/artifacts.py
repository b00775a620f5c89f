"""The formats in which a variant leaves a run: a table, without TensorFlow.

A format is a row here and a module of `formats/` with four functions, which `formats/base.py` describes. `export`
writes the formats that `export.formats` names, `verify` measures them, `replay` and `sweep` ask them.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tfpipe.errors import InputError


class Format(NamedTuple):
    """A format: the facts about it that need no file."""

    name: str
    """as tables and `budget.artifact` name it"""
    module: str
    """writes and reads it; imported when that happens"""
    path: str
    """the directory that a user opens, below `export/VARIANT/`; of the reference, a file"""
    max_logit_diff: float
    """how far logits may be from those of the float32 Keras model, in units of a row's largest logit where that is more
    than 1: the default of `verify.max_logit_diff`"""
    overhead_bytes: int = 0
    """of an artifact beside its weights, at most about: the graph, a vocabulary and the like"""
    marker: str = ""
    """a pattern of the file by which `replay` knows the directory of an artifact"""
    extras: str = ""
    """where golden requests lie, below that directory"""
    written_with: tuple[str, ...] = ()
    """packages that decide an artifact's bytes"""
    run_with: tuple[str, ...] = ()
    """packages that decide its answers"""
    adds_in_16_bits: bool = False
    """whether its runtime clips sums of two 8-bit products on some processors: `compress/saturation.py`"""
    version: int = 1
    """raised when the same variant comes to give another artifact, or its limit changes: `export` is done again then"""
    int8_slack: float = 1.0
    """of a variant of 8 bits: how many times as far as `verify` allows others its answers may be, as its runtime rounds
    activations in a way of its own"""
    most_bytes: int | None = None
    """that an artifact may have; None: any"""
    by_default: bool = True
    """whether it is written where `export.formats` is not set"""
    extra: str = ""
    """the extra of tfpipe that brings its runtime; empty: tfpipe itself needs that"""
    runtime: str = ""
    """the module that the extra brings"""
    cleans: bool = True
    """whether a run that cleans texts can have it (`data.cleaning.html`, `unicode`, `stop_words`)"""

    @property
    def code(self) -> Any:
        """Imports the format's module, a `formats.base.FormatModule`; of the reference, `formats/keras.py`.

        Raises:
          InputError: its runtime is not installed.
        """
        self.check_runtime()
        return importlib.import_module(self.module)

    def check_runtime(self) -> None:
        """Checks that the format can be run here.

        Raises:
          InputError: its runtime is not installed.
        """
        if self.runtime and importlib.util.find_spec(self.runtime) is None:
            raise InputError(
                f"{self.name} artifacts need the package {self.runtime}; install it with: pip install "
                f"'tfpipe[{self.extra}]'"
            )

    def is_in(self, directory: Path) -> bool:
        """Tells whether a directory is an artifact of this format."""
        return any(directory.glob(self.marker))


REFERENCE = Format("keras", "tfpipe.formats.keras", "model.safetensors", 0.0)
"""the stored classifier as a float32 Keras model, in the directory of the stage that made it; not exported"""

FORMATS = (
    Format(
        "saved_model",
        "tfpipe.formats.saved_model.format",
        "saved_model",
        max_logit_diff=1e-5,
        overhead_bytes=5_000_000,
        marker="saved_model.pb",
        extras="assets.extra",
        written_with=("tensorflow", "tf-keras", "tensorflow-text"),
        run_with=("tensorflow", "tensorflow-text"),
        version=3,
    ),
    Format(
        "onnx",
        "tfpipe.formats.onnx.format",
        "onnx",
        max_logit_diff=1e-4,
        overhead_bytes=500_000,
        marker="onnx/model*.onnx",
        written_with=("tensorflow", "tf-keras", "tf2onnx", "onnx", "tokenizers"),
        run_with=("onnxruntime",),
        adds_in_16_bits=True,
        version=2,
    ),
    Format(
        "saved_model_tokens",
        "tfpipe.formats.saved_model.tokens_format",
        "saved_model_tokens",
        max_logit_diff=1e-5,
        overhead_bytes=2_000_000,
        marker="assets.extra/tokenizer.json",
        written_with=("tensorflow", "tf-keras"),
        run_with=("tensorflow",),
        by_default=False,
    ),
    Format(
        "onnx_text",
        "tfpipe.formats.onnx.text",
        "onnx_text",
        max_logit_diff=1e-4,
        overhead_bytes=5_000_000,
        marker="model.onnx",
        written_with=("tensorflow", "tf-keras", "tf2onnx", "onnx", "tokenizers"),
        run_with=("onnxruntime",),
        adds_in_16_bits=True,
        by_default=False,
        cleans=False,
    ),
    Format(
        "openvino",
        "tfpipe.formats.openvino.format",
        "openvino",
        max_logit_diff=1e-4,
        overhead_bytes=1_000_000,
        marker="openvino_model.xml",
        written_with=("tensorflow", "tf-keras", "tf2onnx", "onnx", "openvino", "tokenizers"),
        run_with=("openvino",),
        adds_in_16_bits=True,
        by_default=False,
        extra="openvino",
        runtime="openvino",
    ),
    Format(
        "litert",
        "tfpipe.formats.litert.format",
        "litert",
        max_logit_diff=1e-4,
        overhead_bytes=500_000,
        marker="*.tflite",
        written_with=("tensorflow", "tf-keras", "tokenizers"),
        run_with=("ai-edge-litert",),
        int8_slack=3.0,
        most_bytes=2**31 - 1,  # of a flatbuffer
        by_default=False,
        extra="litert",
        runtime="ai_edge_litert",
    ),
)


def formats_named(names: Iterable[str]) -> tuple[Format, ...]:
    """Lists formats in the order of the table.

    Args:
      names: which; any order.
    """
    wanted = set(names)
    return tuple(each for each in FORMATS if each.name in wanted)


def format_in(directory: Path) -> Format | None:
    """Finds the format of the artifact in a directory; None where the directory holds none.

    Where two formats match, the later row wins: a SavedModel of tokens alone has the marker of every SavedModel too.
    """
    return next((each for each in reversed(FORMATS) if each.is_in(directory)), None)


def format_named(name: str) -> Format:
    """Gives a format by its name.

    Raises:
      ValueError: no format has that name.
    """
    for each in (REFERENCE, *FORMATS):
        if each.name == name:
            return each
    raise ValueError(f"no artifact format {name}; expected {' or '.join(each.name for each in FORMATS)}")
