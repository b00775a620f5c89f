"""SQLite databases, read only: the rows of `data.query`, or of the only table that has the wanted columns."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data.block import Block, Cells, batches_as_blocks, check_columns, wanted_columns
from tfpipe.data.files.database import check_is_local, chosen_table, quoted
from tfpipe.data.files.source_file import SourceFile
from tfpipe.errors import InputError

_READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
_NOT_TWICE_THE_SAME = ("random", "randomblob")
_ROWS_AT_ONCE = 512
# Where the header has the bytes of a page, the changes so far, the pages, and for which of the changes they count.
_HEADER = ((16, 2), (24, 4), (28, 4), (92, 4))


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields blocks whose payload is a dictionary of lists, the wanted columns.

    Raises:
      InputError: the file or the query can't be read, or lacks a column.
    """
    return batches_as_blocks(file, _batches(file, data))


def cells(block: Block, data: Data) -> Cells:
    """Reads the rows of a block."""
    count = len(next(iter(block.payload.values())))
    return Cells(dict(block.payload), list(range(block.first, block.first + count)), [])


def _batches(file: SourceFile, data: Data) -> Iterator[tuple[dict[str, list[Any]], int, int]]:
    check_is_local(file)
    _check_is_complete(file)
    try:
        with closing(_connected(file.path)) as connection:
            query = _query_of_table(connection, file, data) if data.query is None else data.query
            connection.set_authorizer(_authorize)  # a query of the user's reads, and does nothing else
            rows = _execute(connection, query, file, data)
            names = [column[0] for column in rows.description]
            check_columns(names, data, f"{file.name} (data.query)" if data.query else file.name)
            yield from _parts(rows, {column: names.index(column) for column in wanted_columns(data)}, file)
    except (sqlite3.Error, OverflowError) as error:
        raise _damaged(file, error) from error


def _parts(rows: sqlite3.Cursor, places: dict[str, int], file: SourceFile) -> Iterator[tuple[dict, int, int]]:
    part: list[tuple[Any, ...]] = []
    size = found = 0
    while True:
        read = rows.fetchmany(min(_ROWS_AT_ONCE, blocks_module.BLOCK_RECORDS))
        part += read
        size += sum(
            len(value) if isinstance(value, str | bytes) else 8
            for row in read
            for value in map(row.__getitem__, places.values())
        )
        if part and (not read or size >= blocks_module.BLOCK_BYTES or len(part) >= blocks_module.BLOCK_RECORDS):
            yield {column: [row[place] for row in part] for column, place in places.items()}, len(part), size
            found, part, size = found + len(part), [], 0
        if not read:
            break
    if not found:
        raise InputError(f"{file.name}: no row; expected at least one row of each label")


def _connected(path: str) -> sqlite3.Connection:
    # Immutable: no lock, and no file is made beside it, so that it may lie where nothing can be written.
    connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    connection.execute("PRAGMA cell_size_check = ON")  # a damaged page is an error early
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    return connection


def _check_is_complete(file: SourceFile) -> None:
    """Refuses a database that was cut short, or whose latest changes lie in another file: rows would be missing.

    Raises:
      InputError: names the fault.
    """
    with open(file.path, "rb") as stream:
        header = stream.read(100)
    page, changes, pages, valid_for = (int.from_bytes(header[at : at + size]) for at, size in _HEADER)
    if changes == valid_for and os.path.getsize(file.path) < pages * (65536 if page == 1 else page):
        raise InputError(f"{file.name}: not a whole SQLite database (it was cut short); fetch it again")
    for suffix, first in (("-wal", b""), ("-journal", b"\xd9")):  # a journal that is done with begins with zeros
        path = file.path + suffix
        if os.path.isfile(path) and os.path.getsize(path):
            with open(path, "rb") as stream:
                if not stream.read(1).startswith(first):
                    continue
            raise InputError(
                f"{file.name}: changes of it lie in {os.path.basename(path)}; close the program that writes it, or run "
                f"sqlite3 {file.name} 'PRAGMA wal_checkpoint(TRUNCATE)'"
            )


def table_columns(file: SourceFile, data: Data) -> list[str]:
    """Lists all columns of the table that is read.

    Raises:
      InputError: the file can't be read, or no or several tables have the wanted columns.
    """
    try:
        with closing(_connected(file.path)) as connection:
            tables, _ = _tables(connection)
            return tables[chosen_table(tables, file, data)]
    except sqlite3.Error as error:
        raise _damaged(file, error) from error


def _damaged(file: SourceFile, error: Exception) -> InputError:
    return InputError(f"{file.name}: not a whole SQLite database ({error}); fetch or write it again")


def _tables(connection: sqlite3.Connection) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Returns the columns of each table and view, and its kind."""
    kinds = dict(
        connection.execute(
            "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_'"
        )
    )
    columns = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(name)})")] for name in kinds}
    return columns, kinds


def _query_of_table(connection: sqlite3.Connection, file: SourceFile, data: Data) -> str:
    """Returns a query for the only table that has the wanted columns, in the order of its rows."""
    tables, kinds = _tables(connection)
    table = chosen_table(tables, file, data)
    query = f"SELECT {', '.join(map(quoted, wanted_columns(data)))} FROM {quoted(table)}"
    ordered = f"{query} ORDER BY rowid"
    if kinds[table] == "table" and sqlite3.complete_statement(ordered + ";"):
        try:
            connection.execute(f"EXPLAIN {ordered}")
            return ordered
        except sqlite3.OperationalError:  # a table WITHOUT ROWID: in the order of its key
            return query
    return query


def _execute(connection: sqlite3.Connection, query: str, file: SourceFile, data: Data) -> sqlite3.Cursor:
    """Runs a query of one statement.

    Raises:
      InputError: SQLite does not accept it, or it is no SELECT.
    """
    try:
        rows = connection.execute(query)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        if data.query is None:
            raise
        raise InputError(
            f"{file.name}: data.query can't be run ({error}); expected one SELECT that reads tables of this file, and "
            "the same rows each time"
        ) from error
    if rows.description is None:
        raise InputError(f"{file.name}: data.query gives no rows; expected one SELECT")
    return rows


def _authorize(action: int, first: str | None, second: str | None, *place: str | None) -> int:
    allowed = action in _READING or (action == sqlite3.SQLITE_FUNCTION and second not in _NOT_TWICE_THE_SAME)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
