"""The budget of a run: the costs of its last variant in accuracy, bytes and milliseconds, and their limits.

Enters: the section `budget` and the measurements. Leaves: the variants that keep it; or the limits that are exceeded,
the closest variant, and the setting to relax.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tfpipe.config.compress import Budget
from tfpipe.metrics import LOWER_IS_BETTER
from tfpipe.variants import SECTION_OF_VARIANT


@dataclass(frozen=True)
class Cost:
    """The costs of one variant, by the artifact that the budget is about."""

    variant: str
    drop: float
    """of `budget.metric`, on validation rows, against dense"""
    size_bytes: int
    latency_ms: float | None
    """at `budget.latency_shape`; None where the model does not take rows that long"""

    def excesses(self, budget: Budget) -> list[str]:
        """Lists the limits that are not kept, one phrase each; NaN keeps none."""
        found = []
        if budget.max_drop is not None and math.isnan(self.drop):
            found.append(f"{budget.metric} is not defined on the validation rows, so budget.max_drop can't be checked")
        elif budget.max_drop is not None and not self.drop <= budget.max_drop:
            found.append(
                f"{budget.metric} on validation rows {'rises' if budget.metric in LOWER_IS_BETTER else 'falls'} by "
                f"{self.drop:.4f}, budget.max_drop is {budget.max_drop:g}"
            )
        if budget.max_size_bytes is not None and self.size_bytes > budget.max_size_bytes:
            found.append(f"{self.size_bytes:,} bytes, budget.max_size_bytes is {budget.max_size_bytes:,}")
        if budget.max_latency_ms is not None and not (self.latency_ms or math.inf) <= budget.max_latency_ms:
            shown = "not measured" if self.latency_ms is None else f"{self.latency_ms:g} ms"
            found.append(f"{shown} at {budget.latency_shape}, budget.max_latency_ms is {budget.max_latency_ms:g}")
        return found

    def distance(self, budget: Budget) -> float:
        """Measures the distance from the budget: the sum of the shares by which limits are exceeded; 0 within it."""
        pairs = (
            (self.drop, budget.max_drop),
            (self.size_bytes, budget.max_size_bytes),
            (math.inf if self.latency_ms is None else self.latency_ms, budget.max_latency_ms),
        )
        excess = [value / max(limit, 1e-6) - 1.0 for value, limit in pairs if limit is not None]
        return math.inf if any(map(math.isnan, excess)) else sum(max(0.0, each) for each in excess)


def within_budget(costs: list[Cost], budget: Budget) -> tuple[list[str], str | None]:
    """Decides which variants may be published, and explains why the run may not.

    The run is for its last variant. Variants before it are steps on the way, published where they keep the budget too.

    Args:
      costs: of the variants in their order; empty: there is nothing to check.
      budget: the limits.

    Returns:
      The variants within the budget, and None, or the failure of the last variant with the closest one.
    """
    within = [cost.variant for cost in costs if not cost.excesses(budget)]
    if not costs or costs[-1].variant in within:
        return within, None
    last = costs[-1]
    told = f"{last.variant} is outside the budget: {'; '.join(last.excesses(budget))}"
    closest = min(costs, key=lambda cost: cost.distance(budget))
    if closest is not last:
        excess = "; ".join(closest.excesses(budget))
        later = " and ".join(f"{SECTION_OF_VARIANT[cost.variant]}: null" for cost in costs[costs.index(closest) + 1 :])
        state = f" ({excess})" if excess else f", which is within it: set {later} to publish it"
        told += f". Closest came {closest.variant}{state}"
    return within, f"{told}. To publish {last.variant}, relax {_relaxed(last, budget)}"


def _relaxed(cost: Cost, budget: Budget) -> str:
    """Lists the settings to relax for this variant, each with the value that it would keep."""
    wanted = []
    if budget.max_drop is not None and math.isnan(cost.drop):
        wanted.append("budget.metric to another score, or budget.max_drop to null")
    elif budget.max_drop is not None and not cost.drop <= budget.max_drop:
        least = math.ceil(cost.drop * 1000) / 1000 if math.isfinite(cost.drop) else 1.0
        wanted.append(f"budget.max_drop to {least:g} (or compress less, train longer, distill)")
    if budget.max_size_bytes is not None and cost.size_bytes > budget.max_size_bytes:
        wanted.append(f"budget.max_size_bytes to {cost.size_bytes}")
    if budget.max_latency_ms is not None and not (cost.latency_ms or math.inf) <= budget.max_latency_ms:
        wanted.append(f"budget.max_latency_ms to {math.ceil(cost.latency_ms) if cost.latency_ms else 'null'}")
    return " and ".join(wanted)
