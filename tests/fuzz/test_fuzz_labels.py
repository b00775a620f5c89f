"""Label cells: whatever they hold, each is labels as text or a reason; and one set of labels is one in every form."""

from __future__ import annotations

import json

import numpy as np
from fuzz.harness import VALUES, attempt, fuzz
from hypothesis import strategies as st

from tfpipe.config.file import parse_config
from tfpipe.data.labels.form import check_values, form_of
from tfpipe.data.labels.names import found_labels, named_labels

ODD = ["[a]", "{a,b}", "<a><b>", "['a']", "a|b", "a, b", "[0 1]", "NA", r"\N", "-1"]
TEXTS = st.text(max_size=8) | st.sampled_from(ODD)
CELLS = st.lists(TEXTS | st.sampled_from(VALUES) | st.lists(TEXTS | st.sampled_from(VALUES), max_size=4), max_size=12)
SETTINGS = st.fixed_dictionaries(
    {"task": st.sampled_from(["single_label", "multi_label"])},
    optional={
        "label_form": st.sampled_from(["auto", "plain", "list", "multi_hot"]),
        "label_spellings": st.sampled_from(["auto", "fold", "keep"]),
        "label_names": st.dictionaries(TEXTS.filter(str.strip), st.sampled_from("xyz"), min_size=2, max_size=4),
        "missing": st.lists(TEXTS, max_size=2),
    },
)


def config(task="multi_label", **data):
    tree = {"name": "x", "task": task, "data": {"source": "rows.csv", **data}, "encoder": {"source": "e"}}
    return parse_config(tree, where="data")


def labels_of(cells, settings):
    """What the cells say, and the labels that they make."""
    chosen = config(**settings)
    form = form_of(cells, chosen)
    read = form.read(cells)
    named = named_labels(chosen)
    values = [value for each in read for value in each.values]
    if named is None:
        counts = dict.fromkeys(values, 1)
        check_values(counts, form, chosen)
        named = found_labels(counts, chosen)
    usable = [each for each in read if each.reason is None and named.reason_to_reject(each.values) is None]
    return read, [named.encode(each.values) for each in usable]


def test_labels():
    def check(case) -> bool:
        cells, settings = case
        found, refused = attempt(lambda: labels_of(cells, settings), "data")
        if refused is not None:
            return True
        read, vectors = found
        one_label = settings["task"] == "single_label"
        for each in read:
            assert all(isinstance(value, str) and value == value.strip() and value for value in each.values)
            assert (each.reason is None or not each.values) and len(set(each.values)) == len(each.values)
            assert each.reason is not None or not one_label or len(each.values) == 1
        assert all(vector.sum() == 1 for vector in vectors) or not one_label
        return False

    fuzz("labels", st.tuples(CELLS, SETTINGS), check)


def postgres(labels):
    return "{" + ",".join('"' + each.replace("\\", "\\\\").replace('"', '\\"') + '"' for each in labels) + "}"


FORMS = {
    "JSON": json.dumps,
    "Python": repr,
    "Label Studio": lambda labels: json.dumps({"choices": labels}),
    "NumPy": lambda labels: str(np.array(labels, object)) if labels else "[]",
    "PostgreSQL": postgres,
    "lists": list,
}
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=6)


def test_lists_of_labels():
    def check(rows) -> bool:
        found = {
            name: labels_of([write(row) for row in rows], {"task": "multi_label"})[0] for name, write in FORMS.items()
        }
        wanted = [(tuple(row), None) for row in rows]
        for name, read in found.items():
            assert [tuple(each) for each in read] == wanted, name
        return False

    rows = st.lists(st.lists(NAMES, max_size=4, unique=True), min_size=2, max_size=6)
    several = rows.filter(lambda each: len({label for row in each for label in row}) > 1)
    words = several.filter(lambda each: not {label for row in each for label in row} <= {"0", "1", "t", "f"})
    fuzz("lists of labels", words, check)
