"""A profile of some steps, in the form that TensorBoard's profile plugin opens.

Enters: the setting `train.profile_steps`. Leaves: `plugins/profile/<time>/<host>.xplane.pb` in the stage's `logs/`,
where the plugin looks. TensorFlow's profiler watches the steps; it computes none of them, so no result depends on it.
The profile is a setting, not an option of a command: all four stages that train have it, on every worker. The option is
`--set train.profile_steps=[10,15]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import tensorflow as tf

from tfpipe.console import say


class Profile:
    """The profile of one fit; without steps, nothing. As a context, it ends with the fit."""

    def __init__(self, steps: tuple[int, int] | None, logs: Path, total_steps: int):
        """Asks nothing of TensorFlow yet.

        Args:
          steps: the first and the last, counted from 1; None: no profile.
          logs: directory of the event files.
          total_steps: of the fit.
        """
        self._first, self._last = steps or (0, 0)
        self._logs, self._running = logs, False
        if self._first > total_steps:
            say(f"  train.profile_steps {list(steps)}: no effect here, as there are {total_steps} steps")

    @contextmanager
    def around(self, first: int, count: int) -> Iterator[None]:
        """Watches one call of the compiled step, where it makes steps that were asked for.

        Args:
          first: number of its first step, from 0.
          count: how many steps it makes.
        """
        if first >= self._last or first + count < self._first:
            yield
            return
        if not self._running:
            self._start()
        with tf.profiler.experimental.Trace("train", step_num=first + 1, _r=1):
            yield
        if first + count >= self._last:
            self._stop()

    def _start(self) -> None:
        tf.profiler.experimental.start(str(self._logs))
        self._running = True

    def _stop(self) -> None:
        if self._running:
            tf.profiler.experimental.stop()
            say(f"  profile of steps {self._first} to {self._last}: {self._logs / 'plugins' / 'profile'}")
            self._first, self._last, self._running = 0, 0, False  # a fit that goes back has its profile

    def __enter__(self) -> Profile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
