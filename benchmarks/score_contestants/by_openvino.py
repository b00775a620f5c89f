"""The script around OpenVINO that a user would write: a CSV in, a CSV out. FOLDER DATA.csv OUT.csv THREADS PRECISION.

Two requests at a time, which OpenVINO advises where many texts wait. PRECISION: f32, or bf16, which OpenVINO takes by
itself where the processor multiplies it.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import openvino
from tokenizers import Tokenizer

folder, data, output, threads, precision = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # cuts at the model's length
settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
model = openvino.Core().compile_model(folder / "openvino_model.xml", "CPU", settings)
with open(data, encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
encoded = tokenizer.encode_batch([row["text"] for row in rows])
order = sorted(range(len(rows)), key=lambda number: len(encoded[number].ids))


def keep(request: openvino.InferRequest, batch: list[int]) -> None:
    logits = request.get_output_tensor(0).data
    for number, row in zip(batch, np.exp(logits - logits.max(axis=1, keepdims=True)), strict=True):
        rows[number] |= {"label": names[str(row.argmax())], "probability": float(row.max() / row.sum())}


queue = openvino.AsyncInferQueue(model)
queue.set_callback(keep)
for start in range(0, len(order), 32):
    batch = order[start : start + 32]
    ids, mask = np.zeros((2, len(batch), len(encoded[batch[-1]].ids)), np.int64)
    for place, number in enumerate(batch):
        ids[place, : len(encoded[number].ids)] = encoded[number].ids
        mask[place, : len(encoded[number].ids)] = 1
    tokens = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    queue.start_async({each.any_name: tokens[each.any_name] for each in model.inputs}, batch)
queue.wait_all()
with open(output, "w", encoding="utf-8", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
