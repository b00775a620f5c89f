import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import TokenRow, write_token_table
from hypothesis import given, settings
from hypothesis import strategies as st

from tfpipe.errors import InputError
from tfpipe.tokens.table import TokenTable

PAD = 9


def make_row(row_id, tokens, labels=(1.0, 0.0), text="text", text_pair=None):
    input_ids = np.asarray(tokens, np.int32)
    return TokenRow(
        input_ids, input_ids % 2, np.asarray(labels, np.float32), row_id, text, text_pair, "rows.csv", row_id + 2
    )


def write(directory, rows, num_labels=2, shard_rows=16384):
    write_token_table(directory, rows, num_labels=num_labels, pad_id=PAD, shard_rows=shard_rows)
    return TokenTable.open(directory)


@pytest.fixture
def table(tmp_path):
    rows = [make_row(n, range(1, 2 + n % 5), (n, -n), f"text {n}", None if n % 3 else f"pair {n}") for n in range(10)]
    return write(tmp_path / "table", rows, shard_rows=4)


def check_batch(table, written, examples, length):
    """Every token of every example stands once, in its place, and nothing else does."""
    batch = table.batch(examples, length)
    for row, members in enumerate(examples):
        expected = {name: [] for name in ("input_ids", "token_type_ids", "segment_ids", "position_ids")}
        for slot, index in enumerate(members):
            start = len(expected["input_ids"])
            labels = written[index].labels.tolist() if index >= 0 else [0] * table.num_labels
            assert batch["labels"][row, slot].tolist() == labels
            assert batch["weights"][row, slot] == (1 if index >= 0 else 0)
            assert batch["cls_index"][row, slot] == (start if index >= 0 else 0)
            if index >= 0:
                tokens = written[index].input_ids
                expected["input_ids"] += tokens.tolist()
                expected["token_type_ids"] += written[index].token_type_ids.tolist()
                expected["segment_ids"] += [slot + 1] * len(tokens)
                expected["position_ids"] += range(len(tokens))
        padding = length - len(expected["input_ids"])
        for name, values in expected.items():
            filler = PAD if name == "input_ids" else 0
            assert batch[name][row].tolist() == values + [filler] * padding, name


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12), max_size=25),
    st.integers(1, 30),
    st.randoms(use_true_random=False),
)
def test_what_is_written_is_read(token_lists, shard_rows, random):
    written = [
        make_row(n, tokens, (random.random(), 0, 1), f"tëxt {n}", None if n % 2 else "päir")
        for n, tokens in enumerate(token_lists)
    ]
    with tempfile.TemporaryDirectory() as directory:
        table = write(Path(directory), written, num_labels=3, shard_rows=shard_rows)
        assert table.num_rows == len(written) and table.num_labels == 3 and table.pad_id == PAD
        assert len(os.listdir(directory)) == 1 + -(-len(written) // shard_rows)
        slots = random.randint(1, 4)
        indices = [*range(len(written)), -1, *range(len(written))]
        random.shuffle(indices)
        indices += [-1] * (-len(indices) % slots)
        check_batch(table, written, np.array(indices, np.int64).reshape(-1, slots), 12 * slots)
        assert table.texts(range(len(written))) == [row.text for row in written]
        assert table.text_pairs(range(len(written))) == [row.text_pair for row in written]
        assert table.lengths.tolist() == [len(row.input_ids) for row in written]
        assert table.row_ids.tolist() == [row.row_id for row in written]
        assert table.lines.tolist() == [row.line for row in written]


def test_dtypes_and_shapes(table):
    batch = table.batch(np.array([[3, -1], [0, 1], [-1, -1]]), 8)
    assert {key: (value.dtype, value.shape) for key, value in batch.items()} == {
        "input_ids": (np.int32, (3, 8)),
        "token_type_ids": (np.int32, (3, 8)),
        "segment_ids": (np.int32, (3, 8)),
        "position_ids": (np.int32, (3, 8)),
        "cls_index": (np.int32, (3, 2)),
        "labels": (np.float32, (3, 2, 2)),
        "weights": (np.float32, (3, 2)),
    }
    assert table.lengths.dtype == np.int32
    assert table.labels.dtype == np.float32 and table.labels.shape == (10, 2)
    assert table.row_ids.dtype == table.lines.dtype == np.int64 and not table.copies.any()


def test_padded_rows(table):
    batch = table.padded(np.array([3, 0, 4]))
    assert {key: (value.dtype, value.shape) for key, value in batch.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), (np.int32, (3, 5))
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, PAD], [1, PAD, PAD, PAD, PAD], [1, 2, 3, 4, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]


def test_no_slot_filled(table):
    batch = table.batch(np.array([[-1], [-1]]), 4)
    assert not batch["segment_ids"].any() and not batch["weights"].any()
    assert table.batch(np.empty((0, 1), np.int64), 4)["input_ids"].shape == (0, 4)


def test_empty_table_has_no_shard(tmp_path):
    table = write(tmp_path, [], num_labels=3)
    assert os.listdir(tmp_path) == ["table.json"]
    assert table.num_rows == 0 and table.labels.shape == (0, 3) and table.lengths.shape == (0,)


def test_tokens_are_not_copied(tmp_path):
    before = pa.total_allocated_bytes()
    table = write(tmp_path, [make_row(n, range(200)) for n in range(500)])
    assert pa.total_allocated_bytes() - before < 100_000
    assert not table._input_ids[0].flags.owndata


def test_same_rows_give_the_same_bytes(tmp_path):
    for name in "ab":
        write(tmp_path / name, [make_row(n, range(n + 1)) for n in range(20)], shard_rows=7)
    for file in sorted(os.listdir(tmp_path / "a")):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_examples_longer_than_the_row(table):
    with pytest.raises(ValueError, match="5 tokens do not fit into a row of 4"):
        table.batch(np.array([[4]]), 4)
    with pytest.raises(ValueError, match="9 tokens do not fit into a row of 8"):
        table.batch(np.array([[3, 4]]), 8)


@pytest.mark.parametrize("index", [10, -2])
def test_no_such_row(table, index):
    with pytest.raises(IndexError, match="of a table of 10 rows"):
        table.batch(np.array([[0, index]]), 8)
    with pytest.raises(IndexError, match="of a table of 10 rows"):
        table.texts([index])


def error(directory):
    with pytest.raises(InputError, match="--redo prepare") as caught:
        TokenTable.open(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("keep", [0, 3, 0.3, 0.9, -1])
def test_truncated_shard(tmp_path, table, keep):
    path = tmp_path / "table" / "part-00001.arrow"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert "part-00001.arrow: not a whole token table" in error(tmp_path / "table")


def test_overwritten_shard(tmp_path):
    write(tmp_path, [make_row(n, range(1 + n % 7)) for n in range(100)])
    path = tmp_path / "part-00000.arrow"
    content = path.read_bytes()
    offsets = np.concatenate([[0], np.cumsum([1 + n % 7 for n in range(100)])]).astype(np.int32).tobytes()
    assert content.count(offsets) == 2  # input_ids and token_type_ids
    path.write_bytes(content.replace(offsets[:40], b"\xff" * 40, 1))
    assert "part-00000.arrow: not a whole token table" in error(tmp_path)


def test_another_arrow_file(tmp_path):
    write(tmp_path, [make_row(0, [1])])
    batch = pa.record_batch({"x": pa.array([1])})
    with pa.ipc.new_file(str(tmp_path / "part-00000.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
    assert "part-00000.arrow: not a whole token table (another schema)" in error(tmp_path)


def test_missing_shards(tmp_path, table):
    directory = tmp_path / "table"
    (directory / "part-00002.arrow").unlink()
    assert "part-00002.arrow: not a whole token table ([Errno 2] Failed to open local file" in error(directory)
    (directory / "table.json").unlink()
    assert "no token table" in error(directory)


def test_short_rows_are_assembled_fast(tmp_path):
    random = np.random.default_rng(0)
    table = write(tmp_path, [make_row(n, range(random.integers(5, 50))) for n in range(4000)], shard_rows=500)
    orders = [random.permutation(4000) for _ in range(5)]

    def seconds(order):
        started = time.perf_counter()
        for first in range(0, 4000, 32):
            table.batch(order[first : first + 32, None], 64)
        return time.perf_counter() - started

    rate = 4000 / min(seconds(order) for order in orders)
    assert rate > 30_000, f"{rate:.0f} rows/s"  # several times this on an idle machine; a loop over rows is far below


@pytest.mark.parametrize(
    "manifest",
    ["[" * 100_000, '{"num_labels": "2", "pad_id": 0, "shards": []}', '{"num_labels": 2, "pad_id": 0, "shards": 3}',
     '{"num_labels": 2, "pad_id": -1, "shards": []}', '{"num_labels": 2, "pad_id": 2147483648, "shards": []}',
     '{"num_labels": 0, "pad_id": 0, "shards": []}', '{"num_labels": 2, "pad_id": 0, "shards": [3]}',
     '{"num_labels": 2, "pad_id": null, "shards": []}',
     '{"num_labels": 9223372036854775808, "pad_id": 0, "shards": []}'],
)  # fmt: skip
def test_a_damaged_manifest(tmp_path, table, manifest):
    (tmp_path / "table" / "table.json").write_text(manifest)
    assert "no token table" in error(tmp_path / "table")
