import numpy as np
import pytest

from tfpipe.config.file import parse_config
from tfpipe.data.labels import found_labels, named_labels, separator_of, split_cell
from tfpipe.errors import InputError


def config(task="single_label", **data):
    return parse_config(
        {"name": "x", "task": task, "data": {"source": "rows.csv", **data}, "encoder": {"source": "e"}}, where="test"
    )


def test_found_labels_are_sorted_and_one_hot():
    labels = found_labels(["b", "a", "c", "a"], config())
    assert labels.names == ("a", "b", "c")
    vector = labels.encode("b")
    assert vector.dtype == np.float32 and vector.tolist() == [0, 1, 0]
    assert labels.reason_to_reject("b") is None


def test_named_labels_keep_their_order():
    labels = named_labels(config(label_names={"1": "positive", "0": "negative"}))
    assert labels.names == ("positive", "negative")
    assert labels.encode("0").tolist() == [0, 1]
    assert named_labels(config()) is None


def test_values_may_share_a_name():
    labels = named_labels(config(label_names={"1": "bad", "2": "bad", "3": "good"}))
    assert labels.names == ("bad", "good")
    assert [labels.encode(value).tolist() for value in "123"] == [[1, 0], [1, 0], [0, 1]]


def test_unknown_value_is_rejected_with_what_is_known():
    labels = named_labels(config(label_names={"0": "negative", "1": "positive"}))
    assert labels.reason_to_reject("2") == "unknown label '2' (expected one of 0, 1)"
    many = named_labels(config(label_names={str(n): str(n) for n in range(30)}))
    assert many.reason_to_reject("x").endswith("8, 9, …)")


def test_multi_label_is_multi_hot():
    settings = config("multi_label", label_separator=";")
    values = {value for cell in ("b; a", "c", "") for value in split_cell(cell, separator_of(settings))}
    labels = found_labels(values, settings)
    assert labels.names == ("a", "b", "c")
    assert labels.encode("c;a").tolist() == labels.encode(" a ;; c ").tolist() == [1, 0, 1]
    assert labels.encode("").tolist() == [0, 0, 0]
    assert labels.reason_to_reject("a;d") == "unknown label 'd' (expected one of a, b, c)"


def test_the_separator_means_nothing_to_single_labels():
    labels = found_labels(["a|b", "c"], config())
    assert labels.names == ("a|b", "c") and labels.encode("a|b").tolist() == [1, 0]


def test_two_labels_are_needed():
    with pytest.raises(InputError, match=r"rows.csv: column 'label' holds only the label 'a'.*check data.label_column"):
        found_labels(["a", "a"], config())
    with pytest.raises(InputError, match="holds no label"):
        found_labels([], config())
    with pytest.raises(InputError, match=r"data.label_names: 1 label \(x\); a classifier needs at least two"):
        named_labels(config(label_names={"0": "x", "1": "x"}))


def test_a_column_of_texts_is_noticed():
    with pytest.raises(InputError, match=r"holds 1,001 different values.*data.label_names: check data.label_column"):
        found_labels(map(str, range(1001)), config())


def test_labels_that_are_all_whole_numbers_are_in_the_order_of_numbers():
    assert found_labels(map(str, range(12)), config()).names == tuple(map(str, range(12)))
    assert found_labels(["10", "-1", "9"], config()).names == ("-1", "9", "10")
    assert found_labels(["10", "9", "a"], config()).names == ("10", "9", "a")
    assert found_labels(["1.5", "10", "9"], config()).names == ("1.5", "10", "9")
    assert found_labels(["١", "2", "10"], config()).names == ("10", "2", "١")  # digits of another script are text


def test_a_blank_name_is_refused():
    with pytest.raises(InputError, match=r"data.label_names: the name of '1' is blank; name it"):
        named_labels(config(label_names={"0": "negative", "1": " "}))
