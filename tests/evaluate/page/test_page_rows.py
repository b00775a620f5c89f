"""Rows of the page: what flipped, which mistakes are worst, against a slow count."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import TokenRow, write_token_table

from tfpipe.evaluate.answers import Answers
from tfpipe.evaluate.page.rows import LONGEST, SHOWN, changed, examples_of, mistakes
from tfpipe.tasks import PLAIN, Decision
from tfpipe.tokens.table import TokenTable

NAMES = ("a", "b", "c")


def make_answers(directory, task, rows=60, decision=PLAIN, pairs=False):
    random = np.random.default_rng(1)
    if task == "single_label":
        labels = np.eye(3, dtype=np.float32)[random.integers(0, 3, rows)]
    else:
        labels = (random.random((rows, 3)) < 0.5).astype(np.float32)
    ids = np.array([2, 5, 3], np.int32)
    made = [
        TokenRow(ids, np.zeros(3, np.int32), labels[at], at, text=f"text {at} " + "x" * 2000, line=at + 2,
                 text_pair=f"pair {at}" if pairs else None)
        for at in range(rows)
    ]  # fmt: skip
    write_token_table(directory, made, num_labels=3)
    logits = {name: (2.0 * labels - 1.0 + random.normal(0, 1.5, labels.shape)).astype(np.float32) for name in "xy"}
    logits = {"dense": logits["x"], "int8": logits["y"]}
    asked = np.arange(rows)[::2]
    return Answers(
        table=TokenTable.open(directory), rows=asked, labels=labels[asked], names=NAMES, task=task,
        logits={name: each[asked] for name, each in logits.items()}, decisions=dict.fromkeys(logits, decision),
    )  # fmt: skip


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_flipped_rows_are_counted_and_named(tmp_path, task):
    answers = make_answers(tmp_path / "table", task, pairs=True)
    found = changed(answers)
    assert list(found) == ["int8"]
    right = {name: answers.right(name) for name in answers.logits}
    for name, chosen in (("won", right["int8"] & ~right["dense"]), ("lost", right["dense"] & ~right["int8"])):
        assert found["int8"][name]["count"] == chosen.sum() > 0
        shown = found["int8"][name]["shown"]
        expected = {f"text {2 * at} " for at in np.flatnonzero(chosen)}
        assert {row["text"][: row["text"].index("x", 5)] for row in shown} <= expected
        assert len(shown) == min(SHOWN, chosen.sum())
        for row in shown:
            assert (row["before"]["answer"] == row["right"]) == (name == "lost")
            assert (row["after"]["answer"] == row["right"]) == (name == "won")
            assert len(row["text"]) == LONGEST + 1 and row["text_pair"].startswith("pair")


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_mistakes_are_the_surest_first(tmp_path, task):
    answers = make_answers(tmp_path / "table", task)
    found = mistakes(answers, "int8")
    sureness = [row["probability"] if row["is_given"] else 1.0 - row["probability"] for row in found]
    assert sureness == sorted(sureness, reverse=True) and sureness[0] > 0.5
    for row in found:
        assert row["answer"] != row["right"] and (row["label"] in row["answer"]) == row["is_given"]
        assert (row["label"] in row["right"]) != row["is_given"]
        assert f":{row['row'] + 2})" in row["where"]
    assert len(found) == min(SHOWN, (~answers.right("int8")).sum())


def test_thresholds_decide_what_a_mistake_is(tmp_path):
    answers = make_answers(tmp_path / "table", "multi_label", decision=Decision(thresholds=(0.999, 0.999, 0.999)))
    assert not any(row["is_given"] for row in mistakes(answers, "int8")[:5])


def test_a_row_that_is_not_finite_is_no_example(tmp_path):
    answers = make_answers(tmp_path / "table", "single_label")
    answers.logits["int8"][0] = np.nan
    assert 0 not in [row["row"] for row in mistakes(answers, "int8")]
    assert examples_of(answers, ["dense", "int8"])["mistakes"]["variant"] == "int8"
