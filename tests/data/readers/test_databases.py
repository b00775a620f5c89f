"""SQLite and DuckDB: the same tables, queries and refusals."""

import os
import sqlite3
import sys

import duckdb
import pytest
from data.row_reading import rows_of
from pydantic import ValidationError

from tfpipe.config.data import Data
from tfpipe.errors import InputError

ROWS = [("eins", "a", 3), ("zwei", "b", 1), ("drei ü", "a", 2)]


@pytest.fixture(params=["sqlite", "duckdb"])
def write(request, tmp_path):
    """Makes a database of some statements; a `?` in one stands for `ROWS`."""

    def write(*statements, name="x"):
        path = str(tmp_path / f"{name}.{request.param}")
        connect = sqlite3.connect if request.param == "sqlite" else duckdb.connect
        connection = connect(path)
        for statement in statements:
            if "?" in statement:
                connection.executemany(statement, ROWS)
            else:
                connection.execute(statement)
        connection.commit()
        connection.close()
        return path

    return write


TABLE = ("CREATE TABLE reviews (text VARCHAR, label VARCHAR, n INTEGER)", "INSERT INTO reviews VALUES (?, ?, ?)")


def read(path, **settings):
    return [(text, label) for _, text, _, label in rows_of(path, **settings)[0]]


def error(path, **settings):
    with pytest.raises(InputError) as caught:
        rows_of(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_only_table(write, capsys):
    wanted = [row[:2] for row in ROWS]
    assert read(write(*TABLE)) == wanted
    assert capsys.readouterr().err == ""
    path = write(*TABLE, 'CREATE TABLE "us""ers" (text VARCHAR)', name="two")
    assert read(path) == wanted
    assert "table 'reviews' is read, the only one with the wanted columns" in capsys.readouterr().err
    assert (
        read(
            write(
                'CREATE TABLE "a ""b" (text VARCHAR, label VARCHAR, n INTEGER)',
                'INSERT INTO "a ""b" VALUES (?, ?, ?)',
                name="odd",
            )
        )
        == wanted
    )


def test_which_table(write):
    path = write(*TABLE, "CREATE TABLE more (text VARCHAR, label VARCHAR)")
    assert "2 tables have the columns 'text', 'label'; tables: " in error(path)
    assert 'set data.query, such as: SELECT "text", "label" FROM ' in error(path)
    message = error(path, label_column="stars")
    assert (
        "no table has the columns 'text', 'stars'; tables: 'more' ('text', 'label'); 'reviews' ('text', 'lab" in message
    )
    assert read(path, query="SELECT text, label FROM reviews ORDER BY n") == [
        ("zwei", "b"),
        ("drei ü", "a"),
        ("eins", "a"),
    ]


def test_queries(write):
    path = write(*TABLE)
    assert read(path, query="SELECT upper(text) AS text, label FROM reviews WHERE n > 1 ORDER BY n DESC") == [
        ("EINS", "a"),
        ("DREI Ü" if path.endswith("duckdb") else "DREI ü", "a"),
    ]
    assert read(path, query="WITH r AS (SELECT * FROM reviews) SELECT text, n AS label FROM r ORDER BY n;") == [
        ("zwei", "1"),
        ("drei ü", "2"),
        ("eins", "3"),
    ]
    for query in (
        "DELETE FROM reviews", "SELECT 1; SELECT 2", "ATTACH 'y.db' AS y", "DROP TABLE reviews", "nonsense", "",
        "SELECT text, label FROM nowhere", "SELECT text, label FROM reviews ORDER BY random()", "PRAGMA user_version",
        "CREATE TABLE t AS SELECT 1", "INSERT INTO reviews VALUES ('x', 'y', 1)",
    ):  # fmt: skip
        message = error(path, query=query)
        assert "data.query" in message and "expected" in message, message
    assert "(data.query): no column 'text'" in error(path, query="SELECT label FROM reviews")
    assert "no row" in error(path, query="SELECT text, label FROM reviews WHERE n > 5")


def test_a_database_that_is_cut_short(write):
    path = write(*TABLE)
    size = os.path.getsize(path)
    for part in (size - 1, 5000, 100):
        with open(path, "rb+") as file:
            file.truncate(part)
        assert "not a whole" in error(path)


def test_compressed(write, tmp_path):
    import gzip

    path = write(*TABLE)
    with open(path, "rb") as file, gzip.open(path + ".gz", "wb") as packed:
        packed.write(file.read())
    assert "a database can't be read while it is compressed; unpack it" in error(path + ".gz")


def test_fields_of_structs(tmp_path):
    path = str(tmp_path / "x.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE t AS SELECT {'body': 'one', 'stars': 5} AS review, {'mood': 'a'} AS labels")
    columns = {"text_column": "review.body", "label_column": "labels.mood"}
    assert rows_of(path, **columns)[0] == [(1, "one", None, "a")]
    assert "no column 'review.title'" in error(path, **columns | {"text_column": "review.title"})


def test_other_files_stay_closed(tmp_path):
    duckdb.connect(str(tmp_path / "x.duckdb")).close()
    (tmp_path / "y.csv").write_text("text,label\nsecret,a\n")
    for query in (
        f"SELECT * FROM '{tmp_path}/y.csv'",
        f"FROM read_text('{tmp_path}/y.csv')",
        f"FROM read_csv('{tmp_path}/y.csv')",
    ):
        assert "data.query can't be run" in error(str(tmp_path / "x.duckdb"), query=query)


def test_values_of_sqlite(tmp_path):
    path = str(tmp_path / "x.db")  # recognized by its content
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (text, label)")
        connection.executemany(
            "INSERT INTO t VALUES (?, ?)",
            [("one", 1), ("two", 1.0), ("three", None), (None, "a"), (b"\xff", "a"), ("x", b"a")],
        )
        connection.execute("INSERT INTO t VALUES (CAST(x'78ff' AS TEXT), 'a')")
    connection.close()
    usable, rejected, _ = rows_of(path)
    assert [(line, label) for line, _, _, label in usable] == [(1, "1"), (2, "1")]
    assert [line for line, *_ in rejected] == [3, 4, 5, 6, 7] and rejected[-1][
        1
    ] == "undecodable bytes in the text (not UTF-8)"


def test_tables_of_sqlite_without_rowid(tmp_path):
    path = str(tmp_path / "x.sqlite3")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (text TEXT PRIMARY KEY, label) WITHOUT ROWID")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [("z", "a"), ("b", "b")])
    connection.close()
    assert read(path) == [("b", "b"), ("z", "a")]


def test_changes_that_lie_in_another_file(tmp_path):
    path = str(tmp_path / "x.sqlite")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (text, label)")
    connection.execute("INSERT INTO t VALUES ('one', 'a')")
    connection.commit()
    assert "x.sqlite: changes of it lie in x.sqlite-wal; close the program that writes it, or run sqlite3" in error(
        path
    )
    connection.close()
    assert read(path) == [("one", "a")]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.sqlite"]


def test_without_duckdb(tmp_path, monkeypatch):
    (tmp_path / "x.duckdb").write_bytes(b"\0" * 8 + b"DUCK" + b"\0" * 100)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert (
        "x.duckdb: DuckDB databases are read by duckdb, which is not installed; install it with: "
        "pip install 'tfpipe[duckdb]'" in error(str(tmp_path / "x.duckdb"))
    )


def test_without_effect(tmp_path):
    with pytest.raises(
        ValidationError, match=r"data.query has no effect with data.format: csv, only with the formats sqlite, duckdb"
    ):
        Data(source="x", format="csv", query="SELECT 1")
    (tmp_path / "x.csv").write_text("text,label\nx,a\n")
    for setting in ({"query": "SELECT 1"}, {"sheet": "a"}):
        assert f"data.{next(iter(setting))} has no effect on files of format csv" in error(
            str(tmp_path / "x.csv"), **setting
        )
