"""What TF Serving gets: warm-up requests, its configuration, the README; and the SavedModel by TensorFlow's C API."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from tfpipe.evaluate import golden
from tfpipe.evaluate.calibration import calibration_of
from tfpipe.evaluate.serving_files import batching_parameters
from tfpipe.formats.saved_model import warmup
from tfpipe.model.classifier import float_model, load_classifier
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

STAGES = {"dense": "train", "pruned": "prune", "int8": "quantize"}
C_API = Path(__file__).parent / "c_api.py"


def published(tiny_run, variant="dense"):
    return tiny_run[1] / "serving" / variant / "1"


@pytest.fixture(scope="module")
def loaded(tiny_run):
    return tf.saved_model.load(str(published(tiny_run)))


@pytest.fixture(scope="module")
def requests(tiny_run):
    """Real rows and hard texts, the bytes of which no Python string could hold."""
    run = tiny_run[1]
    tokenizer = Tokenizer(TokenizerSettings.read(run / "train"), 32)
    return golden.golden_requests(TokenTable.open(run / "prepare" / "test"), tokenizer, pairs=False)


@pytest.mark.parametrize("variant", STAGES)
def test_the_c_api_answers_as_keras_does(tiny_run, requests, variant):
    """No Keras and no TensorFlow Python in that process: what a server has."""
    tokens = {name: value.tolist() for name, value in requests.tokens.items()}
    texts = [base64.b64encode(text).decode() for text in requests.texts]
    asked = [
        {"signature": "serving_default", "inputs": {"text": texts}},
        {"signature": "tokens", "inputs": tokens},
        {"signature": "serving_default", "inputs": {"text": texts[:1]}},
    ]
    site = Path(tf.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-I", str(C_API), str(site), str(published(tiny_run, variant))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    by_text, by_tokens, alone = json.loads(done.stdout)
    calibration = calibration_of(tiny_run[1] / "export", variant)
    classifier = load_classifier(tiny_run[1] / STAGES[variant]).calibrated(*calibration)
    expected = float_model(classifier)(requests.tokens, training=False).numpy()
    names = [classifier.labels[index] for index in expected.argmax(axis=1)]
    for answer in (by_text, by_tokens):
        assert answer["logits"]["shape"] == list(expected.shape)
        assert np.abs(np.reshape(answer["logits"]["values"], expected.shape) - expected).max() <= 1e-5
        assert answer["label"] == {"shape": [len(names)], "values": names}
        assert np.reshape(answer["probabilities"]["values"], expected.shape).sum(axis=1) == pytest.approx(1.0, abs=1e-6)
    assert np.abs(np.array(alone["logits"]["values"]) - expected[0]).max() <= 1e-5


def warmup_records(tiny_run, variant="dense"):
    file = published(tiny_run, variant) / "assets.extra" / "tf_serving_warmup_requests"
    return [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))
    ]


@pytest.mark.parametrize("variant", STAGES)
def test_warm_up_requests_can_be_run(tiny_run, variant):
    model = tf.saved_model.load(str(published(tiny_run, variant)))
    records = warmup_records(tiny_run, variant)
    assert 10 <= len(records) <= 1000  # more, and the server refuses the model
    seen = set()
    for record in records:
        assert record.WhichOneof("log_type") == "predict_log"
        request = record.predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        answer = model.signatures[request.model_spec.signature_name](**inputs)
        batch = len(next(iter(inputs.values())))
        assert answer["scores" if "scores" in answer else "logits"].shape == (batch, 2)
        seen.add((request.model_spec.signature_name, batch))
    both = {(name, size) for name in ("serving_default", "tokens") for size in (1, warmup.BATCH)}
    assert seen == both | {("classify", warmup.BATCH)}


def test_warm_up_covers_the_lengths_that_occur(tiny_run):
    table = TokenTable.open(tiny_run[1] / "prepare" / "test")
    by_ids = [r.predict_log.request for r in warmup_records(tiny_run) if "input_ids" in r.predict_log.request.inputs]
    lengths = [tf.make_ndarray(request.inputs["input_ids"]).shape[1] for request in by_ids[:-1]]
    assert min(lengths) == table.lengths.min() and max(lengths) == table.lengths.max()
    texts = set(table.texts(range(table.num_rows)))
    by_text = [r.predict_log.request for r in warmup_records(tiny_run) if "text" in r.predict_log.request.inputs]
    assert all(value.decode() in texts for request in by_text for value in tf.make_ndarray(request.inputs["text"]))


def test_a_grpc_request_survives_the_wire(loaded):
    texts = [b"a good film", b"caf\xe9 \xff"]  # a protobuf's bytes need not be UTF-8
    asked = warmup.predict_request("serving_default", {"text": texts})
    asked.model_spec.name = "tiny-dense"
    request = predict_pb2.PredictRequest.FromString(asked.SerializeToString())
    assert (request.model_spec.name, request.model_spec.signature_name) == ("tiny-dense", "serving_default")
    assert list(request.inputs["text"].string_val) == texts
    answer = loaded.signatures["serving_default"](text=tf.constant(tf.make_ndarray(request.inputs["text"])))
    response = predict_pb2.PredictResponse()
    for name, value in answer.items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
    again = predict_pb2.PredictResponse.FromString(response.SerializeToString())
    assert np.array_equal(tf.make_ndarray(again.outputs["logits"]), answer["logits"])
    assert list(again.outputs["label"].string_val) == answer["label"].numpy().tolist()


def test_models_config_is_what_the_server_parses(tiny_run):
    text = (tiny_run[1] / "serving" / "models.config").read_text(encoding="utf-8")
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    found = [(each.name, each.base_path, each.model_platform) for each in config.model_config_list.config]
    assert found == [(f"tiny-{variant}", f"/models/{variant}", "tensorflow") for variant in STAGES]


def parameters(text):
    """The file's settings; BatchingParameters is not among the published protos: checked by its grammar."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    wrapped = {m[1]: int(m[2]) for line in lines if (m := re.fullmatch(r"(\w+) \{ value: (\d+) \}", line))}
    plain = {m[1]: m[2] for line in lines if (m := re.fullmatch(r"(\w+): (true|false)", line))}
    assert len(wrapped) + len(plain) == len(lines)
    return wrapped | plain


def test_batching_parameters_of_a_run(tiny_run):
    """The server refuses a request of more rows, and with it a version whose warm-up is one."""
    found = parameters((tiny_run[1] / "serving" / "batching_parameters.txt").read_text(encoding="utf-8"))
    names = {"max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"}
    assert found.keys() == names | {"pad_variable_length_inputs"} and found["pad_variable_length_inputs"] == "false"
    assert found["max_batch_size"] >= warmup.BATCH


@pytest.mark.parametrize(
    ("curve", "size", "queue"),
    [
        ({1: 10.0, 32: 320.0, 64: 640.0, 128: 1280.0}, 32, 3),  # a batch gains nothing; the warm-up's must fit
        ({1: 10.0, 32: 100.0, 64: 120.0, 128: 240.0}, 64, 8),  # past 64, latency grows as fast as the batch
        ({1: 10.0, 32: 100.0, 64: 150.0, 128: 200.0}, 128, 5),
        ({1: 10.0, 32: 100.0, 64: 120.0, 128: 225.0}, 64, 8),  # 128 would be better by less than 10 %
        ({1: 3000.0, 32: 3000.0}, 32, 1),
    ],
)
def test_batching_parameters_follow_the_curve(curve, size, queue):
    found = parameters(batching_parameters(curve, 3))
    assert found["max_batch_size"] == size and found["max_enqueued_batches"] == queue
    assert found["num_batch_threads"] == 3 and found["batch_timeout_micros"] == 0


def test_the_readme_can_be_replayed(tiny_run, loaded):
    """Every request in it, by REST's own form, gets the answer that stands there."""
    text = (tiny_run[1] / "serving" / "README.md").read_text(encoding="utf-8")
    assert "tensorflow/serving:2.20.0" in text and "--model_config_file=/models/models.config" in text
    found = re.findall(r"models/tiny-dense:predict -d @- <<'EOF'\n(.*?)\nEOF\n.*?```json\n(.*?)\n```", text, re.DOTALL)
    asked = [(json.loads(request), json.loads(answer)["outputs"]) for request, answer in found]
    assert [request["signature_name"] for request, _ in asked] == ["serving_default", "classify", "tokens"]
    for request, answer in asked:
        inputs = {
            name: tf.constant(value, tf.string if name == "text" else tf.int32)
            for name, value in request["inputs"].items()
        }
        got = loaded.signatures[request["signature_name"]](**inputs)
        assert got.keys() == answer.keys()
        for name, value in got.items():
            if value.dtype == tf.string:
                assert np.vectorize(bytes.decode)(value.numpy()).tolist() == answer[name]
            else:
                assert np.abs(value.numpy() - answer[name]).max() <= 1e-5


def test_the_readme_s_python_builds_its_request(tiny_run):
    text = (tiny_run[1] / "serving" / "README.md").read_text(encoding="utf-8")
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "PredictRequest" in each)
    sent = []

    class Stub:
        def __init__(self, channel):
            pass

        def Predict(self, request, timeout):
            sent.append(request)
            response = predict_pb2.PredictResponse()
            response.outputs["label"].CopyFrom(tf.make_tensor_proto([b"positive"]))
            response.outputs["probabilities"].CopyFrom(tf.make_tensor_proto([[0.1, 0.9]]))
            return response

    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_service_pb2_grpc, "PredictionServiceStub", Stub)
        exec(compile(block, "README.md", "exec"), {})
    (request,) = sent
    assert request.model_spec.name == "tiny-dense"
    assert len(request.inputs["text"].string_val) == 2


def test_saved_model_cli_runs_both_signatures(tiny_run, tmp_path):
    """The tool that comes with TensorFlow; tensorflow-text's operators have to be there before it loads the graph."""
    ids = {
        "input_ids": [[2, 120, 119, 3]],
        "attention_mask": [[1, 1, 1, 1]],
        "token_type_ids": [[0, 0, 0, 0]],
    }
    for name, value in ids.items():
        np.save(tmp_path / f"{name}.npy", np.array(value, np.int32))
    files = ";".join(f"{name}={tmp_path / name}.npy" for name in ids)
    model = tf.saved_model.load(str(published(tiny_run)))
    start = "import tensorflow_text; from tensorflow.python.tools.saved_model_cli import main; main()"
    for signature, inputs, given in (
        ("serving_default", {"text": ["a good film", "a"]}, ("--input_exprs", "text=['a good film', 'a']")),
        ("tokens", ids, ("--inputs", files)),
    ):
        command = ["run", "--dir", str(published(tiny_run)), "--tag_set", "serve", "--signature_def", signature, *given]
        done = subprocess.run(
            [sys.executable, "-c", start, *command, "--outdir", str(tmp_path), "--overwrite"],
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        answer = model.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
        assert np.abs(np.load(tmp_path / "logits.npy") - answer["logits"].numpy()).max() <= 1e-5
