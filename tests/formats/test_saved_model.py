"""SavedModels: their signatures, what they answer, and that they load with TensorFlow alone."""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, classifier_of, tiny_vocabulary, tiny_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tfpipe.encoders.architecture import Architecture
from tfpipe.formats.saved_model import format as saved_model_format
from tfpipe.formats.saved_model.served import ServedClassifier, save_saved_model
from tfpipe.model.classifier import Classifier, coded_model, float_model
from tfpipe.tasks import split_labels, task_of
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

STAGES = {"dense": "train", "pruned": "prune", "int8": "quantize"}
TOKENS = ("input_ids", "attention_mask", "token_type_ids")
TEXTS = ["This film was great", "so the plot is very dull and cold and bad", "¡ünknown ½ words!", "", "a"]


def path_of(run: Path, variant: str) -> Path:
    return run / "export" / variant / "saved_model"


@pytest.fixture(scope="module")
def loaded(tiny_run):
    return {variant: tf.saved_model.load(str(path_of(tiny_run[1], variant))) for variant in STAGES}


@pytest.fixture(scope="module")
def keras_models(tiny_run):
    return {variant: float_model(classifier_of(tiny_run[1], variant)) for variant in STAGES}


def by_text(model, *columns: list[str]) -> dict[str, np.ndarray]:
    inputs = {name: tf.constant(value, tf.string) for name, value in zip(("text", "text_pair"), columns, strict=False)}
    return {name: value.numpy() for name, value in model.signatures["serving_default"](**inputs).items()}


def by_tokens(model, batch) -> dict[str, np.ndarray]:
    inputs = {name: tf.constant(batch[name], tf.int32) for name in TOKENS}
    return {name: value.numpy() for name, value in model.signatures["tokens"](**inputs).items()}


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys() == {"logits", "probabilities", "label"}
    assert np.abs(first["logits"] - second["logits"]).max() <= 1e-5
    assert np.abs(first["probabilities"] - second["probabilities"]).max() <= 1e-5
    assert first["label"].tolist() == second["label"].tolist()


def tokenized(tokenizer: Tokenizer, *columns: list[str]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in tokenizer.dense(*(tf.constant(each) for each in columns)).items()}


@pytest.mark.parametrize("variant", STAGES)
def test_signatures(loaded, variant):
    signatures = loaded[variant].signatures
    assert set(signatures) == {"serving_default", "tokens", "classify"}
    _, inputs = signatures["classify"].structured_input_signature
    assert {name: spec.dtype for name, spec in inputs.items()} == {"text": tf.string}
    assert {
        key: (spec.shape.as_list(), spec.dtype) for key, spec in signatures["classify"].structured_outputs.items()
    } == {
        "classes": ([None, 2], tf.string),
        "scores": ([None, 2], tf.float32),
    }
    expected = {
        "serving_default": {"text": ([None], tf.string)},
        "tokens": {name: ([None, None], tf.int32) for name in TOKENS},
    }
    for name, inputs in expected.items():
        _, specs = signatures[name].structured_input_signature
        assert {key: (spec.shape.as_list(), spec.dtype) for key, spec in specs.items()} == inputs
        outputs = signatures[name].structured_outputs
        assert {key: (spec.shape.as_list(), spec.dtype) for key, spec in outputs.items()} == {
            "logits": ([None, 2], tf.float32),
            "probabilities": ([None, 2], tf.float32),
            "label": ([None], tf.string),
        }


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("variant", STAGES)
def test_answers_equal_those_of_keras(tiny_run, loaded, keras_models, variant, batch_size):
    table = TokenTable.open(tiny_run[1] / "prepare" / "test")
    for start in range(0, 48, batch_size * (1 if batch_size > 1 else 12)):
        rows = np.arange(start, start + batch_size)
        batch = table.padded(rows)
        expected = keras_models[variant]({name: batch[name] for name in TOKENS}, training=False).numpy()
        found = by_tokens(loaded[variant], batch)
        assert np.abs(found["logits"] - expected).max() <= 1e-5
        assert np.abs(found["probabilities"] - task_of("single_label").probabilities(expected)).max() <= 1e-5
        names = np.array([b"negative", b"positive"], object)
        assert found["label"].tolist() == names[expected.argmax(1)].tolist()


def test_text_answers_as_tokens_do(tiny_run, loaded):
    _, run = tiny_run
    table = TokenTable.open(run / "prepare" / "test")
    rows = np.arange(24)
    batch = table.padded(rows)
    assert_same(by_text(loaded["dense"], table.texts(rows)), by_tokens(loaded["dense"], batch))
    tokenizer = Tokenizer(TokenizerSettings.read(run / "train"), 32)
    long = [*TEXTS, "a very long story " * 40]
    ids = tokenized(tokenizer, long)
    assert ids["input_ids"].shape == (6, 32)  # cut at max_length
    assert_same(by_text(loaded["dense"], long), by_tokens(loaded["dense"], ids))


def test_the_run_labels_its_texts(tiny_run, loaded):
    """End to end: what was learned from the CSV comes out by name."""
    texts = ["this film was so good and great", "the plot is very awful and dull"]
    assert by_text(loaded["int8"], texts)["label"].tolist() == [b"positive", b"negative"]


def test_a_batch_is_padded_to_its_own_longest_row(loaded):
    """A short text alone answers as it does beside a long one: padding and the batch leave no trace."""
    together = by_text(loaded["dense"], TEXTS)
    alone = [by_text(loaded["dense"], [text]) for text in TEXTS]
    assert np.abs(together["logits"] - np.concatenate([each["logits"] for each in alone])).max() <= 1e-5
    assert together["label"].tolist() == [each["label"][0] for each in alone]


def test_an_empty_batch_of_tokens_gets_an_empty_answer(loaded):
    found = by_tokens(loaded["dense"], dict.fromkeys(TOKENS, np.zeros((0, 5), np.int32)))
    assert found["logits"].shape == found["probabilities"].shape == (0, 2) and found["label"].shape == (0,)


@pytest.mark.parametrize("variant", STAGES)
def test_an_empty_batch_of_texts_gets_an_empty_answer(loaded, variant):
    """As TF Serving's clients send it; texts that are empty are texts."""
    found = by_text(loaded[variant], [])
    assert found["logits"].shape == found["probabilities"].shape == (0, 2) and found["label"].shape == (0,)
    for texts in ([""], ["", "", ""]):
        rows = {name: [row] * len(texts) for name, row in zip(TOKENS, ([2, 3], [1, 1], [0, 0]), strict=True)}
        assert_same(by_text(loaded[variant], texts), by_tokens(loaded[variant], rows))


@pytest.mark.parametrize("variant", ["dense", "int8"])
def test_it_loads_with_tensorflow_alone(tiny_run, loaded, variant):
    """As a server does: no Keras, no tfpipe, in a process of its own."""
    script = """
        import json, sys
        import tensorflow as tf
        import tensorflow_text
        model = tf.saved_model.load(sys.argv[1])
        answer = model.signatures["serving_default"](text=tf.constant(json.loads(sys.argv[2])))
        kept = sorted(name for name in sys.modules if name.split(".")[0] in ("tf_keras", "tfpipe"))
        print(json.dumps({"logits": answer["logits"].numpy().tolist(), "imported": kept,
                          "label": [label.decode() for label in answer["label"].numpy()]}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path_of(tiny_run[1], variant)), json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        cwd="/",
        env={name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["imported"] == []
    expected = by_text(loaded[variant], TEXTS)
    assert np.abs(np.array(answer["logits"]) - expected["logits"]).max() <= 1e-5
    assert answer["label"] == [label.decode() for label in expected["label"]]


@pytest.mark.parametrize("variant", STAGES)
def test_classify_names_each_probability(loaded, variant):
    for texts in (TEXTS, TEXTS[:1], []):
        found = loaded[variant].signatures["classify"](text=tf.constant(texts, tf.string))
        assert found["classes"].numpy().tolist() == [[b"negative", b"positive"]] * len(texts)
        assert (
            np.abs(found["scores"].numpy() - by_text(loaded[variant], texts)["probabilities"]).max(initial=0.0) <= 1e-6
        )


def small_classifier(task: str, labels: tuple[str, ...]) -> Classifier:
    config = TINY | {"vocab_size": len(tiny_vocabulary()), "num_hidden_layers": 1}
    random = np.random.default_rng(0)
    weights = {f"bert.{name}": value for name, value in tiny_weights(config).items()} | {
        "classifier.weight": random.normal(size=(len(labels), config["hidden_size"])).astype(np.float32),
        "classifier.bias": np.zeros(len(labels), np.float32),
    }
    return Classifier(Architecture.from_dict(config), labels, task, 32, weights, {})


@pytest.fixture(scope="module")
def tokenizer(tiny_run) -> Tokenizer:
    return Tokenizer(TokenizerSettings.read(tiny_run[1] / "prepare" / "tokenizer"), 32)


def save(classifier: Classifier, tokenizer: Tokenizer, directory: Path, *, pairs: bool):
    save_saved_model(ServedClassifier(float_model(classifier), classifier, tokenizer, pairs=pairs), directory)
    return tf.saved_model.load(str(directory))


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ((-1, -1, -1, -1), ""),
        ((1, -1, -1, -1), "sad"),
        ((-1, -1, -1, 1), "größe"),
        ((-1, 1, 1, -1), "not funny|warm"),
        ((1, -1, -1, 1), "sad|größe"),
        ((1, 1, 1, 1), "sad|not funny|warm|größe"),
    ],
)
def test_multi_label_names(multi_label, signs, expected):
    model, bias = multi_label
    bias.assign(np.array(signs, np.float32) * 100.0)
    found = by_text(model, TEXTS)
    assert [label.decode() for label in found["label"]] == [expected] * len(TEXTS)
    assert (found["probabilities"].round() == (np.array(signs) > 0)).all()


def test_multi_label_rows_differ(multi_label):
    model, bias = multi_label
    bias.assign(np.zeros(4, np.float32))
    found = by_text(model, TEXTS)
    assert by_text(model, [])["logits"].shape == (0, 4) and by_text(model, [])["label"].shape == (0,)
    names = np.array(["sad", "not funny", "warm", "größe"])
    assert [label.decode() for label in found["label"]] == ["|".join(names[row > 0]) for row in found["logits"]]
    assert np.abs(found["probabilities"] - task_of("multi_label").probabilities(found["logits"])).max() <= 1e-6


LABEL_NAMES = st.lists(
    st.one_of(
        st.text("ab|\\\\", min_size=1, max_size=4), st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
    ),
    min_size=2,
    max_size=5,
    unique=True,
)


@settings(deadline=None, max_examples=150)
@given(LABEL_NAMES, st.sampled_from(["single_label", "multi_label"]))
def test_the_graph_names_labels_as_numpy_does(names, task):
    """Of each subset of any names."""
    subsets = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=len(names))), np.float32)
    logits = np.concatenate([subsets, subsets * np.linspace(0.5, 1.5, len(names), dtype=np.float32)])
    found = [each.decode() for each in tf.function(task_of(task).graph_label)(tf.constant(logits), names).numpy()]
    assert found == task_of(task).label_texts(logits, names)
    if task == "multi_label":
        chosen = [[name for name, value in zip(names, row, strict=True) if value > 0] for row in logits]
        assert [split_labels(each) for each in found] == chosen


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_a_saved_model_tells_its_task_and_labels(tokenizer, tmp_path, task):
    names = ("a", "b", "a|b", "c||d", "|e", "\\\\", "größe|")
    model = save(small_classifier(task, names), tokenizer, tmp_path, pairs=False)
    about = model.about()
    assert about["task"].numpy().decode() == task
    assert [name.decode() for name in about["labels"].numpy()] == list(names)
    found = by_text(model, TEXTS)
    assert [label.decode() for label in found["label"]] == task_of(task).label_texts(found["logits"], names)
    named = model.signatures["classify"](text=tf.constant(TEXTS))
    assert [[name.decode() for name in row] for row in named["classes"].numpy()] == [list(names)] * len(TEXTS)
    assert np.abs(named["scores"].numpy() - found["probabilities"]).max() <= 1e-6


@pytest.fixture(scope="module")
def multi_label(tokenizer, tmp_path_factory):
    """A loaded SavedModel, and the bias of its head, which decides the labels."""
    classifier = small_classifier("multi_label", ("sad", "not funny", "warm", "größe"))
    model = save(classifier, tokenizer, tmp_path_factory.mktemp("multi"), pairs=False)
    return model, model.weights["classifier.bias"]


def test_pairs(tokenizer, tmp_path):
    classifier = small_classifier("single_label", ("no", "maybe", "yes"))
    model = save(classifier, tokenizer, tmp_path, pairs=True)
    _, specs = model.signatures["serving_default"].structured_input_signature
    assert {name: (spec.shape.as_list(), spec.dtype) for name, spec in specs.items()} == {
        "text": ([None], tf.string),
        "text_pair": ([None], tf.string),
    }
    others = list(reversed(TEXTS))
    ids = tokenized(tokenizer, TEXTS, others)
    assert ids["token_type_ids"].max() == 1
    found = by_text(model, TEXTS, others)
    assert_same(found, by_tokens(model, ids))
    named = model.signatures["classify"](text=tf.constant(TEXTS), text_pair=tf.constant(others))
    assert np.abs(named["scores"].numpy() - found["probabilities"]).max() <= 1e-6
    turned = by_text(model, others, TEXTS)
    assert np.abs(turned["logits"] - found["logits"]).max() > 1e-3
    assert by_text(model, [], [])["logits"].shape == (0, 3) and by_text(model, [""], [""])["logits"].shape == (1, 3)


def test_the_order_of_labels_is_that_of_the_logits(tokenizer, tmp_path):
    classifier = small_classifier("single_label", ("z", "a", "m"))
    for winner in range(3):
        bias = np.eye(3, dtype=np.float32)[winner] * 100.0
        chosen = replace(classifier, weights=classifier.weights | {"classifier.bias": bias})
        model = save(chosen, tokenizer, tmp_path / str(winner), pairs=False)
        assert by_text(model, ["a film"])["label"].tolist() == [classifier.labels[winner].encode()]
        if winner == 0:
            assert model.weights["classifier.bias"].shape == (3,)


def test_weights_are_stored_once_as_float32_or_as_codes(tiny_run):
    for variant in STAGES:
        reader = tf.train.load_checkpoint(str(path_of(tiny_run[1], variant) / "variables" / "variables"))
        types = reader.get_variable_to_dtype_map()
        stored = [name for name in types if name.startswith("weights/")]
        classifier = classifier_of(tiny_run[1], variant)
        assert len(stored) == len(classifier.weights)
        coded = {name for name in stored if types[name] == tf.int8}
        assert len(coded) == len(classifier.codes) and {types[name] for name in stored} <= {tf.float32, tf.int8}
        assert not [name for name in types if "kernel" in name or "optimizer" in name]


def test_no_weight_is_in_the_graph(tiny_run):
    """A constant is copied with each function, and TensorFlow computes float copies of codes ahead."""
    for variant in STAGES:
        content = (path_of(tiny_run[1], variant) / "saved_model.pb").read_bytes()
        for function in saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].graph_def.library.function:
            for node in function.node_def:
                if node.op == "Const":
                    tensor = node.attr["value"].tensor
                    elements = math.prod(each.size for each in tensor.tensor_shape.dim)
                    is_vocabulary = tensor.dtype == types_pb2.DT_STRING
                    assert is_vocabulary or elements < 2000 or "tokeniz" in function.signature.name, node.name


def test_two_int8_models_in_one_process_keep_to_themselves(tiny_run, tmp_path):
    """Their kernels are resources with names; a copy with other codes must not take them for its own."""
    classifier = classifier_of(tiny_run[1], "int8")
    source = tiny_run[1] / STAGES["int8"]
    tokenizer = Tokenizer(TokenizerSettings.read(source), classifier.max_length)
    name = next(iter(classifier.codes))
    other = replace(classifier, weights=classifier.weights | {name: -classifier.weights[name]})
    answers = []
    models = [save(each, tokenizer, tmp_path / str(at), pairs=False) for at, each in enumerate((classifier, other))]
    for model, each in zip((*models, *models), (classifier, other) * 2, strict=True):
        found = by_text(model, ["a good film"])["logits"]
        answers.append(found)
        tokens = {key: value.numpy() for key, value in tokenizer.dense(tf.constant(["a good film"])).items()}
        expected = float_model(each)(tokens, training=False).numpy()
        assert np.abs(found - expected).max() <= 1e-5
    assert np.abs(answers[0] - answers[1]).max() > 1e-4 and (answers[0] == answers[2]).all()


def test_an_int8_model_that_tfpipe_drops_leaves_memory(tiny_run):
    """The kernels that were computed when it was loaded go with it."""
    ways = saved_model_format.load(path_of(tiny_run[1], "int8"))
    loaded = next(cell for cell in ways[0].ask.__defaults__)
    handles = [each.resource_handle for each in loaded.decoded_kernels]
    assert handles and all(tf.raw_ops.VarIsInitializedOp(resource=each).numpy() for each in handles)
    del ways, loaded
    gc.collect()
    assert not any(tf.raw_ops.VarIsInitializedOp(resource=each).numpy() for each in handles)


@pytest.mark.parametrize("variant", ["dense", "int8"])
def test_a_signature_is_enough_to_ask(tiny_run, loaded, variant):
    """Programs often keep a signature alone, and not the model that it is of."""
    signature = tf.saved_model.load(str(path_of(tiny_run[1], variant))).signatures["serving_default"]
    gc.collect()
    found = signature(text=tf.constant(TEXTS))["logits"].numpy()
    assert np.array_equal(found, by_text(loaded[variant], TEXTS)["logits"])


@pytest.mark.parametrize("variant", STAGES)
def test_the_same_model_is_saved_as_the_same_bytes(tiny_run, tmp_path, variant):
    """Whatever the process has traced before: TensorFlow counts functions on, and adds a random number."""
    source = tiny_run[1] / STAGES[variant]
    classifier = classifier_of(tiny_run[1], variant)
    tokenizer = Tokenizer(TokenizerSettings.read(source), classifier.max_length)
    again = tmp_path / "again"
    save_saved_model(ServedClassifier(coded_model(classifier, loaded=True), classifier, tokenizer, pairs=False), again)
    files = [file.relative_to(again) for file in again.rglob("*") if file.is_file()]
    assert {"saved_model.pb", "fingerprint.pb"} < {str(file) for file in files}
    for file in files:
        assert (again / file).read_bytes() == (path_of(tiny_run[1], variant) / file).read_bytes(), file
    assert tf.saved_model.experimental.read_fingerprint(str(again)).saved_model_checksum
