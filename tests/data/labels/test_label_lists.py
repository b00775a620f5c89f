"""Lists in a text, as the tools that write them do."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfpipe.data.labels.lists import listed

LISTS = {
    'json: ["a", "b, c"]': ["a", "b, c"],
    '["caf\\u00e9", "say \\"x\\""]': ["café", 'say "x"'],
    '{"choices":["Positive","Funny, dry"]}': ["Positive", "Funny, dry"],  # Label Studio 1.23
    "['a', \"it's\"]": ["a", "it's"],  # Python, and what pandas 3.1 writes of a list
    "['caf\\xe9', 'a\\\\b']": ["café", "a\\b"],
    "('a',)": ["a"],
    "{'a', 'b'}": ["a", "b"],
    "[np.str_('a'), np.str_('b')]": ["a", "b"],  # NumPy 2.4, elements of a Python list
    "['a' 'Funny, dry']": ["a", "Funny, dry"],  # NumPy, and what pandas and datasets write of Parquet's lists
    "[\"it's\" 'x']": ["it's", "x"],
    "['a\nb' 'c']": ["a\nb", "c"],
    "[1 0 0]": ["1", "0", "0"],
    "[1. 0.]": [1.0, 0.0],
    "[ True False]": [True, False],
    "[a, 'Funny, dry', NULL]": ["a", "Funny, dry", None],  # DuckDB 2.0
    "['it\\'s', 'say \"x\"', 'null', NULL]": ["it's", 'say "x"', "null", None],
    "[a b]": ["a b"],
    '{toxic,"Funny, dry",NULL}': ["toxic", "Funny, dry", None],  # PostgreSQL 15
    '{"a \\"b\\"","c\\\\d"}': ['a "b"', "c\\d"],
    "<python><c#>": ["python", "c#"],  # Stack Exchange
    "[]": [],
    "{}": [],
    "[1, 0]": [1, 0],
}
NO_LISTS = (
    "",
    "a",
    "a, b",
    "[",
    "[a",
    "[a,,b]",
    "{a,}",
    "['a', 'b'",
    "[['a']]",
    "(see below)",
    "{'a': 1}",
    '{"id": 1}',
    "<a> b",
    "[0 1 ... 0 1]",  # NumPy leaves out the middle
    "array(['a'], dtype=object)",
    "[" * 100_000 + "]" * 100_000,
)


@pytest.mark.parametrize("text", LISTS)
def test_lists(text):
    assert listed(text.removeprefix("json: ")) == LISTS[text]


@pytest.mark.parametrize("text", NO_LISTS)
def test_texts_that_are_no_lists(text):
    assert listed(text) is None


@given(st.lists(st.text()))
def test_what_json_and_python_write_is_read(labels):
    assert listed(json.dumps(labels)) == listed(json.dumps(labels, ensure_ascii=False)) == labels
    assert listed(repr(labels)) == labels
    if labels:
        assert listed(repr(tuple(labels))) == labels
        assert listed("{" + ",".join(map(quoted, labels)) + "}") == labels


def quoted(label):
    """As PostgreSQL quotes an element."""
    return '"' + label.replace("\\", "\\\\").replace('"', '\\"') + '"'
