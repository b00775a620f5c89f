"""Types of settings: a strict section, and numbers and texts within bounds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from tfpipe import artifacts
from tfpipe.metrics import SCORES

Score = Literal[*SCORES]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


def _as_interval(value: Any) -> Any:
    """Checks an interval: steps from 1 on, or a time above 0."""
    known = type(value) is int or (isinstance(value, str) and _TIME.fullmatch(value) is not None)
    if known and steps_or_seconds(value) > 0:
        return value
    raise ValueError("expected a number of steps, or a time such as 90 s, 10 min or 1 h")


_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(s|min|h)")
Interval = Annotated[int | str, BeforeValidator(_as_interval)]
"""a number of steps, or a time such as `90 s`, `10 min`, `1 h`"""


def steps_or_seconds(interval: int | str) -> int | float:
    """Turns an `Interval` into a number: steps are int, seconds are float."""
    if isinstance(interval, int):
        return interval
    number, unit = _TIME.fullmatch(interval).groups()
    return float(number) * {"s": 1.0, "min": 60.0, "h": 3600.0}[unit]


def _as_text(value: Any) -> Any:
    """Turns a whole number into text, such as the label 0. It leaves 1.50, of which YAML keeps only 1.5."""
    return str(value) if type(value) is int else value


def as_list(value: Any) -> Any:
    """Puts a single value into a list."""
    return value if isinstance(value, list | tuple) else [value]


Text = Annotated[str, BeforeValidator(_as_text)]
Source = str | tuple[str, ...]


def _as_format(value: Any) -> Any:
    names = [each.name for each in artifacts.FORMATS]
    if value not in names:
        raise ValueError(f"expected {', '.join(names[:-1])} or {names[-1]}")
    return value


FormatName = Annotated[str, BeforeValidator(_as_format)]
"""an artifact format that `export` writes"""


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def only(self, paths: Iterable[str]) -> Self:
        """Makes a view that has some settings alone: reading another raises a RuntimeError.

        Args:
          paths: dotted, from this section; the path of a section stands for all in it.
        """
        below: dict[str, list[str]] = {}
        for path in paths:
            name, _, rest = path.partition(".")
            below.setdefault(name, []).append(rest)
        view = self.model_copy()
        values = {name: value for name, value in self.__dict__.items() if name in below}
        for name, value in values.items():
            if isinstance(value, Section) and "" not in below[name]:
                values[name] = value.only(below[name])
        object.__setattr__(view, "__dict__", values)
        return view

    def __getattr__(self, name: str) -> Any:
        """Raises for settings that a view leaves out: Python calls it for missing attributes."""
        if name in type(self).model_fields:
            raise RuntimeError(
                f"{type(self).__name__}.{name} is read by a stage that does not declare it; add it to its row in "
                "tfpipe/stages/table.py, or a result would count as up to date after the setting has changed"
            )
        return super().__getattr__(name)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        types = _types(cls.model_fields[info.field_name].annotation)
        if bool not in types and types & {int, float} and _holds_bool(value):
            raise ValueError("expected a number, not true or false; yes, no, on and off are these in YAML")
        return value


def _types(annotation: Any) -> set[Any]:
    return {annotation}.union(*map(_types, get_args(annotation))) if get_args(annotation) else {annotation}


def _holds_bool(value: Any) -> bool:
    if isinstance(value, dict):
        return any(isinstance(each, bool) for each in (*value, *value.values()))
    return any(isinstance(each, bool) for each in as_list(value))
