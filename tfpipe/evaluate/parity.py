"""Parity: the distance of each artifact's answers from those of the Keras model that it came from, and its limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tfpipe import metrics
from tfpipe.artifacts import REFERENCE, format_named
from tfpipe.config.export import Verify
from tfpipe.config.run import Config
from tfpipe.console import progress_bar
from tfpipe.devices.processor import CLIPS, cpu_flags, sums_overflow
from tfpipe.evaluate.loaded import Artifact, Loaded, batches_of
from tfpipe.formats.base import Answer, Requests
from tfpipe.tasks import PLAIN, Decision
from tfpipe.tokens.table import TokenTable

_CLOSE = 1.1
"""times as much as in batches, a probability may move alone: rounding of floats"""


class Logits(NamedTuple):
    """Answers, [rows, labels] float32 each."""

    rows: np.ndarray
    """to rows of the test split"""
    hard: np.ndarray
    """to the hard texts"""


class Answered(NamedTuple):
    """An artifact, and its answers."""

    artifact: Artifact
    batched: Logits
    """the rows of `measured`, `verify.batch_size` at a time"""
    alone: Logits
    """the rows of `measured_alone`, one at a time"""
    by_token_ids: int = 0
    """how many of the answers in batches are those of the artifact's way by token ids: see `answer`"""


def measured(table: TokenTable, config: Config) -> np.ndarray:
    """Samples the rows of the test split on which a run is measured: `verify.rows` of them, [rows] int64, rising."""
    return table.sample(config.verify.rows, config.seed)


def measured_alone(table: TokenTable, config: Config) -> np.ndarray:
    """Samples the rows that are also asked one at a time: `verify.small_batch_rows` of them, [rows] int64, rising."""
    return table.sample(min(config.verify.small_batch_rows, config.verify.rows), config.seed)


def answer(ways: list[Loaded], table: TokenTable, hard: Requests, config: Config) -> list[Answered]:
    """Asks an artifact in each of its ways: the rows of `measured` in batches, fewer alone, and the hard texts at both.

    A way that takes texts may share its function with a way that takes token ids (`Answer.tokenize`). Every row's token
    ids of such a way are compared with those of the table. If a batch has the same ids, its answers are those of the
    other way, and are not computed again. Alone, the texts themselves are asked.

    Args:
      ways: to ask one artifact; one that takes token ids comes before one that shares its function.
      table: the test split.
      hard: the hard texts.
      config: the configuration.
    """
    first, found = ways[0].artifact, []
    asked = len(measured(table, config)) + len(measured_alone(table, config))
    with progress_bar(f"verify {first.variant} {first.format}", len(ways) * asked) as bar:
        for way in ways:
            known = _Known(way.answer, measured(table, config), found[0].batched.rows if found else None)
            found.append(_answered(way, known, table, hard, config, bar.advance))
    return found


def _answered(
    way: Loaded, known: _Known, table: TokenTable, hard: Requests, config: Config, after: Callable[[int], None]
) -> Answered:
    """Asks an artifact in one way; `known` answers the batches, and `after` is called after each batch."""
    ask, size = way.answer.ask, config.verify.batch_size
    batched = _answers_to(table, measured(table, config), size, known.ask, after)
    alone = _answers_to(table, measured_alone(table, config), 1, lambda _, row: ask(row), after)
    return Answered(
        way.artifact,
        Logits(batched, _in_parts(ask, hard, size)),
        Logits(alone, _in_parts(ask, hard, 1)),
        known.count,
    )


class _Known:
    """A way to ask batches that knows the answers to texts whose token ids have been answered."""

    def __init__(self, answer: Answer, rows: np.ndarray, logits: np.ndarray | None):
        """Prepares to answer.

        Args:
          answer: the way to ask.
          rows: [rows] int64, rising.
          logits: [rows, labels] float32, answers to their token ids by the same function; None: there are none.
        """
        self._answer, self._rows, self._logits = answer, rows, logits
        self.count = 0
        """rows whose answers were known"""

    def ask(self, chunk: np.ndarray, batch: Requests) -> np.ndarray:
        """Answers rows of the table: [batch, labels] float32."""
        if self._logits is None or self._answer.tokenize is None:
            return self._answer.ask(batch)
        ids = self._answer.tokenize(batch)
        if not all(np.array_equal(ids[name], value) for name, value in batch.tokens.items()):
            return self._answer.ask(batch)
        self.count += len(chunk)
        return self._logits[np.searchsorted(self._rows, chunk)]


def compare(
    answered: list[Answered], table: TokenTable, config: Config, decision: Decision = PLAIN
) -> list[dict[str, Any]]:
    """Compares every artifact of a variant with its Keras model, in batches and alone.

    The hard texts count in the largest logit difference; the shares are over rows of the data alone.

    Args:
      answered: the artifacts of the variant, the reference among them.
      table: the test split.
      config: the configuration.
      decision: how probabilities become an answer.

    Returns:
      Per batch size and artifact: `variant, artifact, format, rounded, batch_size, rows, of (rows of the table),
      by_token_ids (rows whose texts gave the token ids of the table, so that these were answered), accuracy, macro_f1,
      calibration_error, max_abs_logit_diff, max_scaled_logit_diff, label_agreement, mean_abs_probability_diff,
      hard_texts, hard_texts_max_abs_logit_diff`; alone, also `in_batches`: agreement and probability difference of the
      same rows in batches.
    """
    reference = next(each for each in answered if each.artifact.kind == REFERENCE.name)
    rows, few = measured(table, config), measured_alone(table, config)

    def entry(
        artifact: Artifact, batch_size: int, chosen: np.ndarray, logits: Logits, expected: Logits, by_token_ids: int
    ) -> dict[str, Any]:
        result = metrics.evaluate(logits.rows, table.labels[chosen], config.task, decision)
        found = metrics.differences(logits.rows, expected.rows, config.task, decision)
        hard = metrics.differences(logits.hard, expected.hard, config.task, decision)
        return {
            "variant": artifact.variant,
            "artifact": artifact.kind,
            "format": artifact.format,
            "rounded": artifact.rounded,
            "batch_size": batch_size,
            "rows": len(chosen),
            "of": table.num_rows,
            "by_token_ids": by_token_ids,
            **{name: result[name] for name in ("accuracy", "macro_f1", "calibration_error")},
            **found,
            **{
                name: float(np.maximum(found[name], hard[name]))  # NaN stays NaN
                for name in ("max_abs_logit_diff", "max_scaled_logit_diff")
            },
            "hard_texts": len(logits.hard),
            "hard_texts_max_abs_logit_diff": hard["max_abs_logit_diff"],
        }

    def in_batches(each: Answered) -> dict[str, float]:
        again = np.searchsorted(rows, few)
        own, expected = each.batched.rows[again], reference.batched.rows[again]
        found = metrics.differences(own, expected, config.task, decision)
        return {name: found[name] for name in ("label_agreement", "mean_abs_probability_diff")}

    return [
        entry(each.artifact, config.verify.batch_size, rows, each.batched, reference.batched, each.by_token_ids)
        for each in answered
    ] + [
        entry(each.artifact, 1, few, each.alone, reference.alone, 0) | {"in_batches": in_batches(each)}
        for each in answered
    ]


def failed_gates(comparisons: list[dict[str, Any]], gates: Verify) -> list[str]:
    """Lists the gates that failed, one line each, with the excess and the setting."""
    return [
        f"{entry['variant']} {entry['artifact']} at batch size {entry['batch_size']}: {failure}"
        for entry in comparisons
        for failure in (_failures_of_rounded if entry["rounded"] else _failures_of_float)(entry, gates)
    ]


def _failures_of_float(entry: dict[str, Any], gates: Verify) -> Iterator[str]:
    limit = gates.max_logit_diff.get(entry["format"], format_named(entry["format"]).max_logit_diff)
    found = entry["max_scaled_logit_diff"]
    if not found <= limit:  # so that NaN fails
        of_row = "" if found == entry["max_abs_logit_diff"] else f", {found:.4g} of the row's largest"
        yield (
            f"logits differ by up to {entry['max_abs_logit_diff']:.4g}{of_row}, "
            f"verify.max_logit_diff.{entry['format']} is {limit:g}"
        )


def _failures_of_rounded(entry: dict[str, Any], gates: Verify) -> Iterator[str]:
    format = format_named(entry["format"])
    clips = entry["variant"] == "int8" and format.adds_in_16_bits and sums_overflow(cpu_flags())
    cause = f"; {CLIPS} where quantize.reduce_range is not set" if clips else ""
    slack = format.int8_slack if entry["variant"] == "int8" else 1.0
    slacker = f", for {format.name} {slack:g} times as far" if slack != 1.0 else ""
    if not np.isfinite(entry["max_abs_logit_diff"]):
        yield f"logits differ by {entry['max_abs_logit_diff']}"
    least = gates.min_label_agreement_int8
    lowest = min(least, 1.0 - slack * (1.0 - least))  # of a slack of 1 the number itself
    highest = slack * gates.max_probability_diff_int8
    if "in_batches" in entry:
        # These few rows may be among those that round otherwise; what all rows did in batches has been judged.
        lowest = min(lowest, entry["in_batches"]["label_agreement"])
        highest = max(highest, _CLOSE * entry["in_batches"]["mean_abs_probability_diff"])
    if not entry["label_agreement"] >= lowest:
        yield (
            f"labels agree on {entry['label_agreement']:.4%}, verify.min_label_agreement_int8 is {least:.2%}{slacker}; "
            f"lower it, or leave more in float (quantize.float_layers), or train longer (quantize.epochs){cause}"
        )
    if not entry["mean_abs_probability_diff"] <= highest:
        yield (
            f"probabilities differ by {entry['mean_abs_probability_diff']:.4g} on average, "
            f"verify.max_probability_diff_int8 is {gates.max_probability_diff_int8:g}{slacker}{cause}"
        )


def answer_rows(answer: Answer, table: TokenTable, batch_size: int) -> np.ndarray:
    """Answers a whole table: [rows, labels] float32."""
    return _answers_to(table, np.arange(table.num_rows), batch_size, lambda _, batch: answer.ask(batch))


def _answers_to(
    table: TokenTable,
    rows: np.ndarray,
    batch_size: int,
    ask: Callable[[np.ndarray, Requests], np.ndarray],
    after: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Asks rows of a table in batches of similar length: [rows, labels] float32.

    Args:
      table: of the rows.
      rows: [rows] int64, rising.
      batch_size: rows of a call.
      ask: rows of a batch, and the batch -> logits.
      after: called with the number of rows of each batch.
    """
    logits = np.zeros((len(rows), table.num_labels), np.float32)
    for chunk, batch in batches_of(table, rows, batch_size):
        logits[np.searchsorted(rows, chunk)] = ask(chunk, batch)
        after(len(chunk))
    return logits


def _in_parts(ask: Callable[[Requests], np.ndarray], requests: Requests, batch_size: int) -> np.ndarray:
    """Answers requests, some at a time: [requests, labels] float32."""
    parts = (requests.part(start, start + batch_size) for start in range(0, len(requests), batch_size))
    return np.concatenate([ask(part) for part in parts])
