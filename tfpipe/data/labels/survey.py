"""The labels of a run: those that files declare, those of their first rows, and those of all rows.

Enters: the files, then the survey of all rows. Leaves: the form of the label cells, and the labels; or an error in one
line.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from tfpipe.config.data import SPLITS
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.data import readers
from tfpipe.data.block import excerpt
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.labels.cells import LabelForm
from tfpipe.data.labels.form import check_values, form_of
from tfpipe.data.labels.names import Labels, announce_doubts, found_labels, in_order, named_labels
from tfpipe.data.rows import label_cells
from tfpipe.data.split import TRAIN
from tfpipe.data.survey import Survey
from tfpipe.errors import InputError

_FILES_LOOKED_AT = 8
_LISTED = 10


def before_reading(config: Config, files: list[SourceFile]) -> tuple[LabelForm, Labels | None]:
    """Chooses the form of the label cells, and the labels if settings or files name them.

    Raises:
      InputError: the form is in doubt, or files declare different classes.
    """
    declared = declared_classes(config, files)
    annotated = any(file.tool for file in files)
    known = {"null_is_missing": annotated or declared is not None, "empty_is_missing": annotated}
    form = form_of(_first_cells(config, files), config, **known)
    if form.kind == "list" and config.data.label_form == "auto":
        say("  labels: each cell is read as a list (data.label_form: plain takes it as it stands)")
    if form.kind == "multi_hot" and config.data.label_form == "auto":
        say(f"  labels: each cell is read as a vector of {len(form.names)} zeros and ones, by data.label_names")
    return form, named_labels(config, form.names if form.kind == "columns" else declared)


def declared_classes(config: Config, files: list[SourceFile]) -> tuple[str, ...] | None:
    """Returns the classes that files declare, all of them the same."""
    declaring, classes = None, None
    for file in files:
        own = readers.classes(file, config.data)
        own = own and tuple(name.strip() for name in own)  # as cells are read
        if own is None or own == classes:
            continue
        if classes is not None and config.data.label_names is None:
            raise InputError(
                f"{file.name}: column {config.data.label_column!r} has the classes {_listed(own)}, and in "
                f"{declaring} {_listed(classes)}; set data.label_names to say which there are, in which order"
            )
        declaring, classes = file.name, own
    return classes


def _first_cells(config: Config, files: list[SourceFile]) -> list[Any]:
    """Reads the label cells of the first block of some files. A folder's name is a label as it stands."""
    files = [file for file in files if file.format != "folder"]
    step = max(1, len(files) // _FILES_LOOKED_AT)
    found = []
    for file in files[::step]:
        for block in itertools.islice(readers.blocks(file, config.data), 1):
            found += label_cells(block, config)
    return found


def after_reading(
    config: Config, files: list[SourceFile], form: LabelForm, labels: Labels | None, survey: Survey
) -> Labels:
    """Returns the labels that the rows have.

    Raises:
      InputError: there are fewer than two labels, a label looks like several, or a given split has one that train
        lacks.
    """
    counts = survey.rows_of_values()
    if labels is None:
        if any(file.format != "folder" for file in files):
            check_values(counts, form, config)
        labels = found_labels(counts, config)
    elif config.data.label_names is None and form.kind != "columns":
        labels = _borne(labels, counts, config)
    _check_given(config, labels, survey)
    return labels


def announce_first(
    counts: Counter[str], form: LabelForm, labels: Labels | None, files: list[SourceFile], config: Config
) -> Labels:
    """Finds the labels of the first rows, and warns of doubts.

    Raises:
      InputError: there are fewer than two labels, or a label looks like several.
    """
    if labels is None:
        if any(file.format != "folder" for file in files):
            check_values(counts, form, config)
        labels = found_labels(counts, config)
    announce_doubts(counts, labels, config)
    return labels


def _borne(labels: Labels, counts: Counter[str], config: Config) -> Labels:
    """Drops declared classes that no row has."""
    names = tuple(name for name in labels.names if counts[name])
    if len(names) == len(labels.names):
        return labels
    unused = [name for name in labels.names if not counts[name]]
    say(f"  labels: no row has {_listed(unused)}, which the files declare; left out")
    if len(names) < 2:
        return found_labels(counts, config)  # raises
    return in_order(names)


def _check_given(config: Config, labels: Labels, survey: Survey) -> None:
    """Checks that each label of a split that the source gives can be trained."""
    trained, held_out = set(), Counter()
    for (split, values), rows in survey.label_values.items():
        if split in (-1, TRAIN):
            trained.update(labels.of(values))
        else:
            held_out.update({(split, index): rows for index in labels.of(values)})
    untrained: dict[str, Counter[str]] = {}
    for (split, index), rows in sorted(held_out.items()):
        if index not in trained:
            untrained.setdefault(SPLITS[split], Counter())[labels.names[index]] += rows
    check_trained(config, untrained, drawn=False)


def check_trained(config: Config, untrained: dict[str, Counter[str]], *, drawn: bool) -> None:
    """Checks that no held-out split has labels that no training row has.

    Args:
      config: the settings.
      untrained: split -> labels that train lacks -> rows of the split.
      drawn: whether tfpipe made the splits.

    Raises:
      InputError: a split has some, and data.untrained_labels does not keep them.
    """
    if config.data.untrained_labels == "keep":
        return
    for split, names in untrained.items():
        rows = ", ".join(f"{excerpt(name)!r} ({count:,})" for name, count in names.most_common(_LISTED))
        advice = "correct the data or its splits"
        if "-1" in names:
            advice = "set data.missing: ['-1'] if -1 stands for no label"
        elif drawn:
            made = config.data.split
            settled = made.stratified or made.folds is not None or made.group_column is not None
            advice = "add rows of these labels" + ("" if settled else ", set data.split.stratified: true")
        raise InputError(
            f"{config.data.source}: {split} has rows of labels that no row of train has: {rows}; {advice}, or set "
            "data.untrained_labels: keep"
        )


def check_labeled(config: Config, files: list[SourceFile], survey: Survey) -> None:
    """Checks that each split that the source gives has labeled rows.

    Raises:
      InputError: all rows of a split are without a label; says which line leaves it out.
    """
    labeled = {split for split, _ in survey.label_values}
    for split in sorted(set(survey.without_label) - labeled - {-1}):
        name, rows = SPLITS[split], survey.without_label[split]
        if split == TRAIN:
            raise InputError(
                f"{config.data.source}: none of the {rows:,} rows of train has a label; check data.label_column"
            )
        raise InputError(
            f"{config.data.source}: none of the {rows:,} rows of {name} has a label; leave {name} out with "
            f"{_line_without(name, config, files)}; tfpipe then draws it from the rows of train"
        )


def _line_without(split: str, config: Config, files: list[SourceFile]) -> str:
    """Returns the setting that leaves a split out."""
    source = config.data.source
    if config.data.split.column is not None:
        others = ", ".join(name for name in SPLITS if name != split)
        return f"data.filter: {{{config.data.split.column}: [{others}]}}, in the words of that column"
    kept: dict[str, list[str]] = {}
    if isinstance(source, dict):
        kept = {name: [each] if isinstance(each, str) else list(each) for name, each in source.items() if name != split}
    else:
        for file in files:
            if file.split != split:
                kept.setdefault(file.split or "train", []).append(file.name)
    entries = (f'{name}: "{each[0]}"' if len(each) == 1 else f"{name}: {each}" for name, each in kept.items())
    return f"data.source: {{{', '.join(entries)}}}"


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(map(excerpt, names[:_LISTED])) + (", …" if len(names) > _LISTED else "")
