import json

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from data.row_reading import rows_of

from tfpipe.config.data import Data
from tfpipe.config.file import parse_config
from tfpipe.data.files.sources import identity, source_files
from tfpipe.data.labels.survey import before_reading
from tfpipe.errors import InputError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A dataset in the layout of the hub, in a directory: real loading, no network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    for split, count in (("train", 30), ("test", 10), ("unsupervised", 5)):
        columns = {"text": [f"{split} {n}" for n in range(count)], "label": [n % 2 for n in range(count)]}
        dataset = datasets.Dataset.from_dict(columns, features=features)
        (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
        dataset.to_parquet(tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: data/{split}-*\n" for split in ("train", "test", "unsupervised"))
        + "---\n"
    )
    return f"hf:{tmp_path / 'set'}"


def test_splits_are_given_and_class_labels_have_names(hub):
    files = source_files(Data(source=hub))
    assert [(file.name, file.split) for file in files] == [(f"{hub}#train", "train"), (f"{hub}#test", "test")]
    usable, rejected, _ = rows_of(hub)
    assert len(usable) == 40 and not rejected
    assert usable[:2] == [(1, "train 0", None, "neg"), (2, "train 1", None, "pos")]


def test_one_split_alone_and_its_identity(hub):
    assert [file.split for file in source_files(Data(source=f"{hub}#unsupervised"))] == [None]
    assert len(rows_of(f"{hub}#train[:10]")[0]) == 10
    given = source_files(Data(source={"train": f"{hub}#unsupervised", "test": f"{hub}#test"}))
    assert [file.split for file in given] == ["train", "test"]
    assert identity(Data(source=f"{hub}#train")) == identity(Data(source=f"{hub}#train"))
    assert len(set(identity(Data(source=hub)).values())) == 2


def test_what_is_not_there(hub, monkeypatch):
    with pytest.raises(InputError, match=r"#train: no column 'body' \(data.text_column\); columns in the file: 'text'"):
        rows_of(f"{hub}#train", text_column="body")
    with pytest.raises(InputError, match=r"#nope: can't be loaded \(.*\); check the name"):
        rows_of(f"{hub}#nope")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"hf:no/such-set: can't be loaded"):
        source_files(Data(source="hf:no/such-set"))


def test_nested_fields_and_their_class_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features(
        review={"text": datasets.Value("string"), "stars": datasets.Value("int32")},
        labels={"sentiment": names},
        votes=datasets.List({"label": names}),
    )
    rows = [
        {"review": {"text": f"text {n}", "stars": n}, "labels": {"sentiment": n % 2}, "votes": [{"label": n % 2}]}
        for n in range(4)
    ]
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "set" / "train.parquet")
    source = f"hf:{tmp_path / 'set'}#train"
    expected = [(n + 1, f"text {n}", None, ["neg", "pos"][n % 2]) for n in range(4)]
    for label in ("labels.sentiment", "votes.0.label"):
        assert rows_of(source, text_column="review.text", label_column=label)[0] == expected
    with pytest.raises(InputError, match=r"no column 'text' .*file: 'review.text', 'review.stars', 'labels.sentiment'"):
        rows_of(source)


NAMES = datasets.ClassLabel(names=["pos", "neg"])


@pytest.mark.parametrize(
    ("feature", "cells", "column"),
    [
        ({"a": NAMES}, [{"a": 0}, {"a": 1}, {"a": -1}], "label.a"),
        ([{"a": NAMES}], [[{"a": 0}], [{"a": 1}], [{"a": -1}]], "label.0.a"),
        ({"a": {"b": [NAMES]}}, [{"a": {"b": [each]}} for each in (0, 1, -1)], "label.a.b.0"),
        ({"a": [NAMES]}, [{"a": [0]}, {"a": [1]}, {"a": None}], "label.a"),
        (NAMES, [0, 1, -1], "label"),
    ],
)
def test_class_labels_are_the_same_in_the_files_themselves(tmp_path, monkeypatch, feature, cells, column):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(text=datasets.Value("string"), label=feature)
    dataset = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": cells}, features=features)
    path = tmp_path / "set" / "train-00000-of-00001.parquet"
    path.parent.mkdir()
    dataset.to_parquet(path)
    dataset.save_to_disk(tmp_path / "saved")
    for source in (f"hf:{path.parent}", path, tmp_path / "saved"):
        usable, rejected, _ = rows_of(str(source), label_column=column)
        assert [label for *_, label in usable] == ["pos", "neg"] and not rejected


def test_class_labels_of_a_sequence_of_objects(tmp_path):
    """datasets 3: a Sequence of objects is an object of lists."""
    names = {"names": ["pos", "neg"], "_type": "ClassLabel"}
    features = {"label": {"feature": {"a": names}, "_type": "Sequence"}}
    table = pa.table({"text": ["x", "y"], "label": [{"a": [0]}, {"a": [1]}]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    assert [label for *_, label in rows_of(str(tmp_path / "x.parquet"), label_column="label.a")[0]] == ["pos", "neg"]


def test_names_of_classes_are_read_as_cells_are(tmp_path):
    names = {"names": [" pos", "neg ", "pos"], "_type": "ClassLabel"}
    table = pa.table({"text": ["x", "y", "z"], "label": [0, 1, 2]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"label": names}}})})
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    tree = {"name": "x", "data": {"source": str(tmp_path / "x.parquet")}, "encoder": {"source": "x"}}
    config = parse_config(tree, "")
    assert before_reading(config, source_files(config.data))[1].names == ("pos", "neg")
    assert [label for *_, label in rows_of(str(tmp_path / "x.parquet"))[0]] == ["pos", "neg", "pos"]
