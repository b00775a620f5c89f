"""The colors of plots: drawn in those of a light page, which stand for variables that a dark page sets to others."""

from __future__ import annotations

TEXT = "#1f2328"
LINE = "#c9d1d9"
FAINT = "#57606a"
SERIES = ("#0b5394", "#b35900", "#1a7f37", "#8250df", "#bf3989", "#1b7c83")
"""of lines and points, each with a contrast of 3 and more against white"""
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
INKS = {TEXT: "currentColor", LINE: "var(--line)", FAINT: "var(--faint)"} | {
    color: f"var(--series-{number})" for number, color in enumerate(SERIES, start=1)
}
"""color in a figure -> color in a page"""
