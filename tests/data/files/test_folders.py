"""What a folder holds: each kind as its producer writes it, and what is refused."""

import json
import os

import datasets
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from data.row_reading import rows_of

from tfpipe.config.data import Data
from tfpipe.data.files.folders import parts_of
from tfpipe.data.files.sources import identity, source_files
from tfpipe.errors import InputError


def write(path, content="text,label\na,b\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def json_rows(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def parts(path, **settings):
    found = parts_of(str(path), str(path), Data(source=str(path), **settings))
    return [(os.path.relpath(part.path, path), part.format, part.split, dict(part.columns)) for part in found]


@pytest.fixture
def partitioned(tmp_path):
    """As Spark 4.3 writes `df.write.partitionBy("label", "lang").json(...)`."""
    write(tmp_path / "_SUCCESS", "")
    write(tmp_path / "._SUCCESS.crc", "crc")
    for label, lang in (("neg", "en"), ("pos%2Fall", "en"), ("pos%2Fall", "01"), ("__HIVE_DEFAULT_PARTITION__", "en")):
        folder = tmp_path / f"label={label}" / f"lang={lang}"
        write(folder / "part-00000-1b0e.c000.json", json_rows(f"{label} {lang}"))
        write(folder / ".part-00000-1b0e.c000.json.crc", "crc")
    return tmp_path


def test_partitions_are_columns(partitioned):
    part = "part-00000-1b0e.c000.json"
    assert parts(partitioned) == [
        (f"label=__HIVE_DEFAULT_PARTITION__/lang=en/{part}", "json_lines", None, {"label": None, "lang": "en"}),
        (f"label=neg/lang=en/{part}", "json_lines", None, {"label": "neg", "lang": "en"}),
        (f"label=pos%2Fall/lang=01/{part}", "json_lines", None, {"label": "pos/all", "lang": "01"}),
        (f"label=pos%2Fall/lang=en/{part}", "json_lines", None, {"label": "pos/all", "lang": "en"}),
    ]
    usable, rejected, filtered = rows_of(str(partitioned), filter={"lang": ["en"]})
    assert [(text, label) for _, text, _, label in usable] == [("neg en", "neg"), ("pos%2Fall en", "pos/all")]
    assert [reason for _, reason, _ in rejected] == ["empty label"] and filtered == 1
    assert len(rows_of(f"{partitioned}/*/*/*.json")[0]) == 3  # by a pattern, too


def test_a_partition_is_in_the_identity(partitioned):
    def content(path):
        return list(identity(Data(source=str(path))).values())

    before = content(partitioned)
    (partitioned / "label=neg").rename(partitioned / "label=bad")
    assert content(partitioned) != before


def test_partitions_of_parquet(tmp_path):
    for label in ("0", "1"):
        folder = tmp_path / f"label={label}"
        folder.mkdir()
        parquet.write_table(pa.table({"text": [f"text {label}"]}), folder / "data_0.parquet")
    assert [(text, label) for _, text, _, label in rows_of(str(tmp_path))[0]] == [("text 0", "0"), ("text 1", "1")]
    with pytest.raises(InputError, match="name of its folder is a column of the text"):
        rows_of(str(tmp_path), text_column="label", label_column="text")


@pytest.mark.parametrize("name", ["part.jsonl", "part.csv", "part.parquet"])
def test_a_column_of_a_folder_that_the_file_has_too(tmp_path, name):
    rows = {"text": ["one", "two", "three"], "label": ["a", "b", "a"], "id": [1, 2, 3]}
    path = tmp_path / "label=a" / name
    path.parent.mkdir()
    if name.endswith("parquet"):
        parquet.write_table(pa.table(rows), path)
    else:
        records = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
        lines = [json.dumps(record) for record in records]
        if name.endswith("csv"):
            lines = ["text,label,id", *(",".join(map(str, record.values())) for record in records)]
        path.write_text("".join(f"{line}\n" for line in lines))
    usable, rejected, _ = rows_of(str(tmp_path))
    assert [(text, label) for _, text, _, label in usable] == [("one", "a"), ("three", "a")]
    assert [reason for _, reason, _ in rejected] == ["column 'label' holds 'b', and the name of its folder says 'a'"]


def test_a_table_in_parts(tmp_path, capsys):
    for name in ("part-1.csv", "part-0.csv"):
        write(tmp_path / name)
    write(tmp_path / "LICENSE", "free")
    assert [part[:3] for part in parts(tmp_path)] == [("part-0.csv", "csv", None), ("part-1.csv", "csv", None)]
    assert "not read: LICENSE" in capsys.readouterr().err


def test_a_format_decides_about_names_that_say_nothing(tmp_path):
    write(tmp_path / "000000_0")  # as Hive writes
    with pytest.raises(InputError, match=r"000000_0 are no files of rows by their names: give a pattern"):
        parts(tmp_path)
    assert [part[:2] for part in parts(tmp_path, format="csv")] == [("000000_0", "csv")]


@pytest.mark.parametrize(
    "layout", ["{}/part-0.csv", "{}.csv", "{}-00000-of-00001.csv", "{}_0.csv.gz", "my_{}.csv", "my.set-{}-0.csv"]
)
def test_splits_by_folders_or_files(tmp_path, layout):
    for split in ("train", "dev", "test"):
        write(tmp_path / layout.format(split))
    assert [part[2] for part in parts(tmp_path)] == ["validation", "test", "train"]


def test_names_with_one_split_are_parts(tmp_path):
    for name in ("reviews_test.csv", "reviews_test2.csv"):
        write(tmp_path / name)
    assert [part[2] for part in parts(tmp_path)] == [None, None]


def test_names_with_one_beginning_that_are_splits_only_in_part(tmp_path):
    for name in ("x-train.csv", "x-test.csv", "x-unsupervised.csv"):
        write(tmp_path / name)
    with pytest.raises(InputError, match=r"x-test.csv, x-train.csv are splits by their names, and x-unsupervised.csv"):
        parts(tmp_path)


def test_parts_without_a_row(tmp_path, capsys):
    """Spark writes a part for each task, whether it has rows or not."""
    write(tmp_path / "part-0.csv", "text,label\n")
    write(tmp_path / "part-1.csv")
    write(tmp_path / "part-2.csv", "")
    write(tmp_path / "part-3.json", "[]")
    assert rows_of(str(tmp_path))[0] == [(2, "a", None, "b")]
    assert "part-0.csv: no row in it" in (said := capsys.readouterr().err) and "part-2.csv: no row in it" in said
    with pytest.raises(InputError, match="a header and no row"):
        rows_of(str(tmp_path / "part-0.csv"))


def test_names_that_are_splits_only_in_part(tmp_path):
    write(tmp_path / "train.csv")
    write(tmp_path / "train-station.csv")  # of stations
    message = r"train.csv are splits by their names, and train-station.csv are not; name the files of each split"
    with pytest.raises(InputError, match=message):
        parts(tmp_path)


def test_acl_imdb(tmp_path, capsys):
    for split in ("train", "test"):
        write(tmp_path / split / "labeledBow.feat", "9 0:9")
        for label in ("neg", "pos"):
            write(tmp_path / split / label / "0_1.txt", f"{split} {label}")
    write(tmp_path / "train" / "unsup" / "0_0.txt", "who knows")
    write(tmp_path / "README", "Large Movie Review Dataset")
    assert [part[:3] for part in parts(tmp_path)] == [("test", "folder", "test"), ("train", "folder", "train")]
    assert "train/unsup: left out, as its texts have no label" in capsys.readouterr().err
    assert sorted(label for *_, label in rows_of(str(tmp_path))[0]) == ["neg", "neg", "pos", "pos"]
    assert len(rows_of(str(tmp_path / "train"))[0]) == 2
    assert len(rows_of(str(tmp_path / "train"), missing=[])[0]) == 3


def test_rows_in_a_folder_per_class_are_no_texts(tmp_path):
    for label in ("neg", "pos"):
        write(tmp_path / label / "part-0.csv")
    message = r"neg/part-0.csv, pos/part-0.csv hold rows, and no text of a class; set data.source: .*/\*/\*.csv"
    with pytest.raises(InputError, match=message):
        parts(tmp_path)
    assert parts(tmp_path, format="folder") == [(".", "folder", None, {})]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["_delta_log/00000000000000000000.json", "part-0.parquet"],
            "a Delta table, whose log says which of its files",
        ),
        (["metadata/v1.metadata.json", "data/0.parquet"], "an Iceberg table, whose log"),
        ([".hoodie/hoodie.properties", "0.parquet"], "a Hudi table, whose log"),
        (["dataset_infos.json", "data/train-0.parquet"], "a repository of Hugging Face.*; set data.source: hf:"),
        (["sub/sub/a.csv"], r"no file in a folder of it; expected .*/CLASS/FILE"),
        ([], r"no file in a folder of it; expected .*/CLASS/FILE"),
        (["label=a/0.csv", "label=a/more/1.csv"], r"label=a: holds files of rows \(0.csv\) beside folders \(more\)"),
        (["label=a/0.csv", "label=b/more/1.csv"], r"label=b: a part of a table that holds the folder more; move"),
        (["label=a/0.csv", "label=b/0.csv", "all.csv"], r"holds files of rows \(all.csv\) beside folders"),
        (["train/0.csv", "test/0.csv", "all.csv"], r"holds files of rows \(all.csv\) beside folders"),
        (["docs/a.txt", "scripts/a.txt", "0.csv"], r"\(0.csv\) beside folders \(docs, scripts\); name what is meant"),
        (["a.csv", "a.jsonl"], r"a.csv and a.jsonl look like the same rows in two formats; name the files"),
        (["a.csv", "b.csv", "b.csv.gz"], r"b.csv and b.csv.gz look like the same rows in two formats"),
    ],
)
def test_refused(tmp_path, files, message):
    for file in files:
        write(tmp_path / file)
    with pytest.raises(InputError, match=message) as caught:
        rows_of(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"format": "csv"}, {"format": "lines", "file_name": "{label}/*.txt"}])
def test_a_format_of_files_reads_no_folders_of_classes(tmp_path, settings):
    for label in ("neg", "pos"):
        write(tmp_path / label / "0.txt", "text,label\na,b\n")
    with pytest.raises(InputError, match=r"of files; set data.source: .*/\*/\*, or data.format: folder to read"):
        parts(tmp_path, **settings)


def test_what_is_not_read_is_reported(tmp_path, capsys):
    for label in ("neg", "pos"):
        write(tmp_path / "texts" / label / "more" / "0.txt", "text")
        write(tmp_path / "texts" / label / "0.txt", "text")
    for name in ("train.csv", "test.csv", "_old.csv", "_SUCCESS"):
        write(tmp_path / "rows" / name)
    parts(tmp_path / "texts")
    parts(tmp_path / "rows")
    said = " ".join(capsys.readouterr().err.split())
    assert "texts: not read, as they lie deeper than the folders of classes: neg/more, pos/more" in said
    assert "rows: splits by the names of its files: test.csv, train.csv" in said
    assert "rows: not read: _old.csv" in said and "_SUCCESS" not in said


def test_a_repository_with_a_card(tmp_path):
    write(tmp_path / "data" / "train.csv")
    card = write(tmp_path / "README.md", "---\nconfigs:\n- config_name: default\n---\n# Kettles\n")
    with pytest.raises(InputError, match=r"whose README says what data/train.csv holds; set data.source: hf:"):
        parts(tmp_path)
    card.write_text("# Kettles\n")
    with pytest.raises(InputError, match=r"data/train.csv hold rows, and no text of a class"):
        parts(tmp_path)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """As datasets 5.0 saves: two splits, and a cache that `map` left."""
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["pos", "neg"]))
    columns = {"text": ["a", "b", "c"], "label": [0, 1, -1]}
    splits = {split: datasets.Dataset.from_dict(columns, features=features) for split in ("train", "test", "extra")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    shard = tmp_path / "saved" / "train" / "data-00000-of-00001.arrow"
    (shard.parent / "cache-64abaa463584dcbe.arrow").write_bytes(shard.read_bytes())
    return tmp_path / "saved"


def test_what_save_to_disk_wrote(saved, capsys):
    files = source_files(Data(source=str(saved)))
    assert [(os.path.relpath(file.path, saved), file.format, file.split) for file in files] == [
        ("train/data-00000-of-00001.arrow", "arrow", "train"),
        ("test/data-00000-of-00001.arrow", "arrow", "test"),
    ]
    assert "not read: extra, which is no split" in capsys.readouterr().err
    usable = rows_of(str(saved))[0]
    assert [(text, label) for _, text, _, label in usable] == [("a", "pos"), ("b", "neg")] * 2
    assert len(rows_of(str(saved / "extra"))[0]) == 2
    with pytest.raises(InputError, match=r"a folder that save_to_disk wrote, with caches .*; set data.source:"):
        rows_of(f"hf:{saved}")


def test_a_saved_dataset_that_names_files_elsewhere(saved):
    state = saved / "train" / "state.json"
    state.write_text(json.dumps({"_data_files": [{"filename": "../test/data-00000-of-00001.arrow"}]}))
    with pytest.raises(InputError, match="leads out of"):
        parts(saved)
    state.write_text("{")
    with pytest.raises(InputError, match=r"state.json: not JSON"):
        parts(saved)
    state.write_text(json.dumps({"_data_files": [], "_indices_data_files": [{"filename": "indices.arrow"}]}))
    with pytest.raises(InputError, match="save it again, after flatten_indices"):
        parts(saved)


def test_files_that_hugging_face_datasets_does_not_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "reviews"
    for name in ("train-station.csv", "harbour.csv"):
        write(folder / name)
    assert len(rows_of(f"hf:{folder}")[0]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "Hugging Face datasets reads train-station.csv there, and not harbour.csv" in said
    assert "reads its CSV files as pandas does" in said
