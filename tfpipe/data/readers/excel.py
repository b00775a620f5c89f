"""Excel's workbooks (.xlsx), by openpyxl: a sheet with a header in its first row, row by row."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data.block import Block, Cells, NoRows, Rejection, check_columns, excerpt, wanted_columns
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.streams import open_bytes
from tfpipe.errors import InputError

_HEADER_ROWS = 20  # in which a header is looked for, to name the row
_ESCAPED = re.compile(r"_x(00[01][0-9A-Fa-f])_")
_ERRORS = frozenset(
    ("#N/A", "#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#SPILL!", "#CALC!", "#FIELD!")
)


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields blocks whose payload is a list of rows: the number of each, and the values of the wanted columns.

    Raises:
      InputError: openpyxl is missing, the file can't be read, its sheet is not plain, or lacks a column.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(
            f"{file.name}: Excel files are read by openpyxl, which is not installed; install it with: pip install "
            "'tfpipe[excel]', or save the sheet as CSV (UTF-8)"
        ) from error
    with open_bytes(file.path) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what openpyxl leaves out, such as styles
        try:
            workbook = openpyxl.load_workbook(stream, read_only=True, data_only=True, keep_links=False)
            yield from _blocks(_rows(workbook, file, data), file)
        except InputError:
            raise
        except Exception as error:  # of zipfile, expat and openpyxl, of any kind in a damaged file
            reason = excerpt(f"{type(error).__name__}: {error}")
            raise InputError(f"{file.name}: not a whole Excel file ({reason}); save it again") from error


def cells(block: Block, data: Data) -> Cells:
    """Reads the rows of a block."""
    wanted = wanted_columns(data)
    columns: dict[str, list[Any]] = {column: [] for column in wanted}
    cells = Cells(columns, [], [])
    # Of several label columns, each says itself what it can't hold; `predict` reads all columns as such.
    checked = [
        at
        for at, setting in enumerate(wanted.values())
        if isinstance(data.label_column, str) or setting != "data.label_column"
    ]
    for number, row in block.payload:
        values = [_value(value) for value in row]
        wrong = next((at for at in checked if isinstance(values[at], str) and values[at] in _ERRORS), None)
        if wrong is not None:
            reason = f"an error of Excel in {list(wanted)[wrong]!r} ({values[wrong]})"
            cells.rejections.append(Rejection(block.file.name, number, reason, ""))
            continue
        cells.numbers.append(number)
        for column, value in zip(wanted, values, strict=True):
            columns[column].append(value)
    return cells


def _blocks(rows: Iterator[tuple[int, tuple[Any, ...]]], file: SourceFile) -> Iterator[Block]:
    number = size = 0
    part: list[tuple[int, tuple[Any, ...]]] = []
    for row in rows:
        part.append(row)
        size += sum(len(value) if isinstance(value, str) else 8 for value in row[1])
        if size >= blocks_module.BLOCK_BYTES or len(part) >= blocks_module.BLOCK_RECORDS:
            yield Block(file, number, part[0][0], part, size)
            number, size, part = number + 1, 0, []
    if part:
        yield Block(file, number, part[0][0], part, size)
    elif not number:
        raise NoRows(f"{file.name}: a header and no row; expected at least one row of each label")


def _rows(workbook: Any, file: SourceFile, data: Data) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yields the number of each row that is not blank, and its values in the wanted columns."""
    sheet = _sheet(workbook, file, data)
    header = [_name(value) for value in next(sheet.iter_rows(values_only=True, max_row=1), ())]
    while header and not header[-1]:  # a cell far out makes every row as long
        header.pop()
    name = f"{file.name}, sheet {sheet.title!r}"
    _check_header(sheet, header, name, data)
    places = [header.index(column) for column in wanted_columns(data)]
    for number, row in enumerate(sheet.iter_rows(values_only=True, min_row=2, max_col=len(header)), start=2):
        if any(value is not None for value in row):
            yield number, tuple(row[place] for place in places)


def _sheet(workbook: Any, file: SourceFile, data: Data) -> Any:
    """Returns the sheet that `data.sheet` names, or the only one that has rows."""
    sheets = {sheet.title: sheet for sheet in workbook.worksheets}
    listed = ", ".join(map(repr, map(excerpt, sheets)))
    if data.sheet is not None:
        if data.sheet not in sheets:
            raise InputError(f"{file.name}: no sheet {data.sheet!r} (data.sheet); its sheets: {listed or 'none'}")
        return sheets[data.sheet]
    filled = [title for title, sheet in sheets.items() if _has_rows(sheet)]
    if len(filled) == 1:
        return sheets[filled[0]]
    if not filled:
        raise InputError(f"{file.name}: no sheet has a row; its sheets: {listed or 'none'}")
    listed = ", ".join(map(repr, map(excerpt, filled)))
    raise InputError(f"{file.name}: {len(filled)} sheets have rows: {listed}; set data.sheet to one of them")


def _has_rows(sheet: Any) -> bool:
    rows = sheet.iter_rows(values_only=True, max_col=64, max_row=100)
    return any(value is not None for row in rows for value in row)


def _check_header(sheet: Any, header: list[str], name: str, data: Data) -> None:
    """Checks that the first row names each wanted column once.

    Raises:
      InputError: it does not; names the row that does.
    """
    wanted = set(wanted_columns(data))
    if not wanted <= set(header):
        for number, row in enumerate(sheet.iter_rows(values_only=True, min_row=2, max_row=_HEADER_ROWS), start=2):
            if wanted <= {_name(value) for value in row}:
                raise InputError(
                    f"{name}: its header is in row {number}, expected in the first; delete the rows above it"
                )
    check_columns([column for column in header if column], data, name)


def _name(value: Any) -> str:
    return "" if value is None else str(_value(value)).strip()


def _value(value: Any) -> Any:
    """Returns a cell's value. XML holds a control character as `_x000D_`, and openpyxl leaves it so."""
    if isinstance(value, str) and "_x" in value:
        return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), value)
    return value
