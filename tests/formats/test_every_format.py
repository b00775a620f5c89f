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
from tfpipe.formats.base import Requests, Source
from tfpipe.formats.openvino.signal_stack import signal_stack, signal_stack_kept
from tfpipe.model.classifier import load_classifier
from tfpipe.tasks import task_of
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

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
