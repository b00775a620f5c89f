"""Files whose names do not say what they hold, and archives."""

import io
import pickle
import sqlite3
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from data.row_reading import rows_of
from pyarrow import orc, parquet
from sklearn.datasets import dump_svmlight_file

from tfpipe.config.data import Data
from tfpipe.data.files.sources import identity, source_files
from tfpipe.errors import InputError

CSV = "text,label\none,a\ntwo,b\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def zipped(members: dict[str, str | bytes], method=zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


def read(path, content, **settings):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(text, label) for _, text, _, label in rows_of(path.name, **settings)[0]]


def refusal(path, content, **settings):
    with pytest.raises(InputError) as caught:
        read(path, content, **settings)
    message = str(caught.value)
    assert "\n" not in message and path.name in message
    return message


def of_library(write) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


ROWS = [("one", "a"), ("two", "b")]
TABLE = pa.table({"text": ["one", "two"], "label": ["a", "b"]})


def test_text_by_its_content(here, capsys):
    contents = {
        "csv": CSV, "tsv": CSV.replace(",", "\t"),
        "json_lines": '{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n',
        "fasttext": "__label__a one\n__label__b two\n",
    }  # fmt: skip
    for format_name, content in contents.items():
        for name in ("x.txt", "x.data", "x"):
            assert read(here / name, content) == ROWS
            assert f"{name}: read as {format_name}, by its content (data.format)" in capsys.readouterr().err
    assert read(here / "x.txt", contents["tsv"].encode("utf-16")) == ROWS  # Excel's "Unicode Text"
    assert read(here / "x.txt", contents["tsv"], format="tsv") == ROWS
    assert "by its content" not in capsys.readouterr().err


def test_many_files_are_one_line(here, capsys):
    for number in range(30):
        (here / f"{number}.part").write_text(CSV)
    source_files(Data(source="*.part"))
    said = capsys.readouterr().err
    assert "0.part and 29 more files: read as csv, by their content" in said and said.count("\n") == 1


def test_binary_files_by_their_content(here):
    contents = {"parquet": of_library(lambda sink: parquet.write_table(TABLE, sink))}
    with sqlite3.connect(here / "db") as connection:
        connection.execute("CREATE TABLE t (text, label)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", ROWS)
    connection.close()
    contents["sqlite"] = (here / "db").read_bytes()
    with tf.io.TFRecordWriter(str(here / "records")) as writer:
        for row in ROWS:
            of = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
                for name, value in zip(("text", "label"), row, strict=True)
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=of)).SerializeToString())
    contents["tfrecord"] = (here / "records").read_bytes()
    for format_name, content in contents.items():
        assert read(here / "x.bin", content) == ROWS, format_name
        assert source_files(Data(source="x.bin"))[0].format == format_name
        if format_name != "tfrecord":
            assert f"data.format {format_name}" not in refusal(here / "x.csv", content)
            assert f"; set data.format: {format_name}" in refusal(here / "x.csv", content)


REFUSED = {
    "an ORC file": lambda: of_library(lambda sink: orc.write_table(TABLE, sink)),
    "a NumPy array": lambda: of_library(lambda sink: np.save(sink, np.arange(3))),
    "an archive of NumPy arrays": lambda: of_library(lambda sink: np.savez(sink, x=np.arange(3))),
    "a Python pickle": lambda: pickle.dumps([{"text": "one"}], protocol=4),
    "an Avro file": lambda: b"Obj\x01\x04\x14avro.codec\x08null\0",
    "an HDF5 file": lambda: b"\x89HDF\r\n\x1a\n\0\0",
    "a Feather file of version 1": lambda: b"FEA1\0\0\0\0" + b"\0" * 40 + b"FEA1",
    "a PDF document": lambda: b"%PDF-1.7\n1 0 obj\n",
    "an HTML page": lambda: b"<!DOCTYPE html>\n<html><body>Log in</body></html>\n",
    "an XML document": lambda: b'<?xml version="1.0"?>\n<rows/>\n',
    "an RTF document": lambda: b"{\\rtf1\\ansi one}",
    "gzip data": lambda: b"\x1f\x8b\x08\0\0\0\0\0",
    "bzip2 data": lambda: b"BZh91AY&SY\0\0",
    "xz data": lambda: b"\xfd7zXZ\0\0\0",
    "Zstandard data": lambda: b"\x28\xb5\x2f\xfd\0\0",
    "an old Office file (.xls)": lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0",
    "an OpenDocument file": lambda: zipped({"mimetype": "x", "content.xml": "<x/>"}),
    "a zip archive of 2 files": lambda: zipped({"a.csv": CSV, "b.csv": CSV}),
    "a pointer of Git LFS": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "an ARFF file": lambda: "% of Weka\n\n@RELATION r\n@ATTRIBUTE text string\n@DATA\n'one'\n",
    "numbers in place of texts": lambda: of_library(
        lambda sink: dump_svmlight_file(np.arange(12).reshape(4, 3), [1, 0, 1, 0], sink)
    ),
    "a 7z archive": lambda: b"7z\xbc\xaf\x27\x1c\0\x04",
    "a tar archive": lambda: b"\0" * 257 + b"ustar\x0000" + b"\0" * 240,
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_is_named(here, kind):
    for name in ("x.dat", "x.csv", "x.jsonl", "x.parquet"):
        assert f"{name}: {kind}" in refusal(here / name, REFUSED[kind]())


def test_text_under_another_name(here):
    assert "x.parquet: text, not data.format parquet; set data.format" in refusal(here / "x.parquet", CSV)
    assert "x.csv: JSON, not CSV; set data.format: json_lines" in refusal(
        here / "x.csv", '[{"text": "one", "label": "a"}]'
    )
    assert "x.csv.gz: its name ends in .gz, and it holds no compressed data; rename it" in refusal(
        here / "x.csv.gz", CSV
    )
    assert "and it holds bzip2 data" in refusal(here / "x.csv.gz", b"BZh91AY&SY" + b"\0" * 20)


def test_words_that_files_begin_with_are_text(here):
    for word in ("ORCID", "PAR1", "RDX", "DUCK", "Obj", "FEA1", "$FL2", "PK", "BZh"):
        assert read(here / "x.csv", f"{word},text,label\n1,one,a\n") == [("one", "a")]
    assert read(here / "x.csv", "1234567,DUCK,text,label\n1,2,one,a\n") == [("one", "a")]


def test_lines_are_proposed(here):
    lines = {
        "data.line: '{label}\\t{text}'": "ham\tone\nspam\ttwo\n" * 4,
        "data.line: '{text}@{label}'": "one a@b.c .@good\ntwo .@bad\n" * 4,
        "data.line: '{label} {text}'": "DESC:manner How ?\nHUM:ind Who ?\n" * 4,
        "data.file_name: 'x-{label}.txt'": "one two three\na text of some words\n" * 4,
    }
    for proposal, content in lines.items():
        assert f"set data.format: lines and {proposal};" in refusal(here / "x-pos.txt", content)
    message = refusal(here / "x-pos.txt", "one é .@good\ntwo .@bad\n".encode("latin-1") * 4)
    assert "data.line: '{text}@{label}', and data.encoding: cp1252 (a guess);" in message


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_of_one_file(here, method, capsys):
    assert read(here / "train.csv.zip", zipped({"train.csv": CSV}, method)) == ROWS
    assert (
        read(here / "x.zip", zipped({"a/train.csv": CSV, "__MACOSX/a/._train.csv": "x", "a/.DS_Store": "x"}, method))
        == ROWS
    )
    assert capsys.readouterr().err == ""
    assert read(here / "y.zip", zipped({"README.md": "x", "train.csv": CSV}, method)) == ROWS
    assert "y.zip: train.csv is read, and not what lies beside it: README.md" in capsys.readouterr().err
    assert (
        read(here / "z.zip", zipped({"rows": of_library(lambda sink: parquet.write_table(TABLE, sink))}, method))
        == ROWS
    )


def test_an_archive_of_several(here):
    (here / "x.zip").write_bytes(zipped({"train.csv": CSV, "test.csv": CSV.upper(), "more/x.jsonl": ""}))
    with pytest.raises(InputError) as caught:
        rows_of("x.zip")
    assert str(caught.value) == (
        "x.zip: a zip archive of 3 files: train.csv, test.csv, more/x.jsonl; name the one that holds the rows, such as "
        "x.zip/train.csv, or several by a list or a pattern"
    )
    assert [row[1] for row in rows_of("x.zip/train.csv")[0]] == ["one", "two"]
    data = Data(source={"train": "x.zip/train.csv", "test": "x.zip/te*.csv"})
    assert [(file.name, file.split) for file in source_files(data)] == [
        ("x.zip/train.csv", "train"),
        ("x.zip/test.csv", "test"),
    ]
    swapped = Data(source={"train": "x.zip/test.csv", "test": "x.zip/train.csv"})
    assert set(identity(data).values()).isdisjoint(identity(swapped).values())
    with pytest.raises(InputError, match=r"x\.zip/y\.csv: no such file in the archive; its files: train.csv, test.csv"):
        rows_of("x.zip/y.csv")


def test_archives_that_cannot_be_read(here):
    content = zipped({"train.csv": CSV * 100})
    assert "x.zip: not a whole zip archive" in refusal(here / "x.zip", content[:-30])
    assert "a zip archive without a file" in refusal(here / "x.zip", zipped({}))
    damaged = content[:60] + bytes(20) + content[80:]
    assert "can't read it to its end" in refusal(here / "x.zip", damaged)
    locked = bytearray(content)
    locked[6] |= 1  # the flag of a password, here and in the directory
    locked[content.index(b"PK\x01\x02") + 8] |= 1
    assert "can't read it in the archive" in refusal(here / "x.zip", bytes(locked))
