"""Learning-rate schedules: a rate as a function of the share of the training that is done.

Schedules count examples, not steps: packed batches hold different numbers of examples. A schedule that was tuned for
one way of batching thus carries over to another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfpipe import metrics


def learning_rate(
    schedule: str, peak: float, *, before: float, after: float, total: float, warmup_fraction: float
) -> float:
    """Computes the rate of one step: a rise from 0 to the peak over the first examples, then the schedule.

    Args:
      schedule: `linear` falls to 0 (Devlin et al., 2019), `cosine` along half a wave (Loshchilov & Hutter, 2017),
        `constant` stays.
      peak: largest rate.
      before: examples seen before the step.
      after: examples seen after it.
      total: examples of the whole training.
      warmup_fraction: share of the examples over which the rate rises.
    """
    warmup = warmup_fraction * total
    if after <= warmup:
        return peak * after / warmup
    left = min(max((total - max(before, warmup)) / max(total - warmup, 1e-9), 0.0), 1.0)
    factor = {
        "linear": left,
        "cosine": 0.5 * (1.0 - math.cos(math.pi * left)),
        "constant": 1.0,
    }[schedule]
    return peak * factor


def stale_evaluations(values: Sequence[float], metric: str, min_delta: float) -> int:
    """Counts the evaluations since the metric last improved by more than `min_delta`."""
    best, stale = None, 0
    for value in values:
        stale += 1
        if metrics.is_better(metric, value, best, min_delta):
            best, stale = value, 0
    return stale


def plateau_factor(values: Sequence[float], metric: str, factor: float, patience: int, min_delta: float) -> float:
    """Computes the factor of the learning rate: `factor` for every `patience` evaluations without an improvement."""
    best, stale, product = None, 0, 1.0
    for value in values:
        stale += 1
        if metrics.is_better(metric, value, best, min_delta):
            best, stale = value, 0
        elif stale == patience:
            product, stale = product * factor, 0
    return product
