"""Stage `prepare`: from raw rows to token tables.

Enters: files of labelled text and the encoder's tokenizer. Leaves, in the stage's directory:

    train/ validation/ test/   token tables (`tokens/table.py`)
    tokenizer/                 the tokenizer's files: what training, export and serving use from here on
    labels.json                names of the labels, in the order of the outputs, and the task
    statistics.json            rows, labels, duplicates, lengths, scripts
    rejected.jsonl             the rows that can't be used: file, line, reason, excerpt
    duplicates.jsonl           the rows that are there twice, what they equal, and whether they were removed
    conflicting_labels.jsonl   the texts that have several labels, and where

`data/survey.py` reads the files once to check every row, which ends a run on bad data within seconds; `data/tables.py`
reads them again to tokenize. Duplicates are looked for among the tokenized rows, as the model sees them. Then
`data/finish.py` finishes the tables. Each reading is a function over blocks of the files, which processes of this
machine work on (`data/runners/local.py`), or Beam on others. The output depends on nothing but the files, the tokenizer
and the settings.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from tfpipe.config.data import SPLITS, SplitName
from tfpipe.config.run import Config
from tfpipe.console import progress_bar, say
from tfpipe.data import block
from tfpipe.data.block import Rejection
from tfpipe.data.counts import Counts
from tfpipe.data.duplicates import exact_duplicates, save_sorted
from tfpipe.data.findings import announce, statistics_of, write_duplicates
from tfpipe.data.finish import ROWS, TokenizedRows, finish, rows_path
from tfpipe.data.labels import Labels, found_labels, named_labels, separator_of, split_cell
from tfpipe.data.near_duplicates import looked_for, near_duplicates
from tfpipe.data.rows import check_filter
from tfpipe.data.runners.local import map_blocks
from tfpipe.data.sources import SourceFile, size_bytes, source_files
from tfpipe.data.survey import Decisions, Survey, decide, survey_block
from tfpipe.encoders import source as encoder_source
from tfpipe.errors import InputError
from tfpipe.files import write_json, write_text
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import SOURCES, shard_path, write_shard, write_sources
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

_SHOWN = 5  # reasons and rows in an error; the rest is in rejected.jsonl


def run(config: Config, stage: StageDirectory) -> None:
    """Prepares the data of a run.

    Raises:
      InputError: the files or their rows don't fit the configuration, too many rows are unusable, or a split is empty.
    """
    files = source_files(config.data)
    encoder = encoder_source.open_source(config.encoder.source)
    encoder_source.check_reads(
        encoder.architecture,
        "encoder.source",
        config.encoder.source,
        config.data.max_length,
        pairs=config.data.text_pair_column is not None,
    )
    settings = TokenizerSettings.read(encoder.tokenizer_directory)
    settings = settings.cleaned(config.data.cleaning)
    survey, labels = _survey(config, files, stage)
    _check_given(config, survey)
    decisions = decide(config, labels, survey)
    stage.listings |= {"rejected.jsonl", "duplicates.jsonl", "conflicting_labels.jsonl", SOURCES}
    tables, counts = _tokenize(config, files, settings, decisions, survey, stage)
    rows = TokenizedRows(tables)

    started = time.monotonic()
    across_splits = config.data.duplicates.across_splits
    verdict = exact_duplicates(iter(rows), stage.checkpoints / "buckets")
    if across_splits == "refuse" and len(verdict.twins):
        write_duplicates(config, files, verdict, [], stage.path)
        raise _refusal(config, len(verdict.twins), "exactly the tokens", stage)
    near, undecided = [], 0
    if looked_for(config, survey.accepted):
        known = save_sorted(stage.checkpoints / "exact.npy", verdict.dropped("remove"))
        near, undecided = near_duplicates(config, settings, tables, rows.names, known, stage.checkpoints)
    write_duplicates(config, files, verdict, near, stage.path)
    if across_splits == "refuse" and near:
        raise _refusal(config, len(near), "nearly the text", stage)
    check_seconds = time.monotonic() - started

    dropped = verdict.dropped(across_splits)
    if across_splits == "remove":
        dropped = np.concatenate([dropped, np.array([row for row, *_ in near], np.int64)])
    counts.add(finish(config, settings, labels, rows, dropped, stage))
    _check_splits(config, survey, rows, counts)
    settings.write(stage.path / "tokenizer")
    write_json(stage.path / "labels.json", {"names": labels.names, "task": config.task})
    write_sources(stage.path, [file.name for file in files])
    statistics = statistics_of(config, files, survey, labels, verdict, near, counts)
    write_json(stage.path / "statistics.json", statistics)
    stage.notes |= {"rows": statistics["rows"], "labels": len(labels.names)}
    stage.notes["duplicate_check_seconds"] = round(check_seconds, 1)
    announce(statistics, settings, check_seconds, undecided, config)


def _name(config: Config) -> str:
    source = config.data.source
    return source if isinstance(source, str) else str(source)


def _refusal(config: Config, rows: int, what: str, stage: StageDirectory) -> InputError:
    return InputError(
        f"{_name(config)}: {rows:,} rows have {what} of a held-out row, and data.duplicates.across_splits is refuse; "
        f"delete the rows listed in {stage.path / 'duplicates.jsonl'}, or set across_splits to remove"
    )


def _check_splits(config: Config, survey: Survey, rows: TokenizedRows, counts: Counts) -> None:
    for place, split in enumerate(SPLITS):
        if counts.rows[split]:
            continue
        if found := sum(int((block_rows["split"] == place).sum()) for block_rows in rows):
            raise InputError(
                f"{_name(config)}: all {found} rows of {split} have the tokens of a held-out row, or nearly its text, "
                "and were removed as duplicates; check data.cleaning and data.max_length, which make texts equal"
            )
        raise InputError(
            f"{_name(config)}: none of the {survey.accepted} usable rows falls into {split} "
            f"(data.split.{split} is {getattr(config.data.split, split):g}); add rows or raise its share"
        )


def _check_given(config: Config, survey: Survey) -> None:
    """Whether the settings of the splits have an effect, which only the rows tell where a dataset has splits."""
    split, source = config.data.split, config.data.source
    for name in source if isinstance(source, dict) else ():
        if SPLITS.index(name) not in survey.given:
            raise InputError(f"{source[name]}: no row for {name} can be used; correct the file, or leave it out")
    unused = [name for name in ("folds", "group_column") if survey.given and getattr(split, name) is not None]
    unused += ["stratified"] if split.stratified and len(survey.given) == len(SPLITS) else []
    if unused:
        raise InputError(
            f"{_name(config)}: the source gives the splits, so data.split.{unused[0]} has no effect; leave it out, or "
            "name one split of the source, such as hf:NAME#train"
        )


# The first reading.


def _survey(config: Config, files: list[SourceFile], stage: StageDirectory) -> tuple[Survey, Labels]:
    labels, survey, first = named_labels(config), Survey(), []
    rejected_path, scratch = stage.path / "rejected.jsonl", stage.checkpoints
    scratch.mkdir(parents=True, exist_ok=True)
    filter_values: dict[str, dict[str, None]] = {column: {} for column in config.data.filter}
    sizes = [size_bytes(file) for file in files]
    megabytes = None if None in sizes else round(sum(sizes) / 1e6)
    work = partial(partial, survey_block, config=config, labels=labels)
    several = len(files) > 1 or files[0].format == "folder"
    with open(rejected_path, "w", encoding="utf-8") as file, progress_bar("reading (MB)", megabytes) as bar:
        shown = 0
        for _, found in map_blocks(work, files, config, scratch):
            survey.blocks += 1
            survey.size_bytes += found.size_bytes
            survey.accepted += found.accepted
            survey.filtered += found.filtered
            survey.label_values.update(found.label_values)
            survey.given |= found.given
            for column, values in found.filter_values.items():
                filter_values[column] |= dict.fromkeys(values)
            for rejection in found.rejections:
                survey.rejected[rejection.reason] += 1
                if len(first) < _SHOWN:
                    where = f"{rejection.name}, " if several else ""
                    first.append(f"{where}line {rejection.line} {rejection.excerpt!r}")
                file.write(_rejection_line(rejection))
            survey.strata.append(found.strata)
            bar.advance(round(survey.size_bytes / 1e6) - shown)
            shown = round(survey.size_bytes / 1e6)
    _check_rejected(config, survey, first, rejected_path)
    if not survey.accepted and survey.filtered:
        check_filter(config, {column: list(values) for column, values in filter_values.items()})
    if not survey.accepted:
        raise InputError(f"{_name(config)}: no row can be used; see {rejected_path}")
    if labels is None:
        separator = separator_of(config)
        values = {value for cell in survey.label_values for value in split_cell(cell, separator)}
        labels = found_labels(values, config)
    return survey, labels


def _rejection_line(rejection: Rejection) -> str:
    entry = {"file": rejection.name, "line": rejection.line, "reason": rejection.reason, "excerpt": rejection.excerpt}
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _check_rejected(config: Config, survey: Survey, first: list[str], rejected_path: Path) -> None:
    unusable, total = survey.rejected.total(), survey.accepted + survey.rejected.total()
    if unusable > config.data.max_rejected_fraction * total:
        listed = f"{', '.join(first)}{', …' if unusable > _SHOWN else ''}"
        reasons = "; ".join(f"{count} × {reason}" for reason, count in survey.rejected.most_common(_SHOWN))
        raise InputError(
            f"{_name(config)}: {unusable} of {total} rows ({unusable / total:.1%}) can't be used, more than "
            f"data.max_rejected_fraction ({config.data.max_rejected_fraction:.1%}): {reasons}"
            f"{'; …' if len(survey.rejected) > _SHOWN else ''}; first: {listed}; correct the file or the data "
            f"settings, or raise the fraction; every row is listed in {rejected_path}"
        )


# The second reading.


def _tokenize(
    config: Config,
    files: list[SourceFile],
    settings: TokenizerSettings,
    decisions: Decisions,
    survey: Survey,
    stage: StageDirectory,
) -> tuple[Path, Counts]:
    """Tokenizes the rows: shards and `ROW`s of each block; a block that an earlier try finished is not done again."""
    # Blocks of another size, of another version, are not gone on from.
    directory = stage.checkpoints / f"tables-{block.BLOCK_BYTES}-{block.BLOCK_RECORDS}"
    for name in (*SPLITS, ROWS, "counts"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    done = frozenset(path.stem for path in (directory / "counts").glob("*.json"))
    if done:
        say(f"  goes on after {len(done):,} of {survey.blocks:,} blocks")
    # Of what this machine makes, the process that makes it writes it; else it comes here, and is written here.
    local = config.data.runner == "local"
    work = partial(_table_writer if local else _table_maker, config, settings, decisions, directory)
    rows = round(survey.accepted * len(done) / survey.blocks)
    with progress_bar("tokenizing (rows)", survey.accepted, rows) as bar:
        for name, result in map_blocks(work, files, config, stage.checkpoints, done=done, module="tfpipe.data.tables"):
            bar.advance(result if local else _store(directory, name, *result))
    counts = Counts()
    for path in sorted((directory / "counts").glob("*.json")):
        counts.add(Counts.from_json(path.read_text(encoding="utf-8")))
    return directory, counts


def _table_maker(config: Config, settings: TokenizerSettings, decisions: Decisions, directory: Path):
    """A function that makes the tables of a block; made once in each process."""
    import tensorflow as tf

    from tfpipe.data.tables import TableMaker

    if multiprocessing.parent_process() is not None:  # one of several: each has a processor to itself
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return TableMaker(config, settings, decisions)


def _table_writer(config: Config, settings: TokenizerSettings, decisions: Decisions, directory: Path):
    """A function that makes the tables of a block and stores them; made once in each process."""
    make = _table_maker(config, settings, decisions, directory)
    return lambda block: _store(directory, block.name, *make(block))


def _store(
    directory: Path, name: str, tables: dict[SplitName, pa.RecordBatch], rows: np.ndarray, counts: Counts
) -> int:
    """Writes a block's shards and `[rows] ROW`, and returns how many rows it had."""
    for split, batch in tables.items():
        write_shard(shard_path(directory / split, name), batch)
    with open(rows_path(directory, name), "wb") as file:
        np.save(file, rows, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    # Last, so that a block is done when its counts are there.
    write_text(directory / "counts" / f"{name}.json", counts.to_json() + "\n")
    return counts.totals["rows_read"]
