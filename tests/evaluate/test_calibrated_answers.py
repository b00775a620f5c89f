"""Temperatures, thresholds and abstention: chosen on some rows, they hold on others of the same kind."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from tfpipe import metrics
from tfpipe.config.calibrate import Calibrate
from tfpipe.errors import InputError
from tfpipe.evaluate import calibration
from tfpipe.tasks import PLAIN, Decision, task_of


def rows(task: str, count: int, seed: int, sharper: float = 1.0):
    """Rows that a model knows the true probabilities of, but gives logits that many times as large."""
    random = np.random.default_rng(seed)
    logits = random.normal(0.0, 1.5, (count, 3))
    probability = task_of(task).probabilities(logits)
    if task == "single_label":
        chosen = (probability.cumsum(axis=1) < random.random((count, 1))).sum(axis=1)
        labels = np.eye(3, dtype=np.float32)[chosen]
    else:
        labels = (random.random((count, 3)) < probability).astype(np.float32)
    return (logits * sharper).astype(np.float32), labels


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("sharper", [0.4, 1.0, 3.0])
def test_the_temperature_is_how_much_too_large_logits_are(task, sharper):
    found = calibration.fitted_temperature(*rows(task, 20_000, 0, sharper), task)
    assert found == pytest.approx(sharper, rel=0.05)


def test_a_temperature_lowers_the_calibration_error_of_other_rows():
    temperature = calibration.fitted_temperature(*rows("single_label", 500, 1, 3.0), "single_label")
    logits, labels = rows("single_label", 5000, 2, 3.0)
    before = metrics.evaluate(logits, labels, "single_label")
    after = metrics.evaluate(logits / temperature, labels, "single_label")
    assert after["calibration_error"] < 0.2 * before["calibration_error"]
    assert after["brier"] < before["brier"] and after["accuracy"] == before["accuracy"]


def test_few_rows_and_rows_that_are_all_right_give_no_extreme():
    logits, labels = rows("single_label", 9, 0, 5.0)
    assert calibration.fitted_temperature(logits, labels, "single_label") == 1.0
    sure = np.eye(2, dtype=np.float32)[[0, 1] * 20]
    assert 0.05 < calibration.fitted_temperature(sure * 4.0, sure, "single_label") < 2.0


@pytest.mark.parametrize(("labels", "count"), [(2, 200), (77, 770), (150, 1500), (1000, 2000)])
@pytest.mark.parametrize("sure", [4.0, 9.0])
def test_a_calibrated_model_stays_so_whatever_the_number_of_labels(labels, count, sure):
    """Labels drawn by the probabilities that the model gives."""
    random = np.random.default_rng(labels)
    logits = random.normal(0.0, 1.0, (count, labels))
    logits[np.arange(count), random.integers(0, labels, count)] += sure + np.log(labels)
    probability = task_of("single_label").probabilities(logits)
    chosen = (probability.cumsum(axis=1) < random.random((count, 1))).sum(axis=1)
    truth = np.eye(labels, dtype=np.float32)[np.minimum(chosen, labels - 1)]
    found = calibration.fitted_temperature(logits, truth, "single_label")
    assert found == pytest.approx(1.0, abs=0.25)
    before, after = (metrics.evaluate(logits / each, truth, "single_label") for each in (1.0, found))
    assert after["loss"] <= before["loss"] and after["calibration_error"] < before["calibration_error"] + 0.01


def test_a_precision_that_only_certain_answers_reach_is_refused():
    """Artifacts compute in float32, which can't tell such probabilities apart."""
    labels = np.eye(2, dtype=np.float32)[[0, 1] * 100]
    logits = labels * 17.0 + np.linspace(0.0, 0.5, 200)[:, None] * labels
    labels[:80] = labels[:80][:, ::-1]  # the less certain half is wrong
    with pytest.raises(InputError, match=r"calibrate\.precision 0\.9: only answers with a probability above 0\.999999"):
        calibration.calibrated(logits, labels, "single_label", ("a", "b"), Calibrate(precision=0.9, temperature=False))


def test_a_calibration_is_one_line_whatever_the_model_answers():
    logits, labels = rows("multi_label", 300, 3)
    wide = [np.tile(each, (1, 200)) for each in (logits, labels)]
    names = tuple(map(str, range(600)))
    _, facts = calibration.calibrated(*wide, "multi_label", names, Calibrate())
    said = calibration.shown_calibration(facts)
    assert len(said) < 200 and " to " in said.split("thresholds ")[1]
    logits[3] = np.nan
    _, facts = calibration.calibrated(logits, labels, "multi_label", ("a", "b", "c"), Calibrate())
    facts["before"]["calibration_error"] = None
    assert "its logits on the validation rows are not finite" in calibration.shown_calibration(facts)


def test_thresholds_have_the_best_f1_that_there_is():
    logits, labels = rows("multi_label", 400, 3)
    labels[:, 2] *= np.random.default_rng(0).random(400) < 0.2
    probability = task_of("multi_label").probabilities(logits)
    found = calibration.tuned_thresholds(probability, labels)
    for at, threshold in enumerate(found):
        best = max(sklearn.metrics.f1_score(labels[:, at], probability[:, at] >= each) for each in probability[:, at])
        given = task_of("multi_label").decisions(logits, Decision(thresholds=found))[:, at]
        assert sklearn.metrics.f1_score(labels[:, at], given) == pytest.approx(best)
        assert 0.0 < threshold < 1.0
    labels[:, 2] = 0.0
    labels[:9, 2] = 1.0
    assert calibration.tuned_thresholds(probability, labels)[2] == 0.5  # nine rows have it
    perfect = np.where(labels > 0.5, 0.8, 0.2)
    assert calibration.tuned_thresholds(perfect, labels)[:2] == (0.5, 0.5)


def test_answers_above_the_threshold_are_as_precise_as_asked():
    settings = Calibrate(precision=0.9)
    (_, decision), facts = calibration.calibrated(
        *rows("single_label", 3000, 4), "single_label", ("a", "b", "c"), settings
    )
    logits, labels = rows("single_label", 20_000, 5)
    texts = np.array(task_of("single_label").label_texts(logits / facts["temperature"], ("a", "b", "c"), decision))
    answered = texts != ""
    right = metrics.correct(logits, labels, "single_label")[answered]
    assert 0.2 < answered.mean() < 0.7 and right.mean() == pytest.approx(0.9, abs=0.02)
    curve = facts["coverage"]
    assert curve[-1]["coverage"] == 1.0 and curve[0]["precision"] > curve[-1]["precision"]
    with pytest.raises(InputError, match=r"calibrate\.precision 0\.999: not reached on the 300 validation rows"):
        logits, labels = rows("single_label", 300, 6, 0.1)
        calibration.calibrated(logits, labels[::-1], "single_label", ("a", "b", "c"), Calibrate(precision=0.999))


def test_a_decision_is_read_as_it_was_written():
    for decision in (PLAIN, Decision(thresholds=(0.25, 0.75)), Decision(abstain_below=0.9)):
        assert Decision.read(decision.as_json(("a", "b")) | {"other": 1}, ("a", "b")) == decision
    for wrong in ({"thresholds": {"a": 0.5}}, {"abstain_below": 1.5}, {"abstain_below": "0.5"}):
        with pytest.raises(ValueError, match="expected numbers between 0 and 1"):
            Decision.read(wrong, ("a", "b"))


@pytest.mark.parametrize(
    ("task", "decision"),
    [
        ("single_label", PLAIN),
        ("single_label", Decision(abstain_below=0.7)),
        ("multi_label", PLAIN),
        ("multi_label", Decision(thresholds=(0.2, 0.5, 0.9))),
    ],
)
def test_the_graph_answers_as_numpy_does(task, decision):
    import tensorflow as tf

    logits, names = rows(task, 500, 7)[0], ("a", "b|c", "d")
    found = task_of(task).graph_label(tf.constant(logits), names, decision).numpy()
    assert [each.decode() for each in found] == task_of(task).label_texts(logits, names, decision)
    if decision != PLAIN:
        assert task_of(task).label_texts(logits, names, decision) != task_of(task).label_texts(logits, names)
