"""One reader for each format.

A reader has two functions. `blocks(file, data)` cuts a file into blocks, in order, with as little work as that takes.
`cells(block, data)` turns one block into the cells of its records: a pure function, so it runs in any process, on any
machine, in any order. A block holds whole records of about `BLOCK_BYTES`, so how a source is cut depends on its bytes
alone. Some formats have three more: `classes(file, data)` where files can declare the classes of a column,
`whole_records(block, data)` where records have fields of their own, and `table_columns(file, data)` where a file has
tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tfpipe.config.data import Data
from tfpipe.console import say_once
from tfpipe.data.block import Block, Cells, MissingColumn, NoRows, Rejection, wanted_columns
from tfpipe.data.files.hubs import HUBS
from tfpipe.data.files.sniff import check_content
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.readers.folder_columns import inside, with_folder_columns
from tfpipe.errors import InputError


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields the blocks of a file, in order.

    Raises:
      InputError: the file can't be read, or lacks a column.
    """
    if file.format not in ("folder", *HUBS):
        check_content(file)
    if data.records is not None and file.format != "json_lines":
        raise InputError(f"{file.name}: no JSON document, so data.records has no effect; leave it out")
    if of_folders := {name for name, _ in file.columns} & set(wanted_columns(data)):
        file = replace(file, repeated=tuple(sorted(of_folders & set(columns(replace(file, columns=()), data)))))
    try:
        yield from _reader(file.format).blocks(file, inside(file, data))
    except NoRows:
        if not file.one_of_several:
            raise
        say_once(f"  {file.name}: no row in it")


def cells(block: Block, data: Data) -> Cells:
    """Reads the records of a block."""
    found = _reader(block.file.format).cells(block, inside(block.file, data))
    return with_folder_columns(found, block.file, data) if block.file.columns else found


def whole_records(block: Block, data: Data) -> Iterator[tuple[int, dict[str, Any] | Rejection, Any]] | None:
    """Yields the number of each record of a block and all its fields; None for a format whose files have columns."""
    reader = _reader(block.file.format)
    return reader.whole_records(block, data) if hasattr(reader, "whole_records") else None


def classes(file: SourceFile, data: Data) -> tuple[str, ...] | None:
    """Returns the classes of the label column that a file declares, in their order; None where it declares none.

    Raises:
      InputError: the file can't be read.
    """
    reader, data = _reader(file.format), inside(file, data)
    return reader.classes(file, data) if hasattr(reader, "classes") else None


def columns(file: SourceFile, data: Data, *, whole: bool = False) -> list[str]:
    """Lists the columns of a file; for records with fields of their own, the fields of the first records.

    Args:
      file: the file.
      data: how it is read.
      whole: whether a column of a file with types is listed as it is, instead of the dotted names of its fields.

    Raises:
      InputError: the file can't be read.
    """
    reader, nothing = (
        _reader(file.format),
        data.model_copy(update={"text_column": "\0", "text": None, "label_column": "\0"}),
    )
    of_folders, refused = [name for name, _ in file.columns], None
    for settings in (data, nothing):  # a document of JSON may be recognized by its columns alone
        try:
            if whole and data.query is None and hasattr(reader, "table_columns"):
                return [*reader.table_columns(file, settings), *of_folders]
            for block in itertools.islice(blocks(file, settings), 1):
                if hasattr(reader, "names"):
                    return [*reader.names(block, settings), *of_folders]
        except MissingColumn as error:
            there = error.whole if whole and error.whole is not None else error.there
            named = (
                there if whole and file.format in ("csv", "tsv") else filter(None, there)
            )  # pandas' index has no name
            return [*named, *(name for name in of_folders if name not in there)]
        except InputError as error:
            refused = refused or error
    raise refused or NoRows(f"{file.name}: no row; expected at least one row of each label")


def _reader(format_name: str):
    # Imported where they are needed: some bring a heavy library with them.
    match format_name:
        case "csv" | "tsv":
            from tfpipe.data.readers import delimited as reader
        case "json_lines":
            from tfpipe.data.readers import json_lines as reader
        case "parquet":
            from tfpipe.data.readers import parquet as reader
        case "lines" | "fasttext":
            from tfpipe.data.readers import text_lines as reader
        case "arrow":
            from tfpipe.data.readers import arrow as reader
        case "excel":
            from tfpipe.data.readers import excel as reader
        case "sqlite":
            from tfpipe.data.readers import sqlite as reader
        case "duckdb":
            from tfpipe.data.readers import duckdb as reader
        case "folder":
            from tfpipe.data.readers import folder as reader
        case "tfrecord":
            from tfpipe.data.readers import tfrecord as reader
        case "hf":
            from tfpipe.data.readers import hugging_face as reader
        case "tfds":
            from tfpipe.data.readers import tensorflow_datasets as reader
    return reader
