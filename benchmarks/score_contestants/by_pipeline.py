"""transformers.pipeline over optimum-onnx's model, as their documentation shows: a CSV in, a CSV out.

FOLDER TOKENIZER DATA.csv OUT.csv THREADS MAX_LENGTH [sorted]: of optimum's dynamic int8, and of the trained model.
With `sorted`, the texts are given by length and put back.
"""

import csv
import sys

import onnxruntime
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

folder, tokenizer_folder, data, output, threads, max_length = sys.argv[1:7]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
model = ORTModelForSequenceClassification.from_pretrained(
    folder, file_name="model_quantized.onnx", session_options=options
)
classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(tokenizer_folder))
with open(data, encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
order = list(range(len(rows)))
if sys.argv[7:] == ["sorted"]:
    order.sort(key=lambda number: len(rows[number]["text"]))
texts = [rows[number]["text"] for number in order]
answers = classify(texts, batch_size=32, truncation=True, max_length=int(max_length))
for number, answer in zip(order, answers, strict=True):
    rows[number] |= {"label": answer["label"], "probability": answer["score"]}
with open(output, "w", encoding="utf-8", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
