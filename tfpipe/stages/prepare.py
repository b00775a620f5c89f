"""Stage `prepare`: from raw rows to token tables.

Enters: files of labeled text and the encoder's tokenizer. Leaves, in the stage's directory:

    train/ validation/ test/   token tables (`tokens/table.py`)
    tokenizer/                 the tokenizer's files, which training, export and serving use from here on
    labels.json                names of the labels, in the order of the outputs, and the task
    statistics.json            rows, labels, duplicates, lengths, scripts
    rejected.jsonl             the rows that can't be used: file, line, reason, excerpt
    duplicates.jsonl           the duplicates, the rows that they equal, and whether they were removed
    conflicting_labels.jsonl   the texts that have several labels, and where
    slices.arrow               of held-out rows, the values of the columns of `report.slices`

`data/survey.py` reads the files once to check every row, which ends a run on bad data within seconds; `data/tables.py`
reads them again to tokenize. Duplicates are looked for among the tokenized rows, as the model sees them. Then
`data/finish.py` finishes the tables. Each reading is a function over blocks of the files, which a runner works on
(`data/runners/`): processes of this machine, or Beam on others. The output depends on nothing but the files, the
tokenizer and the settings.
"""

from __future__ import annotations

import multiprocessing
import time
from typing import Any, NamedTuple

import numpy as np

from tfpipe.config.data import SPLITS
from tfpipe.config.run import Config
from tfpipe.console import progress_bar, say
from tfpipe.data.block_tables import BlockTables
from tfpipe.data.counts import Counts
from tfpipe.data.duplicates import Verdict, exact_duplicates, save_sorted
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.sources import size_bytes, source_files
from tfpipe.data.findings import announce, statistics_of, untrained, write_duplicates
from tfpipe.data.finish import finish
from tfpipe.data.labels import survey as label_survey
from tfpipe.data.labels.cells import LabelForm
from tfpipe.data.labels.names import Labels, announce_doubts
from tfpipe.data.near_duplicates import looked_for, near_duplicates
from tfpipe.data.rejected import SHOWN, check_rejected, rejection_line, shown
from tfpipe.data.rows import check_filter, check_sliced
from tfpipe.data.runners import runner_of
from tfpipe.data.runners.local import LocalRunner
from tfpipe.data.slices import FILE as SLICES_FILE
from tfpipe.data.slices import write_slices
from tfpipe.data.survey import Decisions, Survey, Surveyor, decide
from tfpipe.encoders import source as encoder_source
from tfpipe.errors import InputError
from tfpipe.files import write_json
from tfpipe.rundir.record import LABELS
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import SOURCES, write_sources
from tfpipe.tokens.tokenizer_notes import notes_on
from tfpipe.tokens.tokenizer_settings import TokenizerSettings


def run(config: Config, stage: StageDirectory) -> None:
    """Prepares the data of a run.

    Raises:
      InputError: the files or their rows don't fit the configuration, too many rows are unusable, or a split is empty.
    """
    files = source_files(config.data)
    settings = _tokenizer_settings(config)
    runner = runner_of(config.data, stage.checkpoints)
    form, survey, labels = _survey(config, files, runner, stage)
    _check_given(config, survey)
    stage.listings |= {"rejected.jsonl", "duplicates.jsonl", "conflicting_labels.jsonl", SOURCES, SLICES_FILE}
    tables = _tokenize(config, files, settings, decide(config, form, labels, survey), survey, runner, stage)
    duplicates = _duplicates(config, files, settings, tables, survey, runner, stage)
    counts = tables.counts()
    dropped = duplicates.dropped(config.data.duplicates.across_splits)
    counts.add(finish(config, settings, labels, tables, dropped, stage, runner))
    _check_splits(config, survey, tables, counts)
    settings.write(stage.path / "tokenizer", config.data.max_length)
    write_json(stage.path / LABELS, {"names": labels.names, "task": config.task})
    write_sources(stage.path, [file.name for file in files])
    if config.report.slices:
        write_slices(stage.path, tables, config.report.slices)
    statistics = statistics_of(config, files, survey, labels, duplicates.exact, duplicates.near, counts)
    write_json(stage.path / "statistics.json", statistics)
    stage.notes |= {"rows": statistics["rows"], "labels": len(labels.names)}
    stage.notes["duplicate_check_seconds"] = round(duplicates.seconds, 1)
    announce(statistics, settings, duplicates.seconds, duplicates.undecided, config)
    announce_doubts(survey.rows_of_values(), labels, config)
    lacking = untrained(statistics["rows_per_label"])
    label_survey.check_trained(config, lacking, drawn=len(survey.given) < len(SPLITS))


def _tokenizer_settings(config: Config) -> TokenizerSettings:
    """Reads the encoder's tokenizer, with the cleaning of this run."""
    encoder = encoder_source.open_source(config.encoder.source)
    encoder_source.check_reads(
        encoder.architecture,
        "encoder.source",
        config.encoder.source,
        config.data.max_length,
        pairs=config.data.text_pair_column is not None,
    )
    settings = TokenizerSettings.read(encoder.tokenizer_directory)
    if not config.data.cleaning.lower_case:
        for line in notes_on(encoder.tokenizer_directory, settings):
            say(line)
    return settings.cleaned(config.data.cleaning)


def _name(config: Config) -> str:
    source = config.data.source
    return source if isinstance(source, str) else str(source)


def _check_splits(config: Config, survey: Survey, tables: BlockTables, counts: Counts) -> None:
    for index, split in enumerate(SPLITS):
        if counts.rows[split]:
            continue
        if found := sum(int((rows["split"] == index).sum()) for rows in tables):
            raise InputError(
                f"{_name(config)}: all {found} rows of {split} have the tokens of a held-out row, or nearly its text, "
                "and were removed as duplicates; check data.cleaning and data.max_length, which make texts equal"
            )
        raise InputError(
            f"{_name(config)}: none of the {survey.accepted} usable rows falls into {split} "
            f"(data.split.{split} is {getattr(config.data.split, split):g}); add rows or raise its share"
        )


def _check_given(config: Config, survey: Survey) -> None:
    """Checks that the settings of the splits have an effect, which only the rows tell where a dataset has splits."""
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


def _survey(
    config: Config, files: list[SourceFile], runner: LocalRunner, stage: StageDirectory
) -> tuple[LabelForm, Survey, Labels]:
    survey, first = Survey(), []
    form, labels = label_survey.before_reading(config, files)
    rejected_path = stage.path / "rejected.jsonl"
    stage.checkpoints.mkdir(parents=True, exist_ok=True)
    sizes = [size_bytes(file) for file in files]
    megabytes = None if None in sizes else round(sum(sizes) / 1e6)
    several = len(files) > 1 or files[0].format == "folder"
    with open(rejected_path, "w", encoding="utf-8") as file, progress_bar("reading (MB)", megabytes) as bar:
        for found in runner.map_blocks(files, Surveyor, config, form, labels):
            before = round(survey.size_bytes / 1e6)
            survey.add(found)
            bar.advance(round(survey.size_bytes / 1e6) - before)
            for rejection in found.rejections:
                file.write(rejection_line(rejection))
            first += [shown(rejection, several) for rejection in found.rejections[: SHOWN - len(first)]]
    label_survey.check_labeled(config, files, survey)
    check_rejected(config, files, survey, first, rejected_path)
    if survey.kinds:
        listed = ", ".join(f"{count:,} × {kind}" for kind, count in survey.kinds.most_common(SHOWN))
        say(f"  texts that are no text in {_name(config)} are read as they are written: {listed}")
    if not survey.accepted and survey.filtered:
        check_filter(config, {column: list(values) for column, values in survey.filter_values.items()})
    if not survey.accepted:
        raise InputError(f"{_name(config)}: no row can be used; see {rejected_path}")
    check_sliced(config, files, survey.sliced)
    return form, survey, label_survey.after_reading(config, files, form, labels, survey)


# The second reading.


def _tokenize(
    config: Config,
    files: list[SourceFile],
    settings: TokenizerSettings,
    decisions: Decisions,
    survey: Survey,
    runner: LocalRunner,
    stage: StageDirectory,
) -> BlockTables:
    """Tokenizes the rows, except the blocks that an earlier try finished."""
    tables = BlockTables(stage.checkpoints)
    done = frozenset(tables.names)
    if done:
        say(f"  goes on after {len(done):,} of {survey.blocks:,} blocks")
    rows = round(survey.accepted * len(done) / survey.blocks)
    arguments = (config, settings, decisions)
    with progress_bar("tokenizing (rows)", survey.accepted, rows) as bar:
        for count in runner.map_blocks(
            files, _table_maker, *arguments, store=tables.store, done=done, module="tfpipe.data.tables"
        ):
            bar.advance(count)
    return tables


def _table_maker(config: Config, settings: TokenizerSettings, decisions: Decisions):
    """Makes a function that makes the tables of a block; called once in each process."""
    import tensorflow as tf

    from tfpipe.data.tables import TableMaker

    if multiprocessing.parent_process() is not None:  # one of several: each has a processor to itself
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return TableMaker(config, settings, decisions)


# The search for duplicates.


class _Duplicates(NamedTuple):
    """The duplicates among the tokenized rows."""

    exact: Verdict
    near: list[list[Any]]
    """`[row, the row that it is near to, similarity]` for each"""
    undecided: int
    """rows that have more candidates than were compared"""
    seconds: float

    def dropped(self, across_splits: str) -> np.ndarray:
        """Lists the rows that are left out: `[n] int64`."""
        near = [row for row, *_ in self.near] if across_splits == "remove" else []
        return np.concatenate([self.exact.dropped(across_splits), np.array(near, np.int64)])


def _duplicates(
    config: Config,
    files: list[SourceFile],
    settings: TokenizerSettings,
    tables: BlockTables,
    survey: Survey,
    runner: LocalRunner,
    stage: StageDirectory,
) -> _Duplicates:
    """Finds and lists the duplicates.

    Raises:
      InputError: there are duplicates across splits, and the settings refuse them.
    """
    started, refused = time.monotonic(), config.data.duplicates.across_splits == "refuse"
    exact = exact_duplicates(iter(tables), stage.checkpoints / "buckets")
    if refused and len(exact.twins):
        write_duplicates(config, files, exact, [], stage.path)
        raise _refusal(config, len(exact.twins), "exactly the tokens", stage)
    near, undecided = [], 0
    if looked_for(config, survey.accepted):
        known = save_sorted(stage.checkpoints / "exact.npy", exact.dropped("remove"))
        near, undecided = near_duplicates(config, settings, tables, known, stage.checkpoints, runner)
    write_duplicates(config, files, exact, near, stage.path)
    if refused and near:
        raise _refusal(config, len(near), "nearly the text", stage)
    return _Duplicates(exact, near, undecided, time.monotonic() - started)


def _refusal(config: Config, rows: int, what: str, stage: StageDirectory) -> InputError:
    return InputError(
        f"{_name(config)}: {rows:,} rows have {what} of a held-out row, and data.duplicates.across_splits is refuse; "
        f"delete the rows listed in {stage.path / 'duplicates.jsonl'}, or set across_splits to remove"
    )
