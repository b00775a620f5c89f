"""The variants of a classifier in the order in which a run makes them, each with its stage and config section."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple


class Variant(NamedTuple):
    """One variant."""

    name: str
    """as directories, tables and TF Serving name it"""
    stage: str
    """that makes it"""
    section: str | None
    """of the configuration, that asks for it; None: every run makes it"""


VARIANTS = (
    Variant("dense", "train", None),
    Variant("distilled", "distill", "distill.student"),
    Variant("pruned", "prune", "prune"),
    Variant("int8", "quantize", "quantize"),
)
"""each made of the one before it that the run has"""

STAGE_OF_VARIANT = {variant.name: variant.stage for variant in VARIANTS}
SECTION_OF_VARIANT = {variant.name: variant.section for variant in VARIANTS}


def made_of(stage: str, there: Container[str]) -> str:
    """Names the stage that another stage starts from: the last stage before it that makes a variant of the run.

    Args:
      stage: that makes a variant, not the first.
      there: stages that the run has.
    """
    stages = [variant.stage for variant in VARIANTS]
    return next(name for name in reversed(stages[: stages.index(stage)]) if name in there)
