"""Numbers as a reader sees them: rounded, but never to a claim that the number does not make."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float, digits: int = 2) -> str:
    """Writes a share as a percentage without its sign; 100 and 0 mean all and none, and are never rounded numbers."""
    text, least = f"{share * 100:.{digits}f}", 10.0**-digits
    if share < 1.0 and text == f"{100:.{digits}f}":
        return f">{100.0 - least:.{digits}f}"
    return f"<{least:.{digits}f}" if share > 0.0 and float(text) == 0.0 else text


def with_interval(share: float, interval: Sequence[float]) -> str:
    """Writes a share and the bounds of its interval, not always equally far: `82.55 (80.64 to 84.30)`, in percent."""
    low, high = interval
    return f"{percent(share)} ({low * 100:.2f} to {high * 100:.2f})"


def change_with_interval(change: float, interval: Sequence[float]) -> str:
    """Writes a change in points and the bounds of its interval: `-0.73 (-1.96 to +0.50)`."""
    low, high = interval
    return f"{change * 100:+.2f} ({low * 100:+.2f} to {high * 100:+.2f})"


def amount(value: float) -> str:
    """Writes a positive number of milliseconds or megabytes: a decimal, below 1 two significant digits."""
    return f"{value:.1f}" if value >= 1.0 or value == 0.0 else f"{value:.2g}"


def rows_measured(rows: int, of: int, split: str = "test") -> str:
    """Names the rows that a number is over: all of a split, or a sample."""
    return f"all {of:,} {split} rows" if rows == of else f"a random sample of {rows:,} of {of:,} {split} rows"
