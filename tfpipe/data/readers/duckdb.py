"""DuckDB databases, read only: the rows of `data.query`, or of the only table that has the wanted columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from tfpipe.config.data import Data
from tfpipe.data import block as blocks_module
from tfpipe.data.block import Block, Cells, batches_as_blocks, excerpt, wanted_columns
from tfpipe.data.files.database import check_is_local, chosen_table, column_of, quoted
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.readers.parquet import cells as parquet_cells
from tfpipe.data.readers.parquet import check_schema, slices, wanted_batch
from tfpipe.errors import InputError

# A query of the user's reads this file alone. One thread: rows come in the same order each time.
_OPTIONS = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "lock_configuration": "true",
    "threads": "1",
}
_NOT_TWICE_THE_SAME = re.compile(r"(?i)\b(random|uuid|gen_random_uuid|uuidv4|uuidv7)\s*\(|\b(table)?sample\b")


def blocks(file: SourceFile, data: Data) -> Iterator[Block]:
    """Yields blocks whose payload is an Arrow record batch of the wanted columns.

    Raises:
      InputError: duckdb is missing, the file or the query can't be read, or lacks a column.
    """
    return batches_as_blocks(file, _batches(file, data))


def cells(block: Block, data: Data) -> Cells:
    """Reads the rows of a block."""
    return parquet_cells(block, data)


def table_columns(file: SourceFile, data: Data) -> list[str]:
    """Lists all columns of the table that is read.

    Raises:
      InputError: the file can't be read, or no or several tables have the wanted columns.
    """
    with _opened(file) as connection:
        _, tables = _tables(connection)
        return tables[chosen_table(tables, file, data, structs=True)]


def _batches(file: SourceFile, data: Data) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    found = 0
    with _opened(file) as connection:
        query = _query_of_table(connection, file, data) if data.query is None else data.query
        reader = _reader(connection, query, file, data)
        check_schema(reader.schema, data, f"{file.name} (data.query)" if data.query else file.name)
        for batch in reader:
            yield from slices(wanted_batch(batch, data))
            found += batch.num_rows
    if not found:
        raise InputError(f"{file.name}: no row; expected at least one row of each label")


@contextmanager
def _opened(file: SourceFile) -> Iterator[Any]:
    """Opens a database; turns an error of DuckDB meanwhile into one line."""
    check_is_local(file)
    try:
        import duckdb
    except ImportError as error:
        raise InputError(
            f"{file.name}: DuckDB databases are read by duckdb, which is not installed; install it with: pip install "
            "'tfpipe[duckdb]', or write the rows as Parquet"
        ) from error
    try:
        with duckdb.connect(file.path, read_only=True, config=_OPTIONS) as connection:
            yield connection
    except (duckdb.Error, pa.ArrowException, UnicodeDecodeError) as error:
        reason = excerpt(str(error))
        raise InputError(f"{file.name}: not a whole DuckDB database ({reason}); fetch or write it again") from error


def _tables(connection: Any) -> tuple[list[tuple[str, str, str]], dict[str, list[str]]]:
    """Returns schema, table and name of each column, and the columns of each table."""
    columns = connection.sql(
        "SELECT table_schema, table_name, column_name FROM information_schema.columns "
        "ORDER BY table_schema, table_name, ordinal_position"
    ).fetchall()
    tables: dict[str, list[str]] = {}
    for schema, table, column in columns:
        tables.setdefault(table if schema == "main" else f"{schema}.{table}", []).append(column)
    return columns, tables


def _query_of_table(connection: Any, file: SourceFile, data: Data) -> str:
    """Returns a query for the only table that has the wanted columns, in the order of its rows."""
    columns, tables = _tables(connection)
    table = chosen_table(tables, file, data, structs=True)
    schema = next(schema for schema, name, _ in columns if table in (name, f"{schema}.{name}"))
    place = quoted(table) if schema == "main" else f"{quoted(schema)}.{quoted(table.removeprefix(schema + '.'))}"
    needed = dict.fromkeys(column_of(name, tables[table]) for name in wanted_columns(data))
    return f"SELECT {', '.join(map(quoted, needed))} FROM {place}"


def _reader(connection: Any, query: str, file: SourceFile, data: Data) -> pa.RecordBatchReader:
    """Returns the rows of a query of one statement.

    Raises:
      InputError: DuckDB does not accept it, or it is no SELECT.
    """
    import duckdb

    try:
        statements = connection.extract_statements(query)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise InputError(f"{file.name}: data.query is not one SELECT; expected one that gives the columns")
        if _NOT_TWICE_THE_SAME.search(query):
            raise InputError(f"{file.name}: data.query gives other rows each time; expected the same rows each time")
        return connection.sql(query).to_arrow_reader(blocks_module.BLOCK_RECORDS)
    except duckdb.Error as error:
        if data.query is None:
            raise
        raise InputError(
            f"{file.name}: data.query can't be run ({excerpt(str(error))}); expected one SELECT that reads this file"
        ) from error
