import io

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from data.row_reading import rows_of

from tfpipe.data.nested import names_in, value_at
from tfpipe.data.nested_arrow import names_of, parquet_columns, steps_to, value_of
from tfpipe.errors import InputError

RECORD = {
    "review": {"text": "x", "stars": 5, "a.b": {"c": 1}},
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    "dotted.name": "d",
    "dotted": {"name": "other", "more": 1},
    "none": None,
    "0": "zero",
    "tokens": ["a", "b"],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("review.text", "x"),
        ("review.a.b.c", 1),
        ("messages.1.content", "u"),
        ("messages.-1.role", "user"),
        ("messages.0", {"role": "system", "content": "s"}),
        ("dotted.name", "d"),
        ("dotted.more", 1),
        ("none.text", None),
        ("0", "zero"),
        ("tokens.1", "b"),
    ],
)
def test_what_a_dotted_name_means(name, value):
    assert value_at(RECORD, name) == value


@pytest.mark.parametrize(
    "name", ["text", "review.nope", "messages.2.content", "messages.-3", "messages.x", "tokens.1.0", ".", "review.", ""]
)
def test_what_a_dotted_name_does_not_mean(name):
    with pytest.raises(KeyError):
        value_at(RECORD, name)


def test_the_names_in_a_record():
    assert list(names_in(RECORD)) == [
        *("review.text", "review.stars", "review.a.b.c", "messages.0.role", "messages.0.content"),
        *("dotted.name", "dotted.name", "dotted.more", "none", "0", "tokens"),
    ]


def batch():
    message = pa.struct({"role": pa.string(), "content": pa.string()})
    columns = {
        "review": pa.array([{"text": "a", "stars": 1}, None, {"text": None, "stars": 2}]),
        "messages": pa.array([RECORD["messages"], None, []], pa.list_(message)),
        "large": pa.array([RECORD["messages"], RECORD["messages"][:1], None], pa.large_list(message)),
        "pair": pa.array([["a", "b"], None, ["c", "d"]], pa.list_(pa.string(), 2)),
        "a.b": ["1", "2", "3"],
        "a": pa.array([{"b": "n", "c": "m"}] * 3),
    }
    return pa.record_batch(columns)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("review.text", ["a", None, None]),
        ("messages.1.content", ["u", None, None]),
        ("messages.-1.role", ["user", None, None]),
        ("large.0.content", ["s", "s", None]),
        ("pair.-1", ["b", None, "d"]),
        ("a.b", ["1", "2", "3"]),
        ("a.c", ["m", "m", "m"]),
    ],
)
def test_arrow_means_the_same(name, values):
    table = batch()
    assert value_of(table, steps_to(table.schema, name)).to_pylist() == values
    part = table.slice(1)
    assert value_of(part, steps_to(part.schema, name)).to_pylist() == values[1:]


@pytest.mark.parametrize("name", ["review.nope", "messages.content", "a.b.c", "pair.x", "messages.0.nope", "nope.0"])
def test_arrow_lacks_the_same(name):
    assert steps_to(batch().schema, name) is None


def test_the_names_of_a_schema():
    assert names_of(batch().schema) == [
        *("review.text", "review.stars", "messages.0.role", "messages.0.content"),
        *("large.0.role", "large.0.content", "pair", "a.b", "a.c"),
    ]


def test_only_the_needed_leaves_of_parquet_are_read():
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_batches([batch()]), sink)
    file = parquet.ParquetFile(sink)
    paths = [file.schema.column(number).path for number in range(len(file.schema))]
    schema = file.schema_arrow
    wanted = [
        parquet_columns(paths, steps_to(schema, name)) for name in ("review.text", "messages.1.content", "pair.0")
    ]
    assert wanted == [["review.text"], ["messages.list.element.content"], ["pair"]]


def test_rows_of_nested_parquet(tmp_path):
    path = str(tmp_path / "x.parquet")
    parquet.write_table(pa.Table.from_batches([batch()]), path)
    usable, rejected, _ = rows_of(path, text_column="messages.-1.content", label_column="a.b")
    assert usable == [(1, "u", None, "1")]
    assert [(line, reason) for line, reason, _ in rejected] == [(2, "empty text"), (3, "empty text")]
    with pytest.raises(
        InputError, match=r"no column 'text' \(data.text_column\); .* 'review.text', .*mean 'review.text'"
    ):
        rows_of(path)
    rejected = rows_of(path, text_column="review", label_column="a.b")[1]
    assert rejected[0] == (
        1,
        "the text is an object; write data.text_column: review.text or review.stars",
        '{"text": "a", "stars": 1}',
    )


def test_a_label_that_is_an_object_is_told_its_names(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "x", "label": {"id": 1, "name": "pos"}}\n{"text": "x", "label": [{"name": "pos"}]}\n')
    reasons = [reason for _, reason, _ in rows_of(str(path))[1]]
    assert reasons[0] == "the label is an object; write data.label_column: label.name or label.id"
    assert rows_of(str(path), label_column="label.name")[0] == [(1, "x", None, "pos")]
    assert rows_of(str(path), label_column="label.0.name")[0] == [(2, "x", None, "pos")]


def test_chat_and_tokens(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(
        '{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "pos"}],'
        ' "text": ["a", "b"]}'
    )
    columns = {"text_column": "messages.0.content", "label_column": "messages.-1.content"}
    assert rows_of(str(path), **columns)[0] == [(1, "hello", None, "pos")]
    (line, reason, excerpt), *_ = rows_of(str(path), label_column="messages.1.content")[1]
    assert (line, excerpt) == (1, '["a", "b"]')
    assert reason == "the text is a list; join it in the file, or write data.text_column: text.0 for its first"
    reason = rows_of(str(path), text_column="messages", label_column="messages.1.role")[1][0][1]
    assert reason == "the text is a list; write data.text_column: messages.0.content or messages.0.role"
    reason = rows_of(str(path), text_column="messages.3.content", label_column="messages.1.role")[1][0][1]
    assert reason == (
        "no field 'messages.3.content' (data.text_column); fields: 'messages.0.role', 'messages.0.content', 'text'"
    )
