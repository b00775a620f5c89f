"""OpenVINO's IR in a folder that its loaders open. It answers by token ids.

The IR is read from tfpipe's ONNX graph: weights of 8 bits stay 8 bits wide, and OpenVINO multiplies them as integers.
Its dimensions are open. OpenVINO is faster with fixed ones, so the loader here gives them numbers: see `shapes.py`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openvino

from tfpipe.encoders.parameters import is_prunable
from tfpipe.errors import InputError
from tfpipe.formats.base import Answer, Source, Written
from tfpipe.formats.openvino.shapes import Shapes

if TYPE_CHECKING:
    from tfpipe.config.export import Export

GRAPH = "openvino_model.xml"
"""as optimum-intel names it; its weights are in a file of the same name that ends in .bin"""
ABOUT = "tfpipe"
"""where the IR's own information has what the loader needs"""
_NUMBERED = re.compile(r"[A-Z][A-Za-z0-9]*_[0-9]+")
_OPERATOR_SET = re.compile(r"opset[0-9]+")


def write(source: Source, path: Path, settings: Export) -> Written:
    """Writes the IR, and the files that its loaders need beside it.

    Raises:
      InputError: an operator has no counterpart in ONNX.
    """
    # These need TensorFlow, and a file is answered without it.
    from tfpipe.formats.folder import write_folder
    from tfpipe.formats.onnx_graph.convert import to_onnx
    from tfpipe.formats.onnx_graph.file import save_onnx

    classifier, chosen = source.classifier, settings.openvino
    lengths = [length for length in chosen.lengths if length <= classifier.architecture.max_position_embeddings]
    graph = to_onnx(classifier, settings.onnx_opset, source.data_fingerprint)
    path.mkdir()
    with tempfile.TemporaryDirectory(prefix="tfpipe-") as scratch:
        file = Path(scratch) / "model.onnx"
        save_onnx(graph, file)
        model = openvino.Core().read_model(str(file))
        _number_from_the_start(model)
        model.set_rt_info(chosen.precision, [ABOUT, "precision"])
        model.set_rt_info(",".join(map(str, lengths)), [ABOUT, "lengths"])
        model.set_rt_info(",".join(map(str, chosen.batch_sizes)), [ABOUT, "batch_sizes"])
        openvino.save_model(model, str(path / GRAPH), compress_to_fp16=False)
    readme = Path(__file__).parent / "README.md.jinja"
    own = {"openvino_config": {"precision": chosen.precision, "lengths": lengths, "batch_sizes": chosen.batch_sizes}}
    length = next((each for each in sorted(lengths) if each >= classifier.max_length), classifier.max_length)
    write_folder(source, path, readme, own, file=GRAPH, precision=chosen.precision, length=length)
    operators = len(model.get_ops())
    return Written(operators, f"{path.name}/{GRAPH} ({operators} operators, {chosen.precision} between the products)")


def load(path: Path, threads: int | None = None, allowed: Collection[str] = ()) -> tuple[Answer, ...]:
    """Inspects and loads an IR; an operator that is not OpenVINO's own can't be allowed.

    Raises:
      InputError: it is damaged, or would do more than compute.
    """
    shapes = Shapes(_read(path), threads)
    return (Answer("openvino", False, shapes.ask, rounded=shapes.precision != "f32", batch=shapes.batch),)


def kernels(path: Path) -> dict[str, np.ndarray]:
    """Reads the encoder's kernels, float or as codes: [in, out] each."""
    found = {
        each.get_friendly_name().removesuffix(".codes"): each
        for each in _read(path).get_ops()
        if each.get_type_name() == "Constant"
    }
    return {name: np.array(each.data) for name, each in found.items() if is_prunable(name)}


def size_bytes(path: Path) -> int:
    """Gives the bytes of the graph and of its weights, which a runtime loads."""
    return sum((path / GRAPH).with_suffix(suffix).stat().st_size for suffix in (".xml", ".bin"))


def _read(path: Path) -> openvino.Model:
    graph, weights = path / GRAPH, (path / GRAPH).with_suffix(".bin")
    try:
        model = openvino.Core().read_model(str(graph), str(weights))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{graph}: can't be loaded ({reason[:300]}); export it again") from error
    for operator in model.get_ops():
        kind = operator.get_type_info()
        if not _OPERATOR_SET.fullmatch(str(kind.version_id)):
            raise InputError(
                f"{graph}: operator {kind.version_id}::{kind.name} ({operator.get_friendly_name()}) is not one of "
                "OpenVINO's own; export the model without it"
            )
    return model


def _number_from_the_start(model: openvino.Model) -> None:
    """Numbers operators from 0, as OpenVINO counts on through a process, so that a graph has one text."""
    for number, operator in enumerate(model.get_ordered_ops()):
        if _NUMBERED.fullmatch(operator.get_friendly_name()):
            operator.set_friendly_name(f"{operator.get_type_name()}_{number}")
