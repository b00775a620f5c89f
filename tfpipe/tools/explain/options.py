"""Options of `tfpipe explain` beside the run and the texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    text_pairs: tuple[str, ...] = ()
    """the second texts, where texts come in pairs"""
    variant: str | None = None
    label: str | None = None
    """that is explained, whatever the answer is"""
    method: str = "integrated_gradients"
    input: tuple[str, ...] = ()
    """files, as `data.source` names them; `-` is standard input"""
    output: Path | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    overrides: tuple[str, ...] = ()
    """`data.a=VALUE`: how the files are read"""
    limit: int | None = None
    """rows of the files that are explained"""
    overwrite: bool = False
