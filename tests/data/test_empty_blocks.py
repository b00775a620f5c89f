"""Any option, on files of which some blocks hold no row that is used: the same rows as from one block."""

import json

import pytest
from data.preparing import SPLITS, film_rows, rows_of

from tfpipe.data import block as block_module

OPTIONS = {
    "plain": {},
    "stratified": {"split": {"stratified": True}},
    "groups": {"split": {"group_column": "user"}},
    "folds": {"split": {"folds": 3, "fold": 1}},
    "column": {"split": {"column": "part"}},
    "near": {"duplicates": {"near": True}},
    "exact": {"duplicates": {"near": False, "across_splits": "keep"}},
    "oversample": {"balance": "oversample"},
    "augmentation": {"augmentation": {"copies": 1, "deletion": 0.2}},
    "everything": {
        "split": {"stratified": True},
        "balance": "oversample",
        "augmentation": {"copies": 2, "swap": 0.2},
        "cleaning": {"html": True, "stop_words": ["this"]},
        "duplicates": {"near": True},
        "workers": 2,
    },
    "pairs": {"text_pair_column": "user", "augmentation": {"copies": 1, "deletion": 0.2}},
    "label names": {"label_names": {"1": "positive", "0": "negative"}},
    "processes": {"workers": 2},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_blocks_without_a_row_change_nothing(prepared, tmp_path, monkeypatch, option):
    rows = [(*row, f"user {n % 40}", ("train", "dev", "test", "")[n % 4]) for n, row in enumerate(film_rows(120))]
    unused = [("left out", "1", "user", "train", "no")] * 100 + [("", "1", "user", "train", "yes")] * 100
    lines = [(*row, "yes") for row in rows[:50]] + unused + [(*row, "yes") for row in rows[50:]]
    columns = ("text", "label", "user", "part", "keep")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(dict(zip(columns, line, strict=True))) + "\n" for line in lines))
    settings = {"source": str(path), "filter": {"keep": "yes"}, "max_rejected_fraction": 0.9}
    settings |= {"workers": 1} | OPTIONS[option]  # so many blocks would start processes, for every option
    whole, _ = prepared([], name="whole", **settings | {"workers": 1})
    monkeypatch.setattr(block_module, "BLOCK_BYTES", 600)
    cut, _ = prepared([], name="cut", **settings)
    for split in SPLITS:
        assert rows_of(cut, split) == rows_of(whole, split)


@pytest.mark.parametrize("count", [40, 100, 300])
@pytest.mark.parametrize("distinct", [1000, 30])
def test_stratified_splits_of_few_texts(prepared, count, distinct):
    rows = [(f"this film {n % distinct} is good", "ab"[n % distinct % 2]) for n in range(count)]
    split = {"train": 0.6, "validation": 0.2, "test": 0.2, "stratified": True}
    directory, _ = prepared(rows, split=split, duplicates={"near": False})
    assert all(rows_of(directory, split) for split in SPLITS)
