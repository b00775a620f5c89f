"""One reader for each format.

A reader has two functions. `blocks(file, data)` cuts a file into blocks, in order, with as little work as that takes.
`cells(block, data)` turns one block into the cells of its records: a pure function, so it runs in any process, on any
machine, in any order. A block holds whole records of about `BLOCK_BYTES`, so how a source is cut depends on its bytes
alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from tfpipe.config.data import Data
from tfpipe.data.block import Block, Cells
from tfpipe.data.hubs import HUBS
from tfpipe.data.sniff import check_content
from tfpipe.data.source_file import SourceFile


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """The blocks of a file, in order.

    Raises:
      InputError: the file can't be read, or lacks a column.
    """
    if file.format not in ("folder", *HUBS):
        check_content(file)
    return _reader(file.format).blocks(file, data)


def cells(block: Block, data: Data) -> Cells:
    """The records of a block."""
    return _reader(block.file.format).cells(block, data)


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
