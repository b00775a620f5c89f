from collections import Counter

import numpy as np
import pytest

from tfpipe.config.file import parse_config
from tfpipe.data.labels.form import form_of
from tfpipe.data.labels.names import announce_doubts, found_labels, named_labels
from tfpipe.errors import InputError


def config(task="single_label", **data):
    return parse_config(
        {"name": "x", "task": task, "data": {"source": "rows.csv", **data}, "encoder": {"source": "e"}}, where="test"
    )


def counts(*values):
    return Counter(values)


def test_found_labels_are_sorted_and_one_hot():
    labels = found_labels(counts("b", "a", "c", "a"), config())
    assert labels.names == ("a", "b", "c")
    vector = labels.encode(("b",))
    assert vector.dtype == np.float32 and vector.tolist() == [0, 1, 0]
    assert labels.reason_to_reject(("b",)) is None


def test_named_labels_keep_their_order():
    labels = named_labels(config(label_names={"1": "positive", "0": "negative"}))
    assert labels.names == ("positive", "negative")
    assert labels.encode(("0",)).tolist() == [0, 1]
    assert named_labels(config()) is None


def test_values_may_share_a_name():
    labels = named_labels(config(label_names={"1": "bad", "2": "bad", "3": "good"}))
    assert labels.names == ("bad", "good")
    assert [labels.encode((value,)).tolist() for value in "123"] == [[1, 0], [1, 0], [0, 1]]


def test_unknown_value_is_rejected_with_what_is_known():
    labels = named_labels(config(label_names={"0": "negative", "1": "positive"}))
    assert labels.reason_to_reject(("2",)) == "unknown label '2' (expected one of 0, 1)"
    many = named_labels(config(label_names={str(n): str(n) for n in range(30)}))
    assert many.reason_to_reject(("x",)).endswith("8, 9, …)")


def test_multi_label_is_multi_hot():
    settings = config("multi_label", label_separator=";")
    cells = form_of([], settings).read(["b; a", "c", "", "c;a", " a ;; c ", "a;d"])
    labels = found_labels(counts(*(value for values, _ in cells[:3] for value in values)), settings)
    assert labels.names == ("a", "b", "c")
    assert labels.encode(cells[3].values).tolist() == labels.encode(cells[4].values).tolist() == [1, 0, 1]
    assert labels.encode(cells[2].values).tolist() == [0, 0, 0]
    assert labels.reason_to_reject(cells[5].values) == "unknown label 'd' (expected one of a, b, c)"


def test_the_separator_means_nothing_to_single_labels():
    cells = form_of([], config()).read(["a|b", "c"])
    assert [values for values, _ in cells] == [("a|b",), ("c",)]


def test_two_labels_are_needed():
    with pytest.raises(InputError, match=r"rows.csv: column 'label' holds only the label 'a'.*check data.label_column"):
        found_labels(counts("a", "a"), config())
    with pytest.raises(InputError, match="holds no label"):
        found_labels({}, config())
    with pytest.raises(InputError, match=r"data.label_names: 1 label \(x\); a classifier needs at least two"):
        named_labels(config(label_names={"0": "x", "1": "x"}))


def test_a_column_of_texts_is_noticed():
    with pytest.raises(InputError, match=r"holds 1,001 different values.*data.label_names: check data.label_column"):
        found_labels(counts(*map(str, range(1001))), config())


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ("9 10 0 1", "0 1 9 10"),
        ("10 -1 9", "-1 9 10"),
        ("10 9 a", "10 9 a"),
        ("1.5 10 9", "1.5 10 9"),
        ("١ 2 10", "10 2 ١"),  # digits of another script are text
        ("01 1 10", "01 1 10"),  # which of them is the number is in doubt
    ],
)
def test_labels_that_are_all_whole_numbers_are_in_the_order_of_numbers(values, names):
    found = found_labels(counts(*values.split()), config()).names
    assert found == tuple(names.split()) or sorted(map(int, found)) == list(map(int, found))


@pytest.mark.parametrize(
    ("spellings", "values", "names"),
    [
        ("auto", "1 1.0 0.00 0 10.0", "0 1 10"),
        ("auto", "True true FALSE", "false true"),
        ("auto", "1 1.0 v2", "1 1.0 v2"),  # one is no number, so 1.0 may be a version
        ("auto", "1.5 1.0 1", "1 1.0 1.5"),
        ("auto", "True 1 0 FALSE 1.0", "0 1"),
        ("auto", "True 1 0 2", "0 1 2 True"),
        ("auto", "Pos pos", "Pos pos"),
        ("auto", "-0 0 1", "0 1"),
        ("fold", "Pos pos pos POS neg", "neg pos"),
        ("fold", "Ｐｏｓ pos pos\u200b neg", "neg pos"),
        ("fold", "01 1 2.50 2.5 a", "1 2.5 a"),
        ("keep", "1 1.0 True true", "1 1.0 True true"),
    ],
)
def test_spellings_of_one_label(spellings, values, names):
    labels = found_labels(counts(*values.split()), config(label_spellings=spellings))
    assert labels.names == tuple(names.split())
    assert {labels.names[labels.of((value,))[0]] for value in values.split()} == set(names.split())


def test_white_space_in_a_label():
    found = counts("not  good", "not good", "not\u00a0good", "good")
    assert len(found_labels(found, config()).names) == 4
    assert found_labels(found, config(label_spellings="fold")).names == ("good", "not  good")


def test_named_labels_know_the_spellings():
    labels = named_labels(config(label_names={"0": "negative", "1": "positive"}))
    assert labels.of(("1.0",)) == labels.of(("1",)) == (1,)
    assert named_labels(config(label_names={"false": "no", "true": "yes"})).of(("True",)) == (1,)
    assert named_labels(config(label_names={"a": "no", "b": "yes"}, label_spellings="fold")).of((" B",)) == (1,)
    kept = named_labels(config(label_names={"0": "negative", "1": "positive"}, label_spellings="keep"))
    assert kept.reason_to_reject(("1.0",)) == "unknown label '1.0' (expected one of 0, 1)"
    with pytest.raises(InputError, match=r"'1.0' is another spelling of a value with another name.*label_spellings"):
        named_labels(config(label_names={"1": "negative", "1.0": "positive"}))


def test_declared_classes_keep_their_order():
    labels = named_labels(config(), ("pos", "neg"))
    assert labels.names == ("pos", "neg") and labels.of(("neg",)) == (1,)
    renamed = named_labels(config(label_names={"0": "good", "1": "bad"}), ("pos", "neg"))  # the numbers of the file
    assert renamed.names == ("good", "bad") and renamed.of(("neg",)) == (1,)
    assert named_labels(config(label_names={"neg": "bad", "pos": "good"}), ("pos", "neg")).of(("neg",)) == (0,)
    with pytest.raises(InputError, match=r"2 is no class of the file, which has 2, from 0 on \(pos, neg\)"):
        named_labels(config(label_names={"0": "good", "2": "bad"}), ("pos", "neg"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("pos neg NA", r"'NA' (1 rows) is a label, and often stands for none; data.missing: ['NA', '\N'] leaves"),
        ("pos neg nan", "'nan' (1 rows)"),
        ("0 1 -1", "'-1' (1 rows)"),
        ("1 -1", ""),  # two classes
        ("-2 -1 0 1 2", ""),
        ("Pos pos neg neg", "'Pos' (1 rows), 'pos' (1 rows) are labels of their own; data.label_spellings: fold"),
        ("pos neg", ""),
    ],
)
def test_names_in_doubt_are_warned_of(values, said, capsys):
    found = counts(*values.split())
    announce_doubts(found, found_labels(found, config()), config())
    printed = " ".join(capsys.readouterr().err.split())
    assert said in printed and bool(printed) == bool(said)
    silent = config(missing=[], label_spellings="keep")
    announce_doubts(found, found_labels(found, silent), silent)
    assert not capsys.readouterr().err


def test_a_blank_name_is_refused():
    with pytest.raises(InputError, match=r"data.label_names: the name of '1' is blank; name it"):
        named_labels(config(label_names={"0": "negative", "1": " "}))
