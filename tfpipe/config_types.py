"""What settings are made of: a strict section, and numbers and texts within bounds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


Interval = PositiveInt | Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)? ?(s|min|h)$")]
"""a number of steps, or a time such as `90 s`, `10 min`, `1 h`"""


def steps_or_seconds(interval: int | str) -> int | float:
    """An `Interval` as a number: steps are int, seconds are float."""
    if isinstance(interval, int):
        return interval
    number = interval.rstrip("sminh ")
    return float(number) * {"s": 1.0, "min": 60.0, "h": 3600.0}[interval[len(number) :].strip()]


def _as_text(value: Any) -> Any:
    """A number that stands for text, such as the label 0: YAML knows no other way to write it without quotes."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def as_list(value: Any) -> Any:
    """One value where several may stand."""
    return value if isinstance(value, list | tuple) else [value]


Text = Annotated[str, BeforeValidator(_as_text)]
Source = str | tuple[str, ...]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
