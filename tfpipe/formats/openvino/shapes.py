"""An OpenVINO model, compiled for the shapes that requests have: fixed dimensions are faster than open ones.

A request's length is padded up to the next step, and its rows up to the next size that has a program. A request of more
rows than the largest program is cut. A program whose batch is open would give other answers in 8 bits (OpenVINO 2026.4:
logits of the quickstart differ by 0.008 on average), and `verify` has not asked it. A program is compiled when its
first request comes.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import openvino

from tfpipe.encoders.architecture import INFERENCE_INPUTS
from tfpipe.formats.base import Requests
from tfpipe.formats.openvino.signal_stack import signal_stack_kept

KEPT = 16
"""programs; each holds a copy of the weights in the order in which it multiplies them"""
OPEN = -1


class Shapes:
    """The programs of one model; of many shapes, the last ones in use are kept."""

    def __init__(self, model: openvino.Model, threads: int | None):
        """Takes a model.

        Args:
          model: of open dimensions; it names the lengths and batch sizes that get programs of their own.
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
        rows = len(requests.tokens["input_ids"])
        step = self._batch_sizes[-1] if self._batch_sizes else max(rows, 1)
        parts = [
            self._ask({name: value[start : start + step] for name, value in requests.tokens.items()})
            for start in range(0, max(rows, 1), step)
        ]
        return np.concatenate(parts)

    @property
    def batch(self) -> int | None:
        """Gives the rows of the largest program; None: programs take any number."""
        return self._batch_sizes[-1] if self._batch_sizes else None

    def _ask(self, tokens: dict[str, np.ndarray]) -> np.ndarray:
        """Answers as many rows as one program takes."""
        rows, longest = tokens["input_ids"].shape
        length = next((each for each in self._lengths if each >= longest), longest)
        batch = next((each for each in self._batch_sizes if each >= rows), OPEN)
        inputs = {name: np.zeros((max(rows, batch), length), np.int64) for name in INFERENCE_INPUTS}
        for name, value in inputs.items():
            value[:rows, :longest] = tokens[name]
            value[rows:] = value[:1]  # a row that has tokens: its answer is not looked at
        program = self._program(batch, length if length in self._lengths else OPEN)
        program.infer(inputs)
        return program.get_tensor("logits").data[:rows].copy()

    def _program(self, batch: int, length: int) -> openvino.InferRequest:
        shape = (batch, length)
        if shape not in self._programs:
            model = self._model.clone()
            model.reshape({each.any_name: list(shape) for each in model.inputs})
            settings = {"INFERENCE_PRECISION_HINT": self.precision, "PERFORMANCE_HINT": "LATENCY"}
            if self._threads is not None:
                settings["INFERENCE_NUM_THREADS"] = self._threads
                settings["ENABLE_CPU_PINNING"] = False  # or programs side by side would share the first processor
            with signal_stack_kept():
                self._programs[shape] = openvino.compile_model(model, "CPU", settings).create_infer_request()
            if len(self._programs) > KEPT:
                self._programs.popitem(last=False)
        self._programs.move_to_end(shape)
        return self._programs[shape]


def _text(about: dict, name: str) -> str:
    value = about.get(name, "")
    return str(getattr(value, "value", value))
