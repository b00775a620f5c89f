"""Latency of every artifact at the shapes that serving sees: medians of alternating runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np

from tfpipe.config.compress import LATENCY_SHAPES
from tfpipe.console import progress_bar
from tfpipe.evaluate.loaded import Artifact
from tfpipe.formats.base import Requests
from tfpipe.tokens.table import TokenTable

K = TypeVar("K")

WARM_UP = 2
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


def measure_latency(
    artifacts: list[Artifact], batches: Mapping[str, Requests], runs: int
) -> dict[tuple[str, str], dict[str, float | None]]:
    """Median milliseconds per call, at each shape.

    Args:
      artifacts: what to call.
      batches: shape name -> with what, by `full_batches`.
      runs: timed calls per artifact and shape.

    Returns:
      (variant, kind) -> shape name -> milliseconds; None where the artifact does not take rows that long.
    """
    found = {(artifact.variant, artifact.kind): dict.fromkeys(LATENCY_SHAPES) for artifact in artifacts}
    with progress_bar("latency", len(LATENCY_SHAPES) * (runs + WARM_UP)) as bar:
        for name, (_, length) in LATENCY_SHAPES.items():
            calls = {
                (artifact.variant, artifact.kind): partial(artifact.answer, batches[name])
                for artifact in artifacts
                if artifact.longest >= length
            }
            for key, latency in time_in_turn(calls, runs, bar.advance).items():
                found[key][name] = latency
    return found


def time_in_turn(
    calls: Mapping[K, Callable[[], object]], runs: int, after_round: Callable[[], None] = lambda: None
) -> dict[K, float]:
    """Median milliseconds per call, rounded to hundredths.

    They take turns, so that whatever else the machine does meets all of them.

    Args:
      calls: what to call, by key.
      runs: timed calls of each, after two that warm up.
      after_round: called after each turn of all.
    """
    seconds: dict[K, list[float]] = {key: [] for key in calls}
    for number in range(runs + WARM_UP):
        for key, call in calls.items():
            started = time.perf_counter()
            call()
            if number >= WARM_UP:
                seconds[key].append(time.perf_counter() - started)
        after_round()
    return {key: round(float(np.median(values)) * 1000, 2) for key, values in seconds.items()}


def measure_batching(artifact: Artifact, table: TokenTable, seed: int, runs: int = 5) -> dict[int, float]:
    """The latency curve that a server's batching is set by: batch size -> median milliseconds, over real rows.

    Args:
      artifact: answers by raw text.
      table: whose rows make the batches.
      seed: of the sample of them, in random order: lengths mix as they do in traffic, whatever the order of the file.
      runs: timed calls per batch size, each of other rows, after one that warms up.
    """
    sample = np.random.default_rng(seed).permutation(table.sample((runs + 1) * max(BATCH_SIZES), seed))
    curve = {}
    with progress_bar("latency by batch size", len(BATCH_SIZES)) as bar:
        for size in BATCH_SIZES:
            seconds = []
            for number in range(runs + 1):
                rows = sample[np.arange(number * size, (number + 1) * size) % len(sample)]
                pairs = table.text_pairs(rows)
                batch = Requests({}, table.texts(rows), None if pairs[0] is None else [pair or "" for pair in pairs])
                started = time.perf_counter()
                artifact.answer(batch)
                seconds.append(time.perf_counter() - started)
            curve[size] = round(float(np.median(seconds[1:])) * 1000, 2)
            bar.advance()
    return curve
