"""Findings about prepared data: `duplicates.jsonl`, `conflicting_labels.jsonl`, `statistics.json`, and warnings."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tfpipe.config.data import SPLITS
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.data.counts import Counts
from tfpipe.data.duplicates import IDENTICAL, NEAR, TWIN, Verdict
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.sources import folder_files
from tfpipe.data.labels.names import Labels
from tfpipe.data.rows import FILE_SHIFT
from tfpipe.data.survey import Survey
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

WARN_CUT_FRACTION = 0.05
WARN_UNKNOWN_FRACTION = 0.02
WARN_IMBALANCE = 20
WARN_NEAR_FRACTION = 0.05


def write_duplicates(
    config: Config, files: list[SourceFile], verdict: Verdict, near: list[list[Any]], directory: Path
) -> None:
    """Writes the duplicates, each with the row that it equals, and the texts that have several labels."""
    removed = config.data.duplicates.across_splits == "remove"
    where = _Locations(files)
    found = [(row, other, IDENTICAL, None) for row, other in verdict.identical.tolist()]
    found += [(row, other, TWIN, None) for row, other in verdict.twins.tolist()]
    found += [(row, other, NEAR, similarity) for row, other, similarity in near]
    with open(directory / "duplicates.jsonl", "w", encoding="utf-8") as file:
        for row, other, reason, similarity in sorted(found, key=lambda entry: entry[:3]):
            entry = where(row) | {"reason": reason, "other": where(other), "removed": removed or reason == IDENTICAL}
            entry |= {} if similarity is None else {"similarity": similarity}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    with open(directory / "conflicting_labels.jsonl", "w", encoding="utf-8") as file:
        for rows in verdict.conflicts:
            file.write(json.dumps({"rows": [where(row) for row in rows]}, ensure_ascii=False) + "\n")


class _Locations:
    """File and line of a row, from its id."""

    def __init__(self, files: list[SourceFile]):
        self._files = files
        self._paths: dict[int, list[str]] = {}

    def __call__(self, row_id: int) -> dict[str, Any]:
        file, number = self._files[row_id >> FILE_SHIFT], row_id & ((1 << FILE_SHIFT) - 1)
        if file.format != "folder":
            return {"file": file.name, "line": number}
        if file.number not in self._paths:
            self._paths[file.number] = folder_files(file)
        path = self._paths[file.number][number - 1]
        return {"file": file.name.rstrip("/") + path[len(file.path.rstrip("/")) :], "line": 1}


def statistics_of(
    config: Config,
    files: list[SourceFile],
    survey: Survey,
    labels: Labels,
    verdict: Verdict,
    near: list[list[Any]],
    counts: Counts,
) -> dict[str, Any]:
    """Collects the content of `statistics.json`."""
    totals, rows = counts.totals, sum(counts.rows.values())
    letters = counts.scripts.total()
    return {
        "files": len(files),
        "rows": {split: counts.rows[split] for split in SPLITS},
        "rows_per_label": {
            split: {name: counts.labels[f"{split} {index}"] for index, name in enumerate(labels.names)}
            for split in SPLITS
        },
        "filtered": survey.filtered,
        "unlabeled": survey.unlabeled,
        "rejected": dict(survey.rejected.most_common()),
        "duplicates": {
            "texts_that_repeat": verdict.texts_that_repeat,
            "texts_with_different_labels": len(verdict.conflicts),
            "identical_rows_dropped_from_train": len(verdict.identical),
            "rows_with_a_held_out_twin": len(verdict.twins),
            "rows_near_a_held_out_one": len(near),
            "across_splits": config.data.duplicates.across_splits,
        },
        "augmentation": {name: totals[name] for name in ("augmented", "unchanged", "equal_to_held_out", "oversampled")},
        "tokens_per_row": {split: _length_summary(counts.lengths, split) for split in SPLITS},
        "cut": {
            "rows": totals["rows_cut"],
            "row_fraction": round(totals["rows_cut"] / rows, 6),
            "token_fraction": round(totals["cut"] / (totals["cut"] + totals["written"]), 6),
        },
        "unknown_token_fraction": round(totals["unknown"] / totals["written"], 6),
        "scripts": {name: round(count / letters, 4) for name, count in counts.scripts.most_common()},
    }


def untrained(rows_per_label: dict[str, dict[str, int]]) -> dict[str, Counter[str]]:
    """Lists the labels that train lacks: held-out split -> label -> rows."""
    train, found = rows_per_label["train"], {}
    for split in SPLITS[1:]:
        lacking = Counter({name: rows for name, rows in rows_per_label[split].items() if rows and not train[name]})
        found |= {split: lacking} if lacking else {}
    return found


def _length_summary(lengths: Counter[str], split: str) -> dict[str, float]:
    """Summarizes the lengths of the rows before the cut, in tokens."""
    found = sorted((int(key.split()[1]), count) for key, count in lengths.items() if key.split()[0] == split)
    values, counts = (np.array(column) for column in zip(*found, strict=True))
    ranks = np.cumsum(counts)
    summary = {"mean": round(float((values * counts).sum() / ranks[-1]), 2)}
    for percent in (50, 90, 99):
        summary[f"p{percent}"] = int(values[np.searchsorted(ranks, percent / 100 * ranks[-1])])
    return summary | {"max": int(values[-1])}


def announce(
    statistics: dict[str, Any], settings: TokenizerSettings, check_seconds: float, undecided: int, config: Config
) -> None:
    """Reports the numbers of rows, and warns of data that may lower a result."""
    counts = ", ".join(f"{split} {count:,}" for split, count in statistics["rows"].items())
    rejected, duplicates, cut = sum(statistics["rejected"].values()), statistics["duplicates"], statistics["cut"]
    left_out = f"{statistics['filtered']:,} left out by the filter, "
    left_out += f"{statistics['unlabeled']:,} without a label, " if statistics["unlabeled"] else ""
    say(f"  rows: {counts}; {left_out}{rejected:,} rejected (rejected.jsonl)")
    did = "removed" if duplicates["across_splits"] == "remove" else "kept"
    say(
        f"  duplicates: {duplicates['identical_rows_dropped_from_train']:,} repeated training rows removed; "
        f"{duplicates['rows_with_a_held_out_twin']:,} exact and {duplicates['rows_near_a_held_out_one']:,} near "
        f"duplicates of held-out rows {did} (duplicates.jsonl); the check took {check_seconds:.1f} s"
    )
    if undecided:
        say(
            f"warning: {undecided:,} rows have more held-out rows that may be near than were compared, as texts "
            "made of a template have; raise data.duplicates.near_similarity, or set data.duplicates.near: false"
        )
    near = duplicates["rows_near_a_held_out_one"]
    train = statistics["rows"]["train"] + statistics["rows"]["validation"]
    if did == "removed" and near > WARN_NEAR_FRACTION * (near + train):
        say(
            f"warning: {near / (near + train):.0%} of the training and validation rows were near duplicates of "
            "held-out rows and were removed; if these texts are meant to be alike, raise "
            "data.duplicates.near_similarity, or set data.duplicates.near: false"
        )
    made = statistics["augmentation"]
    if any(made.values()):
        say(
            f"  augmentation: {made['augmented']:,} altered copies, {made['unchanged']:,} left out as nothing changed, "
            f"{made['equal_to_held_out']:,} as equal to a held-out row; "
            f"{made['oversampled']:,} repetitions of rarer labels"
        )
    p50, p99 = (statistics["tokens_per_row"]["train"][name] for name in ("p50", "p99"))
    say(f"  tokens: median {p50}, 99th percentile {p99}, data.max_length {config.data.max_length}")
    if cut["row_fraction"] > WARN_CUT_FRACTION:
        say(
            f"warning: {cut['row_fraction']:.1%} of the rows are longer than data.max_length and were cut "
            f"({cut['token_fraction']:.1%} of all tokens); raise data.max_length to use them whole"
        )
    if statistics["unknown_token_fraction"] > WARN_UNKNOWN_FRACTION:
        script = next(iter(statistics["scripts"]), "no script at all")
        say(
            f"warning: {statistics['unknown_token_fraction']:.1%} of the tokens are {settings.unk_token}; the text is "
            f"mostly {script}: is the encoder's vocabulary ({len(settings.vocabulary):,} pieces) one for it?"
        )
    if duplicates["texts_with_different_labels"]:
        say(
            f"warning: {duplicates['texts_with_different_labels']:,} texts occur with different labels; all are kept "
            "(conflicting_labels.jsonl)"
        )
    for split, labels in statistics["rows_per_label"].items():
        missing = [name for name, count in labels.items() if not count]
        if missing:
            say(f"warning: {split} has no row of label {', '.join(missing[:10])}; its figures say nothing about it")
    train = Counter(statistics["rows_per_label"]["train"])
    (common, most), (rare, least) = train.most_common()[0], train.most_common()[-1]
    if least and most >= WARN_IMBALANCE * least:
        say(
            f"warning: train has {most:,} rows of label {common} and {least:,} of {rare}; "
            "consider train.class_weights: balanced, or data.balance: oversample"
        )
