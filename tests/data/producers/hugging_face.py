"""Hugging Face datasets: what the library and the hub write."""

from __future__ import annotations

import datasets
from data.producers.example import Example

_FEATURES = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["pos", "neg"]))
_TRAIN = {"text": ["kettle", "harbor", "orchard"], "label": [0, 1, 0]}
_ROWS = [("kettle", "pos"), ("harbor", "neg"), ("orchard", "pos")]
_README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
---
"""


def _dataset(columns=None):
    return datasets.Dataset.from_dict(columns or _TRAIN, features=_FEATURES)


def _parquet(columns=None):
    return lambda path: _dataset(columns).to_parquet(path)


def _saved(path):
    test = _dataset({"text": ["attic"], "label": [1]})
    datasets.DatasetDict(train=_dataset(), test=test).save_to_disk(path)


def _mapped(path):
    """Saves a dataset, and leaves the cache of a step beside it."""
    _dataset().save_to_disk(path)
    datasets.load_from_disk(path).map(lambda row: {"length": len(row["text"])})


def _lists(path):
    features = datasets.Features(
        text=datasets.Value("string"), tags=datasets.List(datasets.ClassLabel(names=["sea", "tea"]))
    )
    columns = {"text": ["both", "one", "none"], "tags": [[0, 1], [1], []]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)


_NAME = "datasets 5.0.1"
_SHARD = "train-00000-of-00001.parquet"

EXAMPLES = [
    Example(
        _NAME,
        "Parquet of the hub, with ClassLabel",
        {_SHARD: _parquet()},
        _ROWS,
        names=("pos", "neg"),
        read="names and order of the classes are those that the file declares",
    ),
    Example(
        _NAME,
        "the same, where a row has no label (-1)",
        {_SHARD: _parquet({"text": [*_TRAIN["text"], "attic"], "label": [*_TRAIN["label"], -1]})},
        _ROWS,
        unlabeled=1,
        read="-1 is no label",
    ),
    Example(
        _NAME,
        "lists of ClassLabel",
        {_SHARD: _lists},
        [("both", "sea", "tea"), ("one", "tea"), ("none",)],
        {"label_column": "tags"},
        task="multi_label",
    ),
    Example(
        _NAME,
        "`save_to_disk`",
        {"saved": _saved},
        [*_ROWS, ("attic", "neg")],
        source="saved",
        splits=("train", "train", "train", "test"),
        names=("pos", "neg"),
        read="the files that it lists, splits included",
    ),
    Example(
        _NAME,
        "`save_to_disk`, with caches of `map`",
        {"saved": _mapped},
        _ROWS,
        source="saved",
        read="without the caches, which hold the rows again",
    ),
    Example(
        _NAME,
        "a repository's folder",
        {f"repo/data/{_SHARD}": _parquet(), "repo/README.md": _README},
        source="repo",
        refused="a repository of Hugging Face, whose README says what data/train-00000-of-00001.parquet holds; set",
        read="refused: its README says what the files are; write `hf:`",
    ),
    Example(
        "git 2.39",
        "a clone without Git LFS",
        {_SHARD: "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9\nsize 12345\n"},
        refused="Git LFS",
        read="refused: a pointer to the file; the error has the command that fetches it",
    ),
    Example(
        _NAME,
        "a repository's folder, or a name of the hub",
        {f"repo/data/{_SHARD}": _parquet(), "repo/README.md": _README},
        _ROWS,
        source="hf:repo",
        splits=("train", "train", "train"),
        names=("pos", "neg"),
        read="by the library; a folder's files that it passes over are named",
    ),
]
