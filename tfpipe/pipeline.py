"""The pipeline: labelled text in, verified and compressed classifiers out.

    prepare    rows -> splits -> token tables
    train      pretrained encoder + token tables -> dense classifier
    prune      dense -> pruned: zeros in the kernels, fine-tuned
    quantize   pruned (else dense) -> int8: learned ranges, weights on the 8-bit grid
    export     every variant -> SavedModel and ONNX
    verify     every artefact against the Keras model it came from; what passes is published under serving/
    report     the table, metrics.json, model_card.md

The stages know nothing of each other: each reads what an earlier one committed. This module alone knows their order,
what each reads, and when its result still holds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field

from tfpipe import encoder_source
from tfpipe.config import Config, Train
from tfpipe.config_data import Data
from tfpipe.config_file import dump_config, setting
from tfpipe.console import say
from tfpipe.data import sources
from tfpipe.rundir import Fingerprint, RunDirectory, write_text


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline: what it reads decides when it is done again."""

    name: str
    module: str
    """its `run(config, stage)` is the stage; imported only when it runs, as most import TensorFlow"""
    settings: tuple[str, ...]
    """dotted paths of the settings that it reads"""
    inputs: tuple[str, ...] = ()
    """stages that it reads; one that the configuration turns off is left out"""
    files: Callable[[Config], dict[str, str]] = field(default=lambda config: {})
    """files that it reads from outside the run, with their SHA-256"""


def _data_files(config: Config) -> dict[str, str]:
    return {**sources.identity(config.data), **encoder_source.identity(config.encoder.source, weights=False)}


def _encoder_files(config: Config) -> dict[str, str]:
    return encoder_source.identity(config.encoder.source, weights=True)


# The section `train`, but for what changes no result; and of it what pruning and quantization take over: the rest
# trains the dense model alone and reaches them as its output.
_TRAIN = tuple(
    f"train.{name}" for name in Train.model_fields if name not in ("checkpoint_every", "steps_per_execution")
)
_DENSE_ONLY = ("epochs", "learning_rate", "metric", "frozen_layers", "early_stopping", "reduce_on_plateau")
_TRAINING = tuple(name for name in _TRAIN if name.removeprefix("train.") not in (*_DENSE_ONLY, "precision"))

# How the work is spread changes no row.
_DATA = tuple(f"data.{name}" for name in Data.model_fields if name not in ("workers", "runner", "runner_options"))

STAGES = (
    Stage("prepare", "tfpipe.data.prepare", ("task", "seed", *_DATA), files=_data_files),
    Stage(
        "train",
        "tfpipe.train.train",
        ("task", "seed", "encoder.sha256", "data.max_length", *_TRAIN),
        inputs=("prepare",),
        files=_encoder_files,
    ),
    Stage(
        "prune",
        "tfpipe.compress.prune",
        ("task", "seed", "data.max_length", "prune", "train.precision", *_TRAINING),
        inputs=("prepare", "train"),
    ),
    Stage(
        "quantize",
        "tfpipe.compress.quantize",
        ("task", "seed", "data.max_length", "quantize", *_TRAINING),
        inputs=("prepare", "train", "prune"),
    ),
    Stage(
        "export",
        "tfpipe.export.export",
        ("export", "data.text_pair_column"),
        inputs=("prepare", "train", "prune", "quantize"),
    ),
    Stage(
        "verify",
        "tfpipe.evaluate.verify",
        ("name", "task", "seed", "verify", "export.serving_version", "data.text_pair_column"),
        inputs=("prepare", "train", "prune", "quantize", "export"),
    ),
    Stage(
        "report",
        "tfpipe.evaluate.report",
        tuple(Config.model_fields),  # the model card shows the whole configuration
        inputs=("prepare", "train", "prune", "quantize", "export", "verify"),
    ),
)


def stages_of(config: Config) -> tuple[Stage, ...]:
    """The stages that a configuration asks for, in order."""
    off = {name for name in ("prune", "quantize") if getattr(config, name) is None}
    return tuple(stage for stage in STAGES if stage.name not in off)


def run(config: Config, run: RunDirectory, *, until: str | None = None, redo: str | None = None) -> None:
    """Brings a run up to date: skips what holds, continues what was begun, redoes what a changed setting invalidates.

    Args:
      config: the configuration.
      run: its directory; held by a lock meanwhile.
      until: last stage to do; None: all.
      redo: stage to do again even if it holds (and so whatever its new output invalidates).
    """
    with run.lock():
        write_text(run.path / "config.yaml", dump_config(config))
        stages = stages_of(config)
        names = [stage.name for stage in stages]
        for number, stage in enumerate(stages, start=1):
            fingerprint = _fingerprint(config, run, stage, names)
            reason = "asked for by --redo" if stage.name == redo else run.why_redo(stage.name, fingerprint)
            if reason is None:
                say(f"[{number}/{len(stages)}] {stage.name}: up to date")
            else:
                say(f"[{number}/{len(stages)}] {stage.name}: {reason}")
                work = importlib.import_module(stage.module)
                with run.stage(stage.name, fingerprint) as directory:
                    work.run(config, directory)
                record = run.record(stage.name)
                say(f"[{number}/{len(stages)}] {stage.name}: done in {record['seconds']:.0f} s")
            if stage.name == until:
                return


def _fingerprint(config: Config, run: RunDirectory, stage: Stage, names: list[str]) -> Fingerprint:
    return Fingerprint(
        settings={path: setting(config, path) for path in stage.settings},
        files=stage.files(config),
        inputs={name: run.record(name)["output"] for name in stage.inputs if name in names},
    )
