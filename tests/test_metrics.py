import math

import numpy as np
import pytest
import sklearn.metrics
from sklearn.metrics import accuracy_score, f1_score, log_loss

from tfpipe import metrics
from tfpipe.tasks import Decision, task_of


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
    found, expected = (metrics.evaluate(*each, task, ranks=True) for each in ((many, padded), (few, truth)))
    for name in ("hamming_loss", "brier") if task == "multi_label" else ():  # means over all labels, by definition
        assert found.pop(name) == pytest.approx(expected.pop(name) * 2 / labels)
    assert found == pytest.approx(expected, abs=1e-9)


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


def drawn(task, rows=300, labels=4, seed=3):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (rows, labels)).astype(np.float32)
    if task == "single_label":
        return logits, one_hot(random.choice(labels, rows, p=[0.6, 0.2, 0.15, 0.05]), labels)
    return logits, (random.random((rows, labels)) < [0.1, 0.3, 0.5, 0.02]).astype(np.float32)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_averages_agree_with_scikit_learn(task, average):
    logits, labels = drawn(task)
    found, answers = metrics.evaluate(logits, labels, task), task_of(task).decisions(logits)
    expected = sklearn.metrics.precision_recall_fscore_support(labels, answers, average=average, zero_division=0)
    for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        assert found[f"{average}_{name}"] == pytest.approx(value)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_other_scores_agree_with_scikit_learn(task):
    logits, labels = drawn(task)
    found, probability = metrics.evaluate(logits, labels, task, ranks=True), task_of(task).probabilities(logits)
    answers = task_of(task).decisions(logits)
    names = [name for name in metrics.SCORES if task == "multi_label" or name != "hamming_loss"]
    assert list(found) == names
    assert found["auroc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels, probability, average="macro"))
    assert found["average_precision"] == pytest.approx(sklearn.metrics.average_precision_score(labels, probability))
    columns = [(labels[:, at], answers[:, at], probability[:, at]) for at in range(4)]
    if task == "single_label":
        classes = labels.argmax(-1), answers.argmax(-1)
        assert found["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(*classes))
        assert found["matthews"] == pytest.approx(sklearn.metrics.matthews_corrcoef(*classes))
        halves = [sklearn.metrics.brier_score_loss(truth, each) for truth, _, each in columns]
        assert found["brier"] == pytest.approx(sum(halves) / 2)
        return
    assert found["hamming_loss"] == pytest.approx(sklearn.metrics.hamming_loss(labels, answers))
    for name, score, place in (
        ("balanced_accuracy", sklearn.metrics.balanced_accuracy_score, 1),
        ("matthews", sklearn.metrics.matthews_corrcoef, 1),
        ("brier", sklearn.metrics.brier_score_loss, 2),
    ):
        assert found[name] == pytest.approx(np.mean([score(each[0], each[place]) for each in columns]))


def test_the_brier_score_of_several_labels_does_not_change_with_the_answers():
    random = np.random.default_rng(0)
    logits = random.normal(size=(200, 6))
    labels = np.zeros((200, 6), np.float32)
    labels[:, :3] = random.random((200, 3)) < 0.4  # three that never occur
    few, many = (Decision(thresholds=(each,) * 6) for each in (0.999, 0.1))
    found = [metrics.evaluate(logits, labels, "multi_label", each)["brier"] for each in (few, many)]
    assert found[0] == found[1]


def test_the_labels_that_are_confused_most_come_first():
    answers, truth = [0, 1, 1, 2, 2, 2, 0, 3], [0, 0, 0, 1, 1, 1, 3, 3]
    logits, labels = one_hot(answers, 4) * 3.0, one_hot(truth, 4)
    assert metrics.most_confused(logits, labels, "single_label") == [(1, 2, 3), (0, 1, 2), (3, 0, 1)]
    assert metrics.most_confused(logits, labels, "single_label", most=1) == [(1, 2, 3)]
    assert metrics.most_confused(labels * 3.0, labels, "single_label") == []
    assert metrics.most_confused(logits, labels, "multi_label") == []
    logits[5] = np.nan  # has no answer
    assert metrics.most_confused(logits, labels, "single_label")[0] == (0, 1, 2)
    matrix = metrics.confusion(logits, labels, "single_label")
    assert matrix.sum() == 7 and matrix[1, 2] == 2 and matrix.diagonal().tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_scores_of_each_label_and_the_confusion_agree_with_scikit_learn(task):
    logits, labels = drawn(task)
    answers = task_of(task).decisions(logits)
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(labels, answers, zero_division=0)
    for at, found in enumerate(metrics.by_label(logits, labels, task)):
        assert [found[name] for name in ("precision", "recall", "f1", "support")] == pytest.approx(
            [precision[at], recall[at], f1[at], support[at]]
        )
        assert found["answers"] == answers[:, at].sum()
        probability = task_of(task).probabilities(logits)[:, at]
        assert found["auroc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels[:, at], probability))
    found = metrics.confusion(logits, labels, task)
    if task == "single_label":
        assert (found == sklearn.metrics.confusion_matrix(labels.argmax(-1), answers.argmax(-1))).all()
    else:
        assert (found == sklearn.metrics.multilabel_confusion_matrix(labels, answers)).all()


def test_what_is_not_defined_is_none():
    logits, labels = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0]]), one_hot([0, 0], 3)
    found = metrics.evaluate(logits, labels, "single_label", ranks=True)
    assert found["auroc"] is None and found["average_precision"] is None and found["accuracy"] == 0.5
    last = metrics.by_label(logits, labels, "single_label")[2]
    assert last == {"support": 0, "answers": 0, **dict.fromkeys(("precision", "recall", "f1", *metrics.RANKS))}
    assert not metrics.is_better("auroc", None, 0.5) and not metrics.is_better("auroc", None, None)
    assert metrics.is_better("auroc", 0.1, None)


def test_the_bins_of_the_calibration_error_give_it():
    logits, labels = drawn("single_label")
    bins = metrics.reliability(logits, labels, "single_label")
    gaps = sum(each["rows"] * abs(each["confidence"] - each["accuracy"]) for each in bins)
    assert gaps / 300 == pytest.approx(metrics.evaluate(logits, labels, "single_label")["calibration_error"])
    assert all(each["low"] <= each["confidence"] <= each["high"] for each in bins)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_bootstrap_draws_whole_rows(task):
    """The scores of a draw are those of the drawn rows."""
    logits, labels = drawn(task)
    rows = np.random.default_rng(0).integers(0, 300, 300)
    weights = np.bincount(rows, minlength=300)[None].astype(float)
    found = metrics.from_counts(metrics.counts_of(logits, labels, task), weights)
    expected = metrics.evaluate(logits[rows], labels[rows], task)
    assert {name: value[0] for name, value in found.items()} == pytest.approx(expected)


def test_bootstrap_intervals_cover_the_true_score():
    """In about 95 of 100 samples."""
    random, covered = np.random.default_rng(0), 0
    for seed in range(200):
        truth = random.random(300) < 0.5
        logits = np.where(random.random(300) < 0.8, truth, ~truth) * 2.0 - 1.0
        counts = metrics.counts_of(np.stack([-logits, logits], 1), one_hot(truth.astype(int), 2), "single_label")
        low, high = metrics.bootstrap(counts, seed, resamples=400)["accuracy"]
        covered += low <= 0.8 <= high
    assert 0.9 <= covered / 200 <= 0.99


def test_mcnemar_is_the_exact_test():
    right, before = np.array([1] * 9 + [0] * 2 + [1] * 5, bool), np.array([0] * 9 + [1] * 2 + [1] * 5, bool)
    assert metrics.mcnemar(right, before) == pytest.approx(2 * sum(math.comb(11, k) for k in (9, 10, 11)) / 2**11)
    assert metrics.mcnemar(right, before, "greater") == pytest.approx(metrics.mcnemar(right, before) / 2)
    assert metrics.mcnemar(right, right) == 1.0


def test_holm_corrects_for_many_tests():
    found = metrics.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})  # Holm's step-down, by hand
    assert metrics.holm({}) == {} and metrics.holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_precision_over_recall_agrees_with_scikit_learn(task):
    random = np.random.default_rng(3)
    logits = np.round(random.normal(0, 2, (150, 3)), 1).astype(np.float32)  # with equal probabilities among them
    truth = one_hot(random.integers(0, 3, 150), 3) if task == "single_label" else random.random((150, 3)) < 0.3
    found = metrics.precision_recall(logits, np.asarray(truth, np.float32), task, ("a", "b", "c"))
    assert found["average"] == "label" and [each["label"] for each in found["curves"]] == ["a", "b", "c"]
    probability = task_of(task).probabilities(logits)
    for at, curve in enumerate(found["curves"]):
        precision, recall, threshold = sklearn.metrics.precision_recall_curve(truth[:, at], probability[:, at])
        expected = {each: point for *point, each in zip(precision, recall, threshold, strict=False)}
        assert curve["recall"] == sorted(set(curve["recall"])) and curve["recall"][-1] == 1.0
        for each, *point in zip(curve["threshold"], curve["precision"], curve["recall"], strict=True):
            assert point == pytest.approx(expected[each])
        # No recall is left out, and each has its largest precision.
        assert sorted(set(recall) - {0.0}) == pytest.approx(curve["recall"])
        best = {each: precision[recall == each].max() for each in set(recall) - {0.0}}
        assert curve["precision"] == pytest.approx([best[each] for each in sorted(best)])


def test_curves_are_short_and_many_labels_have_one():
    random = np.random.default_rng(4)
    logits, truth = random.normal(0, 2, (3000, 21)), one_hot(random.integers(0, 21, 3000), 21)
    names = tuple(map(str, range(21)))
    found = metrics.precision_recall(logits, truth, "single_label", names)
    assert found["average"] == "micro" and [each["label"] for each in found["curves"]] == [None]
    assert len(found["curves"][0]["recall"]) == 200 and found["curves"][0]["recall"][-1] == 1.0
    truth[:, 3] = 0.0
    fewer = metrics.precision_recall(logits[:, :20], truth[:, :20], "single_label", names[:20])
    assert [each["label"] for each in fewer["curves"]] == [name for name in names[:20] if name != "3"]


def test_there_is_no_curve_of_answers_that_are_not_finite_or_of_no_labels():
    logits, names = np.zeros((3, 2)), ("a", "b")
    assert metrics.precision_recall(logits, np.zeros((3, 2)), "multi_label", names) is None
    assert metrics.precision_recall(logits * np.nan, np.ones((3, 2)), "multi_label", names) is None
