import datasets
import pytest
from data.row_reading import rows_of

from tfpipe.config.data import Data
from tfpipe.data.files.sources import identity, source_files
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
