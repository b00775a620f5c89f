"""The state of the machine while something is measured: its rate, and other work on it."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

LEAST_RATE = 0.85
"""of the best probe: a turn below it met the machine's slow state, or other work"""
MOST_LOAD = 0.3


def probe() -> float:
    """Rate of a float32 matrix product, in GFLOP/s: the machine has states of different speed."""
    values = np.ones((768, 768), np.float32)
    best = np.inf
    for _ in range(3):
        started = time.perf_counter()
        values @ values
        best = min(best, time.perf_counter() - started)
    return 2 * 768**3 / best / 1e9


def wait_for_quiet(minutes: float) -> None:
    """Waits until the machine has no other work.

    Raises:
      SystemExit: it has, still.
    """
    end = time.monotonic() + 60 * minutes
    while (load := os.getloadavg()[0]) > MOST_LOAD:
        if time.monotonic() > end:
            sys.exit(f"the machine has other work (load {load:.2f}, at most {MOST_LOAD}); try later, or --wait MINUTES")
        time.sleep(5)
