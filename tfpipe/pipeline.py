"""The pipeline: labelled text in, verified and compressed classifiers out.

    prepare    rows -> splits -> token tables
    train      pretrained encoder + token tables -> dense classifier
    distill    dense -> distilled: a smaller model that the dense one teaches
    prune      distilled (else dense) -> pruned: zeros in the kernels, or fewer heads and columns, fine-tuned
    quantize   pruned (else distilled, else dense) -> int8: weights on the 8-bit grid, ranges of activations
    export     every variant -> SavedModel and ONNX
    verify     every artefact against the Keras model it came from, and the budget; what passes is published
    report     the table, metrics.json, model_card.md

The stages know nothing of each other: each reads what an earlier one committed. This module alone knows their order,
what each reads, and when its result still holds.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tfpipe import encoder_source
from tfpipe.compress.feasible import check_feasible
from tfpipe.config import Config, Train
from tfpipe.config_compress import Distill
from tfpipe.config_data import Data
from tfpipe.config_file import dump_config, setting
from tfpipe.console import say
from tfpipe.data import augment, sources
from tfpipe.errors import InputError
from tfpipe.escaping import printable
from tfpipe.files import sha256_of_file, write_text
from tfpipe.fingerprint import Fingerprint
from tfpipe.provenance import RELEASE, other_versions
from tfpipe.rundir import RunDirectory, StageDirectory
from tfpipe.train.cluster import workers_of


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline: what it reads decides when it is done again."""

    name: str
    module: str
    """its `run(config, stage)` is the stage; imported only when it runs, as most import TensorFlow"""
    settings: tuple[str, ...]
    """dotted paths of the settings that it reads"""
    also: Callable[[Config], tuple[str, ...]] = field(default=lambda config: ())
    """more of them, by what the configuration is"""
    inputs: tuple[str, ...] = ()
    """stages that it reads; one that the configuration turns off is left out"""
    files: Callable[[Config], dict[str, str]] = field(default=lambda config: {})
    """files that it reads from outside the run, with their SHA-256"""
    version: int = 1
    """raised when the same settings and inputs come to give another output: CONTRIBUTING.md says when"""
    libraries: tuple[str, ...] = ()
    """packages that make its output: what was made with other versions of them still holds, and a run says so"""
    trains: bool = False
    """whether it is done by all workers of a training, where there are several; the chief does the others"""
    publishes: bool = False
    """whether it writes outside its own directory: then no other run can take over its result"""


def _data_files(config: Config) -> dict[str, str]:
    augmentation = config.data.augmentation
    synonyms = augment.wordnet_files(augmentation.wordnet) if augmentation and augmentation.synonyms else []
    return {
        **sources.identity(config.data),
        **encoder_source.identity(config.encoder.source, weights=False),
        **{str(path): sha256_of_file(path) for path in synonyms},
    }


def _encoder_files(config: Config) -> dict[str, str]:
    return encoder_source.identity(config.encoder.source, weights=True)


def _student_files(config: Config) -> dict[str, str]:
    student = config.distill and config.distill.student
    return encoder_source.identity(student.encoder, weights=True) if student and student.encoder else {}


# The section `train`, but for what changes no result, or its last digits alone, or decides whether there is one; and of
# it what pruning and quantization take over: the rest trains the dense model, and the student, and reaches them as its
# output.
_TRAIN = tuple(
    f"train.{name}"
    for name in Train.model_fields
    if name
    not in (
        *("strategy", "worker_timeout", "xla", "steps_per_execution"),
        *("checkpoint_every", "keep_last", "nonfinite", "nonfinite_limit"),
    )
)
_DENSE_ONLY = ("epochs", "learning_rate", "metric", "frozen_layers", "early_stopping", "reduce_on_plateau")
_TRAINING = tuple(name for name in _TRAIN if name.removeprefix("train.") not in (*_DENSE_ONLY, "precision"))

# What a teacher adds to another stage's loss.
_TEACHING = tuple(f"distill.{name}" for name in Distill.model_fields if name != "student")
_MODELS = ("prepare", "train", "distill", "prune", "quantize")


def _quantize_also(config: Config) -> tuple[str, ...]:
    """What teaches a model that is trained, in the precision of the teacher; the sizes say what may stay float."""
    trained = config.quantize is not None and config.quantize.mode == "qat"
    taught = (*_TEACHING, *(("train.precision",) if config.distill is not None else ())) if trained else ()
    sized = ("budget.max_size_bytes", "budget.artifact") if config.quantize and config.quantize.float_layers else ()
    return taught + sized


# How the work is spread changes no row.
_DATA = tuple(f"data.{name}" for name in Data.model_fields if name not in ("workers", "runner", "runner_options"))

_KERAS = ("tensorflow", "tensorflow-tpu", "tf-keras", "numpy")
_TF_MOT = (*_KERAS, "tensorflow-model-optimization")

# Libraries that make something of an output only where a configuration asks for it.
_ASKED_FOR: dict[str, Callable[[Config], bool]] = {
    "rensa": lambda config: config.data.duplicates.near is not False,
    "scikit-learn": lambda config: config.data.cleaning.stop_words == "english",
    "nltk": lambda config: config.data.augmentation is not None and config.data.augmentation.synonyms > 0.0,
    "datasets": lambda config: "hf:" in str(config.data.source),
    "tensorflow-datasets": lambda config: "tfds:" in str(config.data.source),
}

STAGES = (
    Stage(
        "prepare",
        "tfpipe.data.prepare",
        ("task", "seed", *_DATA),
        files=_data_files,
        libraries=("tensorflow", "tensorflow-text", "tokenizers", "pyarrow", "regex", "numpy", *_ASKED_FOR),
    ),
    Stage(
        "train",
        "tfpipe.train.train",
        ("task", "seed", "encoder.sha256", "data.max_length", *_TRAIN),
        inputs=("prepare",),
        files=_encoder_files,
        libraries=_KERAS,
        trains=True,
    ),
    Stage(
        "distill",
        "tfpipe.compress.distill",
        ("task", "seed", "data.max_length", "distill", *_TRAIN),
        inputs=("prepare", "train"),
        files=_student_files,
        libraries=_KERAS,
        trains=True,
    ),
    Stage(
        "prune",
        "tfpipe.compress.prune",
        ("task", "seed", "data.max_length", "prune", *_TEACHING, "train.precision", *_TRAINING),
        inputs=("prepare", "train", "distill"),
        libraries=_TF_MOT,
        trains=True,
    ),
    Stage(
        "quantize",
        "tfpipe.compress.quantize",
        ("task", "seed", "data.max_length", "quantize", *_TRAINING),
        also=_quantize_also,
        inputs=("prepare", "train", "distill", "prune"),
        libraries=_TF_MOT,
        trains=True,
    ),
    Stage(
        "export",
        "tfpipe.export.export",
        ("export", "data.text_pair_column"),
        inputs=_MODELS,
        libraries=("tensorflow", "tf-keras", "tensorflow-text", "tf2onnx", "onnx"),
    ),
    Stage(
        "verify",
        "tfpipe.evaluate.verify",
        ("name", "task", "seed", "verify", "budget", "export.serving_version", "data.text_pair_column"),
        inputs=(*_MODELS, "export"),
        libraries=("onnxruntime", "tensorflow", "tensorflow-text"),
        publishes=True,
    ),
    Stage(
        "report",
        "tfpipe.evaluate.report",
        tuple(Config.model_fields),  # the model card shows the whole configuration
        inputs=(*_MODELS, "export", "verify"),
    ),
)


def stages_of(config: Config) -> tuple[Stage, ...]:
    """The stages that a configuration asks for, in order."""
    off = {name for name in ("prune", "quantize") if getattr(config, name) is None}
    if config.distill is None or config.distill.student is None:
        off.add("distill")
    return tuple(stage for stage in STAGES if stage.name not in off)


def run(
    config: Config,
    run: RunDirectory,
    *,
    until: str | None = None,
    redo: str | None = None,
    others: Sequence[RunDirectory] = (),
) -> None:
    """Brings a run up to date: skips what holds, continues what was begun, redoes what a changed setting invalidates.

    With several workers, the chief does so, and calls the others to the stages that train.

    Args:
      config: the configuration.
      run: its directory; held by a lock meanwhile.
      until: last stage to do; None: all.
      redo: stage to do again even if it holds (and so whatever its new output invalidates).
      others: runs whose committed stages are taken over where the fingerprint is the same.
    """
    check_feasible(config)
    names = [stage.name for stage in stages_of(config)]
    asked = names if until is None else names[: names.index(until) + 1]
    cluster = workers_of(config.train.strategy)
    if cluster is not None and not any(stage.trains for stage in STAGES if stage.name in asked):
        if not cluster.is_chief:
            say(f"{cluster}: nothing to train; the chief does the rest")
            return
        cluster = None
    if cluster is None:
        _bring_up_to_date(config, run, until, redo, others, training=lambda stage, inputs: nullcontext())
        return
    from tfpipe.train import workers

    say(f"{cluster}{': the chief' if cluster.is_chief else ''}")
    with workers.loss_of_a_worker_said(cluster):
        team = workers.join(config, cluster)
        if cluster.is_chief:
            with team.released():
                _bring_up_to_date(config, run, until, redo, others, training=team.training)
        else:
            for stage, inputs in team.calls():
                say(f"{stage}: as a worker")
                _help(config, stage, {name: _as_the_chief_has_it(run, name, digest) for name, digest in inputs.items()})


def _help(config: Config, name: str, inputs: dict[str, Path]) -> None:
    """Does a worker's part of a stage that trains; what it writes is thrown away."""
    stage = next(stage for stage in STAGES if stage.name == name)
    with tempfile.TemporaryDirectory(prefix="tfpipe-worker-") as scratch:
        importlib.import_module(stage.module).run(config, StageDirectory(stage.name, Path(scratch), inputs))


def _as_the_chief_has_it(run: RunDirectory, name: str, output: str) -> Path:
    record = run.record(name)
    if record is None or record["output"] != output:
        raise InputError(
            f"{run.path}: stage {name} is not there as the chief has it; give all workers one --run-dir that each can "
            "see: on a shared disk, or gs://BUCKET/RUN"
        )
    return run.verified(name)


def _bring_up_to_date(
    config: Config,
    run: RunDirectory,
    until: str | None,
    redo: str | None,
    others: Sequence[RunDirectory],
    training: Callable[[str, dict[str, str]], AbstractContextManager[None]],
) -> None:
    with run.lock(), _earlier_results_named(config, run):
        write_text(run.path / "config.yaml", dump_config(config))
        stages = stages_of(config)
        names = [stage.name for stage in stages]
        for number, stage in enumerate(stages, start=1):
            fingerprint = _fingerprint(config, run, stage, names)
            reason = "asked for by --redo" if stage.name == redo else _why_redo(config, run, stage.name, fingerprint)
            taken = reason and stage.name != redo and not stage.publishes
            if reason is None:
                say(f"[{number}/{len(stages)}] {stage.name}: up to date")
                _warn_of_other_versions(config, run, stage)
            elif taken and (other := _adopted(config, run, stage.name, fingerprint, others)):
                say(f"[{number}/{len(stages)}] {stage.name}: as in {other}")
                _warn_of_other_versions(config, run, stage)
            else:
                say(f"[{number}/{len(stages)}] {stage.name}: {reason}")
                work = importlib.import_module(stage.module)
                together = training(stage.name, fingerprint.inputs) if stage.trains else nullcontext()
                with run.stage(stage.name, fingerprint) as directory, together:
                    work.run(config, directory)
                record = run.record(stage.name)
                say(f"[{number}/{len(stages)}] {stage.name}: done in {record['seconds']:.0f} s")
            if stage.name == until:
                return


@contextmanager
def _earlier_results_named(config: Config, run: RunDirectory) -> Iterator[None]:
    """Says, however the block ends, which committed stages did not read what the stages before them hold now."""
    try:
        yield
    finally:
        with suppress(InputError):  # of a store that can't be reached: that has been said
            records = {stage.name: run.committed(stage.name) for stage in stages_of(config)}
            outputs = {name: record and record["output"] for name, record in records.items()}
            earlier = [
                f"{name}/"
                for name, record in records.items()
                if record and any(outputs.get(other) != output for other, output in record["inputs"].items())
            ]
            if earlier:
                say(f"warning: {', '.join(earlier)} {'are' if earlier[1:] else 'is'} of an earlier run")


def _why_redo(config: Config, run: RunDirectory, name: str, fingerprint: Fingerprint) -> str | None:
    """None where a stage holds, else the reason why it must be done.

    `train.nonfinite` is not in the fingerprint: it changes nothing where all goes well, and a training that stopped may
    go on under another one. Where it did something, the result is that of this way alone, and the record says so.
    """
    reason = run.why_redo(name, fingerprint)
    helped = None if reason else run.record(name)["choices"].get("nonfinite")
    if helped in (None, config.train.nonfinite):
        return reason
    return f"train.nonfinite: {helped} -> {config.train.nonfinite}, and a loss or gradient was not finite"


def _adopted(
    config: Config, run: RunDirectory, name: str, fingerprint: Fingerprint, others: Sequence[RunDirectory]
) -> Path | None:
    hold = (other for other in others if _why_redo(config, other, name, fingerprint) is None)
    return next((other.path for other in hold if run.adopt(name, fingerprint, other)), None)


def _warn_of_other_versions(config: Config, run: RunDirectory, stage: Stage) -> None:
    """Says where what holds was made with other versions of the libraries that make it."""
    used = [name for name in stage.libraries if _ASKED_FOR.get(name, lambda config: True)(config)]
    others = other_versions(run.record(stage.name).get("versions"), used)
    both = [(name, old, new) for name, (old, new) in others.items() if old is not None and new is not None]
    if both:
        made = " and ".join(f"{name} {old}" for name, old, _ in both)
        here = " and ".join(new for _, _, new in both) + (" is" if len(both) == 1 else " are") + " installed"
        say(printable(f"warning: {stage.name} was made with {made}, {here}; --redo {stage.name} makes it again"))


def _fingerprint(config: Config, run: RunDirectory, stage: Stage, names: list[str]) -> Fingerprint:
    return Fingerprint(
        settings={path: setting(config, path) for path in (*stage.settings, *stage.also(config))},
        files=stage.files(config),
        inputs={name: run.record(name)["output"] for name in stage.inputs if name in names},
        code={"tfpipe": RELEASE, "stage": stage.version},
    )
