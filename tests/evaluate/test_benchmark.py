import time

import numpy as np
import pytest
from conftest import TokenRow, write_token_table

from tfpipe.config.compress import LATENCY_SHAPES
from tfpipe.evaluate.benchmark import BATCH_SIZES, measure_batching, measure_latency
from tfpipe.evaluate.loaded import Artifact
from tfpipe.formats.base import Requests
from tfpipe.tokens.table import TokenTable

BATCHES = {
    name: Requests({"input_ids": np.ones(shape, np.int32)}, [""] * shape[0], None)
    for name, shape in LATENCY_SHAPES.items()
}


@pytest.fixture
def calls():
    return []


def artifact(kind, calls, longest=512, seconds=0.0):
    def answer(batch):
        calls.append((kind, batch))
        time.sleep(seconds)
        return np.zeros((len(batch.texts), 2), np.float32)

    return Artifact("dense", kind, kind, None, 0, 0.0, 0, longest, answer)


def test_a_shape_that_an_artifact_does_not_take_is_none(calls):
    artifacts = [artifact("keras", calls), artifact("onnx", calls, longest=64), artifact("text", calls, longest=31)]
    found = measure_latency(artifacts, BATCHES, 2)
    measured = {kind: {name for name, value in found["dense", kind].items() if value is not None} for _, kind in found}
    assert measured == {"keras": set(LATENCY_SHAPES), "onnx": {"b1_s32", "b32_s64"}, "text": set()}
    assert all(found["dense", kind].keys() == LATENCY_SHAPES.keys() for kind in measured)
    assert all(batch.tokens["input_ids"].shape[1] <= 64 for kind, batch in calls if kind == "onnx")
    assert all(kind != "text" for kind, _ in calls)


def test_artifacts_take_turns_and_two_calls_warm_up(calls):
    measure_latency([artifact("a", calls), artifact("b", calls)], BATCHES, 3)
    assert [kind for kind, _ in calls] == ["a", "b"] * (3 + 2) * len(LATENCY_SHAPES)


def test_milliseconds_are_a_median_of_the_calls_after_the_warm_up(calls):
    slow = iter([0.2, 0.2, 0.01, 0.01, 0.08] * len(LATENCY_SHAPES))

    def answer(batch):
        time.sleep(next(slow))

    found = measure_latency([Artifact("dense", "keras", "keras", None, 0, 0.0, 0, 512, answer)], BATCHES, 3)
    assert all(10 <= value < 60 for value in found["dense", "keras"].values())


def test_a_server_s_batches_are_drawn_from_the_whole_table(tmp_path, calls):
    """Of rows sorted by label and by length, neither is nearly all of a curve's texts."""
    ids, labels = np.ones(3, np.int32), np.array([1.0, 0.0], np.float32)
    rows = [TokenRow(ids, ids * 0, labels, n, "good" if n < 1000 else "a bad film") for n in range(2000)]
    write_token_table(tmp_path, rows, num_labels=2)
    curve = measure_batching(artifact("text", calls), TokenTable.open(tmp_path), seed=0)
    assert tuple(curve) == BATCH_SIZES
    assert [len(batch.texts) for _, batch in calls] == [size for size in BATCH_SIZES for _ in range(6)]
    texts = [text for _, batch in calls for text in batch.texts if len(batch.texts) == 64]
    assert 0.4 < texts.count("good") / len(texts) < 0.6
