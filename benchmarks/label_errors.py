"""How many planted label errors are found among training rows, by whom, and at what cost.

    .venv/bin/python benchmarks/label_errors.py configs/quickstart.yaml --epochs 2 --directory /tmp/label-errors

Changes 5 % of the labels of a configuration of two labels, trains the dense model on them, and searches the training
rows by answers of: the dense model, which has seen these labels; logistic regressions, cross-validated, on the frozen
states of the encoder before training (mean over tokens of the last layer but one), or of the dense model after it.
Prints JSON. A row counts as found where its label was changed; labels that were wrong before count as false alarms.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import tfpipe  # before TensorFlow: the package sets what TensorFlow reads when it is imported
from tfpipe import pipeline
from tfpipe.config.data import Data
from tfpipe.config.file import parse_config
from tfpipe.data import readers
from tfpipe.data.files.sources import source_files
from tfpipe.data.split import digests
from tfpipe.encoders.parameters import HEAD, PREFIX
from tfpipe.encoders.source import open_source
from tfpipe.evaluate.calibration import fitted_temperature, validation_logits
from tfpipe.evaluate.label_errors import likely_errors
from tfpipe.model.bert import build_inference_model
from tfpipe.model.classifier import float_model, load_classifier
from tfpipe.model.weights import get_weights, set_weights
from tfpipe.provenance import machine
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tokens.table import TokenTable

import tensorflow as tf  # isort: skip
import tf_keras  # isort: skip

NOISE, FOLDS, BATCH_ROWS, STRENGTH = 0.05, 5, 32, 1e-3


def main() -> None:
    """Measures, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--directory", type=Path, required=True)
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    tree = yaml.safe_load(given.config.read_text(encoding="utf-8"))
    tree["data"], changed = spoilt(Data.model_validate(tree["data"]), given.directory)
    tree |= {"name": "label-errors", "prune": None, "quantize": None}
    tree["train"]["epochs"] = given.epochs
    config, run = parse_config(tree, where=str(given.config)), given.directory / f"run-{given.epochs:g}"
    pipeline.run(config, RunDirectory(run), until="train")
    classifier, table = load_classifier(run / "train"), TokenTable.open(run / "prepare" / "train")
    validation = TokenTable.open(run / "prepare" / "validation")
    held_out = validation_logits(run / "train")
    temperature = fitted_temperature(held_out, validation.labels, config.task)
    texts = table.texts(range(table.num_rows))
    wrong, folds = np.array([text in changed for text in texts]), digests(texts, None, 0)[:, 1] % np.uint64(FOLDS)
    tuned, encoder = float_model(classifier), open_source(config.encoder.source)
    frozen = build_inference_model(encoder.architecture, 2)
    states = {name: value for name, value in encoder.weights().items() if not name.startswith(("pooler.", f"{HEAD}."))}
    set_weights(frozen, get_weights(frozen) | {f"{PREFIX}{name}": value for name, value in states.items()})
    layer = f"encoder.layer.{encoder.architecture.num_hidden_layers - 2}.output.LayerNorm"
    ways = {
        "the dense model": lambda: outputs(tuned, None, table) / temperature,
        "frozen states before training": lambda: cross_validated(outputs(frozen, layer, table), table.labels, folds),
        "frozen states after training": lambda: cross_validated(outputs(tuned, layer, table), table.labels, folds),
    }
    found: dict[str, Any] = {"tfpipe": tfpipe.__version__, "machine": machine(), "epochs": given.epochs}
    found |= {"training_rows": len(wrong), "changed": int(wrong.sum())}
    for name, logits in ways.items():
        found[name] = scored(logits, table.labels, wrong)
    of_validation = np.array([text in changed for text in validation.texts(range(validation.num_rows))])
    found["validation rows, the dense model"] = scored(
        lambda: held_out / temperature, validation.labels, of_validation
    ) | {"rows": len(of_validation), "changed": int(of_validation.sum())}
    print(json.dumps(found, indent=2))


def spoilt(data: Data, directory: Path) -> tuple[dict[str, Any], set[str]]:
    """Writes the rows that pass the filter with some labels changed: the settings for them, and the changed texts."""
    rows = []
    for file in source_files(data):
        for block in readers.blocks(file, data):
            columns = readers.cells(block, data).columns
            passing = zip(*columns.values(), strict=True)
            rows += [dict(zip(columns, values, strict=True)) for values in passing]
    rows = [row for row in rows if all(str(row[name]) in values for name, values in data.filter.items())]
    labels = sorted({row[data.label_column] for row in rows})
    chosen = np.random.default_rng(0).random(len(rows)) < NOISE
    with open(directory / "rows.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row, other in zip(rows, chosen.tolist(), strict=True):
            label = row[data.label_column]
            writer.writerow([row[data.text_column], labels[1 - labels.index(label)] if other else label])
    changed = {row[data.text_column].strip() for row, other in zip(rows, chosen, strict=True) if other}
    kept = ("label_names", "split", "max_length")
    settings = {name: value for name, value in data.model_dump(exclude_unset=True).items() if name in kept}
    return settings | {"source": str(directory / "rows.csv")}, changed


def outputs(model: tf_keras.Model, layer: str | None, table: TokenTable) -> np.ndarray:
    """Logits of all rows, or the mean over tokens of a layer's states."""
    if layer is not None:
        model = tf_keras.Model(model.inputs, model.get_layer(layer).output)
    names = ("input_ids", "attention_mask", "token_type_ids")

    @tf.function(input_signature=[{name: tf.TensorSpec([None, None], tf.int32, name) for name in names}])
    def answer(batch):
        found = model(batch, training=False)
        if layer is None:
            return found
        mask = tf.cast(batch["attention_mask"], tf.float32)[:, :, None]
        return tf.reduce_sum(found * mask, axis=1) / tf.reduce_sum(mask, axis=1)

    order, parts = np.argsort(table.lengths, kind="stable"), []
    for start in range(0, len(order), BATCH_ROWS):
        parts.append(answer(table.padded(order[start : start + BATCH_ROWS])).numpy())
    return np.concatenate(parts)[np.argsort(order)]


def cross_validated(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Answers each row by a logistic regression on the rows of all other folds: [rows, labels] float64 logits."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    found = np.zeros(labels.shape, np.float64)
    for fold in np.unique(folds):
        inside = folds != fold
        scaler = StandardScaler().fit(features[inside])
        fitted = LogisticRegression(C=STRENGTH).fit(scaler.transform(features[inside]), labels[inside].argmax(axis=1))
        found[~inside] = fitted.predict_log_proba(scaler.transform(features[~inside]))
    return found


def scored(answer, labels: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Precision and recall of the rows that are doubted, and seconds of a processor."""
    started = time.process_time()
    doubted, _, _ = likely_errors(answer(), labels, "single_label")
    seconds = time.process_time() - started
    hits = int(wrong[doubted].sum())
    return {
        "doubted": len(doubted),
        "precision": round(hits / max(len(doubted), 1), 3),
        "recall": round(hits / wrong.sum(), 3),
        "processor_seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    main()
