"""Latency of an artifact at the shapes that serving sees: medians of several calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np

from tfpipe.config.compress import LATENCY_SHAPES
from tfpipe.console import progress_bar
from tfpipe.formats.base import Answer, Requests
from tfpipe.tokens.table import TokenTable

K = TypeVar("K")

WARM_UP = 2
LEAST_RUNS, ENOUGH_SECONDS = 3, 1.0
"""of timed calls at one shape"""
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


def measure_latency(
    answer: Answer, longest: int, batches: Mapping[str, Requests], runs: int
) -> dict[str, float | None]:
    """Measures the median milliseconds per call, at each shape.

    The artifact has answered other rows before, so one call warms up. Calls end when they have taken `ENOUGH_SECONDS`,
    from the third on.

    Args:
      answer: function to call.
      longest: most tokens that it takes.
      batches: shape name -> its batch, by `full_batches`.
      runs: timed calls per shape, at most; 0: nothing is called.

    Returns:
      Shape name -> milliseconds; None where nothing is called, or the artifact does not take rows that long.
    """
    found: dict[str, float | None] = dict.fromkeys(LATENCY_SHAPES)
    for name, (_, length) in LATENCY_SHAPES.items():
        if longest < length or not runs:
            continue
        answer.ask(batches[name])
        seconds: list[float] = []
        while len(seconds) < runs and (len(seconds) < LEAST_RUNS or sum(seconds) < ENOUGH_SECONDS):
            seconds.append(_seconds(partial(answer.ask, batches[name])))
        found[name] = _milliseconds(seconds)
    return found


def time_in_turn(calls: Mapping[K, Callable[[], object]], runs: int) -> dict[K, float]:
    """Measures the median milliseconds per call, rounded to hundredths.

    The calls take turns, so that other work of the machine slows all of them alike.

    Args:
      calls: functions to call, by key.
      runs: timed calls of each, after two that warm up.
    """
    seconds: dict[K, list[float]] = {key: [] for key in calls}
    for number in range(runs + WARM_UP):
        for key, call in calls.items():
            took = _seconds(call)
            if number >= WARM_UP:
                seconds[key].append(took)
    return {key: _milliseconds(values) for key, values in seconds.items()}


def measure_batching(answer: Answer, table: TokenTable, seed: int, runs: int = 5) -> dict[int, float]:
    """Measures the latency curve for a server's batching: batch size -> median milliseconds, over real rows.

    Args:
      answer: takes texts.
      table: its rows make the batches.
      seed: of the sample of rows, in random order: lengths mix as they do in traffic, in any order of the file.
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
                seconds.append(_seconds(partial(answer.ask, batch)))
            curve[size] = _milliseconds(seconds[1:])
            bar.advance()
    return curve


def _seconds(call: Callable[[], object]) -> float:
    """Times a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _milliseconds(seconds: list[float]) -> float:
    """Returns the median in milliseconds, rounded to hundredths."""
    return round(float(np.median(seconds)) * 1000, 2)
