import gzip

import pyarrow as pa
import pyarrow.feather as feather
import pytest
from data.row_reading import rows_of

from tfpipe.config.data import Data
from tfpipe.data import readers
from tfpipe.data.files.sources import identity, source_files
from tfpipe.errors import InputError

TABLE = pa.table({"text": ["eins", "zwei", "drei ü"], "label": ["a", "b", "a"], "more": [1, 2, 3]})
ROWS = [(1, "eins", None, "a"), (2, "zwei", None, "b"), (3, "drei ü", None, "a")]


def write(path, table=TABLE, new=pa.ipc.new_file, rows=None, **options):
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return str(path)


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
@pytest.mark.parametrize("rows", [1, None])
def test_files_and_streams(tmp_path, new, rows):
    assert rows_of(write(tmp_path / "x.arrow", new=new, rows=rows))[0] == ROWS
    content = (tmp_path / "x.arrow").read_bytes()
    (tmp_path / "x.arrow.gz").write_bytes(gzip.compress(content))
    assert rows_of(str(tmp_path / "x.arrow.gz"))[0] == ROWS
    (tmp_path / "x.bin").write_bytes(content)
    assert rows_of(str(tmp_path / "x.bin"))[0] == ROWS  # by its content


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather(tmp_path, compression):
    feather.write_feather(TABLE, str(tmp_path / "x.feather"), compression=compression)
    assert rows_of(str(tmp_path / "x.feather"))[0] == ROWS


def test_kinds_of_text(tmp_path):
    for kind in (
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.uint32(), pa.large_string()),
    ):
        table = TABLE.set_column(
            1, "label", TABLE["label"].cast(kind) if "view" in str(kind) else TABLE["label"].combine_chunks().cast(kind)
        )
        assert rows_of(write(tmp_path / "x.arrow", table))[0] == ROWS, kind


def test_text_that_is_not_utf8_is_a_rejected_row(tmp_path):
    texts = pa.array([b"x", b"\xff", b"y"]).view(pa.string())
    usable, rejected, _ = rows_of(write(tmp_path / "x.arrow", pa.table({"text": texts, "label": ["a", "b", "a"]})))
    assert [row[0] for row in usable] == [1, 3]
    assert rejected[0][0] == 2 and rejected[0][1] == "undecodable bytes in the text (not UTF-8)"


def test_blocks_are_small_whatever_the_batches(tmp_path, monkeypatch):
    """A batch is cut into parts that hold their own rows alone, as they go to other processes."""
    import pickle

    path = write(tmp_path / "x.arrow", pa.table({"text": ["x" * 1000] * 10_000, "label": ["a"] * 10_000}))
    data = Data(source=path)
    blocks = list(readers.blocks(source_files(data)[0], data))
    assert len(blocks) == 5 and sum(block.payload.num_rows for block in blocks) == 10_000
    assert all(len(pickle.dumps(block)) < 2.2e6 for block in blocks)
    assert [block.first for block in blocks] == [1 + sum(b.payload.num_rows for b in blocks[:n]) for n in range(5)]


def test_damaged_and_empty_files(tmp_path):
    write(tmp_path / "x.arrow")
    content = (tmp_path / "x.arrow").read_bytes()
    for part in (content[:40], content[: len(content) // 2], content[:-4]):
        (tmp_path / "x.arrow").write_bytes(part)
        with pytest.raises(InputError, match=r"x\.arrow: not a whole Arrow file"):
            rows_of(str(tmp_path / "x.arrow"))
    with pytest.raises(InputError, match=r"x\.arrow: no row; expected"):
        rows_of(write(tmp_path / "x.arrow", TABLE.slice(0, 0)))
    with pytest.raises(InputError, match=r"x\.arrow: no column 'label'.*columns in the file: 'text', 'more'"):
        rows_of(write(tmp_path / "x.arrow", TABLE.drop_columns(["label"])))


def test_caches_of_datasets_are_left_out(tmp_path, capsys):
    for name in (
        "data-00000-of-00001.arrow",
        "cache-0123456789abcdef.arrow",
        "cache-0123456789abcdef_00000_of_00002.arrow",
    ):
        write(tmp_path / name)
    data = Data(source=f"{tmp_path}/*.arrow")
    assert [file.name[-25:] for file in source_files(data)] == ["data-00000-of-00001.arrow"]
    assert "cache-0123456789abcdef.arrow and 1 more: left out" in capsys.readouterr().err
    assert len(identity(data)) == 1
    assert len(source_files(Data(source=f"{tmp_path}/cache*.arrow"))) == 2  # asked for
