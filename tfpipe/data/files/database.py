"""The common part of readers of databases: the choice of the table, and names within SQL."""

from __future__ import annotations

from pathlib import Path

from tfpipe.config.data import Data
from tfpipe.console import say_once
from tfpipe.data.block import MissingColumn, excerpt, wanted_columns
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.streams import COMPRESSIONS, is_remote, zip_and_member
from tfpipe.data.nested import splits
from tfpipe.errors import InputError

_LISTED = 10  # tables, and columns of each


def check_is_local(file: SourceFile) -> None:
    """Checks that a database lies on this machine as it is, since its pages are read in any order.

    Raises:
      InputError: it does not.
    """
    if is_remote(file.path):
        raise InputError(f"{file.name}: a database is read on this machine only; copy it here")
    if Path(file.path).suffix in COMPRESSIONS or zip_and_member(file.path):
        raise InputError(f"{file.name}: a database can't be read while it is compressed; unpack it")


def column_of(name: str, columns: list[str]) -> str | None:
    """Finds the column that a name means: that of the name, else the one whose field a dotted name means."""
    return next((each for each in (name, *(head for head, _ in splits(name))) if each in columns), None)


def chosen_table(tables: dict[str, list[str]], file: SourceFile, data: Data, *, structs: bool = False) -> str:
    """Returns the only table that has the wanted columns.

    Args:
      tables: name of each table and view -> its columns.
      file: the database.
      data: names the columns.
      structs: whether columns may have fields.

    Raises:
      InputError: there are several such tables, or none; lists them.
    """
    wanted, tables = list(wanted_columns(data)), dict(sorted(tables.items()))
    fitting = [
        table
        for table, columns in tables.items()
        if all(name in columns or (structs and column_of(name, columns)) for name in wanted)
    ]
    if len(fitting) == 1:
        if len(tables) > 1:
            say_once(f"  {file.name}: table {excerpt(fitting[0])!r} is read, the only one with the wanted columns")
        return fitting[0]
    listed = "; ".join(f"{excerpt(table)!r} ({_listed(columns)})" for table, columns in list(tables.items())[:_LISTED])
    more = "; …" if len(tables) > _LISTED else ""
    which = f"{len(fitting)} tables have" if fitting else "no table has"
    columns = ", ".join(map(quoted, wanted))
    example = quoted(excerpt((fitting or list(tables) or ["TABLE"])[0]))
    message = (
        f"{file.name}: {which} the columns {_listed(wanted)}; tables: {listed or 'none'}{more}; "
        f"set data.query, such as: SELECT {columns} FROM {example} ORDER BY 1"
    )
    raise MissingColumn(message, next(iter(tables.values()))) if len(tables) == 1 else InputError(message)


def _listed(columns: list[str]) -> str:
    return ", ".join(repr(excerpt(column)) for column in columns[:_LISTED]) + (", …" if len(columns) > _LISTED else "")


def quoted(name: str) -> str:
    """Returns a name within SQL."""
    return '"' + name.replace('"', '""') + '"'
