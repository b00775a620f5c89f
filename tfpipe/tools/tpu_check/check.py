"""`tfpipe tpu-check`: whether the training step of a configuration fits a TPU, and how fast it can be, without one.

Enters: a configuration, topologies, and the shape of a batch: that of the run's token tables, or a given one. Leaves:
a table with a column for each topology, and JSON. The step is the one that `train` runs, with random weights, of one
replica. It is the same on every chip of a slice, so the step is compiled once for all slices of one kind of chip. The
all-reduce of the gradients among several chips is added by calculation. A teacher or a pruning is not part of the step.

Exit code: 1 where the step does not compile or does not fit, so the check can stand before anything that costs money.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfpipe.config.file import load_config
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.devices.strategy import precision, tpu_precision
from tfpipe.encoders import source as encoder_source
from tfpipe.encoders.architecture import Architecture
from tfpipe.errors import GateError, InputError
from tfpipe.files import write_json
from tfpipe.model.bert import build_training_model
from tfpipe.provenance import package_versions
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tools.tpu_check.batch import BatchShape, batch_shapes
from tfpipe.tools.tpu_check.compile import PINNED, check_installed, compile_for
from tfpipe.tools.tpu_check.lower import lower
from tfpipe.tools.tpu_check.report import Topology, needed_hbm_bytes, parse_topology, print_table, report, verdict
from tfpipe.train.optimizer import freeze, make_optimizer
from tfpipe.train.step import Hooks, Loss, make_replica_step, trainable_by_name

FINEST_SHARE = 64  # and not finer than this part of it
MOST_GUESSES = 5  # tries that go by a straight line
GRAIN = 8  # the largest batch is looked for among multiples of this


def run(
    config_file: Path,
    topologies: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    run_dir: str | None = None,
    rows: int | None = None,
    row_length: int | None = None,
    largest_batch: bool = False,
    json_file: Path | None = None,
) -> list[dict[str, Any]]:
    """Checks a configuration on every topology and prints the table.

    Args:
      config_file: YAML file.
      topologies: such as `v5e:2x4`.
      overrides: `a.b=VALUE`.
      run_dir: directory of the run; None: runs/NAME.
      rows: of a chip; None: those of a batch, divided among the chips.
      row_length: tokens of a row; given with `rows` where there is no run.
      largest_batch: whether to look for the most rows a chip that fit, from `rows` on.
      json_file: file for the results too.

    Returns:
      One entry for each topology: see `report.report`.

    Raises:
      InputError: an option or the configuration is wrong, or a package is missing.
      GateError: the step does not compile for a topology, or does not fit.
    """
    chosen = [parse_topology(name) for name in dict.fromkeys(topologies)]
    for name, value in (("--rows", rows), ("--row-length", row_length)):
        if value is not None and value < 1:
            raise InputError(f"{name} {value}: at least 1")
    config = load_config(config_file, list(overrides))
    policy = tpu_precision(config.train.precision).value
    check_installed()
    architecture = encoder_source.shape_of(config.encoder.source)[0]
    directory = RunDirectory(run_dir or Path("runs") / config.name)
    shapes = batch_shapes(config, directory, architecture, chosen, rows, row_length, config_file)
    say(f"  precision: {policy}; batches: {next(iter(shapes.values()))}")
    reports = []
    tried: dict[tuple[str, BatchShape], tuple[BatchShape, dict[str, Any], int]] = {}
    for topology in chosen:
        shape = shapes[topology.name]
        # The most rows are the same on every slice of a chip, wherever the search begins.
        key = topology.chip_name, replace(shape, rows=0) if largest_batch else shape
        if key not in tried:
            check = _Check(config, architecture, policy, topology, shape)
            tried[key] = check.largest() if largest_batch else (shape, *check.at(shape.rows))
        shape, answer, gradient_bytes = tried[key]
        reports.append(
            report(
                topology,
                answer,
                rows=shape.rows,
                row_length=shape.row_length,
                examples_per_row=shape.examples_per_row,
                gradient_bytes=gradient_bytes,
            )
        )
    print_table(reports)
    if json_file is not None:
        shape = {name: value for name, value in vars(next(iter(shapes.values()))).items() if name != "rows"}
        whole = {"config": str(config_file), "precision": policy, "batch": shape}
        write_json(json_file, whole | {"versions": package_versions() | PINNED, "topologies": reports})
        say(f"  {json_file}")
    bad = [f"{found['topology']}: {verdict(found)}" for found in reports if not found["fits"]]
    if bad:
        short = any("needed_hbm_bytes" in found for found in reports if not found["fits"])
        advice = "; lower train.batch_size, or raise train.gradient_accumulation" if short else ""
        raise GateError(f"tpu-check: {'; '.join(bad)}{advice}")
    return reports


class _Check:
    """A configuration's step, lowered and compiled for one kind of chip, at any number of rows."""

    def __init__(
        self, config: Config, architecture: Architecture, policy: str, topology: Topology, shape: BatchShape
    ) -> None:
        self._config, self._policy, self._topology, self._shape = config, policy, topology, shape
        self._architecture = replace(architecture, vocab_size=shape.vocab_size).with_dropout(config.train.dropout)
        self._found: dict[int, tuple[dict[str, Any], int]] = {}

    def at(self, rows: int) -> tuple[dict[str, Any], int]:
        """Asks the compiler for so many rows: its answer, and the bytes of all gradients in float32."""
        if rows not in self._found:
            shape = replace(self._shape, rows=rows)
            say(f"  {self._topology.chip_name}: lowering {rows} rows of {shape.row_length} tokens")
            step, arguments, gradient_bytes = _step_of(self._config, self._architecture, shape, self._policy)
            stablehlo = lower(step, arguments)
            say(f"  {self._topology.chip_name}: compiling, {len(stablehlo) / 1e6:.0f} MB of StableHLO")
            answer = compile_for(stablehlo, [self._topology.name])[self._topology.name]
            said = verdict(answer | self._memory(answer))
            say(f"  {self._topology.chip_name}: {rows} rows, {said} ({answer.get('seconds', 0.0):.0f} s)")
            self._found[rows] = answer, gradient_bytes
        return self._found[rows]

    def largest(self) -> tuple[BatchShape, dict[str, Any], int]:
        """Finds the most rows that fit, with their answer; where none fit, the fewest that were tried."""
        grain = GRAIN * self._config.train.gradient_accumulation

        def hbm_at(rows: int) -> int | None:
            answer, _ = self.at(rows)
            return self._memory(answer)["needed_hbm_bytes"] if answer["compiled"] else None

        most = search_largest(hbm_at, self._topology.chip.usable_hbm_bytes, self._shape.rows, grain)
        rows = most or min(self._found)
        return replace(self._shape, rows=rows), *self.at(rows)

    def _memory(self, answer: dict[str, Any]) -> dict[str, Any]:
        usable = self._topology.chip.usable_hbm_bytes
        if not answer["compiled"]:
            return {"fits": False}
        needed = needed_hbm_bytes(answer["memory"])
        return {"fits": needed <= usable, "needed_hbm_bytes": needed, "available_hbm_bytes": usable}


def search_largest(
    needed_at: Callable[[int], int | None], available: int, start: int, grain: int = GRAIN
) -> int | None:
    """Finds the largest multiple of `grain` rows that fits; of many rows, to within a 64th.

    The search doubles the rows until they do not fit, then halves the gap. Memory is close to linear in rows, so two
    answers predict the limit: trying there, and beside it, spares most other tries. Near the limit the compiler
    computes again the values that it can't keep, and memory is no longer linear, so only a few tries follow the line.

    Args:
      needed_at: rows -> bytes that they need; None where the compiler gave up.
      available: bytes of the chip.
      start: rows to begin with.
      grain: unit of the search.

    Returns:
      The rows; None where not even `grain` fit.
    """
    fits, fails, guesses = 0, None, 0  # in units of the grain
    known: dict[int, int] = {}
    unit = max(1, start // grain)
    while fails is None or fails - fits > max(1, fits // FINEST_SHARE):
        needed = needed_at(unit * grain)
        if needed is not None and needed <= available:
            fits = unit
        else:
            fails = unit
        if needed is not None:
            known[unit] = needed
        expected = _expected(known, available)
        if expected is not None and guesses < MOST_GUESSES and (fails is None or expected < fails):
            guesses += 1
            unit = min(max(expected, fits + 1), 4 * fits if fails is None else fails - 1)
        else:
            unit = 2 * fits if fails is None else (fits + fails) // 2
    return fits * grain or None


def _expected(known: dict[int, int], available: int) -> int | None:
    """Predicts how many units should just fit, by a line through the two largest that are known."""
    if len(known) < 2:
        return None
    first, second = sorted(known)[-2:]
    slope = (known[second] - known[first]) / (second - first)
    return None if slope <= 0.0 else int(second + (available - known[second]) // slope)


def _step_of(
    config: Config, architecture: Architecture, shape: BatchShape, policy: str
) -> tuple[Callable, list[tf.TensorSpec], int]:
    """Makes the step of one replica: a function, its arguments' shapes, the bytes of its gradients in float32."""
    settings = config.train
    specs = {
        name: tf.TensorSpec([shape.rows, shape.row_length], tf.int32)
        for name in ("input_ids", "token_type_ids", "segment_ids", "position_ids")
    }
    specs["cls_index"] = tf.TensorSpec([shape.rows, shape.slots], tf.int32)
    specs["labels"] = tf.TensorSpec([shape.rows, shape.slots, shape.num_labels], tf.float32)
    specs["weights"] = tf.TensorSpec([shape.rows, shape.slots], tf.float32)
    class_weights = None if settings.class_weights is None else (1.0,) * shape.num_labels  # any: the work is the same
    loss = Loss(config.task, settings.label_smoothing, class_weights)
    with precision(policy):
        model = build_training_model(architecture, shape.num_labels)
    if settings.frozen_layers is not None:
        freeze(model, settings.frozen_layers, architecture.num_hidden_layers)
    replica_step = make_replica_step(
        model,
        make_optimizer(trainable_by_name(model), settings, loss_scaling=False),
        replicas=1,
        loss=loss,
        seed=config.seed,
        micro_batches=settings.gradient_accumulation,
        clip_global_norm=settings.clip_global_norm,
        hooks=Hooks(),
    )

    def step(number, rate, *values):
        return replica_step(dict(zip(specs, values, strict=True)), number, rate)

    arguments = [tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.float32), *specs.values()]
    return step, arguments, 4 * sum(variable.shape.num_elements() for variable in model.trainable_variables)
