import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from data.row_reading import rows_of

from tfpipe.config.data import Data
from tfpipe.data import block as block_module
from tfpipe.data import readers
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.readers import parquet
from tfpipe.errors import InputError


def write(path, **columns):
    pa.parquet.write_table(pa.table(columns), path, row_group_size=7)
    return str(path)


@pytest.mark.parametrize("records", [3, 1000])
def test_values_and_row_numbers(tmp_path, monkeypatch, records):
    monkeypatch.setattr(block_module, "BLOCK_RECORDS", records)
    texts = [f"tëxt {n}" for n in range(20)]
    path = write(tmp_path / "x.parquet", text=texts, label=pa.array([1.0, None] * 10), other=[{"a": 1}] * 20)
    usable, rejected, _ = rows_of(path)
    assert usable == [(n + 1, texts[n], None, "1") for n in range(0, 20, 2)]
    assert rejected == [(n + 1, "empty label", texts[n]) for n in range(1, 20, 2)]


def test_dictionaries_lists_and_bytes(tmp_path):
    labels = pa.array([["a", "b"], [], None])
    path = write(tmp_path / "x.parquet", text=pa.array(["x", "y", "z"]).dictionary_encode(), label=labels)
    usable, rejected, _ = rows_of(path, task="multi_label")
    assert [label for *_, label in usable] == ["a|b", ""]
    assert [(line, reason.partition(";")[0]) for line, reason, _ in rejected] == [(3, "no label (null)")]
    path = write(tmp_path / "y.parquet", text=["ü".encode(), b"\xff", None], label=[b"a", b"b", b"c"])
    usable, rejected, _ = rows_of(path)
    assert usable == [(1, "ü", None, "a")]
    assert rejected == [(2, "undecodable bytes in the text (not UTF-8)", "\\xff"), (3, "empty text", "")]
    texts = pa.array([b"x", b"x", b"y"]).dictionary_encode()
    path = write(tmp_path / "z.parquet", text=texts, label=[[b"a", b"b"], [b"c"], [b"\xff"]])
    usable, rejected, _ = rows_of(path, task="multi_label")
    assert [(text, label) for _, text, _, label in usable] == [("x", "a|b"), ("x", "c")]
    assert rejected == [(3, "undecodable bytes in the label (not UTF-8)", "y")]


def test_wrong_files(tmp_path):
    path = write(tmp_path / "x.parquet", text=["x"], tag=["a"])
    with pytest.raises(InputError, match=r"no column 'label' \(data.label_column\); .* file: 'text', 'tag'"):
        rows_of(path)
    path = write(tmp_path / "y.parquet", text=pa.array([], pa.string()), label=pa.array([], pa.string()))
    with pytest.raises(InputError, match=r"y\.parquet: no row"):
        rows_of(path)
    content = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "w.parquet").write_bytes(content.replace(b"tag", b"\xect\xff"))
    with pytest.raises(InputError, match=r"w\.parquet: not a whole Parquet file"):
        rows_of(str(tmp_path / "w.parquet"))
    (tmp_path / "z.parquet").write_bytes(content[:-20])
    with pytest.raises(InputError, match=r"z\.parquet: not a whole Parquet file \(.*\); fetch or write it again"):
        rows_of(str(tmp_path / "z.parquet"))


def test_row_groups_that_do_not_add_up(tmp_path):
    """The first of three says that it has no row: without a word, its seven would be left out."""
    path = write(tmp_path / "x.parquet", text=["x"] * 18, label=["a", "b"] * 9)
    content = (tmp_path / "x.parquet").read_bytes()
    seven, none = b"\x16\x0e&\x08", b"\x16\x00&\x08"  # Thrift's compact form: a number, then where the group begins
    assert content.count(seven) == 1
    (tmp_path / "x.parquet").write_bytes(content.replace(seven, none))
    with pytest.raises(InputError, match=r"x\.parquet: 11 rows in a file that has 18; fetch or write it again"):
        rows_of(path)


def test_a_value_that_cannot_be_read_costs_its_row_alone(tmp_path):
    texts = pa.Array.from_buffers(pa.string(), 3, pa.array([b"one", b"\xff\xfe", b"three"]).buffers())
    path = write(tmp_path / "x.parquet", text=texts, label=["a", "b", "c"])
    usable, rejected, _ = rows_of(path)
    assert [(line, text) for line, text, *_ in usable] == [(1, "one"), (3, "three")]
    assert rejected == [(2, "undecodable bytes in the text (not UTF-8)", "\\xff\\xfe")]
    path = write(tmp_path / "y.parquet", text=["x", "y"], label=pa.array([1, 10**9], pa.date32()))
    usable, rejected, _ = rows_of(path)
    assert [label for *_, label in usable] == ["1970-01-02"] and "unreadable value in 'label'" in rejected[0][1]


def test_a_label_is_text_or_a_number(tmp_path):
    path = write(tmp_path / "x.parquet", text=["x"], label=[{"a": 1}])
    assert rows_of(path)[1] == [(1, "the label is an object; write data.label_column: label.a", "x")]
    path = write(tmp_path / "x.parquet", text=["x"], label=[[["a"]]])
    assert rows_of(path)[1] == [(1, "a label in the list is not text or a number", "x")]


def test_numbers_are_texts_as_they_are_written(tmp_path):
    for numbers, texts in (
        ([1, 2], ["1", "2"]),
        ([1.0, 0.5], ["1", "0.5"]),
        ([True, False], ["true", "false"]),
        (pa.array([0, 1], pa.date32()), ["1970-01-01", "1970-01-02"]),
        (pa.array([1, 25], pa.decimal128(4, 1)), ["1.0", "25.0"]),
    ):
        path = write(tmp_path / "x.parquet", text=numbers, label=["a", "b"])
        assert [text for _, text, *_ in rows_of(path)[0]] == texts


def test_a_large_file_is_read_in_pieces(tmp_path, monkeypatch):
    """A part of it is held at a time, also where rows are large, as those with pictures are."""
    rows, generator = 1_000, np.random.default_rng(0)
    table = pa.table({"text": ["x"] * rows, "label": ["a"] * rows, "picture": [generator.bytes(50_000)] * rows})
    options = {"use_dictionary": False, "compression": "none", "write_batch_size": 20}  # else a page holds 1,024 rows
    pa.parquet.write_table(table, tmp_path / "x.parquet", **options)
    size, most, data = (tmp_path / "x.parquet").stat().st_size, 0, Data(source="x", label_column=("label", "picture"))
    monkeypatch.setattr(parquet, "_BYTES_AT_ONCE", 4 << 20)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        for block in readers.blocks(SourceFile(0, "x", str(tmp_path / "x.parquet"), "parquet", None), data):
            most = max(most, pa.total_allocated_bytes() - before)
            del block
        most += tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 0.4 * size
