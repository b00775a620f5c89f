"""The artefacts of a run, each as something that answers: the same rows in, logits out.

Four per variant: `keras` (the float32 mask form, the reference), `saved_model` (by tokens), `saved_model_text` (by raw
text), `onnx`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
from onnx import numpy_helper
from tensorflow.core.protobuf import saved_model_pb2

from tfpipe.encoders.parameters import is_prunable, sparsity_of, stored_layer
from tfpipe.formats.onnx.inspection import inspect_onnx
from tfpipe.formats.saved_model.inspection import load_saved_model
from tfpipe.model.bert import MASK_FORM_INPUTS
from tfpipe.model.classifier import QUANTIZATION_FILE, WEIGHTS_FILE, Classifier, float_model
from tfpipe.model.layers import CODES
from tfpipe.tokens.table import TokenTable

KINDS = ("keras", "saved_model", "saved_model_text", "onnx")


@dataclass(frozen=True)
class Batch:
    """Rows to answer, in both forms."""

    tokens: dict[str, np.ndarray]
    """`input_ids, attention_mask, token_type_ids`, [batch, length] int32"""
    texts: list[str] | list[bytes]
    text_pairs: list[str] | list[bytes] | None


Answer = Callable[[Batch], np.ndarray]


@dataclass(frozen=True)
class Artifact:
    """One artefact, loaded."""

    variant: str
    kind: str
    path: Path
    """file or directory on disk"""
    size_bytes: int
    sparsity: float
    """share of zeros in the encoder's kernels, counted in the file"""
    parameters: int
    """of the classifier, embeddings included"""
    longest: int
    """most tokens that it takes; raw text is cut there"""
    answer: Answer
    """a batch -> logits [batch, labels] float32"""


def load_artifacts(
    variant: str, classifier: Classifier, source: Path, exported: Path, threads: int | None
) -> list[Artifact]:
    """Loads the four artefacts of a variant, each from its own files.

    Args:
      variant: `dense`, `distilled`, `pruned` or `int8`.
      classifier: read from `source`.
      source: directory of the stage that made the variant.
      exported: directory of its `saved_model/` and `model.onnx`.
      threads: of ONNX Runtime; None: all processors.
    """
    saved_model, onnx_file = exported / "saved_model", exported / "model.onnx"
    by_tokens, by_text = saved_model_answers(saved_model)

    def size(*files: Path) -> int:
        return sum(file.stat().st_size for file in files if file.is_file())

    def artifact(kind: str, path: Path, size_bytes: int, sparsity: float, answer) -> Artifact:
        longest = classifier.max_length if kind == "saved_model_text" else positions
        return Artifact(variant, kind, path, size_bytes, sparsity, parameters, longest, answer)

    parameters = sum(weight.size for weight in classifier.weights.values())
    positions = classifier.architecture.max_position_embeddings
    in_onnx = onnx_kernels(onnx_file)
    beside = onnx_file.with_name(f"{onnx_file.name}.data")  # where one file would be too large
    weights, quantization = source / WEIGHTS_FILE, source / QUANTIZATION_FILE
    saved = (saved_model, size(*saved_model.rglob("*")), sparsity_of(saved_model_kernels(saved_model)))
    return [
        artifact("keras", weights, size(weights, quantization), sparsity_of(classifier.weights), _keras(classifier)),
        artifact("saved_model", *saved, by_tokens),
        artifact("saved_model_text", *saved, by_text),
        artifact("onnx", onnx_file, size(onnx_file, beside), sparsity_of(in_onnx), onnx_answer(onnx_file, threads)),
    ]


def batches_of(table: TokenTable, rows: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Cuts rows into batches of similar length, each padded to its own longest row.

    Args:
      table: where the rows are.
      rows: [n] int64, which.
      batch_size: rows a batch; the last may be shorter.

    Yields:
      The batch's rows, and the batch.
    """
    ordered = rows[np.argsort(table.lengths[rows], kind="stable")]
    for start in range(0, len(ordered), batch_size):
        chunk = ordered[start : start + batch_size]
        pairs = table.text_pairs(chunk)
        yield (
            chunk,
            Batch(
                table.padded(chunk),
                table.texts(chunk),
                None if pairs[0] is None else [pair or "" for pair in pairs],
            ),
        )


def _keras(classifier: Classifier) -> Answer:
    model = float_model(classifier)
    function = tf.function(
        lambda tokens: model(tokens, training=False),
        input_signature=[{name: tf.TensorSpec([None, None], tf.int32, name) for name in MASK_FORM_INPUTS}],
    )
    return lambda batch: function({name: tf.constant(value) for name, value in batch.tokens.items()}).numpy()


def saved_model_answers(directory: Path) -> tuple[Answer, Answer]:
    """How a SavedModel answers: by token ids, and by raw text."""
    loaded = load_saved_model(directory)
    tokens, text = loaded.signatures["tokens"], loaded.signatures["serving_default"]

    def by_tokens(batch: Batch, loaded=loaded) -> np.ndarray:  # the signatures do not keep alive what they run on
        return tokens(**{name: tf.constant(value) for name, value in batch.tokens.items()})["logits"].numpy()

    def by_text(batch: Batch, loaded=loaded) -> np.ndarray:
        pairs = {} if batch.text_pairs is None else {"text_pair": tf.constant(batch.text_pairs)}
        return text(text=tf.constant(batch.texts), **pairs)["logits"].numpy()

    return by_tokens, by_text


def onnx_answer(path: Path, threads: int | None) -> Answer:
    """How an ONNX file answers: a batch -> logits [batch, labels] float32.

    Args:
      path: the file.
      threads: of ONNX Runtime; None: all processors.
    """
    inspect_onnx(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    # Or its threads would go on spinning after a call, and slow down whatever is called next: another artefact here.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(
        ["logits"], {name: value.astype(np.int64) for name, value in batch.tokens.items()}
    )[0]


def onnx_kernels(path: Path) -> dict[str, np.ndarray]:
    """The encoder's kernels as they are in an ONNX file, float or as codes: [in, out] each."""
    tensors = {tensor.name.removesuffix(".codes"): tensor for tensor in onnx.load(str(path)).graph.initializer}
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items() if is_prunable(name)}


def saved_model_kernels(directory: Path) -> dict[str, np.ndarray]:
    """The encoder's kernels as they are in a SavedModel, variables or constants of codes: [in, out] each."""
    reader = tf.train.load_checkpoint(str(directory / "variables" / "variables"))
    found = {}
    for key in reader.get_variable_to_shape_map():
        # A checkpoint writes each dot of a name twice.
        name = key.removeprefix("weights/").removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").replace("..", ".")
        if is_prunable(name):
            found[name] = reader.get_tensor(key)
    saved_model = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    for function in saved_model.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            *_, layer, last = ("", *node.name.split("/"))
            name = f"{stored_layer(layer)}.weight"
            if node.op == "Const" and last == CODES and is_prunable(name):
                found[name] = tf.make_ndarray(node.attr["value"].tensor)
    return found
