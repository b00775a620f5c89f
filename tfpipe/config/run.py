"""The typed, strict configuration of a run: every setting with its type, its default and its meaning.

Enters: a mapping of settings. Leaves: a `Config`, every default filled in. Wrong values and settings that would have no
effect fail here, before any work. `config/file.py` reads and writes it, and explains an error in one line.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tfpipe import artifacts
from tfpipe.config.calibrate import Calibrate
from tfpipe.config.compress import Budget, Distill, Prune, Quantize
from tfpipe.config.data import Data
from tfpipe.config.export import BASIS, Export, Verify
from tfpipe.config.report import Report
from tfpipe.config.train import Train
from tfpipe.config.types import Section
from tfpipe.tasks import TASKS, task_of
from tfpipe.variants import VARIANTS

TaskName = Literal[tuple(TASKS)]


class Encoder(Section):
    """The pretrained encoder."""

    source: str = Field(
        description="package:NAME/PATH, hf:ORGANISATION/NAME[@REVISION], keras-nlp:PRESET, or a directory"
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="expected SHA-256 of the weights file; null: not checked"
    )


class Config(Section):
    """One run: `tfpipe run CONFIG`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the run: runs/NAME by default")
    task: TaskName = Field(next(iter(TASKS)), description="one label a text, or any number")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="seed of everything random")
    data: Data
    encoder: Encoder
    train: Train = Field(default_factory=Train)
    distill: Distill | None = Field(default_factory=Distill, description="null: the dense model teaches no one")
    prune: Prune | None = Field(default_factory=Prune, description="null: no pruned variant")
    quantize: Quantize | None = Field(default_factory=Quantize, description="null: no int8 variant")
    calibrate: Calibrate = Field(default_factory=Calibrate)
    budget: Budget = Field(default_factory=Budget)
    export: Export = Field(default_factory=Export)
    verify: Verify = Field(default_factory=Verify)
    report: Report = Field(default_factory=Report)

    @model_validator(mode="after")
    def _slices_are_read(self) -> Config:
        if self.data.slice_columns != self.report.slices:
            self.__dict__["data"] = self.data.sliced_by(self.report.slices)
        return self

    @model_validator(mode="after")
    def _fits_the_task(self) -> Config:
        one_label, separator = task_of(self.task).one_label, self.data.label_separator
        for name, metric in (("train", self.train.metric), ("budget", self.budget.metric)):
            if one_label and metric == "hamming_loss":
                raise ValueError(
                    f"{name}.metric hamming_loss is of several labels a row; accuracy says the same of one"
                )
        if one_label and separator is not None:
            raise ValueError(f"data.label_separator {separator!r} has no effect with task: {self.task}; leave it out")
        if self.data.balance == "oversample" and not one_label:
            raise ValueError(
                "data.balance: oversample needs task: single_label; else set train.class_weights: balanced"
            )
        return self

    @model_validator(mode="after")
    def _calibration_fits(self) -> Config:
        if task_of(self.task).one_label and self.calibrate.thresholds != "f1":
            raise ValueError("calibrate.thresholds has no effect with task: single_label; leave it out")
        if not task_of(self.task).one_label and self.calibrate.precision is not None:
            raise ValueError("calibrate.precision has no effect with task: multi_label; set it to null")
        return self

    @model_validator(mode="after")
    def _formats_are_written(self) -> Config:
        formats, artifact = self.export.formats, self.budget.artifact
        if artifact not in formats:
            raise ValueError(f"budget.artifact {artifact}: not in export.formats ({', '.join(formats)}); add it there")
        if unwritten := [name for name in self.verify.max_logit_diff if name not in formats]:
            raise ValueError(
                f"verify.max_logit_diff.{unwritten[0]} has no effect without {unwritten[0]} in export.formats; "
                "leave it out"
            )
        return self

    @model_validator(mode="after")
    def _texts_fit(self) -> Config:
        length = self.export.litert.length
        if length is not None and length < self.data.max_length:
            raise ValueError(
                f"export.litert.length {length}: texts have up to {self.data.max_length} tokens (data.max_length); "
                "set it to that, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _formats_take_the_texts(self) -> Config:
        cleaning = self.data.cleaning
        steps = {name: getattr(cleaning, name) for name in ("html", "unicode", "stop_words")}
        cleaned = next((name for name, value in steps.items() if value), None)
        for each in artifacts.formats_named(self.export.formats):
            if cleaned and not each.cleans:
                raise ValueError(
                    f"export.formats: {each.name} takes texts as they are, and data.cleaning.{cleaned} changes them; "
                    f"leave {each.name} out ({BASIS} takes texts too, and cleans them), or the cleaning"
                )
        return self

    @model_validator(mode="after")
    def _compression_fits(self) -> Config:
        quantize = self.quantize
        calibrates = quantize is not None and (quantize.mode != "weight_only" or quantize.float_layers > 0)
        # The default is a batch where that is more.
        default = Quantize.model_fields["calibration_rows"].default
        if calibrates and quantize.calibration_rows < min(self.train.batch_size, default):
            raise ValueError(
                f"quantize.calibration_rows {quantize.calibration_rows} is less than a batch (train.batch_size "
                f"{self.train.batch_size}): too few to set a range by; use some hundred rows"
            )
        return self

    @property
    def variants(self) -> tuple[str, ...]:
        """Lists the model variants that this run makes, in the order in which they are made."""
        return tuple(each.name for each in VARIANTS if each.section is None or self._has(each.section))

    def _has(self, section: str) -> bool:
        value = self
        for name in section.split("."):
            value = value and getattr(value, name)
        return value is not None
