"""The table of stages: their order and inputs, the settings and libraries that decide their output. No TensorFlow.

prepare    rows -> splits -> token tables
train      pretrained encoder + token tables -> dense classifier
distill    dense -> distilled: a smaller model that the dense one teaches
prune      distilled (else dense) -> pruned: zeros in the kernels, or fewer heads and columns, fine-tuned
quantize   pruned (else distilled, else dense) -> int8: weights on the 8-bit grid, ranges of activations
export     every variant -> SavedModel and ONNX
verify     every artifact against the Keras model it came from, and the budget
publish    artifacts that passed -> versions for TF Serving
report     the table, metrics.json, report.html, model_card.md
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from tfpipe import artifacts
from tfpipe.config.compress import Distill
from tfpipe.config.data import Data
from tfpipe.config.run import Config
from tfpipe.config.train import Train
from tfpipe.data import augment
from tfpipe.data.files import sources
from tfpipe.encoders import source as encoder_source
from tfpipe.files import sha256_of_file
from tfpipe.variants import STAGE_OF_VARIANT

_SPREADS = "how the work is spread changes no result"
_KEPT = "when and how many checkpoints are kept changes no result"
WITHOUT_EFFECT = {
    "data.workers": _SPREADS,
    "data.runner": _SPREADS,
    "data.runner_options": _SPREADS,
    "train.strategy": f"{_SPREADS}, but for the last digits",
    "train.worker_timeout": "it decides whether there is a result, not which",
    "train.xla": "the last digits alone",
    "train.steps_per_execution": _SPREADS,
    "train.checkpoint_every": _KEPT,
    "train.keep_last": _KEPT,
    "train.nonfinite": "the record says where it did something, and `pipeline` asks for it",
    "train.nonfinite_limit": "it decides whether there is a result, not which",
    "train.profile_steps": "a profile watches steps and computes none",
}
"""settings that every stage may read and that are in no fingerprint, with the reason"""


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline: its inputs decide when it is done again."""

    name: str
    module: str
    """its `run(config, stage)` is the stage; imported only when it runs, as most import TensorFlow"""
    settings: tuple[str, ...]
    """dotted paths of the settings that it reads, and that are in its fingerprint; it can read no other"""
    also: Callable[[Config], tuple[str, ...]] = field(default=lambda config: ())
    """more of them, by what the configuration is"""
    unrecorded: tuple[str, ...] = ()
    """what it may read besides, as `files` holds the content, or as it has no effect here"""
    inputs: tuple[str, ...] = ()
    """stages that it reads; one that the configuration turns off is left out"""
    files: Callable[[Config], dict[str, str]] = field(default=lambda config: {})
    """files that it reads from outside the run, with their SHA-256"""
    version: int = 1
    """raised when the same settings and inputs come to give another output: CONTRIBUTING.md says when"""
    code: Callable[[Config], dict[str, str]] = field(default=lambda config: {})
    """gives more of tfpipe that decides its output: part -> its versions"""
    libraries: tuple[str, ...] = ()
    """packages that make its output: what was made with other versions of them still holds, and a run says so"""
    trains: bool = False
    """whether it is done by all workers of a training, where there are several; the chief does the others"""
    publishes: bool = False
    """whether it writes outside its own directory: then no other run can take over its result"""

    def recorded(self, config: Config) -> tuple[str, ...]:
        """Lists the settings that are in the stage's fingerprint."""
        return (*self.settings, *self.also(config))

    def view(self, config: Config) -> Config:
        """Makes the part of the configuration that the stage may read: see `Section.only`."""
        return config.only((*self.recorded(config), *self.unrecorded, *WITHOUT_EFFECT))

    def libraries_used(self, config: Config) -> list[str]:
        """Lists the libraries of the stage that this configuration uses."""
        return [name for name in self.libraries if _ASKED_FOR.get(name, lambda config: True)(config)]


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


# `_TRAINING` is the part of `train` that prune and quantize inherit.
_TRAIN = tuple(path for name in Train.model_fields if (path := f"train.{name}") not in WITHOUT_EFFECT)
_DENSE_ONLY = ("epochs", "learning_rate", "metric", "frozen_layers", "early_stopping", "reduce_on_plateau")
_TRAINING = tuple(name for name in _TRAIN if name.removeprefix("train.") not in (*_DENSE_ONLY, "precision"))

# What a teacher adds to another stage's loss.
_TEACHING = tuple(f"distill.{name}" for name in Distill.model_fields if name != "student")
_MODELS = ("prepare", *STAGE_OF_VARIANT.values())


def _prepare_also(config: Config) -> tuple[str, ...]:
    """Lists `report.slices` where it names columns: `prepare` then keeps their values in a file beside its tables.

    That file is no part of the digest of its output (`StageDirectory.listings`), so nothing trains again. `report`
    alone reads it, and has the data's content in its own fingerprint.
    """
    return ("report.slices",) if config.report.slices else ()


def _sliced_files(config: Config) -> dict[str, str]:
    return sources.identity(config.data) if config.report.slices else {}


def _quantize_also(config: Config) -> tuple[str, ...]:
    """Lists the settings of a teacher, and of a budget of bytes, which limits the layers that stay float."""
    trained = config.quantize is not None and config.quantize.mode == "qat"
    taught = (*_TEACHING, *(("train.precision",) if config.distill is not None else ())) if trained else ()
    sized = ("budget.max_size_bytes", "budget.artifact") if config.quantize and config.quantize.float_layers else ()
    return taught + sized


_DATA = tuple(path for name in Data.model_fields if (path := f"data.{name}") not in WITHOUT_EFFECT)

_KERAS = ("tensorflow", "tensorflow-tpu", "tf-keras", "numpy")
_TF_MOT = (*_KERAS, "tensorflow-model-optimization")

_OF_EVERY_RUN = {
    package for each in artifacts.FORMATS if each.by_default for package in (*each.written_with, *each.run_with)
}


def _writes(format: str, config: Config) -> bool:
    return format in config.export.formats


# Libraries that make something of an output only where a configuration asks for it.
_ASKED_FOR_BY_DATA: dict[str, Callable[[Config], bool]] = {
    "rensa": lambda config: config.data.duplicates.near is not False,
    "scikit-learn": lambda config: config.data.cleaning.stop_words == "english",
    "nltk": lambda config: config.data.augmentation is not None and config.data.augmentation.synonyms > 0.0,
    "datasets": lambda config: "hf:" in str(config.data.source),
    "tensorflow-datasets": lambda config: "tfds:" in str(config.data.source),
    "openpyxl": lambda config: config.data.format == "excel" or ".xls" in str(config.data.source),
    "duckdb": lambda config: config.data.format == "duckdb" or ".duckdb" in str(config.data.source),
}
_ASKED_FOR = _ASKED_FOR_BY_DATA | {
    package: partial(_writes, each.name)
    for each in artifacts.FORMATS
    if not each.by_default
    for package in {*each.written_with, *each.run_with}.difference(_OF_EVERY_RUN)
}


def _format_versions(config: Config) -> dict[str, str]:
    """Gives the names and versions of the formats that a run writes, for a fingerprint."""
    written = artifacts.formats_named(config.export.formats)
    return {"formats": ", ".join(f"{each.name} {each.version}" for each in written)}


def _packages(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(itertools.chain(*lists)))


STAGES = (
    Stage(
        "prepare",
        "tfpipe.stages.prepare",
        ("task", "seed", *_DATA),
        version=3,
        also=_prepare_also,
        unrecorded=("encoder.source", "report.slices"),
        files=_data_files,
        libraries=("tensorflow", "tensorflow-text", "tokenizers", "pyarrow", "regex", "numpy", *_ASKED_FOR_BY_DATA),
    ),
    Stage(
        "train",
        "tfpipe.stages.train",
        ("task", "seed", "encoder.sha256", "data.max_length", *_TRAIN),
        unrecorded=("encoder.source",),
        inputs=("prepare",),
        files=_encoder_files,
        version=2,
        libraries=_KERAS,
        trains=True,
    ),
    Stage(
        "distill",
        "tfpipe.stages.distill",
        ("task", "seed", "data.max_length", "distill", *_TRAIN),
        inputs=("prepare", "train"),
        files=_student_files,
        version=2,
        libraries=_KERAS,
        trains=True,
    ),
    Stage(
        "prune",
        "tfpipe.stages.prune",
        ("task", "seed", "data.max_length", "prune", *_TEACHING, "train.precision", *_TRAINING),
        inputs=("prepare", "train", "distill"),
        version=2,
        libraries=_TF_MOT,
        trains=True,
    ),
    Stage(
        "quantize",
        "tfpipe.stages.quantize",
        ("task", "seed", "data.max_length", "quantize", *_TRAINING),
        also=_quantize_also,
        # Where nothing is trained, it says what has no effect.
        unrecorded=("train.precision", "prune", "distill"),
        inputs=("prepare", "train", "distill", "prune"),
        version=2,
        libraries=_TF_MOT,
        trains=True,
    ),
    Stage(
        "export",
        "tfpipe.stages.export",
        ("export", "calibrate", "data.text_pair_column"),
        version=4,
        inputs=_MODELS,
        code=_format_versions,
        libraries=_packages((("scipy",), *(each.written_with for each in artifacts.FORMATS))),
    ),
    Stage(
        "verify",
        "tfpipe.stages.verify",
        ("task", "seed", "verify", "budget", "export.formats", "data.text_pair_column", "data.max_length"),
        version=4,
        inputs=(*_MODELS, "export"),
        libraries=_packages(each.run_with for each in artifacts.FORMATS),
    ),
    Stage(
        "publish",
        "tfpipe.stages.publish",
        ("name", "seed", "export.formats", "export.serving_version", "data.text_pair_column"),
        inputs=(*_MODELS, "export", "verify"),
        publishes=True,
    ),
    Stage(
        "report",
        "tfpipe.stages.report",
        tuple(Config.model_fields),  # the model card shows the whole configuration
        files=_sliced_files,
        version=3,
        libraries=("cleanlab", "scikit-learn", "scipy"),
        inputs=(*_MODELS, "export", "verify", "publish"),
    ),
)


def stages_of(config: Config) -> tuple[Stage, ...]:
    """Lists the stages that a configuration asks for, in order."""
    made = {STAGE_OF_VARIANT[name] for name in config.variants}
    return tuple(stage for stage in STAGES if stage.name in made or stage.name not in STAGE_OF_VARIANT.values())
