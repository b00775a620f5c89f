import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from data.row_reading import rows_of
from hypothesis import given
from hypothesis import strategies as st

from tfpipe.config.template import parse_template
from tfpipe.errors import InputError


def test_pieces():
    template = parse_template("Title: {title}\n{{{review.body}}} 100%")
    assert template.columns == ("title", "review.body")
    assert template.literals == ("Title: ", "\n{", "} 100%")
    assert template.join(("a", "b")) == "Title: a\n{b} 100%"


@pytest.mark.parametrize("text", ["", "title", "{{title}}", "{title", "title}", "{}", "{a}}", "{a{b}}"])
def test_what_is_no_template_is_refused(text, tmp_path):
    with pytest.raises(InputError, match=r"(?i)data: .*(names no column|stands alone); write"):
        rows_of(str(tmp_path), text=text)


def test_both_ways_to_a_text_are_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"data.text is the text, so data.text_column has no effect; leave one of them"
    ):
        rows_of(str(tmp_path), text="{title}", text_column="body")
    rows = tmp_path / "x.csv"
    rows.write_text("title,label\nx,a\n")
    assert rows_of(str(rows), text="{title}", text_column="text")[0] == [(2, "x", None, "a")]  # as a default is written


ROWS = [
    {"title": "A", "body": "one", "label": "x"},
    {"title": "", "body": "two", "label": "x"},
    {"title": "C", "body": None, "label": "x"},
    {"title": None, "body": " ", "label": "x"},
    {"title": 5, "body": 1.0, "label": "x"},
]


def test_empty_parts_leave_nothing(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, [*ROWS, {"title": ["t"], "body": "x", "label": "x"}])))
    usable, rejected, _ = rows_of(str(path), text="{title}\n{body}")
    assert [(line, text) for line, text, *_ in usable] == [(1, "A\none"), (2, "two"), (3, "C"), (5, "5\n1")]
    reason = "the text is a list; join it in the file, or write data.text: title.0 for its first"
    assert rejected == [(4, "empty text", ""), (6, reason, '["t"]')]
    usable, rejected, _ = rows_of(str(path), text="Title: {title}")
    assert [line for line, *_ in usable] == [1, 3, 5] and [line for line, *_ in rejected] == [2, 4, 6]


def test_every_format_and_pairs(tmp_path):
    (tmp_path / "x.csv").write_text("title,body,question,label\nA,one,q,x\n")
    columns = {"title": ["A"], "body": [b"one"], "question": ["q"], "label": ["x"]}
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    for name, line in (("x.csv", 2), ("x.parquet", 1)):
        found = rows_of(str(tmp_path / name), text="{title}: {body}", text_pair_column="question")[0]
        assert found == [(line, "A: one", "q", "x")]
    with pytest.raises(InputError, match=r"no column 'nope' \(data.text\); columns in the file: 'title', 'body'"):
        rows_of(str(tmp_path / "x.csv"), text="{title} {nope}")


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
NAMES = TEXTS.filter(lambda name: name and not set(name) & set("{}"))


@given(st.lists(st.tuples(TEXTS, NAMES, TEXTS), min_size=1, max_size=4), TEXTS)
def test_a_template_is_a_replacement_and_a_strip(pieces, last):
    written = "".join(f"{escaped(literal)}{{{name}}}" for literal, name, _ in pieces) + escaped(last)
    template = parse_template(written)
    assert template.columns == tuple(name for _, name, _ in pieces)
    parts = tuple(part for *_, part in pieces)
    joined = ("".join(literal + part for literal, _, part in pieces) + last).strip()
    assert template.join(parts) == (joined if any(part.strip() for part in parts) else "")


def escaped(text):
    return text.replace("{", "{{").replace("}", "}}")
