"""Warm-up requests: TF Serving runs them through a SavedModel before it takes traffic.

The first call of each shape allocates, optimizes the graph and fills kernel caches. The server replays the
`PredictionLog` records of `assets.extra/tf_serving_warmup_requests` (a TFRecord, 1,000 at most) when it loads a version
(https://www.tensorflow.org/tfx/serving/saved_model_warmup).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from tfpipe.tokens.table import TokenTable

FILE = "tf_serving_warmup_requests"
LENGTHS = 10  # quantiles of the rows' lengths
BATCH = 32


def predict_request(signature: str, inputs: dict[str, list | np.ndarray]) -> predict_pb2.PredictRequest:
    """Makes a request of TF Serving's PredictionService; without a model name, as a warm-up record needs none.

    Args:
      signature: its name.
      inputs: of that signature.
    """
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def write_warmup(saved_model: Path, table: TokenTable, *, pairs: bool) -> int:
    """Writes warm-up requests of real rows: one row at each length that occurs, and a batch.

    `classify` runs the same graph as `serving_default`, so that the batch is enough for it.

    Returns:
      Their number.
    """
    requests = []
    for rows in _rows(table):
        texts = {"text": [text.encode() for text in table.texts(rows)]}
        if pairs:
            texts["text_pair"] = [(pair or "").encode() for pair in table.text_pairs(rows)]
        requests += [predict_request("serving_default", texts), predict_request("tokens", table.padded(rows))]
    return _write(saved_model, [*requests, predict_request("classify", texts)])


def write_token_warmup(saved_model: Path, table: TokenTable) -> int:
    """Does what `write_warmup` does, for a SavedModel whose `serving_default` takes token ids."""
    return _write(saved_model, [predict_request("serving_default", table.padded(rows)) for rows in _rows(table)])


def _rows(table: TokenTable) -> list[np.ndarray]:
    """Chooses one row at each of some lengths, then a batch: [rows] int64 each."""
    ordered = np.argsort(table.lengths, kind="stable")
    alone = ordered[np.unique(np.linspace(0, len(ordered) - 1, LENGTHS).round().astype(int))]
    together = ordered[np.unique(np.linspace(0, len(ordered) - 1, BATCH).round().astype(int))]
    return [*(alone[index : index + 1] for index in range(len(alone))), together]


def _write(saved_model: Path, requests: list[predict_pb2.PredictRequest]) -> int:
    file = saved_model / "assets.extra" / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString(deterministic=True))
    return len(requests)
