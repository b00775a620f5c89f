"""The form of label cells: never is one form taken for another."""

from decimal import Decimal

import numpy as np
import pytest

from tfpipe.config.file import parse_config
from tfpipe.data.labels.cells import UNLABELED
from tfpipe.data.labels.form import check_values, form_of
from tfpipe.errors import InputError


def config(task="multi_label", **data):
    tree = {"name": "x", "task": task, "data": {"source": "rows.csv", **data}, "encoder": {"source": "e"}}
    return parse_config(tree, where="test")


def read(cells, task="multi_label", **data):
    """The labels of each cell, or why it has none."""
    return [reason or values for values, reason in form_of(cells, config(task, **data)).read(cells)]


NAMES = {"a": "A", "b": "B", "c": "C"}


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["a|b", "a", ""], [("a", "b"), ("a",), ()]),
        ([["a", "b"], ["a"], []], [("a", "b"), ("a",), ()]),
        (['["a", "b"]', "[]"], [("a", "b"), ()]),
        (["['a' 'b']", "['a']", "[]"], [("a", "b"), ("a",), ()]),
        (['{"choices":["a","b, c"]}', "a"], [("a", "b, c"), ("a",)]),
        ([{"choices": ["a", "b"]}, "a"], [("a", "b"), ("a",)]),
        (["{a,b}", "{}"], [("a", "b"), ()]),
        ([[27], [2, 3]], [("27",), ("2", "3")]),  # ids, as in GoEmotions
        ([[1], [0]], [("1",), ("0",)]),
    ],
)
def test_several_labels(cells, found):
    assert read(cells) == found


@pytest.mark.parametrize(
    "cells",
    [
        [[0, 1, 0], [1, 1, 0], [0, 0, 0]],
        [[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
        [[False, True, False], [True, True, False], [False, False, False]],
        ["[0, 1, 0]", "[1, 1, 0]", "[0, 0, 0]"],
        ["[0 1 0]", "[1 1 0]", "[0 0 0]"],
        ["{f,t,f}", "{t,t,f}", "{f,f,f}"],
        [np.array([0, 1, 0]).tolist(), (1, 1, 0), (0, 0, 0)],
    ],
)
def test_vectors(cells):
    assert read(cells, label_names=NAMES) == [("b",), ("a", "b"), ()]
    with pytest.raises(
        InputError, match=r"vectors of 3 zeros and ones, and data.label_names is not set; name the class"
    ):
        read(cells)
    with pytest.raises(InputError, match=r"vectors of 3 zeros and ones, and data.label_names lists 2 names"):
        read(cells, label_names={"0": "A", "1": "B"})


def test_a_vector_of_one_label():
    assert read([[0, 1], [1, 0], [1, 1], [0, 0]], "single_label", label_names={"0": "no", "1": "yes"}) == [
        ("1",),
        ("0",),
        "2 labels (task: single_label expects one)",
        "0 labels (task: single_label expects one)",
    ]


def test_a_later_row_that_is_no_vector():
    form = form_of([[0, 1, 0]], config(label_names=NAMES))
    assert [reason for _, reason in form.read([[0, 1], [0, 2, 0], "a", ["a", "b", "c"]])] == [
        "a vector of 2 numbers (expected 3 zeros and ones)",
        "the vector holds '2' (expected 0 or 1)",
        "label 'a' is not a vector of 3 zeros and ones",
        "the vector holds 'a' (expected 0 or 1)",
    ]


def test_several_columns():
    settings = {"label_column": ["toxic", "insult"]}
    cells = [(1, 0), ("1", "true"), ("0.0", False), (-1, -1), (None, 1), (0.3, 1), ("t", "f"), (Decimal("1.0"), 1)]
    assert read(cells, **settings) == [
        ("toxic",),
        ("toxic", "insult"),
        (),
        UNLABELED,
        "column 'toxic' holds '' (expected 0 or 1)",
        "column 'toxic' holds '0.3' (expected 0 or 1)",
        ("toxic",),
        ("toxic", "insult"),
    ]
    assert read([(1, 0), (1, 1)], "single_label", **settings) == [
        ("toxic",),
        "2 labels (task: single_label expects one)",
    ]


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["['a']", "['b']"], [("a",), ("b",)]),
        (
            [["a"], ["b", "c"], []],
            [("a",), "2 labels (task: single_label expects one)", "0 labels (task: single_label expects one)"],
        ),
        (
            [" a ", 1, 1.0, 2.5, True, None, "", float("nan")],
            [("a",), ("1",), ("1",), ("2.5",), ("true",), "empty label", "empty label", "empty label"],
        ),
        ([b"a"], ["the label is not text or a number but bytes"]),
        (
            [{"id": 1, "name": "pos"}],
            ["the label is an object; write data.label_column: label.name or label.id"],
        ),
        ([[["a"]]], ["a label in the list is not text or a number"]),
    ],
)
def test_one_label(cells, found):
    assert read(cells, "single_label") == found


def test_null_is_not_labeled_yet_and_an_empty_list_is_none():
    null = "no label (null); a row that has none of the labels has an empty list or an empty text"
    assert read([None, [], "", ["a"], [None], [""]]) == [
        null,
        (),
        (),
        ("a",),
        "a label in the list is null",
        "a label in the list is empty",
    ]
    assert read(["['a']", "", "[]"]) == [("a",), null, ()]  # a tool that writes lists leaves nulls empty
    assert read([None, [], "", ["a"]], missing=[""]) == [UNLABELED, (), UNLABELED, ("a",)]


def test_words_for_no_label():
    assert read(["a", r"\N", "NA"], "single_label") == [("a",), UNLABELED, ("NA",)]
    assert read(["a", r"\N", " NA "], "single_label", missing=["NA"]) == [("a",), (r"\N",), UNLABELED]
    assert read(["a", r"\N"], "single_label", missing=[]) == [("a",), (r"\N",)]
    assert read(["a", "-"], "single_label", label_column="gold_label") == [("a",), UNLABELED]  # SNLI
    assert read(["a", "-"], "single_label") == [("a",), ("-",)]
    assert read(["a", None], "single_label", missing=[""]) == [("a",), UNLABELED]
    assert form_of([], config("single_label"), null_is_missing=True).read([None])[0].reason == UNLABELED


def test_a_label_that_stands_twice_is_no_set_of_labels():
    assert read([["pos", "pos", "neg"], ["neg"]]) == ["label 'pos' stands twice in one row", ("neg",)]
    assert read(["pos|pos"]) == ["label 'pos' stands twice in one row"]


def test_cells_of_two_forms_are_in_doubt():
    with pytest.raises(
        InputError, match=r"most labels are lists, such as \"\['a'\]\", and some are not, such as 'c'.*label_form: list"
    ):
        read(["['a']", "['b']", "c"])
    assert read(["['a']", "['b']", "c"], label_form="list") == [("a",), ("b",), ("c",)]
    assert read(["['a']", "['b']", "c"], label_form="plain")[0] == ("['a']",)
    with pytest.raises(InputError, match="look like lists that tfpipe can't read; write them as JSON lists"):
        refused(["array(['a'])", "array(['b'])"])
    assert "looks like a list" in read(["[['a']]"], label_form="list")[0]


def refused(values, task="multi_label", **data):
    settings = config(task, **data)
    check_values(values, form_of(values, settings), settings)


@pytest.mark.parametrize(
    ("values", "separator"),
    [(["a, b", "a"], ","), (["insult#toxic", "toxic"], "#"), (["a;b", "b;c"], ";"), (["0 1 0", "1 1 0"], " ")],
)
def test_combinations_are_no_labels(values, separator):
    with pytest.raises(
        InputError, match=f"look like several labels with '{separator}' between them; set data.label_separator"
    ):
        refused(values)
    refused(values, label_separator="|")
    refused(values, "single_label")


def test_labels_of_lists_are_whole():
    cells = [["Funny, dry"], ["Funny", "C#"], ["[brackets]"]]
    settings = config()
    form = form_of(cells, settings)
    check_values([value for each in form.read(cells) for value in each.values], form, settings)


def test_names_that_hold_a_separator_are_no_combinations():
    refused(["Funny, dry", "Sad", "a/c", "not toxic", "toxic"])


def test_one_class_is_no_multi_label_column():
    with pytest.raises(
        InputError, match=r"list the columns of all classes in data.label_column, set task: single_label, or"
    ):
        refused(["0", "1"])
    refused(["0", "1"], "single_label")
    refused(["0", "1", "2"])


@pytest.mark.parametrize(
    "data",
    [
        {"label_column": []},
        {"label_column": ["a", "a"]},
        {"label_column": ["a", "b"], "label_form": "list"},
        {"label_column": ["a", "b"], "label_separator": ","},
        {"label_form": "multi_hot", "label_separator": ","},
    ],
)
def test_settings_without_effect(data):
    with pytest.raises(InputError, match=r"data.label_"):
        config(**data)


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b", "c", "d", "['a', 'b']"],
        ["a", "b", "c", "['a']"],
        ["a", "b", "c", "[]"],
        ["a", "b", "c", '{"choices":["d","e"]}'],
    ],
)
@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_a_few_lists_among_labels_are_in_doubt(values, task):
    settings, plain = config(task), config(task, label_form="plain")
    form = form_of(["a", "b"], settings)  # the lists stand further below
    with pytest.raises(InputError, match=r"are lists, and most are not; set data.label_form: list, or plain"):
        check_values(values, form, settings)
    check_values(values, form_of(["a"], plain), plain)


@pytest.mark.parametrize("values", [["a", "b", "[other]"], ["<unk>", "yes", "no"], ["run (v.)", "run (n.)", "(none)"]])
def test_names_in_brackets_are_no_lists(values):
    refused(values, "single_label")


def test_a_word_below_lists_is_no_label():
    cells = ["['a', 'b']", "[]"]
    assert form_of(cells, config()).read(["a|b"])[0].reason.startswith("label 'a|b' is no list, as the first are")
    assert form_of(cells, config(label_form="list")).read(["a|b"])[0].values == ("a|b",)
    assert form_of(['{"choices":["a","b"]}'], config()).read(["a"])[0].values == ("a",)


def test_no_label_within_several_or_as_a_number():
    assert read(["a|NA", "a", "NA", "NA|NA"], missing=["NA"])[1:3] == [("a",), UNLABELED]
    assert read(["a|NA"], missing=["NA"]) == ["'NA', which stands for no label (data.missing), beside another label"]
    assert read(["['NA']", "['a', 'NA']"], missing=["NA"])[0] == UNLABELED
    assert read(["-1.0", "1.0"], "single_label", missing=["-1"]) == [UNLABELED, ("1.0",)]
    assert read(["-1.0"], "single_label", missing=["-1"], label_spellings="keep") == [("-1.0",)]


def test_signs_within_names_join_no_labels():
    refused(["C#", "F#", "D"])
    settings, cells = config(format="doccano"), [["a#b"], ["a"], ["b"]]  # its JSON has lists
    check_values(["a#b", "a", "b"], form_of(cells, settings), settings)


def test_a_label_without_agreement_in_an_object():
    assert read(["-", "neutral"], "single_label", label_column="x.gold_label") == [UNLABELED, ("neutral",)]
