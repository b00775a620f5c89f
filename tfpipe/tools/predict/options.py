"""Options of `tfpipe predict` beside the model and the texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tfpipe.errors import InputError


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    text_pairs: tuple[str, ...] = ()
    """the second texts, where texts come in pairs"""
    variant: str | None = None
    artifact: str | None = None
    server: str | None = None
    """address of a server that answers in place of an artifact"""
    input: tuple[str, ...] = ()
    """files, as `data.source` names them; `-` is standard input"""
    output: Path | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    overrides: tuple[str, ...] = ()
    """`data.a=VALUE`: how the files are read"""
    probabilities: bool | None = None
    overwrite: bool = False
    runner: str | None = None
    runner_options: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    """operators that a SavedModel may have although they reach beyond the model"""


def exists_already(output: Path) -> InputError:
    """Returns the error for an output that exists, where the options do not ask to replace it."""
    return InputError(f"--output {output}: exists already; give another name, or --overwrite to replace it")
