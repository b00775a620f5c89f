"""Tables beside plots, with the same numbers, and those of data, calibration and slices."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe

from tfpipe.evaluate.page.tables import NOTHING, Cell, heading, number, score, share, stacked, table
from tfpipe.metrics import SHOWN

_LEVELS = tuple(level / 10 for level in range(1, 11))
_DUPLICATES = {
    "texts_that_repeat": "texts that occur again",
    "texts_with_different_labels": "of these, with different labels",
    "identical_rows_dropped_from_train": "identical rows left out of training",
    "rows_with_a_held_out_twin": "training rows equal to a held-out row",
    "rows_near_a_held_out_one": "training rows close to a held-out row",
}
_AUGMENTED = {
    "augmented": "altered copies of training rows",
    "unchanged": "copies that came out as their row",
    "equal_to_held_out": "copies equal to a held-out row",
    "oversampled": "repeated rows of rare labels",
}


def splits(data: Mapping[str, Any]) -> markupsafe.Markup:
    """Shows how many rows each split has, and how long they are before the cut."""
    names = {"mean": "mean", "p50": "median", "p90": "90 %", "p99": "99 %", "max": "longest"}
    rows = [
        [
            split,
            f"{data['rows'][split]:,}",
            *(_plain((data["tokens_per_row"].get(split) or {}).get(name)) for name in names),
        ]
        for split in data["rows"]
    ]
    return table(
        "Rows and tokens of each split", ["split", "rows", *(f"tokens, {each}" for each in names.values())], rows
    )


def balance(data: Mapping[str, Any], names: Sequence[str]) -> markupsafe.Markup:
    """Shows how often each label occurs in each split."""
    counts = data["rows_per_label"]
    rows = [
        [
            name,
            *(
                Cell(f"{counts[split].get(name, 0):,}", note=_part(counts[split].get(name, 0), data["rows"][split]))
                for split in counts
            ),
        ]
        for name in names
    ]
    return table("Rows of each label", ["label", *counts], rows)


def left_out(data: Mapping[str, Any]) -> markupsafe.Markup:
    """Shows which rows are not in the splits, or not as they were, and why."""
    found = {"left out by the filter": data["filtered"], "without a label": data["unlabeled"]}
    found |= {f"rejected: {reason}": count for reason, count in data["rejected"].items()}
    found |= {text: data["duplicates"][name] for name, text in _DUPLICATES.items() if name in data["duplicates"]}
    found |= {text: data["augmentation"][name] for name, text in _AUGMENTED.items() if data["augmentation"].get(name)}
    found["cut at data.max_length"] = data["cut"]["rows"]
    return table("What became of the other rows", ["rows", "number"], [[name, f"{n:,}"] for name, n in found.items()])


def lengths(data: Mapping[str, Any]) -> markupsafe.Markup:
    """Shows the numbers of the histogram."""
    edges, by_split = data["lengths"]["edges"], data["lengths"]["rows"]
    rows = [
        [f"{low:,} to {high - 1:,}", *(f"{counts[at]:,}" for counts in by_split.values())]
        for at, (low, high) in enumerate(itertools.pairwise(edges))
    ]
    return table("Rows by their length in tokens, as the model reads them", ["tokens", *by_split], rows)


def history(entries_by_stage: Mapping[str, Sequence[Mapping[str, Any]]]) -> markupsafe.Markup:
    """Shows every evaluation of every training."""
    names = [name for name in SHOWN if name in next(iter(entries_by_stage.values()))[0]]
    rows = [
        [stage, f"{entry['epoch']:.2f}", f"{entry['step']:,}", *(number(entry.get(name)) for name in names)]
        for stage, entries in entries_by_stage.items()
        for entry in entries
    ]
    headings = ["training", "epoch", "step", *(name.replace("_", " ") for name in names)]
    return table("Evaluations on the validation rows", headings, rows)


def precision_recall(curves: Mapping[str, Any], variant: str) -> markupsafe.Markup:
    """Shows the largest precision of each curve from some recalls on."""
    rows = []
    for curve in curves["curves"]:
        points = list(zip(curve["recall"], curve["precision"], strict=True))
        best = [max((p for r, p in points if r >= level - 1e-9), default=None) for level in _LEVELS]
        rows.append([curve["label"] if curve["label"] is not None else "all labels", *map(share, best)])
    headings = ["label", *(f"{level:.0%}" for level in _LEVELS)]
    return table(f"Precision of {variant} in %, by the recall that is reached", headings, rows)


def reliability(series: Mapping[str, Sequence[Mapping[str, Any]]]) -> markupsafe.Markup:
    """Shows the bins of the reliability diagram."""
    rows = [
        [
            name,
            f"{share(each['low'])} to {share(each['high'])}",
            f"{each['rows']:,}",
            share(each["confidence"]),
            share(each["accuracy"]),
        ]
        for name, bins in series.items()
        for each in bins
    ]
    headings = ["answers", "probability %", "rows", "mean probability %", "right %"]
    return table("How often answers are right, by their probability", headings, rows)


def calibration(facts: Mapping[str, Any]) -> markupsafe.Markup:
    """Shows the effects of the calibration of each variant on the validation rows."""
    rows = [
        [
            variant,
            f"{each['temperature']:g}",
            _moved(each, "calibration_error"),
            _moved(each, "loss"),
            _moved(each, "brier"),
            NOTHING if each["abstain_below"] is None else f"{each['abstain_below']:.4g}",
        ]
        for variant, each in facts.items()
    ]
    headings = ["variant", "temperature", "calibration error", "loss", "brier", "no answer below"]
    return table("Calibration, on validation rows, before and after", headings, rows)


def thresholds(facts: Mapping[str, Any], names: Sequence[str]) -> markupsafe.Markup:
    """Shows the probability above which each variant gives a label."""
    with_some = {variant: each["thresholds"] for variant, each in facts.items() if each["thresholds"]}
    rows = [[name, *(f"{each[name]:.3g}" for each in with_some.values())] for name in names]
    return table("Thresholds of each label", ["label", *with_some], rows)


def coverage(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> markupsafe.Markup:
    """Shows which probability answers which share of rows at which precision."""
    rows = [
        [variant, f"{each['threshold']:.4f}", share(each["coverage"]), share(each["precision"])]
        for variant, points in curves.items()
        for each in points
    ]
    headings = ["variant", "least probability", "answered %", "of these right %"]
    return table("Coverage and precision, on validation rows", headings, rows)


def slices(variant: str, found: Sequence[Mapping[str, Any]], metric: str) -> markupsafe.Markup:
    """Shows the score of each slice of the test rows, the worst first, as they come."""
    rows = []
    for each in found:
        p = NOTHING if each["p"] is None else f"{each['p']:.3g}{' worse' if each['worse'] else ''}"
        rows.append([str(each["by"]), str(each["slice"]), f"{each['rows']:,}", stacked(score(metric, each)), p])
    headings = ["by", "slice", "rows", heading(metric), "p (Fisher, Holm)"]
    return table(f"Slices of the test rows, {variant}, the worst first, with 95 % intervals", headings, rows, words=2)


def _moved(facts: Mapping[str, Any], name: str) -> str:
    return f"{number(facts['before'][name])} → {number(facts['after'][name])}"


def _part(count: int, total: int) -> str:
    return f"{share(count / total)} %" if total else NOTHING


def _plain(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,g}"
