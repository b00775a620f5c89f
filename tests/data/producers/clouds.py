"""Cloud services: what they export, or take for training, by their documented forms."""

from __future__ import annotations

import json

from data.producers.example import Example


def _lines(*records) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def _vertex(text, label, split):
    use = {"aiplatform.googleapis.com/ml_use": split}
    return {
        "classificationAnnotation": {"displayName": label},
        "textContent": text,
        "dataItemResourceLabels": use,
    }


def _ground_truth(text, label, number):
    about = {
        "class-name": label,
        "confidence": 0.9,
        "human-annotated": "yes",
        "type": "groundtruth/text-classification",
    }
    return {"source": text, "mood": number, "mood-metadata": about}


def _tfds(path):
    """Writes a dataset as TensorFlow Datasets keeps it below `~/tensorflow_datasets`."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)}
    )
    rows = tf.data.Dataset.from_tensor_slices({"text": ["a", "b"], "label": [0, 1]})
    tfds.dataset_builders.store_as_tfds_dataset(
        name="moods", version="1.0.0", data_dir=path, features=features, split_datasets={"train": rows, "test": rows}
    )


_ROWS = [("fine tea", "warm"), ("wet harbor", "cold")]

EXAMPLES = [
    Example(
        "Google Vertex AI",
        "JSON Lines for text classification",
        {"x.jsonl": _lines(_vertex(*_ROWS[0], "training"), _vertex(*_ROWS[1], "test"))},
        _ROWS,
        {
            "text_column": "textContent",
            "label_column": "classificationAnnotation.displayName",
            "split": {"column": "dataItemResourceLabels.aiplatform.googleapis.com/ml_use"},
        },
        splits=("train", "test"),
        read="with its splits",
    ),
    Example(
        "Google AutoML",
        "CSV for text classification",
        {"x.csv": "TRAIN,fine tea,warm\nTEST,wet harbor,cold\n"},
        _ROWS,
        {"columns": ["split", "text", "label"], "split": {"column": "split"}},
        splits=("train", "test"),
        read="with its splits",
    ),
    Example(
        "Amazon Comprehend",
        "CSV, several labels",
        {"x.csv": "warm|dry,fine tea\ncold,wet harbor\n"},
        [("fine tea", "warm", "dry"), ("wet harbor", "cold")],
        {"columns": ["label", "text"]},
        task="multi_label",
    ),
    Example(
        "Amazon SageMaker Ground Truth",
        "`output.manifest`",
        {"output.manifest": _lines(_ground_truth(*_ROWS[0], 1), _ground_truth(*_ROWS[1], 0))},
        _ROWS,
        {"text_column": "source", "label_column": "mood-metadata.class-name"},
        read="by its content; tfpipe reports it",
        says="read as json_lines, by its content",
    ),
    Example(
        "TensorFlow Datasets 4.9.10",
        "the folder of a dataset",
        {"tfds": _tfds},
        source="tfds/moods/1.0.0",
        refused="set data.source: tfds:moods, and TFDS_DATA_DIR",
        read="refused: its features.json says what the files hold; write `tfds:`",
    ),
]
