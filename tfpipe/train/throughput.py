"""The speed of a fit, in examples and tokens per second, and the share of padding among the tokens that it computes.

Enters: the times of steps, and the plan, which knows their tokens. Leaves: rates for the console, the record and
TensorBoard. The share of real tokens is a function of the plan alone: a resumed fit has that of one that never stopped.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from tfpipe.tokens.plan import Plan

RECENT_CALLS = 20
"""of the compiled step, over which the rates of now are taken"""


class Done(NamedTuple):
    """The work of some steps."""

    seconds: float = 0.0
    examples: int = 0
    tokens: int = 0
    """of the examples, padding left out"""

    def plus(self, other: Done) -> Done:
        """Adds the work of other steps."""
        return Done(*(mine + its for mine, its in zip(self, other, strict=True)))

    @property
    def examples_per_second(self) -> float:
        """Gives the examples per second; 0 where nothing was timed."""
        return self.examples / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Gives the real tokens per second; 0 where nothing was timed."""
        return self.tokens / self.seconds if self.seconds else 0.0


class Throughput:
    """The rates of the steps themselves: tracing, evaluation and checkpoints are left out."""

    def __init__(self, plan: Plan, rows: int):
        """Starts with nothing timed.

        Args:
          plan: of the steps.
          rows: of a batch, with those that fill it up for replicas and micro-batches.
        """
        self._plan, self._filled = plan, rows / plan.batching.rows
        self._last: deque[Done] = deque(maxlen=RECENT_CALLS)
        self._traced: set[int] = set()
        self._began = 0.0
        self.overall = Done()
        """all steps that were timed"""

    def begins(self) -> None:
        """Notes that a call of the compiled step begins."""
        self._began = time.monotonic()

    def ends(self, first: int, count: int) -> None:
        """Notes that a call ended, which made `count` steps from `first` on, counted from 0."""
        if count in self._traced:
            examples = self._plan.examples_before(first + count) - self._plan.examples_before(first)
            tokens = sum(self._plan.tokens(step)[0] for step in range(first, first + count))
            done = Done(time.monotonic() - self._began, examples, tokens)
            self._last.append(done)
            self.overall = self.overall.plus(done)
        self._traced.add(count)  # the first of each number traces

    @property
    def recent(self) -> Done:
        """Gives the last calls together."""
        total = Done()
        for done in self._last:
            total = total.plus(done)
        return total

    def token_efficiency(self, first: int, last: int) -> float:
        """Gives the share of the computed tokens that are real, over the steps from `first` up to `last`, from 0."""
        real, computed = zip(*(self._plan.tokens(step) for step in range(first, last + 1)), strict=True)
        return sum(real) / (sum(computed) * self._filled)
