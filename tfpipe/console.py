"""The messages of a run: one line per choice or count, a progress bar for anything long."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tfpipe.escaping import without_commands

T = TypeVar("T")

console = Console(stderr=True, highlight=False, soft_wrap=True)

_shown: Progress | None = None  # what the terminal shows now
_said: set[str] = set()

SECONDS_BETWEEN_LINES = 15.0  # without a terminal, a bar would be noise: a line every so often instead


def say(message: str) -> None:
    """Prints one line to standard error, without control characters of its data; standard output is for results."""
    console.print(without_commands(message), markup=False)


def say_once(message: str, kind: str = "") -> None:
    """Prints a line unless this process has printed it before: it looks at files more than once.

    Args:
      message: the line.
      kind: of the message; of one kind, as of many files alike, only the first is printed.
    """
    if (kind or message) not in _said:
        _said.add(kind or message)
        say(message)


@contextmanager
def native_output_hidden() -> Iterator[None]:
    """Hides standard error for the block: native code writes messages of its own to it, past Python."""
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


class Bar:
    """Progress of one long step: `advance()` moves it, `note` shows a value that changes (a loss, a rate)."""

    def __init__(self, description: str, total: int | None, completed: int, progress: Progress | None):
        self._description, self._total, self._completed = description, total, completed
        self._started_at, self._first = time.monotonic(), completed
        self._printed_at = self._started_at
        self._progress = progress
        if progress is not None:
            self.task = progress.add_task(description, total=total, completed=completed, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Moves the bar by `count`; `note` is shown at its end."""
        self._completed += count
        if self._progress is not None:
            self._progress.update(self.task, advance=count, note=note)
            return
        now = time.monotonic()
        if now - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._printed_at = now
            if self._total is None:
                say(f"  {self._description}: {self._completed}  {note}")
                return
            done = self._completed - self._first
            left = (now - self._started_at) / done * (self._total - self._completed) if done > 0 else 0.0
            say(f"  {self._description}: {self._completed}/{self._total}, {left:.0f} s left  {note}")

    def skip(self, count: int) -> None:
        """Moves the bar by work that was done before: it took no time."""
        self._first += count
        self.advance(count)

    def back_to(self, completed: int) -> None:
        """Moves the bar back to where that much is done."""
        self.advance(completed - self._completed)


@contextmanager
def progress_bar(description: str, total: int | None, completed: int = 0) -> Iterator[Bar]:
    """Shows a bar with the time left on a terminal, elsewhere a line every 15 seconds; no time left without a total."""
    global _shown
    if not console.is_terminal:
        yield Bar(description, total, completed, None)
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    if _shown is not None:  # a bar within a bar, such as the evaluation within a training: a second line
        bar = Bar(description, total, completed, _shown)
        yield bar
        _shown.remove_task(bar.task)
        return
    with Progress(*columns, console=console) as _shown:
        try:
            yield Bar(description, total, completed, _shown)
        finally:
            _shown = None


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yields the items of an iterable under a progress bar."""
    with progress_bar(description, total) as bar:
        for item in items:
            yield item
            bar.advance()
