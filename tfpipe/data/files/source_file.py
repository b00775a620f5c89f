"""A file of the source, which a reader reads from its first row to its last."""

from __future__ import annotations

from dataclasses import dataclass

from tfpipe.config.data import SplitName


@dataclass(frozen=True)
class SourceFile:
    """A file, a folder of classes, or one split of a hub's dataset: a reader reads it from its first row on."""

    number: int
    """index in the list of all; with the number of a row it identifies the row"""
    name: str
    """as it is shown"""
    path: str
    """what is opened"""
    format: str
    """csv, tsv, json_lines, parquet, folder, tfrecord, hf or tfds"""
    split: SplitName | None
    """given by the configuration or by the dataset; None: decided row by row"""
    repeated: tuple[str, ...] = ()
    """those of `columns` that the file has too"""
    one_of_several: bool = False
    """whether it may be without a row"""
    encoding: str | None = None
    """of a file of text; None: UTF-8, or what a byte order mark says"""
    columns: tuple[tuple[str, str | None], ...] = ()
    """columns that the names of its folders give, with their value, the same for each row"""
    tool: str | None = None
    """annotation tool that wrote it, whose records are read by `annotations.py`"""
    left_out: tuple[str, ...] = ()
    """folders of a folder of classes that are not read"""
