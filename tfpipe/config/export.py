"""The sections `export` and `verify` of a configuration: the artifacts to write, and the gates that they must pass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tfpipe import artifacts
from tfpipe.config.types import FormatName, Fraction, PositiveFloat, PositiveInt, Section, as_list

BASIS = "saved_model"
"""the format that every run writes"""


class OpenVINO(Section):
    """The OpenVINO artifact: the shapes and the precision in which it is verified and run."""

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
    small_batch_rows: PositiveInt = Field(
        100,
        description="rows that answer one at a time, to show that an artifact answers alone as in batches: 8 bits may "
        "not do worse there than the same rows in batches, where that is beyond a limit",
    )
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
    latency_runs: PositiveInt = Field(
        10,
        description="timed calls per artifact and shape, at most: from the third on they end after a second; the "
        "median counts",
    )
    threads: PositiveInt | None = Field(None, description="ONNX Runtime threads when timed; null: all processors")
