"""Stage `prepare`: from raw rows to token tables.

Enters: the CSV file and the encoder's tokenizer. Leaves, in the stage's directory:

    train/ validation/ test/   token tables (`token_table.py`)
    tokenizer/                 the tokenizer's files: what training, export and serving use from here on
    labels.json                names of the labels, in the order of the outputs, and the task
    statistics.json            rows, labels, duplicates and lengths of every split
    rejected.jsonl             the rows that can't be used: file, line, reason, excerpt

The file is read twice: once to judge every row, which ends a run on bad data within seconds, and once to tokenize.
What is held in memory is a shard of each table and two hashes per row. The output depends on nothing but the file, the
tokenizer and the settings.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfpipe import encoder_source
from tfpipe.config import Config
from tfpipe.console import progress_bar, say
from tfpipe.data.labels import Labels, found_labels, named_labels, separator_of, split_cell
from tfpipe.data.sources import Filtered, RawRow, Rejection, excerpt, read_csv, resolve
from tfpipe.data.split import SPLITS, Duplicates, SplitName, split_of
from tfpipe.data.token_table import TokenRow, TokenTable, TokenTableWriter
from tfpipe.data.tokenizer import Tokenizer
from tfpipe.data.tokenizer_settings import TokenizerSettings
from tfpipe.errors import InputError
from tfpipe.rundir import StageDirectory, write_json

ROWS_PER_CALL = 1000  # one call of the tokenizer's graph
WARN_CUT_FRACTION = 0.05
_UNCUT = 1 << 30  # a length that no text reaches
_SHOWN = 5  # reasons and rows in an error; the rest is in rejected.jsonl


@dataclass
class Survey:
    """What the first reading found."""

    labels: Labels
    accepted: int
    filtered: int
    rejected: Counter[str]
    """reason -> rows"""


@dataclass
class Example:
    """An accepted row on its way to the tokenizer."""

    row_id: int
    row: RawRow
    split: SplitName
    labels: np.ndarray
    """`[num_labels] float32`"""


@dataclass
class Tokens:
    """Counts over all tokens written."""

    written: int = 0
    unknown: int = 0
    cut: int = 0
    rows_cut: int = 0


def run(config: Config, stage: StageDirectory) -> None:
    """Prepares the data of a run.

    Raises:
      InputError: the file or its rows don't fit the configuration, too many rows are unusable, or a split is empty.
    """
    path = resolve(config.data.source)
    encoder = encoder_source.open_source(config.encoder.source)
    _check_encoder(encoder.architecture, config)
    settings = TokenizerSettings.read(encoder.tokenizer_directory)
    survey = _survey(path, config, stage.path / "rejected.jsonl")
    settings.write(stage.path / "tokenizer")
    write_json(stage.path / "labels.json", {"names": survey.labels.names, "task": config.task})
    duplicates, tokens = Duplicates(), Tokens()
    _write_tables(path, config, survey, settings, stage.path, duplicates, tokens)
    tables = {split: TokenTable.open(stage.path / split) for split in SPLITS}
    for split, table in tables.items():
        if not table.num_rows:
            raise InputError(
                f"{config.data.source}: none of the {survey.accepted} usable rows falls into {split} "
                f"(data.split.{split} is {getattr(config.data.split, split):g}); add rows or raise its share"
            )
    statistics = _statistics(config, survey, duplicates, tokens, tables)
    write_json(stage.path / "statistics.json", statistics)
    stage.choices |= {"rows": statistics["rows"], "labels": len(survey.labels.names)}
    _announce(statistics)


def _check_encoder(architecture: dict[str, Any], config: Config) -> None:
    """Whether the encoder can read what is prepared here: this is the first stage that knows."""
    positions, types = architecture["max_position_embeddings"], architecture["type_vocab_size"]
    if config.data.max_length > positions:
        raise InputError(
            f"data.max_length is {config.data.max_length}, but {config.encoder.source} has {positions} positions; "
            f"set data.max_length to {positions} or less"
        )
    if config.data.text_pair_column is not None and types < 2:
        raise InputError(
            f"data.text_pair_column is set, but {config.encoder.source} has {types} token type; "
            "pairs need an encoder with two"
        )


def _records(path: Path, config: Config, labels: Labels | None) -> Iterator[RawRow | Rejection | Filtered]:
    """The file's records, those with an unknown label turned into rejections."""
    for record in read_csv(path, config.data, label_required=config.task == "single_label"):
        reason = labels.reason_to_reject(record.label) if labels and isinstance(record, RawRow) else None
        yield Rejection(record.line, reason, excerpt(record.text)) if reason else record


def _survey(path: Path, config: Config, rejected_path: Path) -> Survey:
    labels, separator = named_labels(config), separator_of(config)
    values: set[str] = set()
    accepted = filtered = 0
    rejected: Counter[str] = Counter()
    first: list[str] = []
    with open(rejected_path, "w", encoding="utf-8") as file:
        for record in _records(path, config, labels):
            if isinstance(record, RawRow):
                accepted += 1
                values.update(split_cell(record.label, separator))
            elif isinstance(record, Filtered):
                filtered += 1
            else:
                rejected[record.reason] += 1
                if len(first) < _SHOWN:
                    first.append(f"line {record.line} {record.excerpt!r}")
                entry = {"file": config.data.source, "line": record.line}
                entry |= {"reason": record.reason, "excerpt": record.excerpt}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    unusable, total = rejected.total(), accepted + rejected.total()
    if unusable > config.data.max_rejected_fraction * total:
        listed = f"{', '.join(first)}{', …' if unusable > _SHOWN else ''}"
        reasons = "; ".join(f"{count} × {reason}" for reason, count in rejected.most_common(_SHOWN))
        raise InputError(
            f"{config.data.source}: {unusable} of {total} rows ({unusable / total:.1%}) can't be used, more than "
            f"data.max_rejected_fraction ({config.data.max_rejected_fraction:.1%}): {reasons}"
            f"{'; …' if len(rejected) > _SHOWN else ''}; first: {listed}; correct the file or the data "
            f"settings, or raise the fraction; every row is listed in {rejected_path}"
        )
    return Survey(labels or found_labels(values, config), accepted, filtered, rejected)


def _examples(path: Path, config: Config, labels: Labels, duplicates: Duplicates) -> Iterator[Example]:
    """The rows to tokenize, numbered; of identical ones in training, the first."""
    row_id = -1
    for record in _records(path, config, labels):
        if not isinstance(record, RawRow):
            continue
        row_id += 1
        vector = labels.encode(record.label)
        split = split_of(record.text, record.text_pair, config.seed, config.data.split)
        # What validation and test hold is what the user measures on, so they stay as given.
        if duplicates.seen(record.text, record.text_pair, vector.tobytes()) and split == "train":
            duplicates.dropped += 1
            continue
        yield Example(row_id, record, split, vector)


def _write_tables(
    path: Path,
    config: Config,
    survey: Survey,
    settings: TokenizerSettings,
    directory: Path,
    duplicates: Duplicates,
    tokens: Tokens,
) -> None:
    """Tokenizes the rows and writes the three tables; counts into `duplicates` and `tokens`."""
    unknown_id, pad_id = (settings.vocabulary.index(token) for token in (settings.unk_token, settings.pad_token))
    max_length = config.data.max_length
    encode = _graph(settings, max_length, config)
    encode_uncut: Callable[[list[Example]], tuple[np.ndarray, ...]] | None = None
    examples = _examples(path, config, survey.labels, duplicates)
    done = 0  # rows dropped as duplicates included
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                TokenTableWriter(directory / split, num_labels=len(survey.labels.names), pad_id=pad_id)
            )
            for split in SPLITS
        }
        bar = stack.enter_context(progress_bar("tokenizing", total=survey.accepted))
        while batch := list(islice(examples, ROWS_PER_CALL)):
            input_ids, token_type_ids, splits = encode(batch)
            for example, first, last in zip(batch, splits[:-1], splits[1:], strict=True):
                writers[example.split].append(
                    TokenRow(
                        input_ids=input_ids[first:last],
                        token_type_ids=token_type_ids[first:last],
                        labels=example.labels,
                        row_id=example.row_id,
                        text=example.row.text,
                        text_pair=example.row.text_pair,
                        source=config.data.source,
                        line=example.row.line,
                    )
                )
            tokens.written += len(input_ids)
            tokens.unknown += int(np.count_nonzero(input_ids == unknown_id))
            full = [example for example, length in zip(batch, np.diff(splits), strict=True) if length == max_length]
            if full:  # rows that may have been cut: tokenized once more, whole, to see by how much
                encode_uncut = encode_uncut or _graph(settings, _UNCUT, config)
                beyond = np.diff(encode_uncut(full)[2]) - max_length
                tokens.cut += int(beyond.sum())
                tokens.rows_cut += int(np.count_nonzero(beyond))
            bar.advance(batch[-1].row_id + 1 - done)
            done = batch[-1].row_id + 1


def _graph(
    settings: TokenizerSettings, max_length: int, config: Config
) -> Callable[[list[Example]], tuple[np.ndarray, ...]]:
    """A function from examples to flat `input_ids`, flat `token_type_ids` and the rows' borders in them."""
    pairs = config.data.text_pair_column is not None
    spec = tf.TensorSpec([None], tf.string)
    graph = tf.function(Tokenizer(settings, max_length).encode, input_signature=[spec, spec] if pairs else [spec])

    def encode(examples: list[Example]) -> tuple[np.ndarray, ...]:
        texts = [tf.constant([example.row.text for example in examples])]
        if pairs:
            texts.append(tf.constant([example.row.text_pair for example in examples]))
        input_ids, token_type_ids = graph(*texts)
        return input_ids.values.numpy(), token_type_ids.values.numpy(), input_ids.row_splits.numpy()

    return encode


def _statistics(
    config: Config, survey: Survey, duplicates: Duplicates, tokens: Tokens, tables: dict[SplitName, TokenTable]
) -> dict[str, Any]:
    rows = sum(table.num_rows for table in tables.values())
    return {
        "source": config.data.source,
        "rows": {split: table.num_rows for split, table in tables.items()},
        "rows_per_label": {
            split: dict(zip(survey.labels.names, map(int, np.count_nonzero(table.labels, axis=0)), strict=True))
            for split, table in tables.items()
        },
        "filtered": survey.filtered,
        "rejected": dict(survey.rejected.most_common()),
        "duplicates": {
            "texts_that_repeat": len(duplicates.repeated),
            "texts_with_different_labels": len(duplicates.conflicting),
            "rows_dropped_from_train": duplicates.dropped,
        },
        "tokens_per_row": {split: _length_summary(table.lengths) for split, table in tables.items()},
        "cut": {
            "rows": tokens.rows_cut,
            "row_fraction": round(tokens.rows_cut / rows, 6),
            "token_fraction": round(tokens.cut / (tokens.cut + tokens.written), 6),
        },
        "unknown_token_fraction": round(tokens.unknown / tokens.written, 6),
    }


def _length_summary(lengths: np.ndarray) -> dict[str, float]:
    p50, p90, p99 = (int(np.percentile(lengths, percent, method="higher")) for percent in (50, 90, 99))
    return {"mean": round(float(lengths.mean()), 2), "p50": p50, "p90": p90, "p99": p99, "max": int(lengths.max())}


def _announce(statistics: dict[str, Any]) -> None:
    """Says how many rows there are and warns of what lowers a result."""
    counts = ", ".join(f"{split} {count:,}" for split, count in statistics["rows"].items())
    rejected, duplicates, cut = sum(statistics["rejected"].values()), statistics["duplicates"], statistics["cut"]
    say(
        f"rows: {counts}; {statistics['filtered']:,} left out by the filter, {rejected:,} rejected, "
        f"{duplicates['rows_dropped_from_train']:,} duplicates dropped from train"
    )
    if cut["row_fraction"] > WARN_CUT_FRACTION:
        say(
            f"warning: {cut['row_fraction']:.1%} of the rows are longer than data.max_length and were cut "
            f"({cut['token_fraction']:.1%} of all tokens); raise data.max_length to use them whole"
        )
    if duplicates["texts_with_different_labels"]:
        say(f"warning: {duplicates['texts_with_different_labels']:,} texts occur with different labels; all are kept")
    for split, labels in statistics["rows_per_label"].items():
        missing = [name for name, count in labels.items() if not count]
        if missing:
            say(f"warning: {split} has no row of label {', '.join(missing[:10])}; its figures say nothing about it")
