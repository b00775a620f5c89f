"""The section `calibrate` of a configuration: from logits to probabilities that hold, and from these to answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tfpipe.config.types import Section


class Calibrate(Section):
    """Choices on validation rows that are part of every artifact."""

    temperature: bool = Field(
        True,
        description="logits are divided by the number that makes their probabilities fit the validation rows best "
        "(Guo et al., 2017); labels stay as they are",
    )
    thresholds: Literal["f1", "half"] = Field(
        "f1",
        description="multi_label: probability above which a label is given: f1: where its F1 on validation rows is "
        "largest, for labels of 10 rows or more; half: 0.5",
    )
    precision: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None,
        description="single_label: share of the given labels that are to be right; below the probability where it is "
        'so on validation rows, the answer is no label (""); null: every text has a label',
    )
