"""A folder per class, a text a file: the layout of aclImdb. Columns: text, label (the folder), file."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data.block import Block, Cells, check_columns, wanted_columns
from tfpipe.data.files.encodings import as_utf8
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.sources import folder_files
from tfpipe.data.files.streams import READ_ERRORS, open_bytes
from tfpipe.errors import InputError

COLUMNS = ("text", "label", "file")
_BLOCK_FILES = 1000  # what is read of them is not known before


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields blocks whose payload is a list of files."""
    check_columns(COLUMNS, data, f"{file.name} (a folder per class)")
    paths = folder_files(file)
    if not paths:
        raise InputError(
            f"{file.name}: no file in a folder of it; expected {file.name}/CLASS/FILE, a text a file, or for other "
            f"formats a pattern such as {file.name}/*.csv"
        )
    step = min(_BLOCK_FILES, blocks_module.BLOCK_RECORDS)
    for number, start in enumerate(range(0, len(paths), step)):
        part = paths[start : start + step]
        yield Block(file, number, start + 1, part, len(part))


def cells(block: Block, data: Data) -> Cells:
    """Reads the texts of a block."""
    columns: dict[str, list[str]] = {column: [] for column in COLUMNS}
    for path in block.payload:
        try:
            with as_utf8(open_bytes(path), path, block.file.encoding, block.file.name) as stream:
                columns["text"].append(stream.read().decode("utf-8-sig", "surrogateescape"))
        except READ_ERRORS as error:
            raise InputError(f"{path}: can't read it to its end ({error}); fetch the file again") from error
        columns["label"].append(os.path.basename(os.path.dirname(path)))
        columns["file"].append(os.path.basename(path))
    names = [block.file.name.rstrip("/") + path[len(block.file.path.rstrip("/")) :] for path in block.payload]
    numbers = list(range(block.first, block.first + len(block.payload)))
    return Cells({column: columns[column] for column in wanted_columns(data)}, numbers, [], names)
