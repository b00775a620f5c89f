"""ONNX files with the tokenizer inside: they answer by text, in ONNX Runtime as it comes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfpipe.errors import InputError
from tfpipe.files import write_text
from tfpipe.formats.base import Answer, Requests, Source, Texts, Written
from tfpipe.formats.onnx.format import kernels_of, open_session
from tfpipe.tasks import task_of

if TYPE_CHECKING:
    from tfpipe.config.export import Export

FILE = "model.onnx"


def write(source: Source, path: Path, settings: Export) -> Written:
    """Writes an ONNX file of operator set `settings.onnx_opset`, and a README with code that asks it.

    Raises:
      InputError: an operator has no counterpart in ONNX, or the tokenizer cleans texts.
    """
    # These need TensorFlow, and a file is answered without it.
    from tfpipe import templates
    from tfpipe.formats.onnx.tokenizer_graph import put_tokenizer_before
    from tfpipe.formats.onnx_graph.convert import operator_counts, to_onnx
    from tfpipe.formats.onnx_graph.file import save_onnx

    classifier, tokenizer = source.classifier, source.tokenizer
    if tokenizer.settings.is_cleaning:
        raise InputError(
            f"{path}: the tokenizer cleans texts, for which ONNX has no operators; leave {path.name} out of "
            "export.formats, or choose an encoder without cleaning.json"
        )
    model = to_onnx(classifier, settings.onnx_opset, source.data_fingerprint)
    put_tokenizer_before(model, tokenizer, pairs=source.pairs)
    counts = operator_counts(model)
    path.mkdir()
    save_onnx(model, path / FILE)
    text = templates.render(
        Path(__file__).parent / "README_text.md.jinja",
        file=FILE,
        labels=classifier.labels,
        one_label=task_of(classifier.task).one_label,
        max_length=classifier.max_length,
        pairs=source.pairs,
    )
    write_text(path / "README.md", text)
    return Written(counts, f"{path.name}/{FILE} ({sum(counts.values())} operators, the tokenizer's among them)")


def load(path: Path, threads: int | None = None, allowed: Collection[str] = ()) -> tuple[Answer, ...]:
    """Inspects and loads an ONNX file; no operator of another domain can be allowed.

    Raises:
      InputError: it would do more than compute.
    """
    session = open_session(path / FILE, threads)

    def ask(requests: Requests) -> np.ndarray:
        inputs = {"text": _strings(requests.texts)}
        if requests.text_pairs is not None:
            inputs["text_pair"] = _strings(requests.text_pairs)
        return session.run(["logits"], inputs)[0]

    return (Answer("onnx_text", True, ask),)


def kernels(path: Path) -> dict[str, np.ndarray]:
    """Reads the encoder's kernels, float or as codes: [in, out] each."""
    return kernels_of(path / FILE)


def size_bytes(path: Path) -> int:
    """Gives the bytes of the ONNX file and of the weights beside it, which a runtime loads."""
    return sum(file.stat().st_size for file in path.glob(f"{FILE}*"))


def _strings(texts: Texts) -> np.ndarray:
    """Prepares texts for ONNX Runtime, [batch] str; the tokenizer drops the replacements of invalid UTF-8."""
    return np.array([text if isinstance(text, str) else text.decode(errors="replace") for text in texts], object)
