"""The first line of a delimited file: names of columns, or a row."""

from __future__ import annotations

import re

from tfpipe.config.data import Data
from tfpipe.data.block import check_answers, check_columns, excerpt, wanted_columns
from tfpipe.data.files.encodings import not_utf8
from tfpipe.data.files.source_file import SourceFile
from tfpipe.errors import InputError

_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_UNREADABLE = re.compile("[\udc80-\udcff\0]")
_SHOWN_CELLS = 6
_NAME = re.compile(r"[^\W\d]\w{0,40}")
_LISTED_NUMBERS = 20
_ROWS_OF_A_LABEL = 20  # in which a label that the first row has is found again
_WORDS_OF_A_TEXT = 8
_USUAL_NAMES = {"text", "label"}
_NAMES_OF_LABELS = {"label", "labels", "class", "category", "target", "sentiment", "intent", "rating", "y"}


def check_readable(names: list[str], file: SourceFile, data: Data) -> None:
    """Checks that names of columns are text, and that their rows are labels.

    Raises:
      InputError: they are not UTF-8, or the rows are answers of annotators.
    """
    if any(map(_UNREADABLE.search, names)):
        raise InputError(f"{file.name}, line 1: not UTF-8 text; {not_utf8([file], data)}")
    check_answers(names, file.name, data)


def has_wanted(names: list[str], data: Data) -> bool:
    """Tells whether each column that is read is named, once."""
    return all(names.count(column) == 1 for column in wanted_columns(data))


def refuse(names: list[str], rows: list[list[str]], data: Data, file: SourceFile, hint: str) -> None:
    """Raises an error that explains why the first line does not name the columns that are read.

    Raises:
      InputError: always.
    """
    check_readable(names, file, data)
    if _looks_like_row(names, rows):
        raise no_header(names, data, file.name, hint)
    check_columns(names, data, file.name, hint)


def no_header(names: list[str], data: Data, name: str, hint: str = "") -> InputError:
    """Returns the error for a file whose first line is a row."""
    cells = [repr(excerpt(cell)) for cell in names[:_SHOWN_CELLS]]
    shown = ", ".join([*cells, "…"] if len(names) > _SHOWN_CELLS else cells)
    numbers = range(1, len(names) + 1) if len(names) <= _LISTED_NUMBERS else (1, 2, "…", len(names))
    columns = ", ".join("…" if number == "…" else f"column_{number}" for number in numbers)
    wanted = " and ".join(f"{column!r} ({setting})" for column, setting in wanted_columns(data).items())
    also = f"; {hint}" if hint else ""
    return InputError(
        f"{name}, line 1: no header: the first line looks like a row ({shown}); name its {len(names)} columns, "
        f"data.columns: [{columns}], with {wanted} in their places, or repeat the line there if these are names{also}"
    )


def recurs(names: list[str], rows: list[list[str]]) -> bool:
    """Tells whether a cell of the first line often occurs below it, as `spam` does and `label` does not."""
    below = [row for row in rows if len(row) == len(names) and row != names]
    often = max(2, len(below) / 200)
    counts = (sum(row[at] == cell for row in below) for at, cell in enumerate(names) if cell.strip())
    return not (_numbered(names) or _USUAL_NAMES & set(names)) and any(count >= often for count in counts)


def check_named(columns: tuple[str, ...], rows: list[list[str]], label: int, name: str) -> None:
    """Checks that `data.columns` fits the first rows.

    Raises:
      InputError: no row has as many columns, or the first row rather holds their names.
    """
    fitting = [row for row in rows if len(row) == len(columns)]
    if rows and not fitting:
        raise InputError(
            f"{name}: data.columns names {len(columns)} columns, but its rows have {len(rows[0])}, the first "
            f"{excerpt(', '.join(map(repr, rows[0])))}; name each of them"
        )
    if fitting and rows[0] == fitting[0] != list(columns) and _looks_like_names(fitting[0], fitting[1:], label):
        raise InputError(
            f"{name}, line 1: its first line looks like names of columns ({excerpt(', '.join(fitting[0]))}) and would "
            "be read as a row; leave data.columns out, or list these names; if it is a row, put another one first"
        )


def _looks_like_names(cells: list[str], below: list[list[str]], label: int) -> bool:
    """Tells whether a first row is rather a header: words over numbers or texts, none of which occurs below."""
    below = [row for row in below if row != cells]
    occurs = any(row[at] == cell for row in below for at, cell in enumerate(cells))
    if not below or occurs or len(set(cells)) < len(cells):
        return False
    if cells[label].strip().lower() in _NAMES_OF_LABELS:
        return True
    columns = list(zip(*below, strict=True))
    over_numbers = any(
        any(map(str.isalpha, cell)) and not _NUMBER.fullmatch(cell) and all(map(_NUMBER.fullmatch, column))
        for cell, column in zip(cells, columns, strict=True)
    )
    over_texts = len(below) >= _ROWS_OF_A_LABEL and any(
        sum(len(text.split()) > 2 for text in column) > len(column) / 2 for column in columns
    )
    return len(below) > 1 and (over_numbers or (over_texts and all(map(_NAME.fullmatch, cells))))


def with_row_names(names: list[str], rows: list[list[str]], separator: str) -> bool:
    """Tells whether rows begin with a name that the header does not mention, as R's `write.table` has them."""
    if not rows or any(len(row) != len(names) + 1 for row in rows):
        return False
    first = [row[0] for row in rows]
    numbers = all(cell.isdecimal() for cell in first)  # else a separator within the text would look the same
    return len(set(first)) == len(first) and (numbers or separator == "\t") and any(row[-1] for row in rows)


def _numbered(names: list[str]) -> bool:
    """Tells whether columns are named 0, 1, ..., as pandas does; an index without a name may stand before them."""
    named = [name for name in names if name]
    return named == [str(number) for number in range(len(named))]


def _looks_like_row(cells: list[str], rows: list[list[str]]) -> bool:
    """Tells whether a first line without the wanted names is a row: it has a number, a text, or a recurring cell."""
    if len(cells) < 2 or _numbered(cells):
        return False
    below = [row for row in rows if len(row) == len(cells)]
    texts = any(
        len(cell.split()) >= _WORDS_OF_A_TEXT
        and sum(len(row[at].split()) >= _WORDS_OF_A_TEXT for row in below) > len(below) / 2
        for at, cell in enumerate(cells)
    )
    return texts or any(_NUMBER.fullmatch(cell.strip()) for cell in cells) or recurs(cells, rows)
