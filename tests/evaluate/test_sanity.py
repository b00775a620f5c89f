"""Models that have learned nothing are told from those that have."""

from __future__ import annotations

import numpy as np
import pytest

from tfpipe.evaluate import sanity
from tfpipe.tasks import Decision

NAMES = ("negative", "positive", "other")


def single(counts: dict[tuple[int, int], int]):
    """Rows of a label that are given an answer: (label, answer) -> how many."""
    labels, answers = (np.repeat([pair[at] for pair in counts], list(counts.values())) for at in (0, 1))
    eye = np.eye(3, dtype=np.float32)
    return eye[answers] * 2.0, eye[labels], "single_label", NAMES


def test_one_answer_to_all_rows():
    (said,) = sanity.failures(*single({(0, 1): 600, (1, 1): 400}))
    assert said == (
        "it answers 'positive' to all 1,000 test rows; 'negative' answered 'positive' 600 times; 'positive' answered "
        "'positive' 400 times"
    )


@pytest.mark.parametrize(
    ("counts", "fails"),
    [
        ({(0, 0): 450, (0, 1): 50, (1, 1): 300, (1, 0): 200}, False),  # 75 %, the commonest 50 %
        ({(0, 0): 300, (0, 1): 200, (1, 1): 230, (1, 0): 270}, True),  # 53 %, and as good as 50 %
        ({(0, 0): 895, (0, 1): 5, (1, 1): 20, (1, 0): 80}, False),  # 91.5 % of rows of which 90 % have one label
        ({(0, 0): 880, (0, 1): 20, (1, 1): 20, (1, 0): 80}, True),  # 90 %, as the commonest
        ({(0, 0): 2, (1, 1): 2}, True),  # four rows show nothing
        ({(0, 0): 10, (1, 1): 10}, False),
    ],
)
def test_no_better_than_the_commonest_label(counts, fails):
    found = sanity.failures(*single(counts))
    assert bool(found) == fails
    if fails:
        assert "its accuracy on" in found[0] and "of always answering 'negative' (exact test, p = " in found[0]


def test_many_models_on_the_same_rows():
    assert sanity.looked_at(4, 0.8, 1000) is None
    said = sanity.looked_at(20, 0.8, 1000)
    # The best of 20 models of 80 %, each measured on rows of its own, lies below that bound, and above no bonus.
    best = np.random.default_rng(0).binomial(1000, 0.8, (2000, 20)).max(axis=1) / 1000 - 0.8
    bound = float(said.split("up to ")[1].split(" points")[0]) / 100
    assert 0.0 < best.mean() < bound < best.max() + 0.02
    assert said.startswith("20 models answered the same 1,000 test rows: the best accuracy, 80.00%, may be up to 3.1")


def test_rows_that_all_have_one_label_show_only_that_a_model_is_wrong():
    assert sanity.failures(*single({(0, 0): 100})) == []
    assert sanity.failures(*single({(0, 0): 99, (0, 1): 1})) == []
    (said,) = sanity.failures(*single({(0, 1): 100}))
    assert said.startswith("it is right in 0.00% of 100 test rows, which are all 'negative'; 'negative' answered 'posi")
    (said,) = sanity.failures(*single({(0, 0): 3, (0, 1): 50, (0, 2): 47}))
    assert said.startswith("it is right in 3.00% of 100 test rows")


def test_labels_that_begin_alike_are_told_apart():
    alike = tuple("category / " * 20 + name for name in NAMES)
    *rows, _ = single({(0, 0): 450, (0, 1): 50, (1, 1): 300, (1, 0): 200})
    assert sanity.failures(*rows, alike) == []
    *rows, _ = single({(0, 1): 60, (1, 1): 40})
    (said,) = sanity.failures(*rows, alike)
    assert said.startswith("it answers ") and len(said) < 1000


def test_knowing_how_often_labels_are_given_is_not_knowing_labels():
    """A model that gives each row the commonest label, but one: its answers go with no text."""
    random, names = np.random.default_rng(0), tuple("abcdefghij")
    shares = np.array([0.6, *[0.02] * 9])
    labels = (random.random((500, 10)) < shares).astype(np.float32)
    answers = np.zeros((500, 10), bool)
    answers[1:, 0] = True
    (said,) = sanity.failures(np.where(answers, 1.0, -1.0), labels, "multi_label", names)
    assert "is not above" in said
    by_share = np.where(random.random((500, 10)) < shares, 1.0, -1.0)
    assert sanity.failures(by_share, labels, "multi_label", names)
    found = labels.astype(bool) & (random.random((500, 10)) < 0.3)  # finds a third of them
    assert sanity.failures(np.where(found, 1.0, -1.0), labels, "multi_label", names) == []


def test_thousands_of_rare_labels_that_are_found_are_labels_that_are_found():
    random = np.random.default_rng(0)
    labels = (random.random((2000, 1000)) < 0.001).astype(np.float32)
    found = labels.astype(bool) & (random.random(labels.shape) < 0.2)
    names = tuple(map(str, range(1000)))
    assert sanity.failures(np.where(found, 1.0, -1.0), labels, "multi_label", names) == []


def test_several_labels():
    random = np.random.default_rng(0)
    labels = (random.random((500, 3)) < 0.05).astype(np.float32)  # most rows have none
    good = np.where(labels > 0.5, 1.0, -1.0) * np.where(random.random((500, 3)) < 0.9, 1.0, -1.0)
    assert sanity.failures(good, labels, "multi_label", NAMES) == []
    rare = np.where((labels > 0.5) & (random.random((500, 3)) < 0.3), 1.0, -1.0)  # finds some, as many rows right
    assert sanity.failures(rare, labels, "multi_label", NAMES) == []
    (said,) = sanity.failures(-np.ones((500, 3)), labels, "multi_label", NAMES)
    assert said.startswith("it answers no label to all 500 test rows")
    chance = np.where(random.random((500, 3)) < 0.05, 1.0, -1.0)
    (said,) = sanity.failures(chance, labels, "multi_label", NAMES)
    assert "is not above" in said and "of always answering no label" in said
    low = Decision(thresholds=(0.1, 0.1, 0.1))
    (said,) = sanity.failures(np.full((500, 3), -1.0), labels, "multi_label", NAMES, low)
    assert said.startswith("it answers 'negative|other|positive'") or "negative" in said


def test_splits_that_say_little_are_warned_of():
    labels = np.zeros((150, 3), np.float32)
    labels[:100, 0], labels[100:109, 1], labels[109:, 2] = 1, 1, 1
    small, few = sanity.warnings(labels, NAMES, "test")
    assert small == "150 test rows: an accuracy of 80 % is known within 7 points"
    assert few == "labels with fewer than 10 test rows: positive 9"
    assert sanity.warnings(np.tile(labels, (10, 1)), NAMES, "test") == []
