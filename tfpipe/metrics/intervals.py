"""Confidence intervals and tests: the certainty of a number that was measured on so many rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tfpipe.metrics.scores import Counts, from_counts

_Z = 1.959963984540054
"""two-sided 95 % of a normal distribution"""
RESAMPLES = 1000


def wilson_interval(rate: float, count: int) -> tuple[float, float]:
    """Gives the 95 % confidence interval of a rate seen over `count` rows (Wilson, 1927)."""
    center = (rate + _Z * _Z / (2 * count)) / (1 + _Z * _Z / count)
    half = _Z * math.sqrt(rate * (1 - rate) / count + _Z * _Z / (4 * count * count)) / (1 + _Z * _Z / count)
    return max(center - half, 0.0), min(center + half, 1.0)


def paired_change(right: np.ndarray, before: np.ndarray) -> tuple[float, float, float]:
    """Gives the change of an accuracy on the same rows, with its 95 % confidence interval.

    Only rows that exactly one of the two has right count. The interval is that of Agresti & Min (2005).

    Args:
      right: [rows] bool.
      before: [rows] bool, of the other model.

    Returns:
      The change, its lower and its upper bound, as shares.
    """
    count, won, lost = len(right), int((right & ~before).sum()), int((before & ~right).sum())
    center, n = (won - lost) / (count + 2), count + 2
    half = _Z * math.sqrt((won + lost + 1.0) / n - center**2) / math.sqrt(n)
    return (won - lost) / count, max(center - half, -1.0), min(center + half, 1.0)


def mcnemar(right: np.ndarray, before: np.ndarray, alternative: str = "two-sided") -> float:
    """Tests whether two models have the same accuracy: McNemar (1947), exact.

    Args:
      right: [rows] bool.
      before: [rows] bool, of the other model, on the same rows.
      alternative: `two-sided`, or `greater`: whether `right` has the higher accuracy.

    Returns:
      The p-value; 1 where the two are right at the same rows.
    """
    from scipy.stats import binomtest

    won, lost = int((right & ~before).sum()), int((before & ~right).sum())
    return float(binomtest(won, won + lost, alternative=alternative).pvalue) if won + lost else 1.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Corrects p-values for the number of tests: Holm (1979), the chance of one false alarm among all."""
    adjusted, largest, count = {}, 0.0, len(p_values)
    for place, (name, value) in enumerate(sorted(p_values.items(), key=lambda each: each[1])):
        largest = max(largest, min(1.0, (count - place) * value))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def bootstrap(counts: Counts, seed: int, resamples: int = RESAMPLES) -> dict[str, tuple[float, float]]:
    """Gives 95 % confidence intervals of all scores that are made of counts, by the bootstrap (Efron, 1979).

    Rows are drawn with replacement; the interval lies between the percentiles 2.5 and 97.5.

    Args:
      counts: of the rows.
      seed: of the draws.
      resamples: number of draws.

    Returns:
      Score -> lower and upper bound. A score that is not defined in one of the draws has no interval.
    """
    random, rows = np.random.default_rng(seed), len(counts.right)
    draws: dict[str, list[np.ndarray]] = {}
    for start in range(0, resamples, _AT_ONCE):
        weights = random.multinomial(rows, np.full(rows, 1.0 / rows), min(_AT_ONCE, resamples - start))
        for name, values in from_counts(counts, weights.astype(np.float64)).items():
            draws.setdefault(name, []).append(values)
    found = {name: np.concatenate(values) for name, values in draws.items()}
    return {
        name: tuple(float(each) for each in np.percentile(values, (2.5, 97.5)))
        for name, values in found.items()
        if np.isfinite(values).all()
    }


_AT_ONCE = 100
"""draws that are computed together: weights of 5,000 rows take 4 MB"""
