"""The shape of a chip's part of a step: that of the run's token tables, as `train` would have it, or a given one.

Enters: the configuration and the run, or rows and their length. Leaves: a `BatchShape` for each topology.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tfpipe.config.file import setting
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.encoders.architecture import Architecture
from tfpipe.errors import InputError
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.tools.tpu_check.report import Topology
from tfpipe.train.recipe import check_division, training_plan
from tfpipe.train.vocabulary import ActiveVocabulary

TOKENS_A_SLOT = 32  # packed rows of which no plan is known have a slot for so many tokens
LABELS = 2  # where neither the run nor data.label_names says how many


@dataclass(frozen=True)
class BatchShape:
    """The shape of one chip's part of a step."""

    rows: int
    row_length: int
    slots: int
    num_labels: int
    vocab_size: int
    """word pieces that are trained"""
    examples_per_row: float
    """on average"""

    def __str__(self) -> str:
        return (
            f"{self.row_length} tokens and {self.slots} slot(s) a row, {self.examples_per_row:.2f} examples a row, "
            f"{self.num_labels} labels, {self.vocab_size:,} word pieces"
        )


def batch_shapes(
    config: Config,
    run: RunDirectory,
    architecture: Architecture,
    topologies: Sequence[Topology],
    rows: int | None,
    row_length: int | None,
    config_file: Path,
) -> dict[str, BatchShape]:
    """Finds the shape of a chip's part of a batch, for each topology.

    Raises:
      InputError: the shape is not known, there are several, or the rows do not divide among the chips.
    """
    if rows is not None and row_length is not None:
        return dict.fromkeys((each.name for each in topologies), _given_shape(config, architecture, rows, row_length))
    if row_length is not None:
        raise InputError("--row-length: goes with --rows; of a run's own batches, --set train.row_length=N")
    record = run.record("prepare")
    if record is None:
        raise InputError(
            f"{run.path}: no committed stage prepare, so the shape of a batch is not known; run `tfpipe prepare "
            f"{config_file}`, or give both --rows and --row-length"
        )
    changed = [path for path, value in record.settings.items() if setting(config, path) != value]
    if changed:
        raise InputError(
            f"{run.path}: stage prepare was made with another {changed[0]}; run `tfpipe prepare {config_file}` again, "
            "or give both --rows and --row-length"
        )
    prepared = run.verified("prepare")
    training, validation = TokenTable.open(prepared / "train"), TokenTable.open(prepared / "validation")
    plan, _ = training_plan(config, training, validation)
    if len(plan.batching.row_lengths) > 1:
        listed = ", ".join(str(length) for length in plan.batching.row_lengths)
        raise InputError(
            f"train.batching: {plan.batching.kind} has a program for each length of a row ({listed}); check one with "
            "--rows and --row-length, or set train.batching: packed"
        )
    active = ActiveVocabulary([training, validation], architecture.vocab_size)
    shape = BatchShape(
        rows=plan.batching.rows,
        row_length=plan.batching.row_lengths[0],
        slots=plan.batching.slots,
        num_labels=training.num_labels,
        vocab_size=active.architecture(architecture).vocab_size,
        examples_per_row=plan.num_examples / (plan.steps_per_epoch * plan.batching.rows),
    )
    shapes = {}
    for topology in topologies:
        if rows is None:
            try:
                check_division(plan, config.train.gradient_accumulation, topology.chips)
            except InputError as error:
                raise InputError(f"{topology.name}: {error}; or give --rows, the rows of a chip") from None
        shapes[topology.name] = replace(shape, rows=rows or -(-shape.rows // topology.chips))
    return {name: _divisible(shape, config) for name, shape in shapes.items()}


def _given_shape(config: Config, architecture: Architecture, rows: int, row_length: int) -> BatchShape:
    if row_length > architecture.max_position_embeddings and config.train.batching in ("bucketed", "padded"):
        raise InputError(
            f"--row-length {row_length}: the encoder has {architecture.max_position_embeddings} positions, and a row "
            "that is not packed is one example"
        )
    packed = config.train.batching in ("auto", "packed")
    slots = max(1, row_length // TOKENS_A_SLOT) if packed else 1
    names = config.data.label_names
    num_labels = len(set(names.values())) if names else LABELS
    each = f"{slots} slot(s), one for {TOKENS_A_SLOT} tokens, all filled" if packed else "one example"
    say(f"  no run is read: a row holds {each}; {num_labels} labels; the whole vocabulary")
    return _divisible(BatchShape(rows, row_length, slots, num_labels, architecture.vocab_size, float(slots)), config)


def _divisible(shape: BatchShape, config: Config) -> BatchShape:
    """Rounds the rows up to a number that micro-batches can share."""
    parts = config.train.gradient_accumulation
    return replace(shape, rows=-(-shape.rows // parts) * parts)
