import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from tfpipe import metrics
from tfpipe.tasks import task_of


def one_hot(classes, count):
    return np.eye(count, dtype=np.float32)[classes]


def test_single_label_agrees_with_scikit_learn():
    random = np.random.default_rng(0)
    logits, truth = random.normal(0, 2, (200, 4)).astype(np.float32), random.integers(0, 4, 200)
    found = metrics.evaluate(logits, one_hot(truth, 4), "single_label")
    probability = task_of("single_label").probabilities(logits)
    assert probability.sum(axis=-1) == pytest.approx(np.ones(200))
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, logits.argmax(-1)))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, logits.argmax(-1), average="macro"))
    assert found["loss"] == pytest.approx(log_loss(truth, probability, labels=range(4)))


def test_multi_label_agrees_with_scikit_learn():
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (100, 3)).astype(np.float32)
    truth = (random.random((100, 3)) < 0.4).astype(np.float32)
    found = metrics.evaluate(logits, truth, "multi_label")
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert task_of("multi_label").probabilities(logits) == pytest.approx(probability)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, logits > 0))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, logits > 0, average="macro"))
    assert found["loss"] == pytest.approx(sum(log_loss(truth[:, n], probability[:, n]) for n in range(3)))


def test_multi_label_rows_may_have_no_label():
    logits, truth = np.array([[-1.0, -2.0], [1.0, -1.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])
    assert metrics.evaluate(logits, truth, "multi_label")["accuracy"] == 1.0
    assert task_of("multi_label").decisions(logits).tolist() == [[False, False], [True, False]]


def test_a_label_that_never_occurs_does_not_count():
    found = metrics.evaluate(np.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]), one_hot([0, 1], 3), "single_label")
    assert found["macro_f1"] == 1.0 and found["accuracy"] == 1.0
    # one that is answered, and is never right, does
    found = metrics.evaluate(np.array([[3.0, 0.0, 0.0], [0.0, 0.0, 3.0]]), one_hot([0, 0], 3), "single_label")
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.0) / 2)
    nothing = metrics.evaluate(-np.ones((2, 3)), np.zeros((2, 3)), "multi_label")
    assert nothing["macro_f1"] == 0.0 and nothing["accuracy"] == 1.0


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("labels", [2, 7, 77, 1000])
def test_labels_that_do_not_occur_change_no_metric(task, labels):
    """A model that rules out all but two labels is measured as if there were two."""
    random = np.random.default_rng(0)
    few, truth = random.normal(0, 2, (300, 2)), one_hot(random.integers(0, 2, 300), 2)
    many = np.full((300, labels), -200.0)
    many[:, :2] = few
    padded = np.zeros((300, labels), np.float32)
    padded[:, :2] = truth
    assert metrics.evaluate(many, padded, task) == pytest.approx(metrics.evaluate(few, truth, task), abs=1e-9)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_a_share_of_rows_that_moves_counts_alike_whatever_the_number_of_labels(task, share):
    """Rows whose certainty goes from one label to another entirely, or by half."""
    for labels in (2, 3, 10, 77, 200, 1000):
        reference = np.full((500, labels), -40.0)
        reference[:, 0] = 40.0
        moved, halved = reference.copy(), reference.copy()
        rows = np.arange(500) < share * 500
        moved[np.ix_(rows, [0, 1])] = -40.0, 40.0
        halved[np.ix_(rows, [0, 1])] = 0.0, 0.0  # softmax and sigmoid are a half
        for logits, expected in ((moved, share), (halved, share / 2)):
            found = metrics.differences(logits, reference, task)["mean_abs_probability_diff"]
            assert found == pytest.approx(expected, abs=1e-9)


def test_of_two_labels_the_difference_is_the_mean_over_both():
    random = np.random.default_rng(0)
    logits, reference = random.normal(0, 2, (2, 200, 2))
    p, q = (task_of("single_label").probabilities(each) for each in (logits, reference))
    found = metrics.differences(logits, reference, "single_label")["mean_abs_probability_diff"]
    assert found == pytest.approx(np.abs(p - q).mean(), rel=1e-12)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_a_logit_that_is_no_number_makes_no_small_difference(task):
    reference = np.zeros((5, 4))
    for bad in (np.nan, np.inf):
        logits = reference.copy()
        logits[3, 2] = bad
        with np.errstate(invalid="ignore"):
            found = metrics.differences(logits, reference, task)
        assert not found["max_abs_logit_diff"] <= 1e9
        assert np.isnan(found["mean_abs_probability_diff"]) or (bad == np.inf and task == "multi_label")


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_large_logits_give_finite_numbers(task):
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4]], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        probability = task_of(task).probabilities(logits)
        found = metrics.evaluate(logits, one_hot([1, 1, 0], 2), task)
    assert probability[0].tolist() == [1.0, 0.0]
    assert probability[2].tolist() == ([0.5, 0.5] if task == "single_label" else [1.0, 1.0])
    assert all(math.isfinite(value) for value in found.values())


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    # Ten rows at a confidence of 0.9 of which six are right, ten at 0.6 of which all are right.
    logits = np.log(np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10))
    truth = [0] * 6 + [1] * 4 + [0] * 10
    found = metrics.evaluate(logits, one_hot(truth, 2), "single_label")
    assert found["calibration_error"] == pytest.approx((0.3 + 0.4) / 2)


def test_a_model_as_sure_as_it_is_right_is_calibrated():
    logits = np.log(np.array([[0.75, 0.25]] * 4))
    found = metrics.evaluate(logits, one_hot([0, 0, 0, 1], 2), "single_label")
    assert found["calibration_error"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("rate", "count", "low", "high"),
    [  # 81 of 263 is Newcombe's example (1998); the ends have closed forms: n / (n + z²)
        (81 / 263, 263, 0.2553, 0.3662),
        (0.5, 10, 0.2366, 0.7634),
        (1.0, 10, 0.7225, 1.0),
        (0.0, 10, 0.0, 0.2775),
    ],
)
def test_wilson_interval_agrees_with_published_values(rate, count, low, high):
    assert metrics.wilson_interval(rate, count) == pytest.approx((low, high), abs=5e-5)


def test_no_interval_leaves_what_is_possible():
    for count in range(1, 300):
        assert 0.0 <= metrics.wilson_interval(0.0, count)[0] < 1e-12
        assert metrics.wilson_interval(1.0, count)[1] <= 1.0
        all_right, none = np.ones(count, bool), np.zeros(count, bool)
        assert metrics.paired_change(all_right, none)[2] <= 1.0 and metrics.paired_change(none, all_right)[1] >= -1.0


def test_a_loss_is_better_when_smaller():
    assert metrics.is_better("loss", 0.1, 0.2) and not metrics.is_better("loss", 0.2, 0.1)
    assert metrics.is_better("accuracy", 0.2, 0.1) and not metrics.is_better("accuracy", 0.1, 0.1)
    assert metrics.is_better("loss", 9.0, None)


def test_a_paired_change_counts_what_one_alone_has_right():
    right = np.array([1, 1, 0, 0, 1, 0, 1, 1, 1, 1], bool)
    before = np.array([1, 0, 1, 1, 1, 0, 1, 1, 1, 1], bool)
    change, low, high = metrics.paired_change(right, before)
    assert change == pytest.approx(-0.1) and low < change < high
    # Agresti & Min: half a row more in each of the four cells
    centre, n = -1 / 12, 12
    half = 1.959964 * math.sqrt((4 / n - centre**2) / n)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert metrics.paired_change(right, right)[0] == 0.0


def test_a_paired_interval_covers_the_true_change():
    """In 95 of 100 samples, about, of pairs whose true change is -2 points."""
    random, covered = np.random.default_rng(0), 0
    for _ in range(400):
        before = random.random(800) < 0.85
        right = np.where(random.random(800) < 0.1, random.random(800) < 0.65, before)
        _, low, high = metrics.paired_change(right, before)
        covered += low <= 0.1 * (0.65 - 0.85) <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_correct_asks_for_every_label_of_a_row():
    logits, labels = np.array([[2.0, 1.0], [-1.0, 3.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert metrics.correct(logits, labels, "single_label").tolist() == [True, True]
    assert metrics.correct(logits, labels, "multi_label").tolist() == [False, True]


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_a_row_that_is_not_finite_is_neither_right_nor_the_same(task):
    reference = np.array([[-2.0, -1.0], [-1.0, -2.0]], np.float32)
    logits = np.array([[-2.0, np.nan], [-1.0, -2.0]], np.float32)
    found = metrics.differences(logits, reference, task)
    assert found["label_agreement"] == 0.5 and np.isnan(found["max_abs_logit_diff"])
    assert np.isnan(found["mean_abs_probability_diff"])
    labels = task_of(task).decisions(reference).astype(np.float32)
    assert metrics.correct(logits, labels, task).tolist() == [False, True]
