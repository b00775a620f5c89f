import json

import numpy as np
import pytest
from cleanlab.filter import find_label_issues

from tfpipe.evaluate.answers import answers_of_run
from tfpipe.evaluate.label_errors import FILE, SHOWN, Undecided, likely_errors, of_run
from tfpipe.rundir.stage import StageDirectory
from tfpipe.variants import STAGE_OF_VARIANT


def one_label(rows=400, labels=3, seed=0):
    """Answers of a good model, labels of which 5 % were changed, and which."""
    random = np.random.default_rng(seed)
    right = random.integers(0, labels, rows)
    wrong = random.random(rows) < 0.05
    given = np.where(wrong, (right + 1) % labels, right)
    return np.eye(labels)[right] * 4.0 + random.normal(0.0, 1.0, (rows, labels)), np.eye(labels)[given], wrong


def test_planted_errors_are_found():
    logits, labels, wrong = one_label()
    doubted, confidence, rows = likely_errors(logits, labels, "single_label")
    assert rows == 400 and wrong[doubted].mean() > 0.9 and wrong[doubted].sum() > 0.6 * wrong.sum()
    assert (np.diff(confidence) >= 0.0).all() and confidence.max() < 0.5


def test_planted_errors_of_several_labels_are_found():
    random = np.random.default_rng(0)
    truth, wrong = random.random((300, 4)) < 0.3, random.random((300, 4)) < 0.03
    logits, labels = np.where(truth, 3.0, -3.0) + random.normal(0.0, 1.0, truth.shape), truth ^ wrong
    doubted, _, rows = likely_errors(logits, labels.astype(np.float32), "multi_label")
    assert rows == 300 and wrong.any(axis=1)[doubted].mean() > 0.9
    share, expected = 1.0 / (1.0 + np.exp(-logits)), np.zeros(300, bool)
    for label in range(4):  # of each label the rows that confident learning doubts
        both = np.stack([1.0 - share[:, label], share[:, label]], axis=1)
        expected |= find_label_issues(labels[:, label].astype(int), both, n_jobs=1)
    assert sorted(doubted.tolist()) == np.flatnonzero(expected).tolist()


def test_rows_without_any_label_are_rows():
    logits, labels = np.full((40, 2), -4.0), np.zeros((40, 2), np.float32)
    labels[:10, 0] = labels[5:15, 1] = 1.0
    logits[:10, 0] = logits[5:15, 1] = 4.0
    logits[39] = 4.0
    assert likely_errors(logits, labels, "multi_label")[0].tolist() == [39]


def test_rows_of_a_rare_label_are_not_examined():
    logits, labels, wrong = one_label()
    logits, labels = np.c_[logits, np.full(400, -9.0)], np.c_[labels, np.zeros(400)]
    labels[-3:] = [0.0, 0.0, 0.0, 1.0]
    doubted, _, rows = likely_errors(logits, labels, "single_label")
    assert rows == 397 and doubted.max() < 397 and wrong[doubted].mean() > 0.9


@pytest.mark.parametrize(
    ("logits", "labels", "task", "reason"),
    [
        (np.zeros((9, 2)), np.eye(2)[[0] * 9], "single_label", "fewer than two labels have 5 rows"),
        (np.zeros((4, 2)), np.eye(2)[[0, 1, 0, 1]], "single_label", "fewer than two labels have 5 rows"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "single_label", "fewer than two labels have 5 rows"),
        (np.full((20, 2), np.nan), np.eye(2)[[0, 1] * 10], "single_label", "not finite"),
        (np.full((20, 2), np.inf), np.eye(2)[[0, 1] * 10], "multi_label", "not finite"),
        (np.zeros((20, 2)), np.zeros((20, 2)), "multi_label", "no label has 5 rows"),
    ],
)
def test_where_nothing_can_be_said_the_reason_is(logits, labels, task, reason):
    with pytest.raises(Undecided, match=reason):
        likely_errors(logits, labels, task)


@pytest.mark.parametrize("logits", [[[9.0, -9.0]] * 20, [[0.0, 0.0]] * 20, [[-800.0, 800.0]] * 20])
def test_a_model_that_says_one_thing_is_no_crash(logits):
    doubted, confidence, rows = likely_errors(np.array(logits), np.eye(2)[[0, 1] * 10], "single_label")
    assert rows == 20 and len(doubted) <= 10 and np.isfinite(confidence).all()


def stage_of(tiny_run, path):
    config, run = tiny_run
    path.mkdir()
    names = ("prepare", *STAGE_OF_VARIANT.values(), "export", "verify")
    return config, StageDirectory("report", path, {name: run / name for name in names if (run / name).exists()})


def test_the_lines_of_a_run(tiny_run):
    config, run = tiny_run
    summary = json.loads((run / "report" / "metrics.json").read_text(encoding="utf-8"))["label_errors"]
    shown = json.loads((run / "report" / "rows.json").read_text(encoding="utf-8"))["label_errors"]
    lines = [json.loads(line) for line in (run / "report" / FILE).read_text(encoding="utf-8").splitlines()]
    assert list(summary) == list(shown) and list(summary) == ["test", "validation", "train"]
    assert [summary[split]["seen"] for split in summary] == [False, False, True]
    for split, found in summary.items():
        own = [line for line in lines if line["split"] == split]
        assert found["found"] == len(own) and found["reason"] is None and len(shown[split]) == min(len(own), SHOWN)
        assert all(line.items() <= row.items() for line, row in zip(own, shown[split], strict=False))
        assert [line["self_confidence"] for line in own] == sorted(line["self_confidence"] for line in own)
    for line in lines:
        assert line["given"] != line["predicted"] and {line["given"], line["predicted"]} == {"negative", "positive"}
        assert line["source"] == config.data.source and line["text_pair"] is None


def test_planted_errors_of_a_run_are_found_and_the_same_each_time(tiny_run, tmp_path, capsys, monkeypatch):
    from tfpipe.tokens.table import TokenTable

    wrong, plain = {}, TokenTable.open

    def spoilt(directory):
        table, every = plain(directory), np.arange(10)
        table.labels = table.labels.copy()
        table.labels[every] = 1.0 - table.labels[every]
        wrong[directory.name] = set(table.row_ids[every].tolist())
        return table

    monkeypatch.setattr(TokenTable, "open", staticmethod(spoilt))
    config, stage = stage_of(tiny_run, tmp_path / "report")
    summary, shown = of_run(config, stage, answers_of_run(config, stage))
    said = capsys.readouterr().err
    lines = [json.loads(line) for line in (stage.path / FILE).read_text(encoding="utf-8").splitlines()]
    for split in ("test", "validation", "train"):
        found = {line["row_id"] for line in lines if line["split"] == split}
        assert len(found & wrong[split]) >= 5 and len(found) <= 15
    assert (
        f"{summary['test']['found']} of {summary['test']['rows']} test rows are likely mislabeled: {stage.path}" in said
    )
    config, again = stage_of(tiny_run, tmp_path / "again")
    assert of_run(config, again, answers_of_run(config, again)) == (summary, shown)
    assert (again.path / FILE).read_bytes() == (stage.path / FILE).read_bytes()
    none = config.model_copy(update={"report": config.report.model_copy(update={"label_errors": 0})})
    assert list(of_run(none, again, answers_of_run(none, again))[0]) == ["test", "validation"]
