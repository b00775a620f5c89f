"""The section `report` of a configuration: groups of rows that get a score of their own, and the search for errors."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from tfpipe.config.types import Section, Text


class Report(Section):
    """Contents of the report beside the measures."""

    slices: tuple[Text, ...] = Field(
        (),
        description="columns of the data; rows of equal values get a score of their own, as rows of one length, label "
        "and source file always do",
    )
    label_errors: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="training rows, drawn at random, that are searched for wrong labels; 0: held-out rows alone are; "
        "null: as many as take about 20 seconds on two cores",
    )

    @field_validator("slices")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"{', '.join(value)}: a column is named twice; name each once")
        return value
