"""Answers of a text classifier that tfpipe has exported as ONNX, for `mlflow.pyfunc`.

This file goes along with the model. It needs onnxruntime, tokenizers, numpy and pandas, and imports nothing of tfpipe.
Its answers are those of `tfpipe predict`: the same ids, the same batches, one thread a batch.
"""

from __future__ import annotations

import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # in front of the import, which reports itself otherwise

import numpy as np
import onnxruntime
import pandas as pd
from tokenizers import Tokenizer

TOKENS_PER_BATCH = 1024
"""padding included; a longer text is a batch by itself"""
FILES = ("onnx/model.onnx", "onnx/model_quantized.onnx")


def _load_pyfunc(data_path: str) -> Classifier:
    """Opens the folder of a model: MLflow calls it."""
    return Classifier(Path(data_path))


class Classifier:
    """A model of one label a text, or of any number of them."""

    def __init__(self, folder: Path):
        """Loads the graph and the tokenizer of an exported folder."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.names = [config["id2label"][str(index)] for index in range(len(config["id2label"]))]
        self.one_label = config["problem_type"] == "single_label_classification"
        self._abstain_below = config.get("abstain_below", 0.0)
        odds = np.array([config.get("thresholds", {}).get(name, 0.5) for name in self.names])
        self._cuts = np.log(odds / (1.0 - odds)).astype(np.float32)  # logits above which labels are given
        with open(folder / "golden.jsonl", encoding="utf-8") as file:
            self.pairs = "text_pair" in json.loads(next(itertools.islice(file, 1, None)))
        self._pad_id = config.get("pad_token_id", 0)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # cuts at the model's length
        file = next(folder / name for name in FILES if (folder / name).is_file())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # batches run side by side
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answers texts.

        Args:
          model_input: columns `text`, and `text_pair` for a model of pairs.
          params: none are known.

        Returns:
          Columns `label`, `probability`, `probabilities` (name -> probability); of a model of several labels, `labels`
          too.

        Raises:
          ValueError: a value is no text.
        """
        logits = self._logits(*(_texts(model_input, name) for name in ("text", *(["text_pair"] * self.pairs))))
        if self.one_label:
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = shifted / shifted.sum(axis=1, keepdims=True)
            probability = probabilities.max(axis=1, initial=0.0)
            sure = probability >= self._abstain_below
            best = logits.argmax(axis=1)
            found = {"label": [self.names[at] if given else "" for at, given in zip(best, sure, strict=True)]}
        else:
            probabilities = np.exp(-np.logaddexp(0.0, -logits))
            chosen = logits > self._cuts
            labels = [list(itertools.compress(self.names, row)) for row in chosen]
            found = {"label": ["|".join(map(_escaped, names)) for names in labels], "labels": labels}
            single = probabilities.astype(np.float32)  # the smallest of the chosen; of none, that none applies
            least = np.where(chosen, single, np.inf).min(axis=1, initial=np.inf)
            probability = np.where(chosen.any(axis=1), least, 1 - single.max(axis=1, initial=0.0))
        rows = _in_few_digits(probabilities).tolist()
        found["probability"] = _in_few_digits(probability).tolist()
        found["probabilities"] = [dict(zip(self.names, row, strict=True)) for row in rows]
        return pd.DataFrame(found, index=model_input.index)

    def _logits(self, texts: list[str], pairs: list[str] | None = None) -> np.ndarray:
        """Computes the logits: [texts, labels] float64."""
        encoded = self._tokenizer.encode_batch(texts if pairs is None else list(zip(texts, pairs, strict=True)))
        logits = np.zeros((len(texts), len(self.names)))

        def answer(rows: np.ndarray) -> None:
            longest = max(len(encoded[row].ids) for row in rows)
            inputs = {name: np.zeros((len(rows), longest), np.int64) for name in ("attention_mask", "token_type_ids")}
            inputs["input_ids"] = np.full((len(rows), longest), self._pad_id, np.int64)
            for place, row in enumerate(rows):
                length = len(encoded[row].ids)
                inputs["input_ids"][place, :length] = encoded[row].ids
                inputs["attention_mask"][place, :length] = 1
                inputs["token_type_ids"][place, :length] = encoded[row].type_ids
            (logits[rows],) = self._session.run(["logits"], inputs)

        # Not every system can tell which processors this process may use.
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ThreadPoolExecutor(processors) as pool:
            list(pool.map(answer, _batches([len(each.ids) for each in encoded])))
        return logits


def _texts(model_input: pd.DataFrame, name: str) -> list[str]:
    texts = list(model_input[name])
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"{name} of row {row} is {type(text).__name__}, expected a text; give a DataFrame with a row for each "
                'text, or a list such as [{"text": "a small gem"}]'
            )
    return texts


def _batches(lengths: list[int]) -> list[np.ndarray]:
    """Cuts rows into batches of similar length, the longest last."""
    order, starts = np.argsort(lengths, kind="stable"), [0]
    for place, row in enumerate(order):
        if (place + 1 - starts[-1]) * lengths[row] > TOKENS_PER_BATCH and place > starts[-1]:
            starts.append(place)
    return np.split(order, starts[1:]) if len(order) else []


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("|", "\\|")


def _in_few_digits(values: np.ndarray) -> np.ndarray:
    """Rounds to the digits in which float32 is written."""
    return np.asarray(values, np.float32).astype(str).astype(np.float64)
