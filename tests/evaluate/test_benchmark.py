import time

import numpy as np
import pytest
from conftest import TokenRow, write_token_table

from tfpipe.config.compress import LATENCY_SHAPES
from tfpipe.evaluate import benchmark
from tfpipe.evaluate.benchmark import BATCH_SIZES, measure_batching, measure_latency, time_in_turn
from tfpipe.formats.base import Answer, Requests
from tfpipe.tokens.table import TokenTable

BATCHES = {
    name: Requests({"input_ids": np.ones(shape, np.int32)}, [""] * shape[0], None)
    for name, shape in LATENCY_SHAPES.items()
}


@pytest.fixture
def calls():
    return []


def way(calls, seconds=0.0):
    def ask(batch):
        calls.append(batch)
        time.sleep(seconds)
        return np.zeros((len(batch.texts), 2), np.float32)

    return Answer("onnx", False, ask)


@pytest.mark.parametrize(
    ("longest", "measured"), [(512, set(LATENCY_SHAPES)), (64, {"b1_s32", "b32_s64"}), (31, set())]
)
def test_a_shape_that_an_artifact_does_not_take_is_none(calls, longest, measured):
    found = measure_latency(way(calls), longest, BATCHES, 2)
    assert found.keys() == LATENCY_SHAPES.keys()
    assert {name for name, value in found.items() if value is not None} == measured
    assert all(batch.tokens["input_ids"].shape[1] <= longest for batch in calls)


def test_nothing_is_called_where_no_run_is_asked_for(calls):
    assert measure_latency(way(calls), 512, BATCHES, 0) == dict.fromkeys(LATENCY_SHAPES) and calls == []


def test_one_call_warms_up(calls):
    measure_latency(way(calls), 512, BATCHES, 7)
    assert len(calls) == (7 + 1) * len(LATENCY_SHAPES)


def test_long_calls_end_after_a_second_and_not_before_three_of_them(calls, monkeypatch):
    monkeypatch.setattr(benchmark, "ENOUGH_SECONDS", 0.1)
    measure_latency(way(calls, seconds=0.021), 512, BATCHES, 10)
    assert len(calls) == (5 + 1) * len(LATENCY_SHAPES)
    calls.clear()
    measure_latency(way(calls, seconds=0.12), 512, BATCHES, 10)
    assert len(calls) == (3 + 1) * len(LATENCY_SHAPES)


def test_milliseconds_are_a_median_of_the_calls_after_the_warm_up():
    slow = iter([0.2, 0.01, 0.01, 0.08] * len(LATENCY_SHAPES))
    found = measure_latency(Answer("onnx", False, lambda batch: time.sleep(next(slow))), 512, BATCHES, 3)
    assert all(10 <= value < 60 for value in found.values())


def test_calls_take_turns_and_two_of_each_warm_up(calls):
    found = time_in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert calls == ["a", "b"] * (3 + 2) and found.keys() == {"a", "b"}


def test_a_server_s_batches_are_drawn_from_the_whole_table(tmp_path, calls):
    """Of rows sorted by label and by length, neither is nearly all of a curve's texts."""
    ids, labels = np.ones(3, np.int32), np.array([1.0, 0.0], np.float32)
    rows = [TokenRow(ids, ids * 0, labels, n, "good" if n < 1000 else "a bad film") for n in range(2000)]
    write_token_table(tmp_path, rows, num_labels=2)
    curve = measure_batching(way(calls), TokenTable.open(tmp_path), seed=0)
    assert tuple(curve) == BATCH_SIZES
    assert [len(batch.texts) for batch in calls] == [size for size in BATCH_SIZES for _ in range(6)]
    texts = [text for batch in calls for text in batch.texts if len(batch.texts) == 64]
    assert 0.4 < texts.count("good") / len(texts) < 0.6
