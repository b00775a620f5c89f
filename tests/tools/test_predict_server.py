"""`predict --server` against a stand-in that speaks TF Serving's protocols over real SavedModels."""

from __future__ import annotations

import copy
import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
import tf_serving_stand_in as stand_in
from conftest import TINY, WORDS, tiny_vocabulary, tiny_weights

from tfpipe.encoders.architecture import Architecture
from tfpipe.errors import InputError
from tfpipe.formats.saved_model.served import ServedClassifier, save_saved_model
from tfpipe.model.classifier import Classifier, float_model
from tfpipe.tasks import PLAIN, Decision
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools.predict import server as tool
from tfpipe.tools.predict import server_messages, server_rest
from tfpipe.tools.predict.server_endpoint import parse_url

TEXTS = ["this film is very good and lovely", "this film is very bad and awful", "", "ünknown Wörds 汉字 \x00 \"'\\"]
SEVERAL = ("a", "b", "a|b", "c||d", "\\", "größe")
MODELS = {
    "one label": (("no", "maybe", "yes"), "single_label", False),
    "several labels": (SEVERAL, "multi_label", False),
    "a pair": (("no", "maybe", "yes"), "single_label", True),
    "several labels of a pair": (SEVERAL, "multi_label", True),
    "one of one": (("spam",), "multi_label", False),
}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(tool, "FIRST_WAIT_SECONDS", 0.05)


@pytest.fixture(scope="module")
def dense(tiny_run):
    return stand_in.Served(tiny_run[1] / "serving" / "dense")


@pytest.fixture
def rest(dense):
    with stand_in.rest_server(dense) as server:
        yield server


def write_model(tiny_run, directory, names, task, pairs, spread=1.0, decision=PLAIN):
    """Writes a SavedModel of random weights; `spread` is that of the head's weights and biases."""
    config = TINY | {"vocab_size": len(tiny_vocabulary())}
    weights = {f"bert.{name}": value for name, value in tiny_weights(config).items()}
    random = np.random.default_rng(1)
    weights["classifier.weight"] = spread * random.normal(size=(len(names), config["hidden_size"])).astype(np.float32)
    weights["classifier.bias"] = spread * random.normal(size=len(names)).astype(np.float32)
    classifier = Classifier(Architecture.from_dict(config), names, task, 32, weights, {}).calibrated(1.0, decision)
    tokenizer = Tokenizer(TokenizerSettings.read(tiny_run[1] / "train"), 32)
    save_saved_model(ServedClassifier(float_model(classifier), classifier, tokenizer, pairs=pairs), directory)
    return directory


@pytest.fixture(scope="module")
def models(tiny_run, tmp_path_factory):
    """Kind -> served model."""
    made = tmp_path_factory.mktemp("models")
    return {
        kind: stand_in.Served(write_model(tiny_run, made / str(at), *given))
        for at, (kind, given) in enumerate(MODELS.items())
    }


@pytest.mark.parametrize("decision", [Decision(abstain_below=0.6), Decision(thresholds=(0.2, 0.9, 0.4))])
def test_a_model_that_abstains_or_has_thresholds(tiny_run, tmp_path, decision):
    task = "single_label" if decision.thresholds is None else "multi_label"
    model = stand_in.Served(write_model(tiny_run, tmp_path / "1", ("no", "maybe", "yes"), task, False, 1.0, decision))
    labels, probabilities = directly(model, texts := many_texts(50))
    with stand_in.rest_server(model) as server:
        found = ask(tool.open_server(server.url), texts)
    assert found.labels == labels and ("" in labels or task == "multi_label")
    assert found.probabilities == pytest.approx(probabilities, abs=1e-6)


def many_texts(count):
    random = np.random.default_rng(3)
    return [" ".join(random.choice(WORDS, random.integers(0, 25))) for _ in range(count)] + TEXTS


def directly(served, texts, pairs=None):
    """What the SavedModel answers: labels, probabilities."""
    inputs = {"text": tf.constant(texts)} | ({} if pairs is None else {"text_pair": tf.constant(pairs)})
    found = next(iter(served.loaded.values())).signatures["serving_default"](**inputs)
    return [label.decode() for label in found["label"].numpy()], found["probabilities"].numpy()


def ask(answerer, texts, pairs=None):
    return answerer.answer(answerer.prepare(texts, pairs))


def assert_same(answers, served, texts, pairs=None):
    labels, probabilities = directly(served, texts, pairs)
    assert answers.labels == labels
    assert answers.probabilities.dtype == np.float32
    assert np.abs(answers.probabilities - probabilities).max() <= 1e-6  # other batches, other paddings


SERVERS = {"rest": stand_in.rest_server, "grpc": stand_in.grpc_server}


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_answers_like_its_saved_model(dense, kind):
    texts = many_texts(150)
    with SERVERS[kind](dense) as server:
        answerer = tool.open_server(server.url, batch=16)
        assert (answerer.names, answerer.one_label, answerer.pairs) == (("negative", "positive"), True, False)
        assert answerer.name == f"{server.url} version 1"
        assert_same(ask(answerer, texts), dense, texts)
        assert_same(ask(answerer, texts[:1]), dense, texts[:1])
        none = ask(answerer, [])
        assert none.labels == [] and none.probabilities.shape == (0, 2)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", SERVERS)
def test_every_kind_of_model_is_told(models, kind, model):
    served, (names, task, pairs) = models[model], MODELS[model]
    texts = many_texts(40)
    others = texts[::-1] if pairs else None
    with SERVERS[kind](served) as server:
        answerer = tool.open_server(server.url, batch=7)
        assert (answerer.names, answerer.one_label, answerer.pairs) == (names, task == "single_label", pairs)
        assert_same(ask(answerer, texts, others), served, texts, others)
        with pytest.raises(InputError, match="text-pair-column"):
            answerer.prepare(texts, None if pairs else texts)
        with pytest.raises(InputError, match="is not UTF-8"):
            answerer.prepare(["good", "bad \udcff"], ["", ""] if pairs else None)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_task_is_told_where_softmax_and_sigmoid_agree(tiny_run, tmp_path, task):
    """A head of zeros: every probability is a half, by either. The label tells."""
    served = stand_in.Served(write_model(tiny_run, tmp_path, ("a", "b"), task, False, spread=0.0))
    with stand_in.rest_server(served) as server:
        assert tool.open_server(server.url).one_label == (task == "single_label")


def test_batches_are_sorted_by_length_and_sent_over_connections_that_stay(rest):
    answerer = tool.open_server(rest.url, batch=10)
    sent = []
    rest.faults = [lambda handler: sent.append(json.loads(handler.body)["inputs"]["text"]) and False] * 10
    texts = many_texts(96)
    ask(answerer, texts)
    assert sorted(map(len, sent)) == [10] * 10
    assert sorted(text for part in sent for text in part) == sorted(texts)
    spreads = sorted((min(map(len, part)), max(map(len, part))) for part in sent)
    assert all(longest <= shortest for (_, longest), (shortest, _) in itertools.pairwise(spreads))
    assert rest.connections <= 2


def test_a_server_with_batching_gets_as_many_texts_as_it_takes(tiny_run, capsys):
    served = stand_in.Served(tiny_run[1] / "serving" / "dense", most=6)
    texts = many_texts(40)
    for kind in SERVERS.values():
        with kind(served) as server:
            answerer = tool.open_server(server.url, batch=64)
            assert_same(ask(answerer, texts), served, texts)
            asked = len(server.asked)
            assert_same(ask(answerer, texts), served, texts)
            assert len(server.asked) == asked + 8  # the limit is known by now
    assert "takes 6 texts at once" in capsys.readouterr().err


@pytest.mark.parametrize("most", [1, 3])
def test_a_server_that_takes_few_texts_at_once(tiny_run, most):
    served = stand_in.Served(tiny_run[1] / "serving" / "dense", most=most)
    with stand_in.rest_server(served) as server:
        answerer = tool.open_server(server.url)
        assert (answerer.names, answerer.one_label) == (("negative", "positive"), True)
        assert_same(ask(answerer, many_texts(9)), served, many_texts(9))
        server.faults = [gives(400, b'{"error": "Task size 1 is larger than maximum input batch size 0"}')]
        with pytest.raises(InputError, match="1 texts at once are too many"):
            ask(answerer, ["good"])


def test_the_version_that_answered_first_is_asked_on(models):
    first, second = models["one label"], models["several labels"]
    for kind in SERVERS.values():
        served = copy.copy(first)
        with kind(served) as server:
            answerer = tool.open_server(server.url)
            served.loaded, served.labels = served.loaded | {2: second.loaded[1]}, {"canary": 2}
            assert len(ask(answerer, TEXTS).probabilities[0]) == 3
            assert tool.open_server(server.url).name.endswith(" version 2")
            assert tool.open_server(f"{server.url}/versions/1").names == ("no", "maybe", "yes")
            assert tool.open_server(f"{server.url}/labels/canary").names == SEVERAL
            with pytest.raises(InputError, match="Unrecognized servable version label: other"):
                tool.open_server(f"{server.url}/labels/other")
            served.loaded = {2: second.loaded[1]}
            with pytest.raises(InputError, match=r"Servable not found for request: Specific\(model, 1\)"):
                ask(answerer, TEXTS)


# Faults of REST.


def gives(status, content, **headers):
    def fault(handler):
        handler.give(status, content, **headers)
        return True

    return fault


def cut(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"outputs": ')
    handler.close_connection = True
    return True


def hung_up(handler):
    handler.close_connection = True
    return True


def no_http(handler):
    handler.wfile.write(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00 \r\n\r\n")
    return hung_up(handler)


def replaced(**outputs):
    """A 200 whose outputs are these, beside what a model of two labels answers to one text."""
    whole = {"label": ["positive"], "probabilities": [[0.25, 0.75]], "logits": [[0.0, 1.0986]]} | outputs
    return gives(200, json.dumps({"outputs": {name: value for name, value in whole.items() if value}}).encode())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (gives(503, b'{"error": "The batch scheduling queue is full"}'), "HTTP 503: The batch scheduling queue is"),
        (gives(429, b""), "HTTP 429: Too Many Requests"),
        (gives(502, b"<html>\n<b>Bad"), "HTTP 502: <html> <b>Bad"),
        (gives(504, b'{"error": 1}'), "HTTP 504: 1"),
        (cut, "the connection was closed before the end of the answer"),
        (hung_up, "the connection was closed before the end of the answer"),
    ],
    ids="full many gateway timeout cut hung".split(),
)
def test_what_passes_is_waited_for(rest, dense, capsys, fault, said):
    rest.faults = [fault, fault]
    answerer = tool.open_server(rest.url)
    rest.faults = [fault, fault]
    assert_same(ask(answerer, TEXTS), dense, TEXTS)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"--server {rest.url}: {said.split(' is')[0]}{lines[0].partition(said.split(' is')[0])[2]}"]
    assert lines[0].endswith("; waits and tries again, up to 7 times")
    rest.faults = [fault] * 20
    with pytest.raises(InputError) as error:
        ask(answerer, TEXTS)
    assert str(error.value).startswith(f"--server {rest.url}: {said}") and "\n" not in str(error.value)
    assert str(error.value).endswith(
        "(tried 7 times); see that the server runs and can be reached from here; what is written stays, and the same "
        "command goes on from there"
    )


def test_an_idle_connection_that_the_server_closed_is_replaced_in_silence(rest, dense, capsys):
    answerer = tool.open_server(rest.url)
    before = rest.connections
    rest.faults = [hung_up]
    assert_same(ask(answerer, TEXTS), dense, TEXTS)
    assert rest.connections == before + 1 and capsys.readouterr().err == ""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_starts_later_is_waited_for(dense, monkeypatch, capsys, kind):
    monkeypatch.setattr(tool, "FIRST_WAIT_SECONDS", 0.25)
    port, done = free_port(), threading.Event()

    def serve():
        if not done.wait(1.0):
            with SERVERS[kind](dense, port):
                done.wait()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        url = f"http://127.0.0.1:{port}/v1/models/model" if kind == "rest" else f"grpc://127.0.0.1:{port}/model"
        assert_same(ask(tool.open_server(url), TEXTS), dense, TEXTS)
        assert capsys.readouterr().err.count("waits and tries again") == 1
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:{}/v1/models/model", r"Connection refused \(tried 7 times\)"),
        ("grpc://127.0.0.1:{}/model", r"UNAVAILABLE: .*refused.* \(tried 7 times\)"),
        ("http://name.invalid:{}/v1/models/model", "(no such host|Temporary failure in name resolution)"),
    ],
)
def test_no_server_is_said_in_one_line(url, said, monkeypatch):
    monkeypatch.setattr(tool, "FIRST_WAIT_SECONDS", 0.01)
    with pytest.raises(InputError, match=said) as error:
        tool.open_server(url.format(free_port()))
    assert "\n" not in str(error.value)


def test_a_server_that_never_answers(monkeypatch):
    monkeypatch.setattr(tool, "TRIES", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(InputError, match=r"no answer within 0\.2 s \(tried 2 times\)"):
            tool.open_server(f"http://127.0.0.1:{port}/v1/models/m", timeout=0.2)
        with pytest.raises(InputError, match=r"DEADLINE_EXCEEDED: .* \(tried 2 times\)"):
            tool.open_server(f"grpc://127.0.0.1:{port}/m", timeout=0.2)


def test_an_answer_that_comes_too_slowly_is_given_up(rest, monkeypatch):
    monkeypatch.setattr(tool, "TRIES", 1)
    ended = threading.Event()

    def drips(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while not ended.wait(0.05):
            handler.wfile.write(b" ")
        return hung_up(handler)

    rest.faults = [drips]
    with pytest.raises(InputError, match=r"no answer within 0\.3 s"):
        tool.open_server(rest.url, timeout=0.3)
    ended.set()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (gives(404, b'{"error": "Servable not found for request: Latest(x)"}'), r"404: Servable not found .*Latest\(x"),
        (
            gives(400, json.dumps({"error": "no\n\x1b[31m" + "x" * 1000}).encode()),
            "HTTP 400: no \ufffd.31mx{280,299}…;",
        ),
        (gives(500, b""), "HTTP 500: Internal Server Error"),
        (gives(301, b"", Location="https://x"), "HTTP 301: Moved Permanently"),
        (no_http, r"no answer in HTTP \(BadStatusLine\); .*8501.*grpc://HOST:8500/NAME"),
        (gives(200, b"<html>\n" + b"x" * 5000), "the answer is no JSON: '<html> x{280,293}…'"),
        (gives(200, b"[" * 100_000), "the answer is no JSON"),
        (gives(200, b'{"outputs": \xff}'), "the answer is no JSON"),
        (gives(200, b'[{"outputs": {}}]'), "the answer is no JSON object"),
        (gives(200, b'{"predictions": []}'), "serving_default has no `outputs` with names"),
        (gives(200, b'{"outputs": [1, 2]}'), "serving_default has no `outputs` with names"),
        (replaced(label=None), "the answer has no `label` of texts"),
        (replaced(label=[1]), "the answer has no `label` of texts"),
        (replaced(label="positive"), "the answer has no `label` of texts"),
        (replaced(label=["other"]), "the label 'other', which is none of the model's"),
        (replaced(probabilities=None), "the answer has no `probabilities`"),
        (replaced(probabilities=[0.25, 0.75]), "the answer has no `probabilities`"),
        (replaced(probabilities=[["0.25", "0.75"]]), "the answer has no `probabilities`"),
        (replaced(probabilities=[[0.25, None]]), "the answer has no `probabilities`"),
        (replaced(probabilities=[[0.25], [0.25, 0.5]]), "the answer has no `probabilities`"),
        (replaced(probabilities=[[0.25, 10**400]]), "the answer has no `probabilities`"),
        (replaced(probabilities=[[0.25, 0.5, 0.25]]), "3 probabilities instead of 2"),
        (replaced(probabilities=[[0.25, float("nan")]]), "a probability of nan"),
        (replaced(probabilities=[[float("-inf"), 0.5]]), "a probability of -inf"),
        (replaced(probabilities=[[0.25, 1e300]]), "a probability of inf"),
        (replaced(probabilities=[[0.25, 1.1]]), r"a probability of 1\.1"),
        (replaced(label=["positive"] * 2), "2 labels and 1 rows of probabilities for 1 texts"),
        (replaced(probabilities=[[0.25, 0.75]] * 2), "1 labels and 2 rows of probabilities for 1 texts"),
    ],
)
def test_what_is_wrong_is_said_at_once_in_one_line(rest, fault, said):
    answerer = tool.open_server(rest.url)
    asked = len(rest.asked)
    rest.faults = [fault]
    with pytest.raises(InputError, match=rf"^--server {rest.url}: .*{said}") as error:
        ask(answerer, ["good"])
    assert "\n" not in str(error.value) and len(rest.asked) == asked + 1


def test_an_answer_without_end_is_given_up(rest, monkeypatch):
    monkeypatch.setattr(server_rest, "LARGEST_ANSWER_BYTES", 1 << 20)

    def endless(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        with pytest.raises(OSError):
            while True:
                handler.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        return hung_up(handler)

    rest.faults = [endless]
    with pytest.raises(InputError, match="an answer of more than 1 MB"):
        tool.open_server(rest.url)


def test_an_error_in_one_of_two_requests_ends_both(rest):
    answerer = tool.open_server(rest.url, batch=1)
    asked = len(rest.asked)
    rest.faults = [gives(400, b'{"error": "no"}')] + [gives(503, b"")] * 100
    with pytest.raises(InputError, match="HTTP 400: no"):
        ask(answerer, ["good"] * 50)
    assert len(rest.asked) - asked < 20


def test_https_asked_of_a_server_without_it(rest):
    with pytest.raises(InputError, match=r"no TLS \(.*see the host, the port and http or https"):
        tool.open_server(rest.url.replace("http", "https"))


def test_grpc_asked_of_the_port_of_rest(rest):
    with pytest.raises(InputError, match=r"no answer in gRPC \(.*8500.*http://HOST:8501/v1/models/NAME$") as error:
        tool.open_server(f"grpc://127.0.0.1:{rest.server_port}/model")
    assert "tried" not in str(error.value)


def test_a_grpc_answer_that_is_too_large_is_not_asked_again(dense, monkeypatch):
    from tfpipe.tools.predict import server_grpc

    monkeypatch.setitem(server_grpc._OPTIONS, "grpc.max_receive_message_length", 100)
    with stand_in.grpc_server(dense) as server:
        with pytest.raises(InputError, match=r"RESOURCE_EXHAUSTED: .*larger than max"):
            tool.open_server(server.url)
        assert len(server.asked) == 1


@pytest.mark.parametrize("content", [{}, {"model_spec": {}}, {"metadata": {"signature_def": {"signature_def": []}}}])
def test_metadata_that_tell_nothing(rest, content):
    rest.faults = [gives(200, json.dumps(content).encode())]
    with pytest.raises(InputError, match="/v1/models/model/metadata tells no signatures"):
        tool.open_server(rest.url)


# Faults of gRPC.


def ends(code, details="no"):
    import grpc

    return lambda context: context.abort(grpc.StatusCode[code], details)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_grpc_that_passes_is_waited_for(dense, capsys, code):
    with stand_in.grpc_server(dense) as server:
        server.faults = [ends(code)] * 2
        answerer = tool.open_server(server.url)
        server.faults = [ends(code)] * 2
        assert_same(ask(answerer, TEXTS), dense, TEXTS)
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"--server {server.url}: {code}: no; waits and tries again, up to 7 times"
        server.faults = [ends(code)] * 20
        with pytest.raises(InputError, match=rf"{code}: no \(tried 7 times\)"):
            ask(answerer, TEXTS)


@pytest.mark.parametrize("code", ["NOT_FOUND", "INVALID_ARGUMENT", "UNIMPLEMENTED", "INTERNAL"])
def test_grpc_that_refuses_is_said_at_once(dense, code):
    with stand_in.grpc_server(dense) as server:
        server.faults = [ends(code, "no\n\x1b[31m" + "x" * 1000)]
        with pytest.raises(InputError, match=rf"--server {server.url}: {code}: no \ufffd\[31mx{{280,299}}…;") as error:
            tool.open_server(server.url)
        assert "\n" not in str(error.value) and len(server.asked) == 1
        with pytest.raises(InputError, match=r"NOT_FOUND: Servable not found for request: Latest\(other\)"):
            tool.open_server(server.url.replace("/model", "/other"))


def test_the_messages_are_those_of_tensorflow_serving_api():
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

    whole = {
        "PredictRequest": predict_pb2.PredictRequest,
        "PredictResponse": predict_pb2.PredictResponse,
        "MetadataRequest": get_model_metadata_pb2.GetModelMetadataRequest,
        "MetadataResponse": get_model_metadata_pb2.GetModelMetadataResponse,
        "Signatures": get_model_metadata_pb2.SignatureDefMap,
    }

    def compare(own, other):
        for field in own.fields:
            same = other.fields_by_number[field.number]
            assert field.name == same.name and field.is_repeated == same.is_repeated
            kinds = (field.type, same.type)
            assert kinds[0] == kinds[1] or kinds == (field.TYPE_INT32, field.TYPE_ENUM)
            if field.message_type is not None:
                compare(field.message_type, same.message_type)

    for name, message in whole.items():
        compare(server_messages.MESSAGES[name].DESCRIPTOR, message.DESCRIPTOR)


# Addresses.


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8501", "no http://, https:// or grpc:// with a host"),
        ("ftp://host/v1/models/m", "no http://, https:// or grpc:// with a host"),
        ("http:///v1/models/m", "no http://, https:// or grpc:// with a host"),
        ("http://host:8501", "no /v1/models/NAME"),
        ("http://host:8501/v1/models/", "no /v1/models/NAME"),
        ("http://host:8501/v1/models/m/versions/x", "no /v1/models/NAME"),
        ("http://host:8501/v1/models/m/metadata", "no /v1/models/NAME"),
        ("http://host:8501/v1/models/m:classify", "no /v1/models/NAME"),
        ("http://host:8501/v1/models/m?x=1", "a user, a query or a fragment"),
        ("http://me:secret@host/v1/models/m", "a user, a query or a fragment"),
        ("http://host:99999/v1/models/m", "not a URL"),
        ("http://[::1/v1/models/m", "not a URL"),
        ("http://host/v1/models/größe", "characters that no URL has"),
        ("http://host/v1/models/a b", "characters that no URL has"),
        ("grpc://host/m", "no port"),
        ("grpc://host:8500", "no name of a model"),
        ("grpc://host:8500/v1/models/m", "no name of a model"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(url, said):
    with pytest.raises(InputError, match=rf"^--server .*{said}.*; write http://HOST:8501/v1/models/NAME") as error:
        tool.open_server(url)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "address", "path"),
    [
        ("http://h:8501/v1/models/m", ("h", 8501, "m", None, None), "/v1/models/m"),
        ("HTTPS://h/v1/models/m:predict", ("h", 443, "m", None, None), "/v1/models/m"),
        ("http://h/x/v1/models/m/versions/12:predict", ("h", 80, "m", 12, None), "/x/v1/models/m/versions/12"),
        ("http://[::1]:1/v1/models/m/labels/b/", ("::1", 1, "m", None, "b"), "/v1/models/m/labels/b"),
        ("grpc://h:8500/m/versions/0", ("h", 8500, "m", 0, None), "/v1/models/m/versions/0"),
    ],
)
def test_addresses(url, address, path):
    found = parse_url(url)
    assert (found.host, found.port, found.model, found.version, found.label) == address
    assert found.path == path


# Models of other origin.


class Foreign(tf.Module):
    """Answers as tfpipe's models do, without logits and names of labels."""

    def __init__(self, probabilities):
        super().__init__()
        self.rows = tf.constant(probabilities)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def serve(self, text):
        return {"label": text, "probabilities": tf.tile(self.rows, [tf.size(text), 1])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def other(self, text):
        return {"classes": tf.fill([tf.size(text), 2], "x"), "scores": tf.tile(self.rows, [tf.size(text), 1])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def numbers(self, x):
        return {"label": x, "probabilities": x}


@pytest.mark.parametrize(
    ("probabilities", "signatures", "said"),
    [
        ([[0.5, 0.75]], {"serving_default": "serve"}, "several labels a text that does not tell their names"),
        ([[0.5, 0.5]], {"serving_default": "serve", "classify": "other"}, "`classify` does not name each label once"),
        ([[0.5, 0.5]], {"serving_default": "numbers"}, r"takes no texts \(its inputs: x\)"),
        ([[0.5, 0.5]], {"other": "serve"}, r"takes no texts \(its inputs: none\)"),
        ([[0.5, 0.5]], {"serving_default": "other"}, r"gives no label \(DT_STRING\)"),
    ],
)
def test_other_models_are_refused(tmp_path, probabilities, signatures, said):
    module = Foreign(probabilities)
    named = {name: getattr(module, function) for name, function in signatures.items()}
    tf.saved_model.save(module, str(tmp_path), signatures=named)
    with stand_in.rest_server(stand_in.Served(tmp_path)) as server, pytest.raises(InputError, match=said):
        tool.open_server(server.url)


def test_a_model_that_tells_no_names(tmp_path):
    module = Foreign([[0.25, 0.75]])
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with stand_in.rest_server(stand_in.Served(tmp_path)) as server:
        answerer = tool.open_server(server.url)
        assert (answerer.names, answerer.one_label, answerer.pairs) == (None, True, False)
        assert ask(answerer, ["x"]).labels == ["x"]


# What it costs, and the stand-in itself.


@pytest.mark.parametrize("kind", SERVERS)
def test_a_client_imports_no_tensorflow(dense, kind):
    script = (
        "import sys; from tfpipe.tools.predict.server import open_server; answerer = open_server(sys.argv[1])\n"
        "assert 'tensorflow' not in sys.modules; print(answerer.answer(answerer.prepare(['good'], None)).labels)"
    )
    with SERVERS[kind](dense) as server:
        done = subprocess.run([sys.executable, "-c", script, server.url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(directly(dense, ["good"])[0])


def test_the_stand_in_answers_in_rows_too(rest, dense):
    def post(request):
        answer = urllib.request.urlopen(f"{rest.url}:predict", json.dumps(request).encode(), timeout=10)
        return json.load(answer)

    labels, probabilities = directly(dense, TEXTS)
    rows = post({"instances": TEXTS})["predictions"]
    assert [row["label"] for row in rows] == labels
    assert rows == post({"instances": [{"text": text} for text in TEXTS]})["predictions"]
    columns = post({"inputs": TEXTS})["outputs"]
    assert np.array_equal(np.float32(columns["probabilities"]), probabilities)
    status = json.load(urllib.request.urlopen(rest.url, timeout=10))
    assert status["model_version_status"][0]["state"] == "AVAILABLE"


def test_the_stand_in_is_a_program(tiny_run):
    port, directory = free_port(), tiny_run[1] / "serving" / "dense"
    program = [sys.executable, stand_in.__file__, str(directory), str(port), "tiny-dense"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as run:
        try:
            url = f"http://127.0.0.1:{port}/v1/models/tiny-dense"
            assert run.stdout.readline().strip() == f"serves {directory} at {url}"
            assert tool.open_server(url).names == ("negative", "positive")
        finally:
            run.terminate()
    with pytest.raises((OSError, http.client.HTTPException)):
        urllib.request.urlopen(url, timeout=5)
