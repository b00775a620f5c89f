import json

import pytest
from data.row_reading import rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tfpipe.data import block as block_module
from tfpipe.errors import InputError


def test_values_and_their_lines(tmp_path):
    records = [
        {"text": "one", "label": 1},
        {"text": "two\nlines", "label": True},
        {"text": "three", "label": 2.0},
        {"text": "four", "label": " x ", "more": [1]},
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("\ufeff" + "\n\n".join(map(json.dumps, records)), encoding="utf-8")
    assert rows_of(str(path))[0] == [
        (1, "one", None, "1"),
        (3, "two\nlines", None, "true"),
        (5, "three", None, "2"),
        (7, "four", None, "x"),
    ]


def test_unusable_lines(tmp_path):
    lines = [
        b'{"text": "x", "label": "a"}',
        b'{"text": "x", "label": ',
        b'["x", "a"]',
        b'{"text": "x", "tag": "a"}',
        b'{"text": null, "label": "a"}',
        b'{"text": {"a": [5]}, "label": "a"}',
        b'{"text": "x", "label": null}',
        b'{"text": "x", "label": ["a", "b"]}',
        b'{"text": "\xff", "label": "a"}',
        b'{"text": "\\ud800", "label": "a"}',
    ]
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(lines))
    usable, rejected, _ = rows_of(str(path))
    assert len(usable) == 1
    assert [(line, reason) for line, reason, _ in rejected] == [
        (2, "not JSON (Expecting value: line 1 column 23 (char 22))"),
        (3, "not a JSON object but list"),
        (4, "no field 'label' (data.label_column); fields: 'text', 'tag'"),
        (5, "empty text"),
        (6, "the text is an object; write data.text_column: text.a"),
        (7, "empty label"),
        (8, "2 labels (task: single_label expects one)"),
        (9, "undecodable bytes in the text (not UTF-8)"),
        (10, "undecodable bytes in the text (not UTF-8)"),
    ]


def test_lists_are_several_labels(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "x", "label": ["b", 1]}\n{"text": "y", "label": []}\n{"text": "z", "label": ["a|b"]}\n')
    usable, rejected, _ = rows_of(str(path), task="multi_label")
    assert usable == [(1, "x", None, "b|1"), (2, "y", None, ""), (3, "z", None, "a|b")] and not rejected


def test_an_empty_file(tmp_path):
    (tmp_path / "x.jsonl").write_text("")
    with pytest.raises(InputError, match="the file is empty; expected a JSON object a line"):
        rows_of(str(tmp_path / "x.jsonl"))


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1), min_size=1, max_size=30),
    st.integers(1, 80),
)
def test_what_json_writes_is_read_back_however_it_is_cut(tmp_path_factory, texts, block_bytes):
    path = tmp_path_factory.mktemp("cut") / "x.jsonl"
    lines = [json.dumps({"text": f"x{text}", "label": "a"}, ensure_ascii=n % 2 == 0) for n, text in enumerate(texts)]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_module, "BLOCK_BYTES", block_bytes)
        usable, rejected, _ = rows_of(str(path))
    assert not rejected
    assert [(line, text) for line, text, _, _ in usable] == [(n + 1, f"x{text}") for n, text in enumerate(texts)]


def test_a_label_is_text_or_a_number(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(
        '{"text": "x", "label": {"a": 1}}\n{"text": "x", "label": [["a"]]}\n{"text": "x", "label": ["a"]}\n'
    )
    usable, rejected, _ = rows_of(str(path))
    assert usable == [(3, "x", None, "a")]
    assert [reason for _, reason, _ in rejected] == [
        "the label is an object; write data.label_column: label.a",
        "a label in the list is not text or a number",
    ]


def test_reasons_are_short_whatever_the_row_holds(tmp_path):
    path = tmp_path / "x.jsonl"
    long = "y" * 100_000
    path.write_text(json.dumps({long: 1}) + "\n" + json.dumps({"text": "x", "label": "a", "split": long}) + "\n")
    rejected = rows_of(str(path))[1] + rows_of(str(path), split={"column": "split"})[1]
    assert len(rejected) == 3 and all(len(reason) < 300 for _, reason, _ in rejected)


def test_numbers_are_texts_as_they_are_written(tmp_path):
    path = tmp_path / "x.jsonl"
    values = [5, 2.0, 0.1, True, float("nan"), 1234567890123, "text"]
    path.write_text("\n".join(json.dumps({"text": value, "label": "a"}) for value in values))
    usable, rejected, _ = rows_of(str(path))
    assert [text for _, text, *_ in usable] == ["5", "2", "0.1", "true", "1234567890123", "text"]
    assert [(line, reason) for line, reason, _ in rejected] == [(5, "empty text")]
