"""The script around ONNX Runtime that a user would write: a CSV in, a CSV out. FOLDER DATA.csv OUT.csv THREADS."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder, data, output, threads = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # cuts at the model's length
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(next((folder / "onnx").glob("*.onnx")), options)
with open(data, encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
encoded = tokenizer.encode_batch([row["text"] for row in rows])
order = sorted(range(len(rows)), key=lambda number: len(encoded[number].ids))
for start in range(0, len(order), 32):
    batch = order[start : start + 32]
    ids, mask = np.zeros((2, len(batch), len(encoded[batch[-1]].ids)), np.int64)
    for place, number in enumerate(batch):
        ids[place, : len(encoded[number].ids)] = encoded[number].ids
        mask[place, : len(encoded[number].ids)] = 1
    tokens = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    for number, answer in zip(batch, session.run(["probabilities"], tokens)[0], strict=True):
        rows[number] |= {"label": names[str(answer.argmax())], "probability": float(answer.max())}
with open(output, "w", encoding="utf-8", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
