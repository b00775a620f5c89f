"""The typed, strict configuration of a run: every setting with its type, its default and what it means.

Enters: a mapping of settings. Leaves: a `Config`, every default filled in. Wrong values and settings that would have no
effect fail here, before any work; `config/file.py` reads and writes it, and says what is wrong in one line.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tfpipe import artifacts
from tfpipe.config.calibrate import Calibrate
from tfpipe.config.compress import Budget, Distill, Prune, Quantize
from tfpipe.config.data import Data
from tfpipe.config.report import Report
from tfpipe.config.types import (
    FormatName,
    Fraction,
    Interval,
    NotNegative,
    PositiveFloat,
    PositiveInt,
    Score,
    Section,
    Text,
    as_list,
)
from tfpipe.tasks import TASKS, task_of
from tfpipe.variants import VARIANTS

TaskName = Literal[tuple(TASKS)]
BASIS = "saved_model"
"""the format that every run writes"""
MOST_PROFILED = 50
"""steps of a profile"""


class Encoder(Section):
    """The pretrained encoder."""

    source: str = Field(
        description="package:NAME/PATH, hf:ORGANISATION/NAME[@REVISION], keras-nlp:PRESET, or a directory"
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="expected SHA-256 of the weights file; null: not checked"
    )


class EarlyStopping(Section):
    """When `train` (or `distill`) ends before its last epoch."""

    patience: PositiveInt = Field(2, description="evaluations in a row that may bring no improvement of train.metric")
    min_delta: NotNegative = Field(0.0, description="smallest change of the metric that counts as an improvement")


class ReduceOnPlateau(Section):
    """When `train` (or `distill`) multiplies its learning rate by a factor, beside the schedule."""

    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(0.5, description="of the learning rate")
    patience: PositiveInt = Field(1, description="evaluations in a row that may bring no improvement of train.metric")
    min_delta: NotNegative = Field(0.0, description="smallest change of the metric that counts as an improvement")


class Train(Section):
    """Fine-tuning of the dense model; what pruning and quantization do not set themselves they take from here."""

    epochs: PositiveFloat = Field(3.0, description="passes over the training rows")
    batch_size: PositiveInt = Field(
        32,
        description="examples per optimizer step, over all replicas; packed: on average, and within an eighth, as rows "
        "are a whole number",
    )
    batching: Literal["auto", "packed", "bucketed", "padded"] = Field(
        "auto",
        description="packed: several examples a row, one shape, hardly any padding; bucketed: an example a row, a few "
        "lengths; padded: an example a row of data.max_length; auto: packed, or bucketed where whole rows would change "
        "a small batch_size by more than an eighth",
    )
    row_length: Annotated[int, Field(ge=4, le=8192)] | None = Field(
        None, description="tokens of a packed row; null: the shortest from 64 on, of a few, that is filled to 90 %"
    )
    gradient_accumulation: PositiveInt = Field(
        1, description="micro-batches into which each replica divides its part of a step, to save memory"
    )
    optimizer: Literal["adamw", "adam", "sgd"] = Field("adamw", description="sgd has momentum")
    learning_rate: PositiveFloat = Field(5e-5, description="peak learning rate")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="how the rate falls from its peak to 0 at the last example; constant: it does not"
    )
    warmup_fraction: Fraction = Field(0.1, description="share of the examples over which the rate rises from 0")
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="factor of the learning rate per layer from the head down to the embeddings"
    )
    frozen_layers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="lowest layers that keep their weights, the embeddings too; 0: embeddings alone; null: none"
    )
    weight_decay: NotNegative = Field(
        0.01, description="decoupled decay (not of adam); biases and layer norms are left out"
    )
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="of sgd")
    clip_global_norm: PositiveFloat | None = Field(1.0, description="largest global gradient norm; null: no clipping")
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="share of the probability that the loss spreads over all labels"
    )
    class_weights: Literal["balanced"] | dict[Text, PositiveFloat] | None = Field(
        None, description="label -> weight of its examples in the loss; balanced: by inverse frequency; null: all 1"
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = Field(
        None, description="dropout of hidden states and attention; null: what the encoder's config.json says"
    )
    metric: Score = Field("accuracy", description="validation score that chooses the best checkpoint")
    evaluations_per_epoch: PositiveInt = Field(1, description="on the validation rows; one more at the end")
    early_stopping: EarlyStopping | None = Field(None, description="null: all epochs are trained")
    reduce_on_plateau: ReduceOnPlateau | None = Field(None, description="null: the schedule alone")
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"] = Field(
        "auto",
        description="tf.distribute strategy; auto: multi_worker where TF_CONFIG names several, else tpu where there is "
        "one, mirrored with several GPUs, one device",
    )
    worker_timeout: PositiveInt = Field(300, description="seconds that multi_worker waits for the others to join")
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "auto",
        description="compute precision; auto: mixed_bfloat16 on a TPU or a CPU that multiplies it, mixed_float16 with "
        "dynamic loss scaling on a GPU, else float32",
    )
    xla: Literal["auto", "on", "off"] = Field(
        "auto",
        description="whether XLA compiles forward and backward pass into one program; auto: on a GPU, whose kernels it "
        "joins, not on a CPU, where its matrix products take twice as long; a TPU always compiles the whole step",
    )
    steps_per_execution: PositiveInt = Field(
        1, description="steps per call of the compiled function; more saves the host's time where a step is short"
    )
    checkpoint_every: Interval = Field(
        "2 min",
        description="between two checkpoints, and so what a kill costs: steps, or a time such as 90 s or 1 h",
    )
    keep_last: PositiveInt = Field(
        2,
        description="checkpoints that are kept beside the best weights: where the newest is damaged, the next is used",
    )
    nonfinite: Literal["stop", "skip", "rollback"] = Field(
        "stop",
        description="where loss or gradient is NaN or infinite; skip: the step is left out; rollback: back to the last "
        "evaluation and on at half the learning rate, or left out where examples of the batch are at fault",
    )
    nonfinite_limit: PositiveInt = Field(5, description="how often in a fit, before it stops all the same")
    profile_steps: tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="first and last step, counted from 1, that TensorFlow profiles in each stage that trains, for "
        "TensorBoard's profile plugin; null: no profile",
    )

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Train:
        # What stands at its default was not asked for: the file that a run keeps names every setting.
        needs = (
            ("row_length", "batching", ("auto", "packed")),
            ("momentum", "optimizer", ("sgd",)),
            ("weight_decay", "optimizer", ("adamw", "sgd")),
            ("nonfinite_limit", "nonfinite", ("skip", "rollback")),
        )
        for name, other, wanted in needs:
            value, chosen = getattr(self, name), getattr(self, other)
            if value and value != type(self).model_fields[name].default and chosen not in wanted:
                raise ValueError(
                    f"train.{name} {value:g} has no effect with train.{other}: {chosen}; leave it out, or set "
                    f"train.{other}: {wanted[0]}"
                )
        return self

    @field_validator("profile_steps")
    @classmethod
    def _profile_is_short(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not value[0] <= value[1] < value[0] + MOST_PROFILED:
            raise ValueError(
                f"steps {value[0]} to {value[1]}: expected the first and the last of at most {MOST_PROFILED} steps, as "
                f"a profile has every operator of every step; write [{value[0]}, {value[0] + 4}]"
            )
        return value


class OpenVINO(Section):
    """The OpenVINO artifact: in which shapes and in which precision it is verified and run."""

    lengths: tuple[PositiveInt, ...] = Field(
        (32, 64, 128, 256, 512),
        description="tokens to which a text is padded, each a program of fixed length; those past the encoder's "
        "positions are left out",
    )
    batch_sizes: tuple[PositiveInt, ...] = Field(
        (1, 32), description="sizes of batches that get programs; a batch of another size is padded to the next, or cut"
    )
    precision: Literal["f32", "bf16"] = Field(
        "f32",
        description="between the products; bf16 is faster where the processor multiplies it, and `verify` then holds "
        "float variants too to the limits of int8",
    )


class LiteRT(Section):
    """The LiteRT artifact."""

    length: PositiveInt | None = Field(
        None,
        description="tokens to which each text is padded, a text a call, for delegates that need fixed shapes; null: "
        "any length and batch",
    )


class Export(Section):
    """The artifacts of each variant."""

    formats: Annotated[tuple[FormatName, ...], BeforeValidator(as_list)] = Field(
        default_factory=lambda: tuple(each.name for each in artifacts.FORMATS if each.by_default),
        description="which artifacts each variant is written as; saved_model and onnx where this is not set. "
        "saved_model is always among them: TF Serving and `tfpipe predict` load it",
    )
    onnx_opset: Annotated[int, Field(ge=17, le=18)] = Field(17, description="ONNX operator set")
    serving_version: Literal["2.19.1", "2.20.0"] = Field(
        "2.20.0", description="TF Serving release whose operators the SavedModel may use"
    )

    openvino: OpenVINO = Field(default_factory=OpenVINO)
    litert: LiteRT = Field(default_factory=LiteRT)

    @model_validator(mode="after")
    def _sections_have_an_effect(self) -> Export:
        for name in ("openvino", "litert"):
            section = getattr(self, name)
            if name not in self.formats and section != type(section)():
                raise ValueError(
                    f"export.{name} has no effect without {name} in export.formats; add it, or leave it out"
                )
        return self

    @field_validator("formats")
    @classmethod
    def _each_once_in_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"{', '.join(value)}: a format is named twice; name each once")
        if BASIS not in value:
            raise ValueError(f"{', '.join(value) or 'none'}: {BASIS} is missing, which `publish` needs; add it")
        return tuple(each.name for each in artifacts.formats_named(value))


class Verify(Section):
    """The gates: outside any of them nothing is published."""

    rows: PositiveInt = Field(5000, description="test rows that every artifact answers, drawn at random; at most all")
    batch_size: Annotated[int, Field(ge=2)] = Field(32, description="rows a batch; they answer one at a time as well")
    small_batch_rows: PositiveInt = Field(500, description="rows that answer one at a time")
    max_logit_diff: dict[FormatName, PositiveFloat] = Field(
        default_factory=dict,
        description="format -> largest logit difference from the float32 Keras model, divided by the largest logit of "
        "the row where that is more than 1, as float32 rounds larger logits by more; of formats that are left out: "
        + ", ".join(f"{each.name} {each.max_logit_diff:g}" for each in artifacts.FORMATS),
    )
    min_label_agreement_int8: Fraction = Field(0.99, description="int8 artifacts: share of equal labels, at least")
    max_probability_diff_int8: PositiveFloat = Field(
        0.01,
        description="int8 artifacts: probability of a row that moves from one label to others, on average, at most "
        "(multi_label: at the label where most moves)",
    )
    sanity: Literal["refuse", "allow"] = Field(
        "refuse",
        description="a model that gives all test rows the same answer, or is not right more often than the commonest "
        "answer would be (exact test): refuse: nothing is published; allow: it is said",
    )
    latency_runs: PositiveInt = Field(10, description="timed calls per artifact and shape; the median counts")
    threads: PositiveInt | None = Field(None, description="ONNX Runtime threads when timed; null: all processors")


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
        """The model variants that this run makes, in the order in which they are made."""
        return tuple(each.name for each in VARIANTS if each.section is None or self._has(each.section))

    def _has(self, section: str) -> bool:
        value = self
        for name in section.split("."):
            value = value and getattr(value, name)
        return value is not None
