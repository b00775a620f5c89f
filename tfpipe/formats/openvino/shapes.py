"""An OpenVINO model, compiled for the shapes that requests have: fixed dimensions are faster than open ones.

A request's length is padded up to the next step. A batch of a size that is expected gets a program for exactly that
size; the others share one whose batch is open. A program is compiled when its first request comes.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import openvino

from tfpipe.formats.base import Requests
from tfpipe.formats.openvino.signal_stack import signal_stack_kept
from tfpipe.model.bert import INFERENCE_INPUTS

KEPT = 16
"""programs; each holds a copy of the weights in the order in which it multiplies them"""
OPEN = -1


class Shapes:
    """The programs of one model; of many shapes, the last that were asked for are kept."""

    def __init__(self, model: openvino.Model, threads: int | None):
        """Takes a model.

        Args:
          model: of open dimensions; it says which lengths and batch sizes get programs of their own.
          threads: that a program runs on; None: all processors.
        """
        self._model, self._threads = model, threads
        about = model.get_rt_info("tfpipe").value if model.has_rt_info("tfpipe") else {}
        self.precision = _text(about, "precision") or "f32"
        self._lengths, self._batch_sizes = (
            sorted(int(each) for each in _text(about, name).split(",") if each) for name in ("lengths", "batch_sizes")
        )
        self._programs: OrderedDict[tuple[int, int], openvino.InferRequest] = OrderedDict()

    def ask(self, requests: Requests) -> np.ndarray:
        """Answers token ids: logits [requests, labels] float32."""
        rows, longest = requests.tokens["input_ids"].shape
        length = next((each for each in self._lengths if each >= longest), longest)
        batch = rows if rows in self._batch_sizes else OPEN
        inputs = {name: np.zeros((rows, length), np.int64) for name in INFERENCE_INPUTS}
        for name, value in inputs.items():
            value[:, :longest] = requests.tokens[name]
        program = self._program(batch, length if length in self._lengths else OPEN)
        program.infer(inputs)
        return program.get_tensor("logits").data.copy()

    def _program(self, batch: int, length: int) -> openvino.InferRequest:
        shape = (batch, length)
        if shape not in self._programs:
            model = self._model.clone()
            model.reshape({each.any_name: list(shape) for each in model.inputs})
            settings = {"INFERENCE_PRECISION_HINT": self.precision, "PERFORMANCE_HINT": "LATENCY"}
            if self._threads is not None:
                settings["INFERENCE_NUM_THREADS"] = self._threads
            with signal_stack_kept():
                self._programs[shape] = openvino.compile_model(model, "CPU", settings).create_infer_request()
            if len(self._programs) > KEPT:
                self._programs.popitem(last=False)
        self._programs.move_to_end(shape)
        return self._programs[shape]


def _text(about: dict, name: str) -> str:
    value = about.get(name, "")
    return str(getattr(value, "value", value))
