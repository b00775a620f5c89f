"""Slices: the accuracy of a variant on parts of the test rows, the worst first.

Enters: the answers that `verify` stored, and the rows. Leaves: for each variant a line for each slice, by token length,
label, source file and the columns of `report.slices`, with an interval and a test against all other rows.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfpipe import metrics
from tfpipe.data.slices import read_slices
from tfpipe.evaluate.answers import Answers
from tfpipe.tasks import task_of
from tfpipe.tokens.table import FILE_SHIFT

METRIC = "accuracy"
LEAST_ROWS = 10
"""rows from which a slice has a line of its own"""
MOST_VALUES = 20
"""different texts of a column that have slices of their own"""
MOST_NUMBERS = 10
"""different numbers of a column that have slices of their own; more are cut into quartiles"""
SIGNIFICANCE = 0.05
NO_VALUE = "no value"
_NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)?(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")  # not 007, which is a name


class Slice(NamedTuple):
    """A part of the test rows."""

    by: str
    """`length`, `label`, `source`, or the column"""
    name: str
    rows: np.ndarray
    """[test rows] bool"""
    merged: bool = False
    """whether it is what is left of several small ones: it has no test of its own"""


def of_run(answers: Answers, prepared: Path) -> dict[str, list[dict[str, Any]]]:
    """Scores the slices of each variant of a run: see `scored`.

    Args:
      answers: of the variants to the test rows.
      prepared: directory of `prepare`.
    """
    table, rows = answers.table, answers.rows
    columns = read_slices(prepared, table.row_ids[rows])
    slices = [
        *by_length(table.lengths[rows]),
        *by_label(answers.labels, answers.names, answers.task),
        *by_source(table.sources(rows), table.row_ids[rows] >> FILE_SHIFT),
        *(each for column, values in columns.items() for each in by_values(column, values)),
    ]
    cut = with_small_ones_merged(slices)
    return {variant: scored(cut, answers.right(variant)) for variant in answers.logits}


def scored(slices: Sequence[Slice], right: np.ndarray) -> list[dict[str, Any]]:
    """Scores slices; those with the lowest upper bound first.

    Args:
      slices: at least one row each.
      right: [test rows] bool, the rows that are answered right.

    Returns:
      For each slice `by`, `slice`, `rows`; `value`, its accuracy, with the 95 % bounds `low` and `high` (Wilson's);
      `p`: the chance that so few rows were right if it were as easy as all other rows, by Fisher's exact test with
      Holm's correction for the number of slices, None for the rest of several small slices; `worse`: whether its
      interval lies below the accuracy of all rows and `p` is at most 5 %.
    """
    tested = {at: _fisher(right, each.rows) for at, each in enumerate(slices) if not each.merged}
    p_values, overall, found = metrics.holm(tested), float(right.mean()), []
    for at, each in enumerate(slices):
        rows, value, p = int(each.rows.sum()), float(right[each.rows].mean()), p_values.get(at)
        low, high = metrics.wilson_interval(value, rows)
        found.append(
            {
                "by": each.by,
                "slice": each.name,
                "rows": rows,
                "value": value,
                "low": low,
                "high": high,
                "p": p,
                "worse": p is not None and high < overall and p <= SIGNIFICANCE,
            }
        )
    return sorted(found, key=lambda line: (line["high"], line["value"]))


def with_small_ones_merged(slices: Sequence[Slice]) -> list[Slice]:
    """Merges the slices of fewer than 10 rows of each kind into a line without a test; a single one keeps its name."""
    found = [each for each in slices if each.rows.sum() >= LEAST_ROWS]
    for by in dict.fromkeys(each.by for each in slices):
        small = [each for each in slices if each.by == by and 0 < each.rows.sum() < LEAST_ROWS]
        if small:
            rows = np.any([each.rows for each in small], axis=0)
            name = small[0].name if len(small) == 1 else f"{len(small)} slices of fewer than {LEAST_ROWS} rows"
            found.append(Slice(by, name, rows, merged=True))
    return found


def by_length(lengths: np.ndarray) -> list[Slice]:
    """Cuts rows by their tokens, [rows] int, into four parts of about as many rows."""
    bins = _quartiles(lengths.astype(np.float64))
    return [Slice("length", f"{name} tokens", rows) for name, rows in bins] if len(bins) > 1 else []


def by_label(labels: np.ndarray, names: Sequence[str], task: str) -> list[Slice]:
    """Cuts rows by their labels, [rows, labels] float; of several labels a row, a row is in several slices."""
    truth = labels > 0.5
    found = [Slice("label", name, truth[:, at]) for at, name in enumerate(names)]
    if not task_of(task).one_label:
        found.append(Slice("label", "no label", ~truth.any(axis=1)))
    return found


def by_source(shown: Sequence[str], numbers: np.ndarray) -> list[Slice]:
    """Cuts rows by their file, where there are several.

    Args:
      shown: the file of each row; in a folder of texts, the text's own.
      numbers: [rows] int64, number of the file, or of the folder.
    """
    if len(set(numbers.tolist())) < 2:
        return []
    of_file: dict[int, dict[str, None]] = {}
    for number, name in zip(numbers.tolist(), shown, strict=True):
        of_file.setdefault(number, {})[name] = None
    names = {number: _joint(list(each)) for number, each in of_file.items()}
    folder = _joint(list(names.values()))
    short = {number: name.removeprefix(folder).removeprefix("/") or name for number, name in names.items()}
    return _of_texts("source", [short[number] for number in numbers.tolist()])


def _joint(paths: list[str]) -> str:
    """Returns the folders that paths share; of one path, the path."""
    parts = zip(*(path.split("/") for path in paths), strict=False)
    return "/".join(each[0] for each in itertools.takewhile(lambda each: len(set(each)) == 1, parts))


def by_values(column: str, values: Sequence[str | None]) -> list[Slice]:
    """Cuts rows by the values of a column: texts as they are, many numbers into quartiles, missing values apart."""
    given = {value for value in values if value is not None}
    if len(given) > MOST_NUMBERS and all(map(_is_number, given)):
        numbers = np.array([math.nan if value is None else float(value) for value in values])
        found = [Slice(column, name, rows) for name, rows in _quartiles(numbers)]
    else:
        found = _of_texts(column, values)
    missing = np.array([value is None for value in values])
    return [*found, *([Slice(column, NO_VALUE, missing)] if missing.any() else [])]


def _of_texts(by: str, values: Sequence[str | None]) -> list[Slice]:
    counts = Counter(value for value in values if value is not None)
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    own = ordered if len(ordered) <= MOST_VALUES else ordered[: MOST_VALUES - 1]
    found = [Slice(by, value, np.array([each == value for each in values])) for value in own]
    if others := set(ordered[len(own) :]):
        found.append(Slice(by, f"other values ({len(others)})", np.array([each in others for each in values])))
    return found


def _quartiles(values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Cuts numbers into up to four bins, named by the least and the largest number in each; NaN is in none."""
    known = values[~np.isnan(values)]
    edges = np.unique(np.percentile(known, (25, 50, 75), method="lower"))
    place = np.searchsorted(edges, values)  # a number that is an edge belongs to the lower bin
    found = []
    for at in range(len(edges) + 1):
        rows = (place == at) & ~np.isnan(values)
        if rows.any():
            low, high = float(values[rows].min()), float(values[rows].max())
            found.append((_shown(low) if low == high else f"{_shown(low)} to {_shown(high)}", rows))
    return found


def _shown(number: float) -> str:
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:.6g}"


def _is_number(value: str) -> bool:
    return _NUMBER.fullmatch(value) is not None and value.strip("+-") != "" and math.isfinite(_as_float(value))


def _as_float(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _fisher(right: np.ndarray, rows: np.ndarray) -> float:
    """Tests whether a slice is harder than all other rows: Fisher's exact test, one-sided.

    Args:
      right: [rows] bool.
      rows: [rows] bool, those of the slice.
    """
    from scipy.stats import hypergeom

    return float(min(hypergeom.cdf((right & rows).sum(), len(right), right.sum(), rows.sum()), 1.0))
