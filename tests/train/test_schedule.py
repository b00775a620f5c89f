"""Schedules, by arithmetic: they count examples."""

import math

import pytest

from tfpipe.train.schedule import learning_rate, plateau_factor, stale_evaluations


def rates(schedule, *, steps, warmup, examples=10):
    """Peak 1, steps of ten examples."""
    total = steps * examples
    return [
        learning_rate(
            schedule,
            1.0,
            before=n * examples,
            after=(n + 1) * examples,
            total=total,
            warmup_fraction=warmup,
        )
        for n in range(steps)
    ]


def test_linear():
    found = rates("linear", steps=100, warmup=0.1)
    assert found[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])  # the first step moves already
    assert found[10:] == pytest.approx([(100 - n) / 90 for n in range(10, 100)])


def test_cosine():
    found = rates("cosine", steps=100, warmup=0.0)
    assert found == pytest.approx([0.5 * (1 + math.cos(math.pi * n / 100)) for n in range(100)])


def test_constant():
    assert rates("constant", steps=4, warmup=0.5) == pytest.approx([0.5, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
def test_no_schedule_leaves_its_bounds(schedule, warmup):
    for steps in (1, 2, 7):
        found = rates(schedule, steps=steps, warmup=warmup)
        assert all(0.0 < rate <= 1.0 for rate in found)
        if warmup < 1.0:
            assert max(found) > 0.5


def test_they_count_examples_not_steps():
    """Half the examples a step, twice the steps: the same rate at the same example."""
    coarse, fine = rates("cosine", steps=10, warmup=0.2, examples=20), rates("cosine", steps=20, warmup=0.2)
    assert fine[4::2] == pytest.approx(coarse[2:])


def test_stale_evaluations():
    assert stale_evaluations([], "loss", 0.0) == 0
    assert stale_evaluations([0.5, 0.4, 0.45, 0.41], "loss", 0.0) == 2
    assert stale_evaluations([0.5, 0.6, 0.7], "accuracy", 0.0) == 0
    assert stale_evaluations([0.5, 0.6, 0.7], "accuracy", 0.15) == 0  # 0.7 beats 0.5 by enough, 0.6 did not
    assert stale_evaluations([0.5, 0.6, 0.64], "accuracy", 0.15) == 2


def test_plateau_factor():
    worse = [0.5, 0.6, 0.7, 0.8, 0.9]
    assert [plateau_factor(worse[:n], "loss", 0.1, 2, 0.0) for n in range(6)] == pytest.approx(
        [1, 1, 1, 0.1, 0.1, 0.01]
    )
    assert plateau_factor([0.5, 0.6, 0.4, 0.6], "loss", 0.1, 2, 0.0) == 1.0  # an improvement starts anew
