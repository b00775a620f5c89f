"""Databases, and the tables of clusters."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import duckdb
import pyarrow as pa
import pyarrow.dataset as dataset
from data.producers.example import Example
from data.producers.frames import LISTS, ROWS


def _duckdb(statement: str):
    """A function that lets DuckDB write a file."""

    def write(path):
        with closing(duckdb.connect()) as connection:
            connection.execute("CREATE TABLE t (text VARCHAR, label VARCHAR)")
            connection.executemany("INSERT INTO t VALUES (?, ?)", ROWS)
            connection.execute("CREATE TABLE several (text VARCHAR, tags VARCHAR[])")
            connection.executemany("INSERT INTO several VALUES (?, ?)", [(row[0], list(row[1:])) for row in LISTS])
            connection.execute(statement.format(path=path))

    return write


def _duckdb_file(path):
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute("CREATE TABLE t (text VARCHAR, label VARCHAR)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", ROWS)
        connection.execute("CREATE TABLE users (id INTEGER)")


def _sqlite(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (text TEXT, label TEXT)")
        connection.execute("CREATE TABLE users (id INTEGER)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", ROWS)
        connection.commit()


def _partitions(path):
    table = pa.table({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
    partitioning = dataset.partitioning(pa.schema([("label", pa.string())]), flavor="hive")
    dataset.write_dataset(table, path, format="parquet", partitioning=partitioning)


_BY_LABEL = [ROWS[1], ROWS[3], ROWS[0], ROWS[2]]
_PART = "part-00000-45b07efb-bb5a-44d5-8f85-6997a0037e55.c000"
_MYSQL = 'the kettle sings, softly\twarm\nshe said "no" twice\tcold\nfirst line\\\nsecond line\twarm\nd\t\\N\n'

EXAMPLES = [
    Example(
        "PostgreSQL 15",
        "`COPY … (HEADER)`, its text format",
        {
            "x.tsv": 'text\tlabel\nthe kettle sings, softly\twarm\nshe said "no" twice\tcold\n'
            "first line\\nsecond line\twarm\nd\t\\N\n"
        },
        ROWS[:3],
        {"escape": "backslash"},
        unlabeled=1,
        read="`\\N` is no label; without the setting, tfpipe names it",
    ),
    Example(
        "PostgreSQL 15",
        "`COPY … (FORMAT csv, HEADER)`",
        {
            "x.csv": 'text,label\n"the kettle sings, softly",warm\n"she said ""no"" twice",cold\n'
            '"first line\nsecond line",warm\nd,\n'
        },
        ROWS[:3],
        rejected=1,
        read="as it is; a null is an empty label, which is rejected",
    ),
    Example(
        "PostgreSQL 15",
        "arrays in CSV",
        {"x.csv": 'text,tags\na,"{toxic,""Funny, dry""}"\nb,{toxic}\nc,{}\n'},
        [("a", "toxic", "Funny, dry"), ("b", "toxic"), ("c",)],
        {"label_column": "tags"},
        task="multi_label",
        read="as lists; tfpipe reports it",
    ),
    Example(
        "MySQL 8",
        "`SELECT … INTO OUTFILE`",
        {"x.txt": _MYSQL},
        ROWS[:3],
        {"format": "tsv", "columns": ["text", "label"], "escape": "backslash"},
        unlabeled=1,
        read="`\\N` is no label",
    ),
    Example(
        "MySQL 8",
        "`mysql --batch`",
        {"x.tsv": "text\tlabel\nfirst line\\nsecond line\twarm\nb\tcold\nc\tNULL\n"},
        [ROWS[2], ("b", "cold")],
        {"escape": "backslash", "missing": ["NULL"]},
        unlabeled=1,
        read="without `missing`, a warning names the label `NULL`",
    ),
    Example(
        "MongoDB",
        "`mongoexport --jsonFormat=canonical`",
        {
            "x.json": '{"_id":{"$oid":"65"},"text":"a","label":{"$numberInt":"1"}}\n'
            '{"_id":{"$oid":"66"},"text":"b","label":{"$numberInt":"0"}}\n'
        },
        [("a", "1"), ("b", "0")],
        {"label_column": "label.$numberInt"},
        read="a dotted name is a field of an object; without it, the error names it",
    ),
    Example("SQLite 3.40", "database file", {"x.sqlite": _sqlite}, ROWS, read="the only table with the wanted columns"),
    Example(
        "SQLite 3.40",
        "database file, a query",
        {"x.db": _sqlite},
        ROWS[:2],
        {"query": "SELECT text, label FROM t ORDER BY rowid LIMIT 2"},
        read="what the SELECT gives",
    ),
    Example(
        "DuckDB 2.0.1", "database file", {"x.duckdb": _duckdb_file}, ROWS, read="the only table with the wanted columns"
    ),
    Example("DuckDB 2.0.1", "`COPY t TO 'x.csv'`", {"x.csv": _duckdb("COPY t TO '{path}'")}, ROWS),
    Example(
        "DuckDB 2.0.1",
        "lists in CSV",
        {"x.csv": _duckdb("COPY several TO '{path}'")},
        LISTS,
        {"label_column": "tags"},
        task="multi_label",
        read="as lists; tfpipe reports it",
    ),
    Example("DuckDB 2.0.1", "`COPY t TO 'x.json'`", {"x.json": _duckdb("COPY t TO '{path}'")}, ROWS),
    Example(
        "DuckDB 2.0.1",
        "`COPY … (ARRAY true)`",
        {"x.json": _duckdb("COPY t TO '{path}' (FORMAT json, ARRAY true)")},
        ROWS,
    ),
    Example(
        "DuckDB 2.0.1",
        "Parquet, a struct",
        {"x.parquet": _duckdb("COPY (SELECT {{'body': text, 'stars': 5}} AS review, label FROM t) TO '{path}'")},
        ROWS,
        {"text_column": "review.body"},
        read="a dotted name is a field of a struct",
    ),
    Example(
        "DuckDB 2.0.1",
        "Parquet, labels as DECIMAL",
        {"x.parquet": _duckdb("COPY (SELECT text, (label = 'warm')::INT::DECIMAL(3, 1) AS label FROM t) TO '{path}'")},
        [(text, str(int(label == "warm"))) for text, label in ROWS],
        read="1.0 is 1",
        names=("0", "1"),
    ),
    Example(
        "Spark 4.3",
        '`partitionBy("label").json(…)`',
        {
            f"x/label=cold/{_PART}.json": '{"text":"she said \\"no\\" twice"}\n{"text":"naïve café"}\n',
            f"x/label=cold/.{_PART}.json.crc": b"crc\x00",
            f"x/label=warm/{_PART}.json": '{"text":"the kettle sings, softly"}\n{"text":"first line\\nsecond line"}\n',
            f"x/label=__HIVE_DEFAULT_PARTITION__/{_PART}.json": '{"text":"d"}\n',
            "x/_SUCCESS": "",
        },
        _BY_LABEL,
        source="x",
        rejected=1,
        read="`key=value` folders are columns; hidden files are passed over",
    ),
    Example("pandas, Hive, DuckDB, Spark", "Parquet in `label=…` folders", {"x": _partitions}, _BY_LABEL, source="x"),
    Example(
        "Spark 4.3",
        "a folder of CSV, without a header (its default)",
        {f"x/{_PART}.csv": '"the kettle sings, softly",warm\n"she said \\"no\\" twice",cold\n', "x/_SUCCESS": ""},
        ROWS[:2],
        {"columns": ["text", "label"], "escape": "backslash"},
        source="x",
    ),
    Example(
        "Delta Lake",
        "a table's folder",
        {"x/_delta_log/00000000000000000000.json": "{}", "x/part-0.parquet": b"PAR1"},
        source="x",
        refused="a Delta table, whose log says which of its files count",
        read="refused: its log says which files count; write its rows as Parquet",
    ),
    Example(
        "Iceberg",
        "a table's folder",
        {"x/metadata/v1.metadata.json": "{}", "x/data/0.parquet": b"PAR1"},
        source="x",
        refused="an Iceberg table, whose log says which of its files count",
        read="refused: its log says which files count; write its rows as Parquet",
    ),
]
