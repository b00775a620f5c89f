"""Runs against the first of them, on the same test rows: McNemar's exact test with Holm's correction.

Enters: finished runs. Leaves: for each run that answered the same rows, the change of accuracy and a p-value; for the
others, the reason why there is none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tfpipe import metrics
from tfpipe.evaluate.answers import Answers, read_answers
from tfpipe.tasks import Decision
from tfpipe.tools.report.runs import Run


class Paired(NamedTuple):
    """A run against the first one."""

    change: float
    """of accuracy"""
    low: float
    high: float
    won: int
    """rows that it alone has right"""
    lost: int
    p: float
    """corrected for the number of runs"""


def paired(runs: list[Run]) -> tuple[list[Paired | None], list[str]]:
    """Compares each run with the first, where both answered the same rows.

    Returns:
      For each run a comparison, or None; and the reasons for missing ones, a sentence each.
    """
    first, notes = runs[0], []
    comparable: dict[int, Run] = {}
    for at, run in enumerate(runs[1:], start=1):
        if reason := _why_not(first, run):
            notes.append(f"{run.name} {reason}, so it has no paired test against {first.name}.")
        else:
            comparable[at] = run
    if not comparable:
        return [None] * len(runs), notes
    before, right = _answers(first), {}
    for at, run in comparable.items():
        answers = _answers(run)
        if np.array_equal(answers.rows, before.rows):
            right[at] = answers.right(run.variant)
        else:
            notes.append(
                f"{run.name} answered another sample of the test rows (verify.rows, seed), so it has no paired test "
                f"against {first.name}."
            )
    return _tested(right, before.right(first.variant), len(runs)), notes


def _tested(right: dict[int, np.ndarray], before: np.ndarray, count: int) -> list[Paired | None]:
    p_values = metrics.holm({at: metrics.mcnemar(each, before) for at, each in right.items()})
    found: list[Any] = [None] * count
    for at, each in right.items():
        change, low, high = metrics.paired_change(each, before)
        won, lost = int((each & ~before).sum()), int((before & ~each).sum())
        found[at] = Paired(change, low, high, won, lost, p_values[at])
    return found


def _why_not(first: Run, run: Run) -> str | None:
    if run.summary["labels"] != first.summary["labels"] or run.summary["task"] != first.summary["task"]:
        return "has other labels"
    return None if run.prepared == first.prepared else "has other test rows"


def _answers(run: Run) -> Answers:
    """Reads the answers of the artifact that is shown."""
    decision = Decision.read(run.summary["calibration"][run.variant], run.summary["labels"])
    prepared, verified = run.directory.verified("prepare"), run.directory.verified("verify")
    task, artifact = run.summary["task"], run.best["artifact"]
    return read_answers(prepared, verified, [run.variant], task, {run.variant: decision}, artifact)
