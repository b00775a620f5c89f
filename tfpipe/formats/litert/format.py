"""LiteRT files in folders with the tokenizer beside them. They answer by token ids.

A variant of 8 bits keeps its weights as they are: kernels of 8 bits per channel, embeddings of 8 bits per row. Its
activations are another matter. The other formats round them within the ranges that the variant was trained with. LiteRT
has no product of such an input and a float result: it rounds each row within the row's own range, when it runs. So its
answers are farther from those of the Keras model, and `Format.int8_slack` says how far they may be. Kernels of 7 bits
(`quantize.reduce_range`) are rounded once more, to LiteRT's 8.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfpipe.console import native_output_hidden
from tfpipe.encoders.architecture import INFERENCE_INPUTS
from tfpipe.errors import InputError
from tfpipe.formats.base import Answer, Requests, Source, Written
from tfpipe.formats.litert.flatbuffer import kernels_of, operators_of

if TYPE_CHECKING:
    from tfpipe.config.export import Export

FILE = "model.tflite"


def write(source: Source, path: Path, settings: Export) -> Written:
    """Writes a file of LiteRT's built-in operators alone, and the files that its users need beside it.

    Raises:
      InputError: the converter refuses the model.
    """
    # These need TensorFlow, and a file is answered without it.
    from tfpipe.formats.folder import write_folder
    from tfpipe.formats.litert.convert import converted

    classifier, length = source.classifier, settings.litert.length
    path.mkdir()
    (path / FILE).write_bytes(converted(classifier, length))
    operators = operators_of(path / FILE)
    write_folder(source, path, Path(__file__).parent / "README.md.jinja", {}, file=FILE, length=length)
    return Written(operators, f"{path.name}/{FILE} ({sum(operators.values())} operators, all of LiteRT's own)")


def load(path: Path, threads: int | None = None, allowed: Collection[str] = ()) -> tuple[Answer, ...]:
    """Inspects and loads a file; an operator that is not LiteRT's own can't be allowed.

    Raises:
      InputError: it is damaged, or would do more than compute.
    """
    file = path / FILE
    operators_of(file)
    try:
        interpreter = Interpreter(str(file), num_threads=threads or os.cpu_count())  # None would be one thread
        signature = interpreter.get_signature_runner("serving_default")
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{file}: can't be loaded ({' '.join(str(error).split())[:300]}); export it again") from error
    details = signature.get_input_details()
    places = {name: details[name]["index"] for name in INFERENCE_INPUTS}
    fixed = int(details["input_ids"]["shape_signature"][1])
    logits = signature.get_output_details()["logits"]["index"]

    allocated: list[tuple[int, ...]] = []  # the shape of the last call: the next of that shape finds its tensors

    def run(tokens: dict[str, np.ndarray]) -> np.ndarray:
        if allocated != [tokens["input_ids"].shape]:
            for place in places.values():
                interpreter.resize_tensor_input(place, tokens["input_ids"].shape)
            with native_output_hidden():  # it tells of the delegate that it has made
                interpreter.allocate_tensors()
            allocated[:] = [tokens["input_ids"].shape]
        for name, place in places.items():
            interpreter.set_tensor(place, tokens[name])
        interpreter.invoke()
        return interpreter.get_tensor(logits)

    def ask(requests: Requests) -> np.ndarray:
        if fixed < 0:
            return run(requests.tokens)
        padding = ((0, 0), (0, fixed - requests.tokens["input_ids"].shape[1]))
        padded = {name: np.pad(requests.tokens[name], padding) for name in INFERENCE_INPUTS}
        rows = [run({name: value[row : row + 1] for name, value in padded.items()}) for row in range(len(requests))]
        return np.concatenate(rows)

    return (Answer("litert", False, ask, None if fixed < 0 else fixed),)


def kernels(path: Path) -> dict[str, np.ndarray]:
    """Reads the encoder's kernels, float or as codes: [out, in] each."""
    return kernels_of(path / FILE)


def size_bytes(path: Path) -> int:
    """Gives the bytes of the file, which a runtime loads."""
    return (path / FILE).stat().st_size
