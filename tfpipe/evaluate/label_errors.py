"""Label errors: rows whose given label is likely wrong, by confident learning (Northcutt et al., 2021; cleanlab).

Enters: the calibrated answers of the dense model. Leaves: `label_errors.jsonl`, a line for each row that is doubted;
their numbers, for `metrics.json`; and the first of them, for `rows.json`. The model has not seen the test rows. It has
seen the training rows with the labels that they were given, so it agrees with more of these than it should: it finds
fewer errors, and not more false ones. Models that have not seen them, on the frozen states of the encoder, were
measured and are worse: `docs/measures.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tfpipe.config.run import Config
from tfpipe.console import progress_bar, say
from tfpipe.devices.strategy import float32_kept
from tfpipe.encoders.parameters import encoder_size
from tfpipe.evaluate.answers import Answers
from tfpipe.evaluate.calibration import calibration_of, validation_logits
from tfpipe.evaluate.loaded import batches_of, exported_classifier
from tfpipe.files import write_text
from tfpipe.formats import keras
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tasks import Decision, task_of
from tfpipe.tokens.table import TokenTable

FILE = "label_errors.jsonl"
LEAST_ROWS = 5
"""rows with a label below which no row is doubted for it"""
SHOWN = 20
"""lines of a split that `rows.json` has"""
SHOWN_CHARACTERS = 500
_DIGITS = 6
_MOST_OPERATIONS = 4e12
"""of the training rows, where the configuration names no number: about 20 seconds of a processor with two cores"""


class Judged(NamedTuple):
    """Rows of a split, and the answers to them."""

    split: str
    table: TokenTable
    rows: np.ndarray
    """[n] int64, indices in the table"""
    logits: np.ndarray
    """[n, labels] float, calibrated"""


class Undecided(Exception):
    """Rows or answers that tell nothing about wrong labels, and why."""


def of_run(
    config: Config, stage: StageDirectory, answers: Answers
) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Searches the rows of a run, and writes `label_errors.jsonl`.

    Args:
      config: the configuration.
      stage: at work.
      answers: of the variants to the test rows.

    Returns:
      Split -> `rows` that were examined; `seen`, whether the model was trained on them; `found` of them, None where
      there is no answer, for a `reason`. Training rows are left out where `report.label_errors` is 0. And split -> the
      first lines of the file that are about it, long texts cut, with `row`, its index in the table.
    """
    summary, shown = {}, {}
    decision = answers.decisions["dense"]._replace(abstain_below=None)
    lines: list[dict[str, Any]] = []
    for judged in _splits(config, stage, answers):
        found, reason, rows, doubted = None, None, 0, []
        try:
            labels = judged.table.labels[judged.rows]
            doubted, confidence, rows = likely_errors(judged.logits, labels, config.task)
            found = _lines(judged, doubted, confidence, answers.names, config.task, decision)
        except Undecided as undecided:
            reason = str(undecided)
        summary[judged.split] = {
            "rows": rows,
            "seen": judged.split == "train",
            "found": None if found is None else len(found),
            "reason": reason,
        }
        shown[judged.split] = [
            line | {"row": row, "text": _cut(line["text"]), "text_pair": _cut(line["text_pair"])}
            for line, row in zip(found or (), judged.rows[doubted].tolist(), strict=True)
        ][:SHOWN]
        lines += found or []
    write_text(stage.path / FILE, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    for split, each in summary.items():
        if each["found"] is None:
            say(f"  {split} rows are not searched for wrong labels: {each['reason']}")
        else:
            said = f"{each['found']:,} of {each['rows']:,} {_NAMES[split]} rows are likely mislabeled"
            say(f"  {said}{f': {stage.path / FILE}' if each['found'] else ''}")
    return summary, shown


_NAMES = {"test": "test", "validation": "validation", "train": "training"}


def likely_errors(logits: np.ndarray, labels: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Finds rows whose labels are likely wrong.

    A label that few rows have is left out: of one label a row, its rows are not examined; of several labels a row, no
    row is doubted for it.

    Args:
      logits: [rows, labels] float, calibrated.
      labels: the same shape, one-hot or multi-hot: those given.
      task: `single_label` or `multi_label`.

    Returns:
      [n] int64, the rows that are doubted, those whose labels are least probable first; [n] float64, the probability
      of their given labels (of several, of the least probable one, given or not); and the number of examined rows.

    Raises:
      Undecided: too few rows, or answers that are not finite.
    """
    if not np.isfinite(logits).all():
        raise Undecided("the model's answers to them are not finite")
    truth, one_label = labels > 0.5, task_of(task).one_label
    counts = truth.sum(axis=0) if one_label else np.minimum(truth.sum(axis=0), (~truth).sum(axis=0))
    known = np.flatnonzero(counts >= LEAST_ROWS)
    if len(known) < (2 if one_label else 1):
        raise Undecided(
            f"fewer than two labels have {LEAST_ROWS} rows" if one_label else f"no label has {LEAST_ROWS} rows"
        )
    probability = task_of(task).probabilities(logits)[:, known]
    truth = truth[:, known]
    if one_label:
        examined = np.flatnonzero(truth.any(axis=1))
        probability, truth = probability[examined], truth[examined]
        total = probability.sum(axis=1, keepdims=True)
        probability = np.where(total > 0.0, probability / np.maximum(total, np.finfo(float).tiny), 1.0 / len(known))
        given = truth.argmax(axis=1)
        confidence = probability[np.arange(len(given)), given]
        doubted = _of_one_label(given, probability)
    else:
        examined = np.arange(len(truth))
        confidence = np.where(truth, probability, 1.0 - probability).min(axis=1)
        doubted = _of_several_labels(truth, probability)
    found = np.flatnonzero(doubted)
    found = found[np.argsort(confidence[found], kind="stable")]
    return examined[found], confidence[found], len(examined)


def _of_one_label(given: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Finds doubtful labels by cleanlab: [rows] int, [rows, labels] float64 -> [rows] bool."""
    from cleanlab.filter import find_label_issues

    return find_label_issues(given, probability, n_jobs=1)


def _of_several_labels(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Finds doubtful labels by cleanlab: [rows, labels] bool, [rows, labels] float64 -> [rows] bool."""
    from cleanlab.multilabel_classification.filter import find_label_issues

    return find_label_issues([np.flatnonzero(row).tolist() for row in truth], probability, n_jobs=1)


def _splits(config: Config, stage: StageDirectory, answers: Answers) -> Iterator[Judged]:
    """Yields each split with answers to its rows."""
    prepared, exported = stage.inputs["prepare"], stage.inputs["export"]
    yield Judged("test", answers.table, answers.rows, answers.logits["dense"])
    table, temperature = TokenTable.open(prepared / "validation"), calibration_of(exported, "dense").temperature
    logits = validation_logits(stage.inputs["train"]) / np.float32(temperature)
    yield Judged("validation", table, np.arange(table.num_rows), logits)
    if config.report.label_errors != 0:
        yield _training_rows(config, stage, TokenTable.open(prepared / "train"))


@float32_kept()
def _training_rows(config: Config, stage: StageDirectory, table: TokenTable) -> Judged:
    """Answers a sample of the training rows by the dense model; altered copies are left out."""
    classifier = exported_classifier(stage.inputs["train"], stage.inputs["export"], "dense")
    drawn = np.random.default_rng(config.seed).permutation(np.flatnonzero(table.copies == 0))
    most = config.report.label_errors
    if most is None:
        operations = 2.0 * encoder_size(classifier.weights) * np.cumsum(table.lengths[drawn], dtype=np.float64)
        most = max(int((operations <= _MOST_OPERATIONS).sum()), LEAST_ROWS)
    if most < len(drawn):
        say(f"  {most:,} of {len(drawn):,} training rows are searched for wrong labels (report.label_errors)")
    rows, answer = np.sort(drawn[:most]), keras.answer(classifier)
    logits = np.zeros((len(rows), table.num_labels), np.float32)
    with progress_bar("label errors (training rows)", len(rows)) as bar:
        for chunk, batch in batches_of(table, rows, config.verify.batch_size):
            logits[np.searchsorted(rows, chunk)] = answer.ask(batch)
            bar.advance(len(chunk))
    return Judged("train", table, rows, logits)


def _lines(
    judged: Judged,
    doubted: np.ndarray,
    confidence: np.ndarray,
    names: tuple[str, ...],
    task: str,
    decision: Decision,
) -> list[dict[str, Any]]:
    """Describes rows that are doubted, a line each."""
    kind, table, rows = task_of(task), judged.table, judged.rows[doubted]
    given = kind.label_texts(table.labels[rows] - 0.5, names)
    predicted = kind.label_texts(judged.logits[doubted], names, decision)
    probability = kind.probabilities(judged.logits[doubted])
    # The label that the model is surest of, against the one that is given; of several, the one that is least as given.
    against = probability if kind.one_label else np.abs(probability - (table.labels[rows] > 0.5))
    texts = (table.texts(rows), table.text_pairs(rows), table.sources(rows))
    columns = (rows, *texts, given, predicted, against.argmax(axis=1).tolist(), confidence)
    return [
        {
            "split": judged.split,
            "row_id": int(table.row_ids[row]),
            "source": source,
            "line": int(table.lines[row]),
            "text": text,
            "text_pair": pair,
            "given": label,
            "predicted": answer,
            "label": names[doubted_label],
            "self_confidence": round(float(share), _DIGITS),
        }
        for row, text, pair, source, label, answer, doubted_label, share in zip(*columns, strict=True)
    ]


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
