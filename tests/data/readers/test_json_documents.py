import gzip
import json
import lzma

import pandas as pd
import pytest
from data.row_reading import rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tfpipe import console
from tfpipe.config.file import parse_config
from tfpipe.data import block as block_module
from tfpipe.data import readers
from tfpipe.data.files.sources import source_files
from tfpipe.data.readers import json_documents, json_outline
from tfpipe.errors import InputError

ROWS = [{"text": f'tëxt {n}, "quoted" [{{', "label": "ab"[n % 2]} for n in range(20)]
FRAME = pd.DataFrame(ROWS)
EXPECTED = [(n + 1, row["text"], None, row["label"]) for n, row in enumerate(ROWS)]


@pytest.fixture
def said(monkeypatch):
    """The lines that were said."""
    lines = []
    monkeypatch.setattr(console, "say", lines.append)
    return lines


def pretty(value, **options):
    return json.dumps(value, indent=2, **options)


DOCUMENTS = {
    "array.json": (json.dumps(ROWS), ""),
    "array of pandas.json": (FRAME.to_json(orient="records"), ""),
    "pretty.json": (pretty(ROWS, ensure_ascii=False), ""),
    "tabs.json": ("[\n\t" + ",\n\t".join(map(json.dumps, ROWS)) + "\n]\n", ""),
    "mark.json": ("\ufeff \n" + json.dumps(ROWS), ""),
    "comma.json": (json.dumps(ROWS)[:-1] + ",\n]", ""),
    "array.jsonl": (json.dumps(ROWS), "a JSON document, not JSON Lines"),
    "jq.json": ("\n".join(map(pretty, ROWS)), ""),
    "jq.ndjson": ("".join(map(pretty, ROWS)), "a JSON document, not JSON Lines"),
    "data.json": (json.dumps({"data": ROWS}), "its rows are those of 'data'"),
    "more.json": (pretty({"version": 1, "meta": {"x": [{}]}, 'ro"ws': ROWS, "end": []}), "rows are those of 'ro\"ws'"),
    "table.json": (FRAME.to_json(orient="table"), "its rows are those of 'data'"),
    "columns.json": (FRAME.to_json(), "a JSON object of columns ('text', 'label')"),
    "indented.json": (FRAME.to_json(indent=1), "a JSON object of columns ('text', 'label')"),
    "lists.json": (json.dumps(FRAME.to_dict("list")), "a JSON object of columns ('text', 'label')"),
    "index.json": (FRAME.to_json(orient="index"), "a JSON object of 20 rows, each with a name"),
    "split.json": (FRAME.to_json(orient="split"), "of columns and rows, as pandas writes with orient='split'"),
    "lines.json": ("\n".join(map(json.dumps, ROWS)), ""),
}


@pytest.mark.parametrize("block_bytes", [40, 1 << 20])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_shape(tmp_path, monkeypatch, said, name, block_bytes):
    monkeypatch.setattr(block_module, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(json_outline, "CHUNK_BYTES", 4 * block_bytes)
    content, found = DOCUMENTS[name]
    (tmp_path / name).write_text(content, encoding="utf-8")
    for _ in range(2):  # the second time nothing is said
        assert rows_of(str(tmp_path / name)) == (EXPECTED, [], 0)
    assert [line.partition(": ")[2] for line in said] == [line for line in said for _ in found[:1]] or (
        len(said) == 1 and found in said[0]
    )


@pytest.mark.parametrize("name", ["data.json", "columns.json", "split.json", "pretty.json"])
def test_compressed(tmp_path, name):
    content = DOCUMENTS[name][0].encode()
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    (tmp_path / f"{name}.xz").write_bytes(lzma.compress(content))
    for suffix in ("gz", "xz"):
        assert rows_of(str(tmp_path / f"{name}.{suffix}"))[0] == EXPECTED


def test_splits(tmp_path, said, monkeypatch):
    monkeypatch.setattr(block_module, "BLOCK_BYTES", 100)
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"train": ROWS[:12], "dev": ROWS[12:15], "test": ROWS[15:]}))
    assert rows_of(str(path))[0] == EXPECTED
    config = parse_config({"name": "x", "data": {"source": str(path)}, "encoder": {"source": "x"}}, where="test")
    (file,) = source_files(config.data)
    blocks = list(readers.blocks(file, config.data))
    assert list(dict.fromkeys(block.file.split for block in blocks)) == ["train", "validation", "test"]
    assert len({block.name for block in blocks}) == len(blocks) and file.split is None
    assert said == [f"  {path}: its rows are those of 'train', 'dev', 'test', which give the splits"]
    with pytest.raises(
        InputError, match=r"data.source gives its rows to train, but it holds the splits 'train', 'dev'"
    ):
        rows_of({"train": str(path)})
    assert rows_of({"train": str(path)}, records="test")[0] == [
        (n + 1, *row[1:]) for n, row in enumerate(EXPECTED[15:])
    ]


def test_the_array_that_data_records_names(tmp_path, said):
    (tmp_path / "x.json").write_text(pretty({"took": 1, "hits": {"total": 2, "hits": [{"_source": r} for r in ROWS]}}))
    columns = {"text_column": "_source.text", "label_column": "_source.label"}
    with pytest.raises(InputError, match=r"arrays of objects below it; set data.records to 'hits.hits'"):
        rows_of(str(tmp_path / "x.json"))
    assert rows_of(str(tmp_path / "x.json"), records="hits.hits", **columns)[0] == EXPECTED
    for records, message in (
        ("hits.nope", r"nothing is named 'nope' \(data.records\); there are 'total', 'hits'; name the array"),
        ("took", r"'took' \(data.records\) is not an array of objects; there are 'took', 'hits'"),
    ):
        with pytest.raises(InputError, match=message):
            rows_of(str(tmp_path / "x.json"), records=records, **columns)
    (tmp_path / "two.json").write_text(json.dumps({"a": ROWS[:5], "b": ROWS}))
    with pytest.raises(InputError, match=r"several arrays of objects \('a', 'b'\); set data.records to one of them"):
        rows_of(str(tmp_path / "two.json"))
    assert rows_of(str(tmp_path / "two.json"), records="b")[0] == EXPECTED
    assert said == []


@pytest.mark.parametrize("name", ["x.csv", "array.json", "lines.json", "jq.json"])
def test_data_records_without_effect(tmp_path, name):
    path = tmp_path / name
    path.write_text(DOCUMENTS.get(name, ["text,label\nx,a\n"])[0])
    with pytest.raises(InputError, match=r"so data.records.* has no effect; leave it out"):
        rows_of(str(path), records="data")


REFUSED = {
    "an array of arrays": (
        [["x", "a"]],
        r"an array of arrays, not of objects; write objects, .* jq -c '\.\[\] \| {text",
    ),
    "an array of texts": (["x"], r"a JSON array of texts, not of objects; write an object for each row"),
    "an empty array": ([], r"an empty JSON array; expected at least one row"),
    "an empty array in an object": ({"data": []}, r"no row; expected at least one row"),
    "rows as arrays": (
        {"val": [["x", "a"]], "train": [["x", "a"]]},
        r"with the names 'val', 'train', whose rows are arrays; write objects, for example with jq -c '\.\"train\"\[\]",
    ),
    "columns without the wanted one": (
        {"body": {"0": "x"}, "label": {"0": "a"}},
        r"the names 'body', 'label', and below 'body' '0': no column 'text' \(data.text_column\)",
    ),
    "columns of other lengths": ({"text": ["x", "y"], "label": ["a"]}, r"'label' has not the rows of 'text' \(1 and 2"),
    "columns of other rows": ({"text": {"0": "x"}, "label": {"1": "a"}}, r"'label' has not the rows of 'text'"),
    "columns of no row": ({"text": {}, "label": {}}, r"no row; expected at least one row"),
    "a missing column of orient=split": ({"columns": ["body", "label"], "data": [["x", "a"]]}, r"no column 'text'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_documents_that_hold_no_rows(tmp_path, case):
    value, message = REFUSED[case]
    for text in (json.dumps(value), pretty(value)):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match=r"x\.json: .*" + message.replace("an array of arrays", "")):
            rows_of(str(tmp_path / "x.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(ROWS)[:-100], r"ends within record 19 \('\{.*'\), without the bracket that closes the records"),
        (pretty({"data": ROWS})[:-100], r"ends within a JSON object, in 'data'; fetch or write it again"),
        (json.dumps({"data": ROWS})[:-100], r"ends within a JSON object, in 'data'; fetch or write it again"),
        ("\n".join(map(pretty, ROWS))[:-20], r"ends within record 20"),
        (json.dumps(ROWS) + json.dumps(ROWS), r"more follows the end of the JSON array, behind record 20 \('\["),
        ('{"text": {"0": "x", "0": "y"}, "label": {"0": "a"}}', r"'text' is not JSON \(the name '0' occurs twice\)"),
        ('{"text": {"0": x}, "label": {"0": "a"}}', r"'text' is not JSON \(Expecting value"),
    ],
)
def test_damaged_documents(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=r"x\.json: " + message):
        rows_of(str(tmp_path / "x.json"))


def test_a_record_that_does_not_end(tmp_path, monkeypatch):
    monkeypatch.setattr(block_module, "BLOCK_BYTES", 50)
    monkeypatch.setattr(json_documents, "_LONGEST_RECORD_BYTES", 200)
    (tmp_path / "x.json").write_text(
        '[{"text": "x", "label": "a"}, {"text": "x, "label": "a"}, ' + json.dumps(ROWS)[1:]
    )
    with pytest.raises(
        InputError, match=r"record 2 does not end within 0 MB \('\{\"text\": \"x, .*; a quote or a bracket"
    ):
        rows_of(str(tmp_path / "x.json"))
    monkeypatch.setattr(json_documents, "_LARGEST_COLUMN_BYTES", 200)
    (tmp_path / "y.json").write_text(DOCUMENTS["columns.json"][0])
    with pytest.raises(InputError, match=r"column 'text' has 0 MB, and columns are read whole.*df.to_json\("):
        rows_of(str(tmp_path / "y.json"))


@pytest.mark.parametrize("block_bytes", [10, 1 << 20])
def test_unusable_records(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(block_module, "BLOCK_BYTES", block_bytes)
    records = [
        b'{"text": "x", "label": "a"}',
        b'{"text": "x" "label": "a"}',
        b'["x", "a"]',
        b"",
        b"null",
        b"{}",
        b'{"text": "x", "tag": "a"}',
        b'{"text": "\xff", "label": "a"}',
        b'{"text": "y", "label": NaN}',
        b'{"text": "z", "label": "a", "label": "b"}',  # as in JSON Lines, the last counts
    ]
    (tmp_path / "x.json").write_bytes(b"[" + b", ".join(records) + b"]")
    usable, rejected, _ = rows_of(str(tmp_path / "x.json"))
    assert usable == [(1, "x", None, "a"), (10, "z", None, "b")]
    assert rejected == [
        (2, "not JSON (Expecting ',' delimiter: line 1 column 14 (char 13))", '{"text": "x" "label": "a"}'),
        (3, "not a JSON object but list", '["x", "a"]'),
        (4, "not JSON (Expecting value: line 1 column 1 (char 0))", ""),
        (5, "not a JSON object but NoneType", "null"),
        (6, "no field 'text' (data.text_column); fields: none", "{}"),
        (7, "no field 'label' (data.label_column); fields: 'text', 'tag'", '{"text": "x", "tag": "a"}'),
        (8, "undecodable bytes in the text (not UTF-8)", "\\xff"),
        (9, "empty label", "y"),
    ]


def test_rows_of_orient_split_and_index_that_do_not_fit(tmp_path):
    rows = {"columns": ["text", "label"], "index": [0], "data": [["x", "a"], ["y"], {"text": "z"}, ["w", "b"]]}
    (tmp_path / "x.json").write_text(json.dumps(rows))
    usable, rejected, _ = rows_of(str(tmp_path / "x.json"))
    assert usable == [(1, "x", None, "a"), (4, "w", None, "b")]
    assert [(line, reason) for line, reason, _ in rejected] == [
        (2, "1 values for 2 columns"),
        (3, "not a JSON array but dict"),
    ]
    (tmp_path / "y.json").write_text('{"k": {"text": "x", "label": "a"}, "k": {"text": "y", "label": "b"}}')
    assert [text for _, text, *_ in rows_of(str(tmp_path / "y.json"))[0]] == ["x", "y"]  # no row is lost by its name


def test_a_single_row_is_no_document(tmp_path):
    for text in ('{"text": "x", "label": "a"}', '{\n"text": "x",\n"label": "a"\n}\n'):
        (tmp_path / "x.json").write_text(text)
        assert rows_of(str(tmp_path / "x.json"))[0] == [(1, "x", None, "a")]
    (tmp_path / "x.json").write_text('{"r": {"text": "x", "tags": [{"a": 1}]}, "label": ["a"]}')
    assert rows_of(str(tmp_path / "x.json"), text_column="r.text")[0] == [(1, "x", None, "a")]


def test_a_damaged_first_line_leaves_json_lines(tmp_path):
    for damaged in ('{"text": "x", "label": ', '{"text": "x", "label": "a"}}', '{"text": "x', "{", '["text", "label"]'):
        (tmp_path / "x.jsonl").write_text(f"{damaged}\n" + "\n".join(map(json.dumps, ROWS)))
        usable, rejected, _ = rows_of(str(tmp_path / "x.jsonl"))
        assert len(usable) == 20 and [line for line, *_ in rejected] == [1], damaged


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.text(st.characters(codec="utf-8")), JSON), min_size=1, max_size=12),
    st.sampled_from(["array", "wrapped", "index", "jq"]),
    st.integers(1, 60),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_what_json_writes_is_read_back_however_it_is_cut(tmp_path_factory, rows, shape, size, indent, ascii_only):
    path = tmp_path_factory.mktemp("cut") / "x.json"
    rows = [{"more": more, "text": f"x{text}", "label": "a"} for text, more in rows]
    value = {"array": rows, "wrapped": {"x": 1, "data": rows, "y": None}, "index": dict(enumerate(rows))}.get(shape)
    texts = [value] if value is not None else rows
    written = "\n".join(json.dumps(one, indent=indent, ensure_ascii=ascii_only) for one in texts)
    path.write_text(written, encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_module, "BLOCK_BYTES", size)
        patch.setattr(json_outline, "CHUNK_BYTES", 3 * size)
        usable, rejected, _ = rows_of(str(path))
    assert [text for _, text, *_ in usable] == [row["text"] for row in rows] and not rejected
