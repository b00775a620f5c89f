import json
import math

import numpy as np
import pytest
from scipy.stats import fisher_exact

from tfpipe import metrics
from tfpipe.evaluate.slices import (
    NO_VALUE,
    Slice,
    by_label,
    by_length,
    by_source,
    by_values,
    scored,
    with_small_ones_merged,
)


def sizes(slices):
    return {each.name: int(each.rows.sum()) for each in slices}


def test_a_planted_bad_slice_is_first_and_the_only_one_that_is_worse():
    random = np.random.default_rng(0)
    language = random.choice(["de", "en", "fr"], 600)
    right = np.where(language == "fr", random.random(600) < 0.5, random.random(600) < 0.9)
    found = scored([*by_values("language", language.tolist()), *by_length(random.integers(5, 60, 600))], right)
    assert found[0]["by"] == "language" and found[0]["slice"] == "fr" and found[0]["p"] < 1e-6
    assert [line["slice"] for line in found if line["worse"]] == ["fr"]
    assert [line["high"] for line in found] == sorted(line["high"] for line in found)


def test_values_intervals_and_tests_are_those_of_scipy_and_holm():
    right = np.arange(40) % 3 > 0
    slices = by_values("c", ["a"] * 12 + ["b"] * 28)
    found = {line["slice"]: line for line in scored(slices, right)}
    expected = {}
    for name, rows in (("a", slice(0, 12)), ("b", slice(12, 40))):
        inside, outside = right[rows], np.delete(right, np.arange(40)[rows])
        table = [[inside.sum(), (~inside).sum()], [outside.sum(), (~outside).sum()]]
        expected[name] = fisher_exact(table, alternative="less").pvalue
        assert found[name]["rows"] == len(inside) and found[name]["value"] == inside.mean()
        low, high = metrics.wilson_interval(inside.mean(), len(inside))
        assert (found[name]["low"], found[name]["high"]) == (low, high)
    assert {name: line["p"] for name, line in found.items()} == pytest.approx(metrics.holm(expected))


def test_without_a_real_difference_no_slice_is_worse():
    random = np.random.default_rng(1)
    right, values = random.random(2000) < 0.8, random.integers(0, 20, 2000).astype(str).tolist()
    assert not any(line["worse"] for line in scored(by_values("c", [f"v{each}" for each in values]), right))


def test_small_slices_are_one_line_without_a_test():
    slices = by_values("c", ["a"] * 30 + ["b"] * 9 + ["d"] * 3) + by_values("e", ["x"] * 40 + ["y"] * 2)
    found = scored(with_small_ones_merged(slices), np.arange(42) % 2 == 0)
    lines = {(line["by"], line["slice"]): line for line in found}
    assert set(lines) == {
        ("c", "a"),
        ("c", "2 slices of fewer than 10 rows"),
        ("e", "x"),
        ("e", "y"),
    }
    merged = lines["c", "2 slices of fewer than 10 rows"]
    assert merged["rows"] == 12 and merged["p"] is None and merged["worse"] is False
    assert with_small_ones_merged([Slice("label", "never", np.zeros(42, bool))]) == []


def test_many_numbers_are_quartiles_and_few_are_values():
    many = by_values("stars", [*map(str, range(1, 41)), None])
    assert sizes(many) == {"1 to 10": 10, "11 to 20": 10, "21 to 30": 10, "31 to 40": 10, NO_VALUE: 1}
    assert sizes(by_values("stars", ["1", "2", "5"] * 10)) == {"1": 10, "2": 10, "5": 10}
    decimals = by_values("score", [f"{each / 8}" for each in range(16)])
    assert sizes(decimals) == {"0 to 0.375": 4, "0.5 to 0.875": 4, "1 to 1.375": 4, "1.5 to 1.875": 4}
    tied = by_values("n", ["0"] * 90 + [str(each) for each in range(1, 12)])
    assert sum(sizes(tied).values()) == 101 and "0" in sizes(tied)


@pytest.mark.parametrize("odd", ["007", "abc", "1,5", "nan", "inf", "-", ".", "1e999", "0x1"])
def test_a_value_that_is_no_number_makes_all_texts(odd):
    found = by_values("c", [*map(str, range(1, 15)), odd])
    assert odd in sizes(found) and len(found) == 15


def test_of_many_texts_the_commonest_are_slices():
    values = [f"v{at:02}" for at in range(30) for _ in range(40 - at)]
    found = sizes(by_values("c", values))
    assert list(found)[:19] == [f"v{at:02}" for at in range(19)] and len(found) == 20
    assert found["other values (11)"] == sum(40 - at for at in range(19, 30))
    assert len(by_values("c", [f"v{at}" for at in range(20)])) == 20


def test_lengths_are_cut_into_four_or_not_at_all():
    assert sizes(by_length(np.arange(4, 44))) == {
        "4 to 13 tokens": 10,
        "14 to 23 tokens": 10,
        "24 to 33 tokens": 10,
        "34 to 43 tokens": 10,
    }
    assert by_length(np.full(50, 7)) == []


def test_labels_of_one_or_several_a_row():
    assert sizes(by_label(np.eye(2)[[0, 1, 1]], ["no", "yes"], "single_label")) == {"no": 1, "yes": 2}
    several = by_label(np.array([[1, 1], [0, 1], [0, 0]], np.float32), ["sea", "tea"], "multi_label")
    assert sizes(several) == {"sea": 1, "tea": 2, "no label": 1}


def test_sources_are_named_without_what_they_share():
    shown = ["data/a/x.csv", "data/b/x.csv", "data/b/x.csv"]
    assert sizes(by_source(shown, np.array([0, 1, 1]))) == {"a/x.csv": 1, "b/x.csv": 2}
    assert by_source(shown[:1] * 3, np.zeros(3, int)) == []
    folders = ["in/one/pos/1.txt", "in/one/neg/2.txt", "in/two/pos/1.txt"]
    assert sizes(by_source(folders, np.array([0, 0, 1]))) == {"one": 2, "two/pos/1.txt": 1}
    assert sizes(by_source(["x.csv", "gs://b/y.csv"], np.array([0, 1]))) == {"x.csv": 1, "gs://b/y.csv": 1}


def test_the_slices_of_a_run(tiny_run):
    summary = json.loads((tiny_run[1] / "report" / "metrics.json").read_text(encoding="utf-8"))
    assert summary["slices_metric"] == "accuracy" and summary["slices"].keys() == {"dense", "pruned", "int8"}
    for variant, lines in summary["slices"].items():
        rows = summary["measures"][variant]["rows"]
        for by in ("length", "label"):
            own = [line for line in lines if line["by"] == by]
            assert sum(line["rows"] for line in own) == rows
            right = math.fsum(line["rows"] * line["value"] for line in own)
            assert right / rows == pytest.approx(summary["measures"][variant]["scores"]["accuracy"]["value"])
        assert {line["by"] for line in lines} == {"length", "label"}
    card = (tiny_run[1] / "report" / "model_card.md").read_text(encoding="utf-8")
    worst = summary["slices"]["int8"][0]
    assert f"| {worst['by']} | {worst['slice']} | {worst['rows']} |" in card
