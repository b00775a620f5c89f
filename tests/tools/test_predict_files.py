"""Files of any form in, the same rows out, each with its answer; a killed scoring ends with the same bytes."""

from __future__ import annotations

import csv
import gzip
import json
import signal
import socket
import sqlite3
import time
import zipfile
from contextlib import closing
from pathlib import Path

import duckdb
import numpy as np
import openpyxl
import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest
import tf_serving_stand_in as stand_in
from conftest import predict

from tfpipe.data import block as blocks_module
from tfpipe.errors import InputError
from tfpipe.tools.predict import command, scoring
from tfpipe.tools.predict.options import Options

ROWS = [
    {"id": 7, "text": "this film is very good and lovely", "note": "a, b", "score": 0.5, "seen": True},
    {"id": 8, "text": 'a "bad" film\nover two lines', "note": "", "score": 1.5, "seen": False},
    {"id": 9, "text": "ünknown Wörds 汉字", "note": "line\u2028end", "score": -2.0, "seen": True},
    {"id": 10, "text": "so good and lovely", "note": "ü", "score": 3.25, "seen": False},
]


def run(model, source, output, **options):
    inputs = tuple(map(str, source)) if isinstance(source, list) else (str(source),)
    command.run(str(model), [], Options(input=inputs, output=output, **options))
    return output


def read(path: Path) -> list[dict]:
    """The rows of an output, by other libraries than those that wrote it."""
    match path.suffix:
        case ".jsonl":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        case ".parquet":
            return pa.parquet.read_table(path).to_pylist()
        case ".csv" | ".tsv":
            separator = "," if path.suffix == ".csv" else "\t"
            return pandas.read_csv(path, sep=separator, keep_default_na=False).to_dict("records")


def write_csv(path: Path, rows=ROWS, separator=","):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_json_lines(path: Path, rows=ROWS):
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path):
    pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def write_excel(path: Path):
    book = openpyxl.Workbook()
    book.active.append(list(ROWS[0]))
    for row in ROWS:
        book.active.append(list(row.values()))
    book.save(path)
    return path


def write_sqlite(path: Path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE rows (id INTEGER, text TEXT, note TEXT, score REAL, seen INTEGER)")
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", [tuple(row.values()) for row in ROWS])
    return path


def write_arrow(path: Path):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, pa.Table.from_pylist(ROWS).schema) as writer:
        writer.write_table(pa.Table.from_pylist(ROWS))
    return path


def write_duckdb(path: Path):
    with duckdb.connect(str(path)) as connection:
        connection.register("given", pa.Table.from_pylist(ROWS))
        connection.execute("CREATE TABLE rows AS SELECT * FROM given")
        connection.execute("CREATE TABLE other (n INTEGER)")
    return path


def write_compressed(path: Path):
    with gzip.open(path, "wb") as file:
        file.write(write_csv(path.with_suffix("")).read_bytes())
    path.with_suffix("").unlink()
    return path


def write_zip(path: Path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("in/x.jsonl", "".join(f"{json.dumps(row)}\n" for row in ROWS))
    return path


def write_dataset(path: Path):
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(path)
    return path


def write_tfrecord(path: Path):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in ROWS:
            feature = {
                name: tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
                if isinstance(value, float)
                else tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
                if isinstance(value, int)
                else tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
                for name, value in row.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return path


FORMATS = {
    "x.csv": write_csv,
    "x.tsv": lambda path: write_csv(path, separator="\t"),
    "x.jsonl": write_json_lines,
    "x.json": lambda path: path.write_text(json.dumps(ROWS)) and path,
    "columns.json": lambda path: (
        path.write_text(json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]})) and path
    ),
    "x.parquet": write_parquet,
    "x.xlsx": write_excel,
    "x.sqlite": write_sqlite,
    "x.arrow": write_arrow,
    "x.duckdb": write_duckdb,
    "x.csv.gz": write_compressed,
    "x.zip": write_zip,
    "dataset": write_dataset,
    "x.tfrecord": write_tfrecord,
}


@pytest.fixture(scope="module")
def expected(tiny_run):
    """The answers of the float SavedModel."""
    return list(predict(tiny_run[1] / "serving" / "dense" / "1", [row["text"] for row in ROWS]))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("name", FORMATS)
def test_the_rows_of_any_file_come_out_with_their_answers(tiny_run, expected, tmp_path, name, suffix):
    source = FORMATS[name](tmp_path / name)
    rows = read(run(tiny_run[1], source, tmp_path / f"out{suffix}", variant="dense", probabilities=True))
    assert [str(row["text"]) for row in rows] == [row["text"] for row in ROWS]
    for row, given, answer in zip(rows, ROWS, expected, strict=True):
        names = sorted(given) if name == "x.tfrecord" else list(given)  # whose features have no order
        assert list(row)[: len(given)] == names
        assert int(row["id"]) == given["id"] and float(row["score"]) == given["score"]
        assert (row["note"] or "") == given["note"]
        assert str(row["seen"]).lower() in ((str(given["seen"]).lower(), str(int(given["seen"]))))
        assert row["label"] == answer["label"] and row["probability"] == pytest.approx(answer["probability"], abs=1e-4)
        found = (
            row["probabilities"]
            if suffix == ".jsonl"
            else {n: row[f"probability_{n}"] for n in answer["probabilities"]}
        )
        assert found == pytest.approx(answer["probabilities"], abs=1e-4)


def test_types_are_kept_in_parquet(tiny_run, tmp_path):
    table = pa.table(
        {
            "text": pa.array(["a good film", "a bad film"], pa.large_string()),
            "when": pa.array([1, None], pa.timestamp("us", "UTC")),
            "price": pa.array([1, 2], pa.int16()),
            "nested": pa.array([{"a": 1, "b": ["x"]}, {"a": 2, "b": []}]),
            "picture": pa.array([b"\xff\xfe", b""], pa.binary()),
            "kind": pa.array(["u", "v"]).dictionary_encode(),
        }
    )
    pa.parquet.write_table(table, tmp_path / "in.parquet")
    out = pa.parquet.read_table(run(tiny_run[1], tmp_path / "in.parquet", tmp_path / "out.parquet"))
    assert out.select(table.column_names).cast(table.schema) == table
    assert out.schema.field("when").type == table.schema.field("when").type
    assert out.column_names[-2:] == ["label", "probability"] and out.schema.field("probability").type == pa.float32()
    with pytest.raises(InputError, match=r"column 'picture' holds bytes that are no text; write --output as \.parquet"):
        run(tiny_run[1], tmp_path / "in.parquet", tmp_path / "out.csv")


def test_what_json_has_no_word_for(tiny_run, tmp_path):
    rows = {
        "text": ["a good film", "a bad film"],
        "price": [float("nan"), 1.5],
        "day": pandas.to_datetime(["2024-01-02", None]),
    }
    pandas.DataFrame(rows).to_parquet(tmp_path / "in.parquet")
    found = read(run(tiny_run[1], tmp_path / "in.parquet", tmp_path / "out.jsonl"))
    assert [row["price"] for row in found] == [None, 1.5] and found[0]["day"].startswith("2024-01-02")
    (tmp_path / "half.jsonl").write_text('{"text": "a good film", "note": {"half": "\\ud83d"}}\n')
    (row,) = read(run(tiny_run[1], tmp_path / "half.jsonl", tmp_path / "out2.jsonl"))
    assert row["note"] == {"half": "\ud83d"}
    for suffix in (".csv", ".parquet"):
        (row,) = read(run(tiny_run[1], tmp_path / "half.jsonl", tmp_path / f"half{suffix}"))
        note = row["note"] if isinstance(row["note"], str) else json.dumps(row["note"])
        assert json.loads(note) == {"half": "\ud83d"}
    rows = [{"text": "a good film", "m": {}}, {"text": "a bad film", "m": {}}]
    for suffix in (".csv", ".parquet", ".jsonl"):
        found = read(run(tiny_run[1], write_json_lines(tmp_path / "empty.jsonl", rows), tmp_path / f"empties{suffix}"))
        assert [row["m"] for row in found] in ([{}, {}], ["{}", "{}"])
    (tmp_path / "name.jsonl").write_text('{"text": "a good film"}\n{"text": "a bad film", "\\ud83d": 1}\n')
    assert len(read(run(tiny_run[1], tmp_path / "name.jsonl", tmp_path / "name.csv"))) == 1


def test_nested_texts_and_templates(tiny_run, tmp_path):
    rows = [{"meta": {"text": "a good film", "by": "x"}, "n": 1}, {"meta": {"text": "a bad film", "by": "y"}, "n": 2}]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    write_json_lines(tmp_path / "in.jsonl", rows)
    for name in ("in.parquet", "in.jsonl"):
        nested = read(run(tiny_run[1], tmp_path / name, tmp_path / f"{name}.out.jsonl", text_column="meta.text"))
        assert [{column: row[column] for column in ("meta", "n")} for row in nested] == rows
        template = ("data.text='{meta.text} {n}'",)
        assert len(read(run(tiny_run[1], tmp_path / name, tmp_path / f"{name}.two.csv", overrides=template))) == 2


def test_more_forms_of_files(tiny_run, tmp_path):
    (tmp_path / "fast.txt").write_text("__label__pos a good film\n__label__neg a bad film\n")
    found = read(run(tiny_run[1], tmp_path / "fast.txt", tmp_path / "fast.jsonl", overrides=("data.format=fasttext",)))
    assert [row["text"] for row in found] == ["a good film", "a bad film"]
    for kind in ("a", "b"):
        (tmp_path / "parts" / f"kind={kind}").mkdir(parents=True)
        table = pa.table({"text": [f"a good film {kind}"], "pic": [b"\xff\xfe"], "n": pa.array([1], pa.int16())})
        pa.parquet.write_table(table, tmp_path / "parts" / f"kind={kind}" / "x.parquet")
    out = pa.parquet.read_table(run(tiny_run[1], tmp_path / "parts", tmp_path / "parts.parquet"))
    assert out.column("kind").to_pylist() == ["a", "b"] and out.column("pic").to_pylist() == [b"\xff\xfe"] * 2
    assert out.schema.field("n").type == pa.int16()
    for label in ("pos", "neg"):
        (tmp_path / "classes" / label).mkdir(parents=True)
        (tmp_path / "classes" / label / "1.txt").write_text("a good film")
    found = read(run(tiny_run[1], tmp_path / "classes", tmp_path / "classes.csv"))
    assert [row["label"] for row in found] == ["neg", "pos"] and "predicted_label" in found[0]
    pandas.DataFrame({"text": ["a good film", "a bad film"]}).to_csv(tmp_path / "index.csv")
    found = list(csv.reader(open(run(tiny_run[1], tmp_path / "index.csv", tmp_path / "index.out.csv"))))  # noqa: SIM115
    assert found[0] == ["", "text", "label", "probability"] and found[2][:2] == ["1", "a bad film"]
    with closing(sqlite3.connect(write_sqlite(tmp_path / "two.sqlite"))) as connection, connection:
        connection.execute("CREATE TABLE other (n INTEGER)")
    assert len(read(run(tiny_run[1], tmp_path / "two.sqlite", tmp_path / "one.csv"))) == 4
    with closing(sqlite3.connect(tmp_path / "two.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE third (text TEXT)")
    said = r"2 tables have the columns 'text'; tables: .*; set data\.query \(--set data\.query=VALUE\), such as: SELECT"
    with pytest.raises(InputError, match=said):
        run(tiny_run[1], tmp_path / "two.sqlite", tmp_path / "two.csv")
    query = ("data.query=SELECT id, text FROM rows ORDER BY id",)
    assert len(read(run(tiny_run[1], tmp_path / "two.sqlite", tmp_path / "two.csv", overrides=query))) == 4
    for name in ("one.txt", "other.txt"):
        (tmp_path / name).write_text("text\tlabel\na good film\n")
    assert len(read(run(tiny_run[1], [tmp_path / "one.txt", tmp_path / "other.txt"], tmp_path / "texts.csv"))) == 4


def test_columns_of_all_files_are_known_from_the_start(tiny_run, tmp_path):
    write_csv(tmp_path / "a.csv", [{"id": 1, "text": "a good\rfilm"}])
    write_csv(tmp_path / "b.csv", [{"id": 2, "text": "a bad film", "label": "MINE"}])
    for suffix in (".csv", ".parquet", ".jsonl"):
        found = read(run(tiny_run[1], tmp_path / "?.csv", tmp_path / f"out{suffix}", overwrite=True))
        assert [row["text"] for row in found] == ["a good\rfilm", "a bad film"]
        assert found[1]["label"] == "MINE" and found[0]["predicted_label"] in ("negative", "positive")
        (tmp_path / f"out{suffix}").unlink()
    write_csv(tmp_path / "c.csv", [{"id": 2, "texts": "a bad film"}])
    with pytest.raises(InputError, match=r"c\.csv: no column 'text'"):
        run(tiny_run[1], tmp_path / "?.csv", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl.parts").exists()


def test_large_integers_beside_fractions_keep_their_digits(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 20)
    rows = [{"text": "a good film", "n": 2**60 + 1}, {"text": "a bad film", "n": 1.5}]
    found = read(run(tiny_run[1], write_json_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet"))
    assert [row["n"] for row in found] == [str(2**60 + 1), "1.5"]


def test_an_output_that_is_made_meanwhile_is_kept(tiny_run, tmp_path, monkeypatch):
    source, output, part_of = many(tmp_path / "in.csv", 3), tmp_path / "out.csv", scoring.part_of

    def making(*arguments):
        output.write_text("another's")
        return part_of(*arguments)

    with monkeypatch.context() as patch, pytest.raises(InputError, match="was made by another meanwhile"):
        patch.setattr(scoring, "part_of", making)
        run(tiny_run[1], source, output)
    assert output.read_text() == "another's"


def test_records_keep_their_own_fields(tiny_run, tmp_path):
    rows = [{"text": "a good film", "a": {"b": [1, None]}}, {"c": 1e300, "text": "a bad film"}, {"text": "x", "a": "y"}]
    source = write_json_lines(tmp_path / "in.jsonl", rows)
    found = read(run(tiny_run[1], source, tmp_path / "out.jsonl", probabilities=False))
    assert [{name: row[name] for name in row if name not in ("label", "probability")} for row in found] == rows
    found = read(run(tiny_run[1], source, tmp_path / "out.parquet"))
    assert [row["a"] for row in found] == ['{"b": [1, null]}', None, "y"] and found[1]["c"] == 1e300
    found = read(run(tiny_run[1], source, tmp_path / "out.csv"))
    assert [row["a"] for row in found] == ['{"b": [1, null]}', "", "y"]


def test_a_field_that_comes_later_than_the_header(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 40)
    rows = [{"text": "a good film"}] * 3 + [{"text": "a bad film", "late": 1}]
    source = write_json_lines(tmp_path / "in.jsonl", rows)
    with pytest.raises(InputError, match=r"has 'late', which the first rows have not, .* write --output as \.jsonl or"):
        run(tiny_run[1], source, tmp_path / "out.csv")
    assert read(run(tiny_run[1], source, tmp_path / "out.jsonl"))[3]["late"] == 1
    found = pa.parquet.read_table(run(tiny_run[1], source, tmp_path / "out.parquet"))
    assert found.column("late").to_pylist() == [None, None, None, 1]


def test_answers_beside_columns_of_the_same_names(tiny_run, tmp_path):
    rows = [{"text": "a good film", "label": "x"}]
    (found,) = read(run(tiny_run[1], write_csv(tmp_path / "in.csv", rows), tmp_path / "out.csv"))
    assert found["label"] == "x" and found["predicted_label"] in ("negative", "positive")
    with pytest.raises(InputError, match=r"columns 'label' and 'predicted_label', .* rename 'predicted_label'"):
        run(tiny_run[1], tmp_path / "out.csv", tmp_path / "again.csv")


def test_rows_that_cannot_be_answered_are_listed(tiny_run, tmp_path, capsys):
    (tmp_path / "in.csv").write_bytes(b"id,text\n1,a good film\n2,\n3,a bad \xff film\n4,a,b\n5,a bad film\n")
    found = read(run(tiny_run[1], tmp_path / "in.csv", tmp_path / "out.csv"))
    assert [row["id"] for row in found] == [1, 5]
    rejected = [json.loads(line) for line in (tmp_path / "out.csv.rejected.jsonl").read_text().splitlines()]
    assert [each["line"] for each in rejected] == [3, 4, 5]
    assert [each["reason"].split(" (")[0] for each in rejected] == [
        "empty text",
        "undecodable bytes in the text",
        "wrong number of columns",
    ]
    said = capsys.readouterr().err
    assert "warning: 3 rows could not be answered: 1 × empty text; 1 × undecodable bytes" in said
    assert "looks like cp1252 (a guess)" in said or "another encoding" in said
    (tmp_path / "in.csv").write_text("id,text\n1,good\n")
    run(tiny_run[1], tmp_path / "in.csv", tmp_path / "out.csv", overwrite=True)
    assert not (tmp_path / "out.csv.rejected.jsonl").exists()
    (tmp_path / "in.csv").write_text("id,text\n1,\n2,\n")
    with pytest.raises(InputError, match=r"in\.csv: none of its rows can be answered: 2 × empty text"):
        run(tiny_run[1], tmp_path / "in.csv", tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()


def test_the_columns_are_those_of_the_run_or_of_the_options(tiny_run, tmp_path):
    source = write_csv(tmp_path / "in.csv", [{"review": "a good film", "n": 1}])
    said = r"no column 'text' \(as in the run of .*\); columns in the file: 'review', 'n'; name one of .* --text-column"
    with pytest.raises(InputError, match=said):
        run(tiny_run[1], source, tmp_path / "out.csv")
    with pytest.raises(InputError, match=r"no column 'reviews' \(--text-column\); .* did you mean 'review'\?"):
        run(tiny_run[1], source, tmp_path / "out.csv", text_column="reviews")
    (found,) = read(run(tiny_run[1], source, tmp_path / "out.csv", text_column="review"))
    assert found["review"] == "a good film" and found["n"] == 1
    version = tiny_run[1] / "serving" / "onnx" / "dense" / "1"
    with pytest.raises(InputError, match="as in the run of"):
        run(version, source, tmp_path / "other.csv")


def test_a_text_a_line(tiny_run, tmp_path):
    (tmp_path / "in.txt").write_text("text,label\na good film\n\n")
    found = read(run(tiny_run[1], tmp_path / "in.txt", tmp_path / "out.jsonl"))
    assert [row["text"] for row in found] == ["text,label", "a good film", ""]
    (tmp_path / "noname").write_text("a good film\na bad film\n")
    assert len(read(run(tiny_run[1], tmp_path / "noname", tmp_path / "noname.jsonl"))) == 2


def test_several_files_and_patterns(tiny_run, tmp_path):
    for number in range(3):
        write_csv(tmp_path / f"{number}.csv", [{"text": f"a good film {number}", "n": number}])
    found = read(run(tiny_run[1], tmp_path / "[0-9].csv", tmp_path / "out.csv"))
    assert [row["n"] for row in found] == [0, 1, 2]
    found = read(run(tiny_run[1], [tmp_path / "2.csv", tmp_path / "0.csv"], tmp_path / "two.csv"))
    assert [row["n"] for row in found] == [2, 0]


def many(path: Path, count: int) -> Path:
    return write_csv(
        path, [{"id": n, "text": f"a {'good' if n % 3 else 'bad'} film {n} " * (1 + n % 5)} for n in range(count)]
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_stopped_scoring_goes_on(tiny_run, tmp_path, monkeypatch, suffix, capsys):
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 900)
    source = many(tmp_path / "in.csv", 200)
    undisturbed = run(tiny_run[1], source, tmp_path / f"whole{suffix}").read_bytes()
    output, part_of, stop_after = tmp_path / f"out{suffix}", scoring.part_of, [3]

    def stopping(*arguments):
        stop_after[0] -= 1
        if not stop_after[0]:
            raise KeyboardInterrupt
        return part_of(*arguments)

    monkeypatch.setattr(scoring, "part_of", stopping)
    for count in (3, 2, 4):
        stop_after[0] = count
        with pytest.raises(KeyboardInterrupt):
            run(tiny_run[1], source, output)
        assert not output.exists()
    stop_after[0] = 0
    capsys.readouterr()
    run(tiny_run[1], source, output)
    assert "goes on after 6 of its blocks" in capsys.readouterr().err
    assert output.read_bytes() == undisturbed and sorted(tmp_path.glob("out*")) == [output]


def test_parts_of_another_scoring_are_not_used(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 2000)
    source, output = many(tmp_path / "in.csv", 60), tmp_path / "out.csv"
    part_of, calls = scoring.part_of, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return part_of(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scoring, "part_of", stopping)
        run(tiny_run[1], source, output, variant="dense")
    said = "scoring that was stopped: model was .*/dense/1, is .*/pruned/1, with other content; give the command that"
    with pytest.raises(InputError, match=said):
        run(tiny_run[1], source, output, variant="pruned")
    with pytest.raises(InputError, match="stopped: output probabilities was not given, is true;"):
        run(tiny_run[1], source, output, variant="dense", probabilities=True)
    with pytest.raises(InputError, match=r"stopped: settings text_column was not given, is id;"):
        run(tiny_run[1], source, output, variant="dense", text_column="id")
    many(source, 61)
    with pytest.raises(InputError, match=r"stopped: input .*in\.csv was [0-9,]+ bytes of [0-9]+, is "):
        run(tiny_run[1], source, output, variant="dense")
    (tmp_path / "out.csv.parts" / "scoring.json").write_text("{")
    with pytest.raises(InputError, match="its record is damaged"):
        run(tiny_run[1], source, output, variant="dense")
    assert len(read(run(tiny_run[1], source, output, variant="dense", overwrite=True))) == 61


def test_an_output_that_exists_is_not_replaced(tiny_run, tmp_path):
    source, output = many(tmp_path / "in.csv", 3), tmp_path / "out.csv"
    output.write_text("mine")
    with pytest.raises(InputError, match=r"out\.csv: exists already; give another name, or --overwrite to replace it"):
        run(tiny_run[1], source, output)
    assert output.read_text() == "mine" and not (tmp_path / "out.csv.parts").exists()
    assert len(read(run(tiny_run[1], source, output, overwrite=True))) == 3


def interrupted():
    raise KeyboardInterrupt


def test_a_scoring_that_was_killed_at_its_end(tiny_run, tmp_path, monkeypatch):
    """Its output is whole, and its parts are still there."""
    source, output = many(tmp_path / "in.csv", 3), tmp_path / "out.csv"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tfpipe.tools.predict.parts.shutil.rmtree", lambda path: interrupted())
        run(tiny_run[1], source, output)
    whole = output.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        run(tiny_run[1], source, output)
    assert output.read_bytes() == whole and not (tmp_path / "out.csv.parts").exists()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tfpipe.tools.predict.parts.Parts.join", lambda *_: interrupted())
        run(tiny_run[1], source, output, overwrite=True)
    output.write_text("another's")
    with pytest.raises(InputError, match="exists already"):
        run(tiny_run[1], source, output)
    assert output.read_text() == "another's"
    run(tiny_run[1], source, output, overwrite=True)
    assert output.read_bytes() == whole


def test_a_file_that_changes_while_it_is_read(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 2000)
    source, part_of = many(tmp_path / "in.csv", 100), scoring.part_of

    def changing(*arguments):
        with open(source, "a") as file:
            file.write("7,another row\n")
        return part_of(*arguments)

    monkeypatch.setattr(scoring, "part_of", changing)
    with pytest.raises(InputError, match=r"in\.csv: changed while it was read; .* with --overwrite"):
        run(tiny_run[1], source, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_two_at_a_time_are_refused(tiny_run, tmp_path):
    source, output = many(tmp_path / "in.csv", 3), tmp_path / "out.csv"
    from tfpipe.tools.predict.parts import Parts

    with Parts(output).held(overwrite=False), pytest.raises(InputError, match="another process is writing it"):
        run(tiny_run[1], source, output)


def test_a_killed_scoring_goes_on(tiny_run, forks, tmp_path):
    source = many(tmp_path / "in.csv", 60_000)
    command = ["predict", tiny_run[1], "--input", source, "--variant", "dense", "--output"]
    whole = forks.start([*command, tmp_path / "whole.csv"], tmp_path / "log", tmp_path, {})
    assert whole.wait(120) == 0
    killed = forks.start([*command, tmp_path / "out.csv"], tmp_path / "log", tmp_path, {})
    until = time.monotonic() + 60
    while not list(tmp_path.glob("out.csv.parts/*.part")) and time.monotonic() < until:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    assert not (tmp_path / "out.csv").exists()
    again = forks.start([*command, tmp_path / "out.csv"], tmp_path / "again", tmp_path, {})
    assert again.wait(120) == 0 and "goes on after" in again.said
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_answers_to_standard_output(tiny_run, tmp_path, capfd):
    source = write_csv(tmp_path / "in.csv")
    run(tiny_run[1], source, Path("-"))
    found = [json.loads(line) for line in capfd.readouterr().out.split("\n")[:-1]]
    assert [row["id"] for row in found] == ["7", "8", "9", "10"] and found[0].keys() > {
        "note",
        "label",
        "probabilities",
    }
    run(tiny_run[1], source, None)
    assert len(capfd.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"output": Path("x.xlsx")},
            r"--output x\.xlsx: answered rows are written as \.csv, \.tsv, \.jsonl, \.ndjson, \.parquet",
        ),
        (
            {"output": Path("x.csv"), "text_pairs": ("a",)},
            r"--text-pair: has no effect with --input FILE; .*--text-pair-col",
        ),
        ({"output": Path("x.csv"), "text_pair_column": "b"}, r"takes single texts; leave it out"),
        (
            {"output": Path("x.csv"), "overrides": ("train.epochs=1",)},
            r"--set train\.epochs=1: expected a setting of how files are read",
        ),
        ({"output": Path("x.csv"), "artifact": "tensorrt"}, r"--artifact tensorrt: expected one of saved_model, onnx"),
        ({"output": Path("x.csv"), "artifact": "litert"}, r"no artifact litert is published, but onnx, saved_model"),
        (
            {"output": Path("gs://bucket/x.csv")},
            r"--output gs:/.*: outputs are written on this machine; give",
        ),
        (
            {"output": Path("x.csv"), "overrides": ("data.filter={b: x}",)},
            r"--set data\.filter=.*: expected a setting of how",
        ),
        ({"output": Path("in.csv"), "overwrite": True}, r"--output in\.csv: the same file as --input"),
        (
            {"output": Path("x.csv"), "text_column": "b", "overrides": ("data.text={b}",)},
            r"--text-column b: beside --set data\.text=",
        ),
        (
            {"output": Path("x.csv"), "artifact": "onnx", "allowed": ("PyFunc",)},
            r"--allow-operator: .* is no SavedModel \(onnx\), so it has no effect",
        ),
        ({"output": Path("-"), "runner": "DirectRunner"}, r"--runner: has no effect without --output FILE"),
        ({"output": Path(".")}, r"--output \.: a directory; give the name of a file"),
        ({"output": Path("x" * 5000)}, r"can't be written \(File name too long\)"),
        ({"output": Path("absent/x.csv")}, None),
    ],
)
def test_wrong_options_are_said(tiny_run, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    source = write_csv(tmp_path / "in.csv", [{"text": "a good film", "b": "x"}])
    if said is None:
        run(tiny_run[1], source, **options)  # the directory is made
        assert options["output"].exists()
        return
    with pytest.raises(InputError, match=said):
        run(tiny_run[1], source, **options)
    if options["output"].name == "x.csv":
        assert not options["output"].exists()


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        ("rows", "rows/out.jsonl", r"lies in the folder --input .*rows; give a path elsewhere"),
        ("rows/", "rows/deep/out.jsonl", "lies in the folder"),
        ("rows/*.jsonl", "rows/out.jsonl", r"is one of --input .*rows/\*\.jsonl; give a name that the pattern"),
        ("ro*/**/*.jsonl", "rows/out.jsonl", "is one of --input"),
        ("**/i*.jsonl", "rows/deep/inner/io.jsonl", "is one of --input"),
        ("rows/i*.jsonl", "rows/out.jsonl", None),
        ("rows/*.jsonl", "rows/deep/out.jsonl", None),
        ("rows/*", "rows.jsonl", None),
    ],
)
def test_an_output_is_not_among_what_is_read(tiny_run, tmp_path, source, output, said):
    (tmp_path / "rows" / "deep").mkdir(parents=True)
    write_json_lines(tmp_path / "rows" / "in.jsonl", [{"text": "a good film"}])
    given = f"{tmp_path}/{source}"
    if said is None:
        assert len(read(run(tiny_run[1], given, tmp_path / output))) == 1
        return
    with pytest.raises(InputError, match=said):
        run(tiny_run[1], given, tmp_path / output)
    assert not list(tmp_path.rglob("*.parts"))


def test_what_is_not_needed_does_not_cost_a_row(tiny_run, tmp_path):
    """Errors of Excel in other columns, and the answers of annotators."""
    book = openpyxl.Workbook()
    for row in (["text", "price"], ["a good film", "#N/A"], ["#REF!", 2]):
        book.active.append(row)
    book.save(tmp_path / "in.xlsx")
    (found,) = read(run(tiny_run[1], tmp_path / "in.xlsx", tmp_path / "excel.jsonl"))
    assert found["price"] == "#N/A"
    rows = [{"text": "a good film", "_task_hash": 1, "label": "x", "answer": "reject"}]
    for write, name in ((write_csv, "p.csv"), (write_json_lines, "p.jsonl")):
        (found,) = read(run(tiny_run[1], write(tmp_path / name, rows), tmp_path / f"{name}.out.jsonl"))
        assert found["answer"] == "reject" and found["predicted_label"] in ("negative", "positive")


def test_a_field_that_no_record_has(tiny_run, tmp_path):
    source = write_json_lines(tmp_path / "in.jsonl", [{"texts": "a good film", "n": 1}])
    with pytest.raises(InputError, match=r"1 × no field 'text'; fields: 'texts', 'n'; did you mean 'texts'\?"):
        run(tiny_run[1], source, tmp_path / "out.csv")
    (tmp_path / "empty.csv").write_text("text,n\n")
    with pytest.raises(InputError, match=r"a header and no row; expected at least one row$"):
        run(tiny_run[1], tmp_path / "empty.csv", tmp_path / "out.csv")


def test_a_published_version_on_a_store(tiny_run, tmp_path):
    """It reads the columns that its run did."""
    from tfpipe.data.files.streams import gfile

    store = "ram://test-predict/run"
    for path in (tiny_run[1] / "serving" / "onnx" / "dense").rglob("*"):
        if path.is_file():
            place = f"{store}/{path.relative_to(tiny_run[1])}"
            gfile().makedirs(place.rsplit("/", 1)[0])
            with gfile().GFile(place, "wb") as file:
                file.write(path.read_bytes())
    for name in ("config.yaml", "prepare/stage.json"):
        gfile().makedirs(f"{store}/{name}".rsplit("/", 1)[0])
        with gfile().GFile(f"{store}/{name}", "wb") as file:
            file.write((tiny_run[1] / name).read_bytes())
    source = write_csv(tmp_path / "in.csv", [{"texts": "a good film"}])
    with pytest.raises(InputError, match=r"no column 'text' \(as in the run of ram://.*did you mean 'texts'"):
        run(f"{store}/serving/onnx/dense/1", source, tmp_path / "out.csv")
    (found,) = read(run(f"{store}/serving/onnx/dense/1", source, tmp_path / "out.csv", text_column="texts"))
    assert found["label"] in ("negative", "positive")


def test_answers_do_not_depend_on_the_other_rows(tiny_run, tmp_path, monkeypatch):
    """In int8 and float: whatever is in a row's batch, and wherever blocks are cut."""
    source = many(tmp_path / "in.csv", 100)
    for variant in ("dense", "int8"):
        whole = read(run(tiny_run[1], source, tmp_path / f"{variant}.csv", variant=variant))
        with monkeypatch.context() as patch:
            patch.setattr(blocks_module, "BLOCK_BYTES", 500)
            parts = read(run(tiny_run[1], source, tmp_path / f"{variant}-parts.csv", variant=variant))
        assert [row["label"] for row in whole] == [row["label"] for row in parts]
        assert np.allclose([row["probability"] for row in whole], [row["probability"] for row in parts], atol=1e-5)


def test_a_server_answers_files_and_a_lost_one_costs_nothing(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 2000)
    monkeypatch.setattr("tfpipe.tools.predict.server.FIRST_WAIT_SECONDS", 0.01)
    source, served = many(tmp_path / "in.csv", 200), stand_in.Served(tiny_run[1] / "serving" / "dense")

    def ask(url, name):
        options = Options(input=(str(source),), output=tmp_path / name, server=url)
        command.run(None, [], options)
        return (tmp_path / name).read_bytes()

    with stand_in.rest_server(served) as server:
        url = server.url
        whole = ask(url, "whole.csv")
        port, predicted, calls = server.server_port, served.predict, []

        def lost(*arguments):
            calls.append(arguments)
            if len(calls) > 5:
                raise ConnectionError
            return predicted(*arguments)

        monkeypatch.setattr(served, "predict", lost)
        with pytest.raises(InputError, match="what is written stays, and the same command goes on from there"):
            ask(url, "out.csv")
    monkeypatch.setattr(served, "predict", predicted)
    assert list(tmp_path.glob("out.csv.parts/*.part"))
    with stand_in.rest_server(served, port):
        assert ask(url, "out.csv") == whole
    expected = read(run(tiny_run[1], source, tmp_path / "own.csv", variant="dense", artifact="saved_model"))
    found = read(tmp_path / "out.csv")
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert [r["probability"] for r in found] == pytest.approx([r["probability"] for r in expected], abs=1e-6)


def test_messages_name_the_options_of_this_command(tiny_run, tmp_path):
    """Readers speak of settings of a configuration."""
    (tmp_path / "one.csv").write_text("this is a fine film\nand this one\n")
    said = r"no column 'text' .*; name one .* --text-column; or, if 'this is a fine film' is a text, .*=\[text\]'"
    with pytest.raises(InputError, match=said):
        run(tiny_run[1], tmp_path / "one.csv", tmp_path / "out.csv")
    columns = ("data.columns=[text]",)
    assert len(read(run(tiny_run[1], tmp_path / "one.csv", tmp_path / "one.out.csv", overrides=columns))) == 2
    (tmp_path / "latin.csv").write_bytes("id,text\n1,café à la carte\n2,déjà vu\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"latin\.csv: none .*: 2 × undecodable.*give --set 'data\.encoding=cp1252'"):
        run(tiny_run[1], tmp_path / "latin.csv", tmp_path / "out.csv")
    nested = write_json_lines(tmp_path / "nested.jsonl", [{"review": {"text": "a good film"}}] * 2)
    with pytest.raises(InputError, match=r"did you mean 'review\.text'\?"):
        run(tiny_run[1], nested, tmp_path / "out.csv")
    lists = write_json_lines(tmp_path / "lists.jsonl", [{"text": ["a", "good", "film"]}] * 2)
    with pytest.raises(InputError, match=r"the text is a list; join it in the file, or give --text-column text\.0 for"):
        run(tiny_run[1], lists, tmp_path / "out.csv")
    write_csv(tmp_path / "x.csv", separator=",")
    assert len(read(run(tiny_run[1], tmp_path / "x.csv", tmp_path / "x.out.csv", overrides=("data.separator=,",)))) == 4


def test_a_servers_model_that_was_replaced_is_noticed(tiny_run, tmp_path, monkeypatch):
    """Under the same address and version."""
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 500)
    source, output, part_of, calls = many(tmp_path / "in.csv", 60), tmp_path / "out.csv", scoring.part_of, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return part_of(*arguments)

    def ask(variant, port):
        served = stand_in.Served(tiny_run[1] / "serving" / variant, name="model")
        with stand_in.rest_server(served, port) as server:
            command.run(None, [], Options(input=(str(source),), output=output, server=server.url))
            return server.server_port

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scoring, "part_of", stopping)
        ask("dense", port)
    with pytest.raises(InputError, match="was stopped: the server answers otherwise: its model was replaced"):
        ask("int8", port)
    ask("dense", port)
    assert len(read(output)) == 60
