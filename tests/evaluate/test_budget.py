"""The budget: what is checked, and what the user is told."""

import math

import pytest

from tfpipe.config.compress import Budget
from tfpipe.config.run import Config
from tfpipe.evaluate.budget import Cost, within_budget
from tfpipe.stages.verify import costs_of

PRUNED, INT8 = Cost("pruned", 0.004, 90_000_000, 200.0), Cost("int8", 0.012, 23_000_000, 74.0)


def test_within_the_budget_all_are_published():
    assert within_budget([PRUNED, INT8], Budget()) == (["pruned", "int8"], None)
    assert within_budget([], Budget(max_size_bytes=1)) == ([], None)
    exact = Budget(max_drop=0.012, max_size_bytes=23_000_000, max_latency_ms=74.0)
    assert within_budget([PRUNED, INT8], exact) == (["int8"], None)  # the step on the way need not keep it
    none = Budget(max_drop=None)
    assert within_budget([Cost("int8", 0.9, 10**9, None)], none) == (["int8"], None)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(max_drop=0.01), "int8 is outside the budget: accuracy on validation rows falls by 0.0120, "
         "budget.max_drop is 0.01. Closest came pruned, which is within it: "
         "set quantize: null to publish it. To publish int8, relax budget.max_drop to 0.012"),
        (Budget(max_size_bytes=20_000_000), "int8 is outside the budget: 23,000,000 bytes, budget.max_size_bytes is "
         "20,000,000. To publish int8, relax budget.max_size_bytes to 23000000"),
        (Budget(max_latency_ms=50.0), "int8 is outside the budget: 74 ms at b32_s64, budget.max_latency_ms is 50. "
         "To publish int8, relax budget.max_latency_ms to 74"),
        (Budget(max_drop=0.001, max_size_bytes=90_000_000), "Closest came pruned (accuracy on validation "
         "rows falls by 0.0040, budget.max_drop is 0.001). To publish int8, relax budget.max_drop "
         "to 0.012"),
    ],
)  # fmt: skip
def test_outside_it_the_limit_the_closest_and_the_setting_are_said(budget, said):
    within, failure = within_budget([PRUNED, INT8], budget)
    assert "int8" not in within and said in failure


@pytest.mark.parametrize("cost", [Cost("int8", math.nan, 1, 1.0), Cost("int8", 0.0, 1, None)])
def test_what_is_not_known_keeps_no_limit(cost):
    within, failure = within_budget([cost], Budget(max_latency_ms=50.0))
    assert within == [] and "outside the budget" in failure and "relax" in failure


def test_a_drop_that_is_the_limit_is_within_it():
    """0.90 - 0.87 is more than 0.03 in floats."""
    accuracies = {"dense": 0.90, "int8": 0.87}
    row = {"variant": "int8", "artifact": "onnx", "size_bytes": 1, "latency_ms": {"b32_s64": 1.0}}
    config = Config.model_validate(
        {"name": "x", "data": {"source": "x"}, "encoder": {"source": "x"}, "budget": {"max_drop": 0.03}}
    )
    assert within_budget(costs_of([row], accuracies, config), config.budget) == (["int8"], None)


def test_a_gain_in_accuracy_is_no_drop():
    assert within_budget([Cost("int8", -0.02, 1, 1.0)], Budget(max_drop=0.0)) == (["int8"], None)


def test_what_is_not_known_is_not_the_closest():
    unknown, far = Cost("pruned", math.nan, 1, 1.0), Cost("int8", 0.9, 1, 1.0)
    assert "Closest" not in within_budget([unknown, far], Budget())[1]


def test_alone_the_dense_model_is_held_to_the_budget():
    assert within_budget([Cost("dense", 0.0, 10, 5.0)], Budget(max_latency_ms=5.0)) == (["dense"], None)
    assert "dense is outside the budget" in within_budget([Cost("dense", 0.0, 10, 5.0)], Budget(max_latency_ms=4.0))[1]


def test_a_score_that_is_not_defined_keeps_no_budget():
    """Average precision of validation rows without any label, of which nothing can be said to be kept."""
    cost = Cost("int8", float("nan"), 1, 1.0)
    within, told = within_budget([cost], Budget(metric="average_precision", max_drop=0.01))
    assert within == [] and "average_precision is not defined on the validation rows, so budget.max_drop can't" in told
    assert told.endswith("relax budget.metric to another score, or budget.max_drop to null")
    assert within_budget([cost], Budget(metric="average_precision", max_drop=None)) == (["int8"], None)
