import bz2
import gzip
import lzma

import pyarrow as pa
import pytest
import tensorflow as tf
from data.row_reading import rows_of
from pydantic import TypeAdapter

from tfpipe.config.data import Data
from tfpipe.data.files.sources import identity, source_files
from tfpipe.data.files.streams import open_bytes
from tfpipe.errors import InputError


def data(source, **settings):
    return TypeAdapter(Data).validate_python({"source": source, **settings})


def resolve(source):
    (file,) = source_files(data(source))
    return file.path


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_path(elsewhere):
    (elsewhere / "x.csv").write_text("")
    (file,) = source_files(data("x.csv"))
    assert (file.number, file.name, file.path, file.format, file.split) == (0, "x.csv", "x.csv", "csv", None)
    with pytest.raises(InputError, match=r"y\.csv: no such file in .*; give the path"):
        resolve("y.csv")


def test_globs_and_lists_are_in_a_fixed_order(elsewhere):
    for name in ("b.csv", "a.csv", "c.jsonl", "d/e.csv"):
        (elsewhere / name).parent.mkdir(exist_ok=True)
        (elsewhere / name).write_text("")
    names = [file.name for file in source_files(data(["c.jsonl", "*.csv", "**/e.csv"]))]
    assert names == ["c.jsonl", "a.csv", "b.csv", "d/e.csv"]
    with pytest.raises(InputError, match=r"x\*: no file in .* matches; check the pattern"):
        source_files(data("x*"))


def test_a_file_that_is_named_twice(elsewhere):
    (elsewhere / "a.csv").write_text("")
    (elsewhere / "link.csv").symlink_to("a.csv")
    for source in (["a.csv", "a*.csv"], {"train": "a.csv", "test": "./a.csv"}, [str(elsewhere / "a.csv"), "link.csv"]):
        with pytest.raises(InputError, match=r"(a|link)\.csv: data.source names it twice; its rows would count double"):
            source_files(data(source))


def test_given_splits(elsewhere):
    for name in ("train-1.csv", "train-2.csv", "t.csv"):
        (elsewhere / name).write_text("")
    files = source_files(data({"test": "t.csv", "train": "train-*.csv"}))
    assert [(file.number, file.name, file.split) for file in files] == [
        (0, "train-1.csv", "train"),
        (1, "train-2.csv", "train"),
        (2, "t.csv", "test"),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.csv.gz", "csv"),
        ("x.tab", "tsv"),
        ("x.ndjson.zst", "json_lines"),
        ("x.parquet", "parquet"),
        ("x.tfrecord-00000-of-00002", "tfrecord"),
        ("x.CSV", "csv"),
    ],
)
def test_the_name_says_the_format(elsewhere, name, expected):
    (elsewhere / name).write_text("")
    assert source_files(data(name))[0].format == expected
    assert source_files(data(name, format="parquet"))[0].format == "parquet"


def test_a_name_that_says_nothing(elsewhere):
    (elsewhere / "x.txt").write_text("some words\nand others\n")
    with pytest.raises(InputError, match=r"x\.txt: its name does not say what it holds, and it begins with"):
        resolve("x.txt")


def test_a_directory_is_a_folder_per_class(elsewhere):
    for label in "ab":
        (elsewhere / "d" / label).mkdir(parents=True)
        (elsewhere / "d" / label / "1.txt").write_text("x")
    assert [file.format for file in source_files(data("d"))] == ["folder"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_compressed_files(elsewhere, suffix):
    content = "".join(["text,label\n", *(f"row {n},a\n" for n in range(1000))]).encode()
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    pack[".zst"] = lambda plain: pa.compress(plain, "zstd", asbytes=True)
    (elsewhere / f"x.csv{suffix}").write_bytes(pack[suffix](content))
    with open_bytes(f"x.csv{suffix}") as stream:
        assert stream.read() == content
    assert len(rows_of(f"x.csv{suffix}")[0]) == 1000


def test_remote_files_are_read_by_tensorflow(elsewhere):
    """`ram://` stands in for `gs://`: the same interface, in this process."""
    content = "text,label\n" + "".join(f"row {n},a\n" for n in range(1000))
    with tf.io.gfile.GFile("ram://bucket/rows/1.csv", "w") as file:
        file.write(content)
    with tf.io.gfile.GFile("ram://bucket/rows/2.csv.gz", "wb") as file:
        file.write(gzip.compress(content.encode()))
    for label in "ab":
        with tf.io.gfile.GFile(f"ram://bucket/folder/{label}/1.txt", "w") as file:
            file.write(f"text {label}")
    assert [file.name for file in source_files(data("ram://bucket/rows/*"))] == [
        "ram://bucket/rows/1.csv",
        "ram://bucket/rows/2.csv.gz",
    ]
    assert len(rows_of("ram://bucket/rows/*")[0]) == 2000
    assert rows_of("ram://bucket/folder")[0] == [(1, "text a", None, "a"), (1, "text b", None, "b")]
    assert "bytes of" in identity(data("ram://bucket/rows/1.csv"))["ram://bucket/rows/1.csv"]
    with pytest.raises(InputError, match=r"ram://bucket/none\.csv: no such file"):
        source_files(data("ram://bucket/none.csv"))
    with pytest.raises(InputError, match=r"nope://x/y\.csv: can't be read .*; check the address"):
        source_files(data("nope://x/y.csv"))


def test_what_identifies_the_content(elsewhere):
    (elsewhere / "d" / "a").mkdir(parents=True)
    (elsewhere / "d" / "a" / "1.txt").write_text("x")
    (elsewhere / "x.csv").write_text("x")
    before = identity(data(["x.csv", "d"]))
    assert before.keys() == {"x.csv", "d"} and before == identity(data(["x.csv", "d"]))
    (elsewhere / "d" / "a" / "1.txt").write_text("y")
    after = identity(data(["x.csv", "d"]))
    assert after["x.csv"] == before["x.csv"] and after["d"] != before["d"]
    (elsewhere / "d" / "a" / "1.txt").rename(elsewhere / "d" / "a" / "2.txt")
    assert identity(data("d"))["d"] != after["d"]


def test_missing_extras_are_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InputError, match=r"hf:x: needs Hugging Face datasets; .* pip install 'tfpipe\[datasets\]'"):
        source_files(data("hf:x"))
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"tfds:x: needs TensorFlow Datasets; .* pip install 'tfpipe\[tfds\]'"):
        source_files(data("tfds:x"))


def test_resolve_inside_a_package_does_not_import_it(tmp_path, monkeypatch):
    package = tmp_path / "tfpipe_test_package"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data" / "rows.csv").write_text("text,label\n")
    (tmp_path / "tfpipe_test_module.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("package:tfpipe_test_package/data/rows.csv") == str(package / "data" / "rows.csv")
    assert resolve("package:tfpipe_test_package/data") == str(package / "data" / "rows.csv")
    with pytest.raises(InputError, match=r"no data/other\.csv in .*tfpipe_test_package; check the path"):
        resolve("package:tfpipe_test_package/data/other.csv")
    with pytest.raises(InputError, match="a single module"):
        resolve("package:tfpipe_test_module/rows.csv")


def test_resolve_names_what_to_install():
    with pytest.raises(InputError, match=r"package no_such_package is not installed; .* pip install no-such-package"):
        resolve("package:no_such_package/data.csv")


@pytest.mark.parametrize("source", ["package:numpy", "package:/x", "package:a.b/x", "package:numpy/"])
def test_resolve_malformed(source):
    with pytest.raises(InputError, match="expected package:NAME/PATH"):
        resolve(source)


@pytest.mark.parametrize("inside", ["../x", "a/../../x", "/etc/passwd"])
def test_resolve_stays_in_the_package(inside):
    with pytest.raises(InputError, match=r"leads out of \S*numpy; expected a relative path"):
        resolve(f"package:numpy/{inside}")


@pytest.mark.parametrize(
    "source", ["~\0x", "a\0", "*\0/*", "\ud800", "~\udcff", "package:json/" + "x" * 5000, "x" * 5000]
)
def test_a_name_that_no_file_can_have(source):
    with pytest.raises(InputError, match=r"^(data\.source|package:json|xxx)"):
        source_files(data(source))


def test_a_pattern_that_matches_a_name_that_is_not_utf8(elsewhere):
    open(b"\xff.csv", "w").close()
    with pytest.raises(InputError, match=r"'\\udcff.csv': its name is not UTF-8; rename it"):
        source_files(data("*.csv"))
