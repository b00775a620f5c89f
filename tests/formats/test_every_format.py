"""What holds for each format, whatever its runtime."""

from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import onnxruntime
import openvino
import pytest
from ai_edge_litert.interpreter import Interpreter

from tfpipe import artifacts
from tfpipe.evaluate import golden
from tfpipe.formats.base import Requests, Source
from tfpipe.formats.openvino.signal_stack import signal_stack, signal_stack_kept
from tfpipe.model.classifier import float_model, load_classifier
from tfpipe.tasks import Decision, task_of
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools.predict.model import open_model

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""which a training turns into a checkpoint"""


@pytest.fixture(scope="module")
def table(every_format_run) -> TokenTable:
    return TokenTable.open(every_format_run[1] / "prepare" / "test")


@pytest.mark.parametrize("format", artifacts.FORMATS, ids=lambda each: each.name)
def test_a_runtime_leaves_signals_as_they_are(every_format_run, table, format):
    """Loaded twice, asked in two shapes, let go in the order of loading: handlers and their stack are as before."""
    before = signal_stack(), [signal.getsignal(each) for each in SIGNALS]
    path, kept = every_format_run[1] / "export" / "int8" / format.path, []
    for rows in (1, 3):
        answers = format.code.load(path)
        requests = Requests(table.padded(np.arange(rows)), table.texts(range(rows)), None)
        for answer in answers:
            answer.ask(requests)
        kept.append(answers)
    while kept:
        kept.pop(0)
    assert (signal_stack(), [signal.getsignal(each) for each in SIGNALS]) == before


def of_onnx(path, inputs):
    return onnxruntime.InferenceSession(str(path / "onnx" / "model.onnx")).run(["logits", "probabilities"], inputs)


def of_openvino(path, inputs):
    with signal_stack_kept():
        program = openvino.compile_model(
            openvino.Core().read_model(str(path / "openvino_model.xml")), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
    answer = program(inputs)
    return answer["logits"], answer["probabilities"]


def of_litert(path, inputs):
    signature = Interpreter(str(path / "model.tflite")).get_signature_runner("serving_default")
    answer = signature(**{name: value.astype(np.int32) for name, value in inputs.items()})
    return answer["logits"], answer["probabilities"]


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize(("name", "ask"), [("onnx", of_onnx), ("openvino", of_openvino), ("litert", of_litert)])
def test_probabilities_are_those_of_the_task(every_format_run, table, tmp_path, task, name, ask):
    run = every_format_run[1]
    classifier = replace(load_classifier(run / "train"), task=task)
    tokenizer = Tokenizer(TokenizerSettings.read(run / "train"), classifier.max_length)
    path = tmp_path / name
    artifacts.format_named(name).code.write(
        Source(classifier, tokenizer, table, False, "digest"), path, every_format_run[0].export
    )
    inputs = {key: value.astype(np.int64) for key, value in table.padded(np.arange(5)).items()}
    logits, probabilities = ask(path, inputs)
    assert probabilities == pytest.approx(task_of(task).probabilities(logits), abs=1e-6)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("format", artifacts.FORMATS, ids=lambda each: each.name)
def test_a_calibration_is_part_of_each_artifact(every_format_run, table, tmp_path, task, format):
    """Logits are divided by the temperature in the file itself; `predict` abstains, and has the thresholds."""
    run, texts = every_format_run[1], table.texts(range(24))
    plain = replace(load_classifier(run / "train"), task=task)
    logits = float_model(plain)(table.padded(np.arange(24)), training=False).numpy() / np.float32(0.25)
    middle = np.median(task_of(task).probabilities(logits), axis=0)
    decision = Decision(thresholds=tuple(middle.tolist()))
    if task == "single_label":
        decision = Decision(abstain_below=float(np.median(task_of(task).probabilities(logits).max(axis=1))) + 1e-6)
    classifier = plain.calibrated(0.25, decision)
    tokenizer = Tokenizer(TokenizerSettings.read(run / "train"), classifier.max_length)
    path = tmp_path / format.name
    format.code.write(Source(classifier, tokenizer, table, False, "digest"), path, every_format_run[0].export)
    requests = Requests(table.padded(np.arange(24)), texts, None)
    for answer in format.code.load(path):
        assert answer.ask(requests) == pytest.approx(logits, abs=1e-3), answer.name
    golden.record(format, path, golden.golden_requests(table, tokenizer, pairs=False), classifier, "dense")
    if format.name == "saved_model_tokens":  # which `predict` does not ask
        return
    answerer = open_model(str(path), None, None, many=True).answerer
    found = answerer.answer(answerer.prepare(texts, None))
    expected = task_of(task).label_texts(logits, classifier.labels, decision)
    assert found.probabilities == pytest.approx(task_of(task).probabilities(logits), abs=1e-4)
    probability = task_of(task).probabilities(logits)
    sure = np.abs(probability - (middle if decision.thresholds else decision.abstain_below))
    clear = sure.min(axis=1) > 1e-4  # of what lies on the edge, the last digit decides
    for label, other, is_clear in zip(found.labels, expected, clear, strict=True):
        assert label == other or not is_clear
    assert found.labels != task_of(task).label_texts(logits, classifier.labels) and clear.sum() > 12
