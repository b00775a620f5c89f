"""Every way to compress, as SavedModel and as ONNX: the same answers, and in the files what was promised of them."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from variants import NAMES, compressed

from tfpipe.artifacts import formats_named
from tfpipe.encoders.architecture import INFERENCE_INPUTS
from tfpipe.formats.onnx.folder import graph_file, new_graph_file
from tfpipe.formats.onnx_graph.convert import to_onnx
from tfpipe.formats.onnx_graph.file import save_onnx
from tfpipe.formats.saved_model.served import ServedClassifier, save_saved_model
from tfpipe.formats.saved_model.serving_check import check_saved_model
from tfpipe.model.classifier import coded_model, float_model, load_classifier
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings


@pytest.fixture(scope="module", params=NAMES)
def exported(request, tiny_run, tmp_path_factory):
    """A compressed classifier and its two files."""
    _, run = tiny_run
    classifier = compressed(load_classifier(run / "train"), request.param)
    directory = tmp_path_factory.mktemp("exported")
    tokenizer = Tokenizer(TokenizerSettings.read(run / "train"), classifier.max_length)
    save_saved_model(
        ServedClassifier(coded_model(classifier, loaded=True), classifier, tokenizer, pairs=False),
        directory / "saved_model",
    )
    save_onnx(to_onnx(classifier, 17), new_graph_file(classifier, directory / "onnx"))
    return request.param, classifier, directory


@pytest.mark.parametrize("batch_size", [1, 16])
def test_both_answer_like_keras(exported, tiny_run, batch_size):
    name, classifier, directory = exported
    model = float_model(classifier)
    loaded = tf.saved_model.load(str(directory / "saved_model"))
    session = onnxruntime.InferenceSession(str(graph_file(directory / "onnx")), providers=["CPUExecutionProvider"])
    table = TokenTable.open(tiny_run[1] / "prepare" / "test")
    # A sum in another order may fall to the other side of a border. Behind 8-bit weights alone, ONNX Runtime rounds
    # activations in blocks of its own (MatMulNBits).
    rounded = [bool(classifier.ranges)] * 2 + [name not in ("structured", "two_four", "embeddings")]
    for start in range(0, 48, 16):
        rows = np.arange(start, start + batch_size)
        batch = table.padded(rows)
        expected = model({key: batch[key] for key in INFERENCE_INPUTS}, training=False).numpy()
        by_tokens = loaded.signatures["tokens"](**{key: tf.constant(batch[key]) for key in INFERENCE_INPUTS})
        by_text = loaded.signatures["serving_default"](text=tf.constant(table.texts(rows)))
        by_onnx = session.run(["logits"], {key: batch[key].astype(np.int64) for key in INFERENCE_INPUTS})[0]
        found = (by_tokens["logits"].numpy(), by_text["logits"].numpy(), by_onnx)
        margin = np.abs(expected[:, 0] - expected[:, 1])
        for logits, loose in zip(found, rounded, strict=True):
            tolerance = 0.1 if loose else 1e-4
            assert np.abs(logits - expected).max() <= tolerance, name
            certain = margin > 2 * tolerance  # two logits that are nearer may change places
            assert np.array_equal(logits.argmax(1)[certain], expected.argmax(1)[certain]), name


def test_the_files_hold_what_was_promised(exported):
    """Counted in the files: zeros, pattern, 8-bit codes, removed heads and columns."""
    name, classifier, directory = exported
    expected = {key: value for key, value in classifier.weights.items() if key.startswith("bert.encoder.")}
    expected = {key: value for key, value in expected.items() if key.endswith(".weight") and value.ndim == 2}
    for kernels in (each.code.kernels(directory / each.path) for each in formats_named(("saved_model", "onnx"))):
        assert kernels.keys() == expected.keys()
        for kernel, stored in kernels.items():
            if kernel in classifier.codes:
                assert stored.dtype == np.int8 and np.array_equal(stored.T, classifier.codes[kernel][0])
            else:
                assert stored.dtype == np.float32 and np.array_equal(stored.T, expected[kernel])
            if name == "two_four":
                assert ((stored.T.reshape(stored.shape[1], -1, 4) == 0).sum(axis=2) == 2).all()
            if name.startswith("structured") and ".1." in kernel:
                assert {*stored.shape} <= {8, 17, 32}
    check_saved_model(directory / "saved_model", "2.20.0")


def test_int8_weights_are_stored_once(exported):
    """As codes, among the variables; the float kernels are made when the model is loaded."""
    _name, classifier, directory = exported
    graph = (directory / "saved_model" / "saved_model.pb").read_bytes()
    reader = tf.train.load_checkpoint(str(directory / "saved_model" / "variables" / "variables"))
    stored = sum(tf.as_dtype(each).size * math.prod(shape) for each, shape in _variables(reader))
    expected = sum(each.size * (1 if name in classifier.codes else 4) for name, each in classifier.weights.items())
    assert stored == expected
    for weight, (codes, _) in classifier.codes.items():
        own = codes if "embeddings" in weight else codes.T
        key = f"weights/{weight.replace('.', '..')}/.ATTRIBUTES/VARIABLE_VALUE"
        assert np.array_equal(reader.get_tensor(key), own) and own.dtype == np.int8
        assert graph.count(np.ascontiguousarray(own).tobytes()) == 0, weight


def _variables(reader):
    types = reader.get_variable_to_dtype_map()
    return [(types[key], shape) for key, shape in reader.get_variable_to_shape_map().items() if types[key] != tf.string]
