import time

import numpy as np
import pytest

from tfpipe.config_compress import LATENCY_SHAPES
from tfpipe.evaluate.artifacts import Artifact
from tfpipe.evaluate.benchmark import measure_latency


@pytest.fixture
def calls():
    return []


def artifact(kind, calls, longest=512, seconds=0.0):
    def answer(batch):
        calls.append((kind, batch))
        time.sleep(seconds)
        return np.zeros((len(batch.texts), 2), np.float32)

    return Artifact("dense", kind, None, 0, 0.0, 0, longest, answer)


def test_a_shape_that_an_artefact_does_not_take_is_none(calls):
    artifacts = [artifact("keras", calls), artifact("onnx", calls, longest=64), artifact("text", calls, longest=31)]
    found = measure_latency(artifacts, 2, pairs=False)
    measured = {kind: {name for name, value in found["dense", kind].items() if value is not None} for _, kind in found}
    assert measured == {"keras": set(LATENCY_SHAPES), "onnx": {"b1_s32", "b32_s64"}, "text": set()}
    assert all(found["dense", kind].keys() == LATENCY_SHAPES.keys() for kind in measured)
    assert all(batch.tokens["input_ids"].shape[1] <= 64 for kind, batch in calls if kind == "onnx")
    assert all(kind != "text" for kind, _ in calls)


def test_artefacts_take_turns_and_two_calls_warm_up(calls):
    measure_latency([artifact("a", calls), artifact("b", calls)], 3, pairs=False)
    assert [kind for kind, _ in calls] == ["a", "b"] * (3 + 2) * len(LATENCY_SHAPES)


def test_milliseconds_are_a_median_of_the_calls_after_the_warm_up(calls):
    slow = iter([0.2, 0.2, 0.01, 0.01, 0.08] * len(LATENCY_SHAPES))

    def answer(batch):
        time.sleep(next(slow))

    found = measure_latency([Artifact("dense", "keras", None, 0, 0.0, 0, 512, answer)], 3, pairs=False)
    assert all(10 <= value < 60 for value in found["dense", "keras"].values())


def test_batches_have_the_promised_shape_and_as_many_words(calls):
    measure_latency([artifact("keras", calls)], 1, pairs=False)
    for (batch_size, length), (_, batch) in zip(LATENCY_SHAPES.values(), calls[::3], strict=True):
        assert all(value.shape == (batch_size, length) for value in batch.tokens.values())
        assert len(batch.texts) == batch_size and batch.text_pairs is None
        assert len(batch.texts[0].split()) + 2 == length  # [CLS] and [SEP]


def test_pairs_fill_the_length_together(calls):
    measure_latency([artifact("keras", calls)], 1, pairs=True)
    for (batch_size, length), (_, batch) in zip(LATENCY_SHAPES.values(), calls[::3], strict=True):
        assert len(batch.texts) == len(batch.text_pairs) == batch_size
        assert length - len(batch.texts[0].split()) - len(batch.text_pairs[0].split()) - 3 in (0, 1)
