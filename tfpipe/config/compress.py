"""The sections `distill`, `prune`, `quantize` and `budget` of a configuration: how to make a model smaller."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tfpipe.config.types import FormatName, Fraction, NotNegative, PositiveFloat, PositiveInt, Score, Section

LATENCY_SHAPES = {"b1_s32": (1, 32), "b1_s128": (1, 128), "b32_s64": (32, 64)}
"""name -> (texts of a call, tokens of each): where latencies are measured"""


def _set_to_another_value(section: Section, name: str) -> bool:
    """Tells whether a setting differs from its default: the file that a run keeps names every setting."""
    return getattr(section, name) != type(section).model_fields[name].default


class Student(Section):
    """A smaller model that the dense one teaches from the start: the variant `distilled`."""

    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, description="layers of the dense model that it is made of, from 0, such as [1, 3, 5]; null: an encoder"
    )
    encoder: str | None = Field(
        None, description="source of a pretrained encoder with the same vocabulary, as encoder.source; null: layers"
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="expected SHA-256 of the encoder's weights; null: not checked"
    )
    epochs: PositiveFloat = Field(3.0, description="passes over the training rows")
    learning_rate: PositiveFloat = Field(1e-4, description="peak learning rate")

    @model_validator(mode="after")
    def _one_origin(self) -> Student:
        if (self.layers is None) == (self.encoder is None):
            given = "neither is given" if self.layers is None else "both are given"
            raise ValueError(f"give layers (of the dense model, such as [1, 3, 5]) or encoder (another one); {given}")
        if self.layers is not None and (not self.layers or list(self.layers) != sorted(set(self.layers))):
            raise ValueError(f"layers {list(self.layers)}: expected rising numbers, such as [1, 3, 5]")
        if self.sha256 is not None and self.encoder is None:
            raise ValueError("sha256 has no effect without encoder; leave it out")
        return self


class Distill(Section):
    """The dense model as a teacher: of a student, and of the pruned and the quantized model while they train."""

    temperature: PositiveFloat = Field(2.0, description="of the soft labels; 1: the teacher's own probabilities")
    weight: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.7, description="share of the soft labels in the loss; the rest is that of the true labels"
    )
    hidden_weight: NotNegative = Field(
        0.0, description="factor of the mean squared difference of hidden states, added to the loss; 0: not compared"
    )
    layer_map: dict[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = Field(
        None,
        min_length=1,
        description="layer of the model that learns -> layer of the dense one whose hidden states it compares with, "
        "from 0; null: evenly spread, the last with the last",
    )
    student: Student | None = Field(None, description="null: no smaller model, the variants alone are taught")

    @model_validator(mode="after")
    def _map_has_an_effect(self) -> Distill:
        if self.layer_map is not None and not self.hidden_weight:
            raise ValueError("layer_map has no effect with hidden_weight: 0; set hidden_weight, or leave it out")
        return self


class Prune(Section):
    """Pruning with fine-tuning: TF-MOT's masks, by magnitude, in the 2:4 pattern, or by structure."""

    method: Literal["magnitude", "two_four", "structured"] = Field(
        "magnitude",
        description="magnitude: the smallest weights become zeros; two_four: two of each four inputs of a channel; "
        "structured: whole attention heads and feed-forward columns are removed, so that every file gets smaller and "
        "faster",
    )
    sparsity: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5,
        description="magnitude: share of zeros in every kernel of the encoder's layers; two_four: 0.5 always; "
        "structured: share of the parameters of the encoder's layers that is removed",
    )
    embeddings: bool = Field(False, description="magnitude: whether word embeddings are pruned as well")
    epochs: PositiveFloat = Field(1.0, description="passes over the training rows")
    learning_rate: PositiveFloat = Field(
        1e-4, description="peak learning rate; three epochs at 2e-4 win back more where much is pruned"
    )
    ramp_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.5, description="share of the steps over which sparsity rises; the rest recovers accuracy; two_four: no ramp"
    )

    @field_validator("sparsity", mode="before")
    @classmethod
    def _leaves_something(cls, value: Any) -> Any:
        if isinstance(value, int | float) and value >= 1.0:
            raise ValueError("nothing would be left to answer; expected a share above 0 and below 1, such as 0.5")
        return value

    @property
    def without_effect(self) -> list[str]:
        """Lists the settings that have no effect, in full: tfpipe reports them, as they ask for no other result."""
        idle = self.method == "two_four" and _set_to_another_value(self, "ramp_fraction")
        return ["prune.ramp_fraction"] if idle else []

    @model_validator(mode="after")
    def _fits_the_method(self) -> Prune:
        if self.method == "two_four" and _set_to_another_value(self, "sparsity"):
            raise ValueError(
                f"sparsity {self.sparsity:g} with method: two_four, which sets two of each four weights to zero: leave "
                "it out, or set method: magnitude; a sweep takes whole sections: --grid 'prune={method: two_four},"
                "{sparsity: 0.8}'"
            )
        if self.embeddings and self.method != "magnitude":
            raise ValueError(f"embeddings has no effect with method: {self.method}; set method: magnitude")
        return self


class Quantize(Section):
    """8-bit weights and activations."""

    mode: Literal["qat", "ptq", "weight_only"] = Field(
        "qat",
        description="qat: training with fake quantization (TF-MOT), in float32; ptq: ranges from calibration rows, no "
        "training; weight_only: 8-bit weights, float activations",
    )
    epochs: PositiveFloat = Field(0.5, description="qat: passes over the training rows")
    learning_rate: PositiveFloat = Field(2e-5, description="qat: peak learning rate")
    calibration: Literal["min_max", "percentile"] = Field(
        "min_max",
        description="range of an activation: min_max: the mean over batches of the smallest and largest value; "
        "percentile: what a share of all values lies in",
    )
    percentile: Annotated[float, Field(gt=50.0, lt=100.0)] = Field(
        99.99, description="percentile: the largest value of a range, in percent of the values; the smallest likewise"
    )
    calibration_rows: PositiveInt = Field(
        512, description="training rows that set the ranges and rank the layers by the damage that 8 bits do"
    )
    float_layers: Annotated[int, Field(ge=0)] = Field(
        0,
        description="how many of the most sensitive projections stay float, as long as budget.max_size_bytes is kept; "
        "those of one input (query, key and value) count as one; 0: none, and none is ranked",
    )
    scheme: Literal["asymmetric", "symmetric"] = Field(
        "asymmetric",
        description="range of an activation: asymmetric: from its smallest to its largest value, uint8; symmetric: as "
        "far below 0 as above, int8 with a zero point of 0, for TensorRT and NPUs that take no others; slower in ONNX "
        "Runtime on a CPU",
    )
    reduce_range: bool = Field(
        False,
        description="kernels take 7 bits (codes within ±63), so that no sum of two products overflows 16 bits; for "
        "processors with AVX2 or AVX-512 but neither VNNI nor AMX: the model card says what share overflows there",
    )

    @property
    def without_effect(self) -> list[str]:
        """Lists the settings that have no effect. A sweep over modes sets them too, so tfpipe does not refuse them."""
        idle = []
        if self.mode != "qat":
            idle += ["epochs", "learning_rate"]
        if self.mode == "weight_only":
            idle += ["calibration", "scheme", "reduce_range"]
        if self.mode == "weight_only" or self.calibration != "percentile":
            idle += ["percentile"]
        if self.mode == "weight_only" and not self.float_layers:
            idle += ["calibration_rows"]
        return [name for name in idle if _set_to_another_value(self, name)]


class Budget(Section):
    """The costs that the last variant of a run may have: outside them, nothing is published."""

    metric: Score = Field("accuracy", description="score on validation rows that max_drop is about")
    max_drop: Fraction | None = Field(
        0.03, description="how much of it a compressed variant may lose against dense; null: any"
    )
    max_size_bytes: PositiveInt | None = Field(None, description="size of its file or directory, in bytes; null: any")
    max_latency_ms: PositiveFloat | None = Field(
        None, description="median milliseconds of a call at latency_shape, on this machine; null: any"
    )
    latency_shape: Literal[*LATENCY_SHAPES] = Field(
        "b32_s64", description="texts of a call and tokens of each: b32_s64 is 32 texts of 64 tokens"
    )
    artifact: FormatName = Field("onnx", description="which artifact of a variant is held to it")
