"""SavedModels without texts: what loads them, what they answer, and a run that writes them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from conftest import classifier_of, predict, tiny_config
from tensorflow_serving.apis import prediction_log_pb2
from transformers import AutoTokenizer

from tfpipe import artifacts, pipeline
from tfpipe.config.export import Export
from tfpipe.errors import GateError, InputError
from tfpipe.evaluate import golden
from tfpipe.evaluate.loaded import load_artifacts
from tfpipe.formats.base import Source
from tfpipe.formats.saved_model import format as texts_format
from tfpipe.formats.saved_model import tokens_format
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools import replay

FORMAT = artifacts.format_named("saved_model_tokens")
IDS = {"input_ids": [[2, 120, 119, 3]], "attention_mask": [[1, 1, 1, 1]], "token_type_ids": [[0, 0, 0, 0]]}


@pytest.fixture(scope="module")
def int8(tiny_run, tmp_path_factory) -> Path:
    """The 8-bit classifier of the tiny run, with golden requests."""
    run, path = tiny_run[1], tmp_path_factory.mktemp("tokens") / "saved_model_tokens"
    classifier = classifier_of(run, "int8")
    tokenizer, rows = Tokenizer(TokenizerSettings.read(run / "quantize"), 32), TokenTable.open(run / "prepare" / "test")
    written = tokens_format.write(Source(classifier, tokenizer, rows, False, ""), path, Export())
    assert "none of tensorflow-text" in written.said and written.operators < 60
    golden.record(FORMAT, path, golden.golden_requests(rows, tokenizer, pairs=False), classifier, "int8")
    return path


OURS = ("PYTHONPATH", "TF_USE_LEGACY_KERAS")
"""what a process of a user has not"""


def ran(code: str, directory: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = [sys.executable, "-c", code] if "import" in code else ["bash", "-c", code]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_answers_without_tensorflow_text(tiny_run, int8):
    """In a process of its own; equal logits."""
    code = f"""
import json, sys
import tensorflow as tf
model = tf.saved_model.load(".")
(name,) = model.signatures
answer = model.signatures[name](**{{name: tf.constant(ids) for name, ids in json.loads('{json.dumps(IDS)}').items()}})
about = model.about()
loaded = sorted(each for each in sys.modules if each.split(".")[0] in ("tensorflow_text", "tf_keras", "tfpipe"))
labels, label = ([each.decode() for each in names.numpy()] for names in (about["labels"], answer["label"]))
logits, probabilities = (answer[each].numpy().tolist() for each in ("logits", "probabilities"))
print(json.dumps([name, logits, label, probabilities, labels, loaded]))
"""
    name, logits, label, probabilities, labels, loaded = json.loads(ran(code, int8).splitlines()[-1])
    with_texts = tf.saved_model.load(str(tiny_run[1] / "export" / "int8" / "saved_model"))
    expected = with_texts.signatures["tokens"](**{each: tf.constant(ids) for each, ids in IDS.items()})
    assert (name, labels, loaded) == ("serving_default", ["negative", "positive"], [])
    assert np.array_equal(np.array(logits, np.float32), expected["logits"])
    assert np.array_equal(np.array(probabilities, np.float32), expected["probabilities"])
    assert [label[0].encode()] == expected["label"].numpy().tolist()


def test_its_readme_runs(int8):
    text = (int8 / "assets.extra" / "README.md").read_text(encoding="utf-8")
    python, command = re.findall(r"^```(?:python|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert re.search(r"\[b'negative' b'positive'\] \[\[0\.\d+ +0\.\d+ *\]\]", ran(python, int8))
    assert re.search(r"key label:\n\[b'(negative|positive)'\]", ran(command, int8))
    assert "tensorflow_text" not in python + command


def logits_of(directory: Path) -> np.ndarray:
    signature = tf.saved_model.load(str(directory)).signatures["serving_default"]
    return signature(**{name: tf.constant(rows, tf.int32) for name, rows in IDS.items()})["logits"].numpy()


def test_openvino_reads_it(int8):
    """Converters know the graph and the variables of a SavedModel, and nothing that it computes when it is loaded."""
    openvino = pytest.importorskip("openvino")
    compiled = openvino.compile_model(openvino.convert_model(str(int8)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({name: np.array(rows, np.int32) for name, rows in IDS.items()})
    assert any(np.shape(each) == (1, 2) and np.abs(each - logits_of(int8)).max() < 1e-3 for each in found.values())


def test_tf2onnx_reads_it(int8, tmp_path):
    file = tmp_path / "model.onnx"
    ran(f"python -m tf2onnx.convert --saved-model {int8} --output {file} --opset 17", tmp_path)
    session = onnxruntime.InferenceSession(str(file))
    (found,) = session.run(["logits"], {name: np.array(rows, np.int32) for name, rows in IDS.items()})
    assert np.abs(found - logits_of(int8)).max() < 1e-3


def test_its_extras_are_a_tokenizer_and_warm_up_requests(int8):
    extras = int8 / "assets.extra"
    tokenizer = AutoTokenizer.from_pretrained(extras)
    assert tokenizer.model_max_length == 32 and json.loads((extras / "config.json").read_text())["model_type"] == "bert"
    model = tf.saved_model.load(str(int8))
    for record in tf.data.TFRecordDataset(str(extras / "tf_serving_warmup_requests")):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        answer = model.signatures[request.model_spec.signature_name](**inputs)
        assert answer["logits"].shape == (len(inputs["input_ids"]), 2)


def test_it_is_smaller_and_has_the_same_kernels(tiny_run, int8):
    with_texts = tiny_run[1] / "export" / "int8" / "saved_model"
    kernels, expected = tokens_format.kernels(int8), texts_format.kernels(with_texts)
    assert kernels.keys() == expected.keys() and kernels
    assert all(np.array_equal(kernels[name], each) for name, each in expected.items())
    assert (int8 / "saved_model.pb").stat().st_size < (with_texts / "saved_model.pb").stat().st_size / 2


def test_replay_asks_each_of_the_two_by_its_own_requests(tiny_run, int8, capsys):
    """Both have a saved_model.pb."""
    for directory, expected in (
        (int8, ["saved_model_tokens"]),
        (tiny_run[1] / "export" / "int8" / "saved_model", ["saved_model", "saved_model_text"]),
    ):
        assert artifacts.format_in(directory).name == expected[0]
        replay.run(directory)
        printed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
        assert [each for each in printed if each in ("saved_model", "saved_model_text", "saved_model_tokens")] == [
            each for each in expected for _ in replay.BATCH_SIZES
        ]


def test_predict_says_that_it_takes_no_text(int8):
    with pytest.raises(InputError, match="no signature serving_default that takes text"):
        list(predict(int8, ["a film"]))


def test_a_run_writes_measures_and_publishes_it(tiny_run, tiny_reviews, tiny_encoder, tmp_path):
    """The dense classifier of the tiny run, taken over; nothing is trained."""
    formats = ["saved_model", "saved_model_tokens"]
    config = tiny_config(
        tiny_reviews,
        tiny_encoder,
        prune=None,
        quantize=None,
        distill=None,
        export__formats=formats,
        budget__artifact="saved_model_tokens",
    )
    run = RunDirectory(tmp_path / "run")
    pipeline.run(config, run, others=[RunDirectory(tiny_run[1])], until="publish")
    assert run.record("train").output == RunDirectory(tiny_run[1]).record("train").output
    rows = json.loads((run.path / "verify" / "parity.json").read_text())["artifacts"]
    (row,) = (row for row in rows if row["artifact"] == "saved_model_tokens")
    assert row["agrees"] and row["max_abs_logit_diff"] <= 1e-5 and row["latency_ms"]["b32_s64"] > 0
    published = run.path / "serving" / "saved_model_tokens" / "dense" / "1"
    assert sorted(path.name for path in published.iterdir()) == sorted(
        [*("assets", "assets.extra", "fingerprint.pb", "golden.jsonl", "saved_model.pb", "variables")]
    )
    assert "saved_model_tokens/dense/1/` | saved_model_tokens" in (run.path / "serving" / "README.md").read_text()
    (loaded,) = [
        artifact
        for ways in load_artifacts("dense", run.path / "train", run.path / "export" / "dense", formats, None)
        for artifact, _ in ways
        if artifact.format == "saved_model_tokens"
    ]
    assert loaded.longest == 64 and loaded.size_bytes == row["size_bytes"]
    replay.run(published)
    golden_file = published / "golden.jsonl"
    golden_file.write_text(
        golden_file.read_text().replace('"max_scaled_logit_diff": 0.0001', '"max_scaled_logit_diff": -1')
    )
    with pytest.raises(GateError, match="saved_model_tokens in batches of 1: max_scaled_logit_diff"):
        replay.run(published)
