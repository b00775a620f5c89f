"""ONNX files in folders that other loaders open, as ONNX Runtime runs them. They answer by token ids."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from tfpipe.encoders.parameters import is_prunable
from tfpipe.formats.base import Answer, Requests, Source, Written
from tfpipe.formats.onnx.folder import graph_file, new_graph_file
from tfpipe.formats.onnx_graph.inspection import inspect_onnx

if TYPE_CHECKING:
    from tfpipe.config.export import Export


def write(source: Source, path: Path, settings: Export) -> Written:
    """Writes an ONNX file of operator set `settings.onnx_opset`, and the files that loaders need (`folder.py`).

    Raises:
      InputError: an operator has no counterpart in ONNX.
    """
    # These need TensorFlow, and a file is answered without it.
    from tfpipe.formats.folder import write_folder
    from tfpipe.formats.onnx_graph.convert import operator_counts, to_onnx
    from tfpipe.formats.onnx_graph.file import save_onnx

    graph = to_onnx(source.classifier, settings.onnx_opset, source.data_fingerprint)
    counts = operator_counts(graph)
    file = new_graph_file(source.classifier, path)
    save_onnx(graph, file)
    # Without a type, transformers.js looks for one file or the other, by the device that it runs on.
    own = {"transformers.js_config": {"dtype": "q8" if source.classifier.quantization else "fp32"}}
    write_folder(source, path, Path(__file__).parent / "README.md.jinja", own, file=file.relative_to(path))
    shown = ", ".join(f"{operator} {count}" for operator, count in list(counts.items())[:5])
    return Written(counts, f"{path.name}/{file.relative_to(path)} ({sum(counts.values())} operators: {shown}, …)")


def load(path: Path, threads: int | None = None, allowed: Collection[str] = ()) -> tuple[Answer, ...]:
    """Inspects and loads an ONNX file; no operator of another domain can be allowed.

    Raises:
      InputError: it would do more than compute.
    """
    session = open_session(graph_file(path), threads)

    def ask(requests: Requests) -> np.ndarray:
        inputs = {name: value.astype(np.int64) for name, value in requests.tokens.items()}
        return session.run(["logits"], inputs)[0]

    return (Answer("onnx", False, ask, shared=True),)


def open_session(file: Path, threads: int | None) -> onnxruntime.InferenceSession:
    """Inspects and loads an ONNX file.

    Args:
      file: of any origin.
      threads: of ONNX Runtime; None: all processors.

    Raises:
      InputError: it would do more than compute.
    """
    inspect_onnx(file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    # Or its threads would go on spinning after a call, and slow down whatever is called next: another artifact here.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def kernels(path: Path) -> dict[str, np.ndarray]:
    """Reads the encoder's kernels, float or as codes: [in, out] each."""
    return kernels_of(graph_file(path))


def kernels_of(file: Path) -> dict[str, np.ndarray]:
    """Reads the kernels of an ONNX file."""
    import onnx
    from onnx import numpy_helper

    tensors = {tensor.name.removesuffix(".codes"): tensor for tensor in onnx.load(str(file)).graph.initializer}
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items() if is_prunable(name)}


def size_bytes(path: Path) -> int:
    """Gives the bytes of the ONNX file and of the weights beside it, which a runtime loads."""
    return sum(file.stat().st_size for file in graph_file(path).parent.iterdir())
