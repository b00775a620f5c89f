"""The section `train` of a configuration: how a model is fine-tuned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tfpipe.config.types import Fraction, Interval, NotNegative, PositiveFloat, PositiveInt, Score, Section, Text

MOST_PROFILED = 50
"""steps of a profile"""


class EarlyStopping(Section):
    """The rule by which `train` (or `distill`) ends before its last epoch."""

    patience: PositiveInt = Field(2, description="evaluations in a row that may bring no improvement of train.metric")
    min_delta: NotNegative = Field(0.0, description="smallest change of the metric that counts as an improvement")


class ReduceOnPlateau(Section):
    """The rule by which `train` (or `distill`) multiplies its learning rate by a factor, beside the schedule."""

    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(0.5, description="of the learning rate")
    patience: PositiveInt = Field(1, description="evaluations in a row that may bring no improvement of train.metric")
    min_delta: NotNegative = Field(0.0, description="smallest change of the metric that counts as an improvement")


class Train(Section):
    """Fine-tuning of the dense model; pruning and quantization take the settings that they do not set from here."""

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
