"""Requests that no tokenizer of tfpipe makes: each runtime answers rightly, or fails and says why."""

from __future__ import annotations

import base64
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from conftest import TINY, tiny_vocabulary

from tfpipe.encoders.architecture import INFERENCE_INPUTS
from tfpipe.formats.onnx.folder import graph_file
from tfpipe.formats.saved_model.inspection import load_saved_model

C_API = Path(__file__).parents[1] / "evaluate" / "c_api.py"
PIECES, POSITIONS = len(tiny_vocabulary()), TINY["max_position_embeddings"]
ROW = [2, 120, 119, 117, 3]
LIMITS = f"input_ids from 0 to {PIECES - 1}, attention_mask from 0 to 1, token_type_ids from 0 to 1"


def request(input_ids, attention_mask=None, token_type_ids=None) -> dict[str, np.ndarray]:
    ids = np.array(input_ids, np.int32)
    mask = np.ones_like(ids) if attention_mask is None else np.array(attention_mask, np.int32)
    types = np.zeros_like(ids) if token_type_ids is None else np.array(token_type_ids, np.int32)
    return dict(zip(INFERENCE_INPUTS, (ids, mask, types), strict=True))


def changed(index: int, value: int, row: list[int]) -> list[list[int]]:
    return [[*row[:index], value, *row[index + 1 :]]]


ONES, ZEROS = [1] * len(ROW), [0] * len(ROW)
FAILS = {
    "no columns": (request(np.zeros((2, 0))), f"a row has 1 to {POSITIONS} tokens; the rows have] [0]"),
    "nothing at all": (request(np.zeros((0, 0))), f"a row has 1 to {POSITIONS} tokens; the rows have] [0]"),
    "one token too many": (
        request([[9] * (POSITIONS + 1)]),
        f"a row has 1 to {POSITIONS} tokens; the rows have] [{POSITIONS + 1}]",
    ),
    "a negative id": (request(changed(2, -1, ROW)), f"{LIMITS}; the smallest are] [-1 1 0] [the largest] [120 1 0]"),
    "an id past the vocabulary": (request(changed(2, PIECES, ROW)), f"[the largest] [{PIECES} 1 0]"),
    "a negative type": (request([ROW], token_type_ids=changed(2, -1, ZEROS)), "the smallest are] [2 1 -1]"),
    "a type past the table": (request([ROW], token_type_ids=changed(2, 2, ZEROS)), "[the largest] [120 1 2]"),
    "a mask of 2": (request([ROW], attention_mask=changed(2, 2, ONES)), "[the largest] [120 2 0]"),
    "a negative mask": (request([ROW], attention_mask=changed(2, -1, ONES)), "the smallest are] [2 -1 0]"),
    "a mask that is shorter": (request([ROW], attention_mask=[ONES[1:]]), "Shapes of all inputs must match"),
    "one mask for two rows": (request([ROW, ROW], attention_mask=[ONES]), "Shapes of all inputs must match"),
    "one type for a row": (request([ROW], token_type_ids=[[0]]), "Shapes of all inputs must match"),
}
"""what a SavedModel refuses, and what it says"""
NOT_BY_ONNX = {
    "a negative id",
    "a negative type",
    "a mask of 2",
    "a negative mask",
    "one mask for two rows",
    "one type for a row",
}
"""of these, what ONNX Runtime answers: README.md of an ONNX artifact says so"""


@pytest.fixture(scope="module", params=["dense", "int8"])
def exported(tiny_run, request) -> Path:
    return tiny_run[1] / "export" / request.param


@pytest.fixture(scope="module")
def loaded(exported):
    return load_saved_model(exported / "saved_model")


def by_tokens(loaded, inputs) -> dict[str, np.ndarray]:
    answer = loaded.signatures["tokens"](**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in answer.items()}


def by_text(loaded, texts) -> dict[str, np.ndarray]:
    answer = loaded.signatures["serving_default"](text=tf.constant(texts, tf.string))
    return {name: value.numpy() for name, value in answer.items()}


@pytest.mark.parametrize("case", FAILS)
def test_a_wrong_request_fails_and_the_error_says_why(loaded, case):
    inputs, said = FAILS[case]
    with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(said)) as error:
        by_tokens(loaded, inputs)
    if "Shapes" in said:
        assert "input_ids_and_attention_mask_and_token_type_ids" in str(error.value)


def test_the_c_api_answers_and_fails_alike(exported, loaded):
    """As TF Serving does, with nothing of Python in the process."""
    words = base64.b64encode(b"a good film").decode()

    def plain(value: np.ndarray) -> list | dict:
        return value.tolist() if value.size else {"type": "int32", "shape": list(value.shape)}

    asked = [{"signature": "tokens", "inputs": {k: plain(v) for k, v in each.items()}} for each, _ in FAILS.values()]
    asked += [
        {"signature": "tokens", "inputs": {name: plain(value) for name, value in request(np.zeros((0, 5))).items()}},
        {"signature": "serving_default", "inputs": {"text": {"type": "string", "shape": [0]}}},
        {"signature": "serving_default", "inputs": {"text": [words]}},
    ]
    command = [sys.executable, "-I", str(C_API), str(Path(tf.__file__).parents[1]), str(exported / "saved_model")]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *failed, no_rows, no_texts, one = json.loads(done.stdout)
    for (_, said), answer in zip(FAILS.values(), failed, strict=True):
        assert said in answer["error"]
    assert no_rows["logits"]["shape"] == no_texts["logits"]["shape"] == [0, 2]
    assert np.abs(one["logits"]["values"] - by_text(loaded, ["a good film"])["logits"][0]).max() <= 1e-5


@pytest.mark.parametrize("case", FAILS)
def test_onnx_runtime_fails_or_its_readme_warns(exported, case):
    session = onnxruntime.InferenceSession(str(graph_file(exported / "onnx")))
    inputs = {name: value.astype(np.int64) for name, value in FAILS[case][0].items()}
    if case not in NOT_BY_ONNX:
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            session.run(["logits"], inputs)
        return
    answered = session.run(["logits"], inputs)[0]
    assert answered.shape == (len(inputs["input_ids"]), 2)
    text = (exported / "onnx" / "README.md").read_text(encoding="utf-8")
    assert "ONNX Runtime does not check them\nall" in text


def test_rows_that_are_right_are_answered(loaded):
    """No rows, the longest row, a mask with a hole, a row that is masked as a whole beside another."""
    assert {name: value.shape for name, value in by_tokens(loaded, request(np.zeros((0, 5)))).items()} == {
        "logits": (0, 2),
        "probabilities": (0, 2),
        "label": (0,),
    }
    assert np.isfinite(by_tokens(loaded, request([[9] * POSITIONS]))["logits"]).all()
    alone = by_tokens(loaded, request([ROW]))["logits"]
    beside = by_tokens(loaded, request([ROW, ROW], attention_mask=[ONES, ZEROS]))["logits"]
    assert np.abs(beside[0] - alone[0]).max() <= 1e-5 and np.isfinite(beside).all()
    other = request(changed(2, 50, ROW), attention_mask=changed(2, 0, ONES))
    hole = request([ROW], attention_mask=changed(2, 0, ONES))
    assert np.abs(by_tokens(loaded, other)["logits"] - by_tokens(loaded, hole)["logits"]).max() <= 1e-5


MEGABYTES = 10
LONG = {
    "words": b"a film that never ends, " * (MEGABYTES * 10**6 // 24),
    "other words": " ".join(f"w{number}" for number in range(MEGABYTES * 10**6 // 8)).encode(),
    "lines": b"film\n" * (MEGABYTES * 10**6 // 5),
    "no spaces": "字".encode() * (MEGABYTES * 10**6 // 3),
    "punctuation": b"!" * (MEGABYTES * 10**6),
}


@pytest.mark.parametrize("kind", LONG)
def test_a_text_of_megabytes_is_answered_by_its_start(loaded, kind):
    """Ten megabytes cost what ten kilobytes do: processor time and memory are those of the first tokens."""
    start = LONG[kind][:10_000].decode("utf-8", "ignore").encode()
    expected = by_text(loaded, [start, b"a good film"])
    memory, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = by_text(loaded, [LONG[kind], b"a good film"])
    assert time.process_time() - started < 1.0
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000
    )  # kilobytes; as a whole it takes 500,000
    assert np.abs(found["logits"] - expected["logits"]).max() <= 1e-5


def test_a_long_text_of_nothing_or_of_one_word_is_read_to_its_end(loaded):
    """Nothing in it tells when to stop; a million bytes take a quarter of a second."""
    texts = [b" " * 10**6 + b"a good film", b"x" * 10**6 + b" a good film", b"a good film"]
    found = by_text(loaded, texts)["logits"]
    assert np.abs(found[0] - found[2]).max() <= 1e-5
    unknown = by_text(loaded, [b"x" * 101 + b" a good film"])["logits"]
    assert np.abs(found[1] - unknown[0]).max() <= 1e-5


def test_a_batch_of_very_many_texts(loaded):
    texts = [f"a good film {number % 7}" for number in range(5_000)]
    found = by_text(loaded, texts)
    few = by_text(loaded, texts[:7])
    assert np.abs(found["logits"] - few["logits"][np.arange(len(texts)) % 7]).max() <= 1e-5
    assert found["label"].shape == (len(texts),)
