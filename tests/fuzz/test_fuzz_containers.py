"""Files of other kinds, damaged in a few places: their rows, a reason for each other row, or one line."""

from __future__ import annotations

import io
import sqlite3
import zipfile

import duckdb
import openpyxl
import pyarrow as pa
import pyarrow.feather as feather
from fuzz.harness import attempt, fuzz, mutated
from fuzz.test_fuzz_readers import rows_of, small_blocks, usable
from hypothesis import strategies as st

from tfpipe.data.files.encodings import guessed

__all__ = ["small_blocks"]

TEXTS = ["one", "two", "drei ü", "x" * 50, None, "汉字"] * 3


def arrow_files() -> list[bytes]:
    columns = {
        "strings": pa.array(["a", "b", "a", None, "b", "c"] * 3),
        "large": pa.array(["a", "b", "a", None, "b", "c"] * 3, pa.large_string()),
        "views": pa.array(["a", "b", "a", None, "b", "c" * 20] * 3, pa.string_view()),
        "numbers": pa.array([1, 2, None, 4, 5, 6] * 3),
        "lists": pa.array([["a"], ["b", "c"], [], None, ["a"], ["b"]] * 3),
        "bytes": pa.array([b"a", b"\xff", b"", None, b"b", b"c"] * 3),
        "struct": pa.array([{"a": 1}, {"a": 2}, None, {"a": 3}, {"a": 4}, {"a": 5}] * 3),
        "categories": pa.array(["a", "b", "a", None, "b", "c"] * 3).dictionary_encode(),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([6, 12, 18], pa.int32()), pa.array(["a", "b", "c"])),
    }
    files = []
    for label in columns.values():
        table = pa.table({"text": TEXTS, "label": label})
        for new in (pa.ipc.new_file, pa.ipc.new_stream):
            sink = io.BytesIO()
            with new(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=7)
            files.append(sink.getvalue())
    for compression in ("lz4", "zstd"):
        sink = io.BytesIO()
        feather.write_feather(pa.table({"text": TEXTS, "label": columns["strings"]}), sink, compression=compression)
        files.append(sink.getvalue())
    return files


def test_arrow(tmp_path, small_blocks):
    path = tmp_path / "data.arrow"

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        found, refused = attempt(lambda: rows_of(path), path.name)
        assert refused is not None or len(found[0]) + len(found[1]) > 0
        return refused is not None

    fuzz("Arrow", mutated(arrow_files(), most=3), check, [b"", b"ARROW1", b"\xff" * 8, *arrow_files()])


def workbook() -> bytes:
    book = openpyxl.Workbook()
    book.active.append(["text", "label", "more"])
    for number, text in enumerate(TEXTS):
        book.active.append([text, "ab"[number % 2], number / 2])
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def repacked(content: bytes, changed: dict[str, bytes]) -> bytes:
    """A zip archive with other members of the same names, stored as they are."""
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(sink, "w") as new:
        for name in old.namelist():
            new.writestr(name, changed.get(name, old.read(name)))
    return sink.getvalue()


def test_excel(tmp_path, small_blocks):
    path, whole = tmp_path / "data.xlsx", workbook()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    tokens = (b"<c", b"</row>", b'r="A1"', b'r="ZZZ9999999"', b't="s"', b't="e"', b"<v>", b"99", b"<is><t>", b"&#x10;")
    tokens += (b'<row r="5">', b"&amp;", b"<!DOCTYPE x>", b"_x000D_", b"_xD800_")
    parts = [name for name in members if name.endswith(("sheet1.xml", "sharedStrings.xml", "workbook.xml", ".rels"))]
    inside = st.sampled_from(parts).flatmap(
        lambda name: mutated([members[name]], tokens).map(lambda content: repacked(whole, {name: content}))
    )

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        return attempt(lambda: rows_of(path), path.name)[1] is not None

    fuzz("Excel", inside | inside | mutated([whole]), check, [b"", b"PK\x03\x04", whole, whole[:-30]])


def test_sqlite(tmp_path, small_blocks):
    path, other = tmp_path / "data.sqlite", tmp_path / "whole.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE reviews (text, label, more)")
        connection.execute("CREATE TABLE keyed (x TEXT PRIMARY KEY, y) WITHOUT ROWID")
        connection.executemany("INSERT INTO reviews VALUES (?, ?, 1.5)", [(text, "a") for text in TEXTS])
        connection.executemany("INSERT INTO reviews VALUES (?, ?, NULL)", [(b"\xff", 1), ("x" * 9000, 2.0), (3, None)])
    connection.close()
    whole = other.read_bytes()
    queries = st.sampled_from([None, "SELECT text, label FROM reviews", "SELECT * FROM reviews ORDER BY text"])

    def check(case) -> bool:
        content, query = case
        path.write_bytes(content)
        return attempt(lambda: rows_of(path, query=query), path.name)[1] is not None

    always = [(content, None) for content in (b"", whole, whole[:100], whole[:-1], whole[:5000])]
    fuzz("SQLite", st.tuples(mutated([whole]), queries), check, always)


def test_queries(tmp_path):
    """Whatever a query says, nothing but rows of the file comes of it."""
    path = tmp_path / "data.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE reviews (text, label)")
        connection.executemany("INSERT INTO reviews VALUES (?, ?)", [("x", "a"), ("y", "b")])
    connection.close()
    before = path.read_bytes()
    words = [
        "SELECT",
        "text",
        "label",
        ",",
        "*",
        "FROM",
        "reviews",
        "WHERE",
        "ORDER BY",
        "LIMIT 1",
        ";",
        "ATTACH",
        "'x.db'",
        "AS",
    ]
    words += [
        "random()",
        "DELETE",
        "PRAGMA",
        "writable_schema=1",
        "VACUUM",
        "INTO",
        "(",
        ")",
        "1",
        "--",
        "/*",
        "\0",
        "\ud800",
        "é",
    ]
    words += [
        "WITH",
        "RECURSIVE",
        "UNION",
        "load_extension('x')",
        "readfile('/etc/passwd')",
        "INSERT",
        "CREATE TABLE",
        "?",
        ":a",
    ]
    queries = st.lists(st.sampled_from(words), min_size=1, max_size=9).map(" ".join)
    queries |= st.lists(st.sampled_from(words), max_size=3).map(
        lambda more: " ".join(["SELECT text, label FROM reviews", *more])
    )

    def check(query: str) -> bool:
        refused = attempt(lambda: rows_of(path, query=query), path.name)[1]
        assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == [path.name]
        return refused is not None

    fuzz("data.query", queries, check, ["", " ", "SELECT", "ATTACH 'x.db' AS y", "SELECT random() AS text, 1 AS label"])


def test_duckdb(tmp_path, small_blocks):
    path, other = tmp_path / "data.duckdb", tmp_path / "whole.duckdb"
    with duckdb.connect(str(other)) as connection:
        connection.execute("CREATE TABLE reviews (text VARCHAR, label VARCHAR)")
        connection.executemany("INSERT INTO reviews VALUES (?, ?)", [(text, "a") for text in TEXTS])
    whole = other.read_bytes()

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        return attempt(lambda: rows_of(path), path.name)[1] is not None

    fuzz("DuckDB", mutated([whole]), check, [b"", whole, whole[:5000]])


def test_lines(tmp_path, small_blocks):
    path = tmp_path / "data-pos.txt"
    kinds = {
        "{label} {text}": b"a one two\nb three\n\na x\r\n",
        "{text}@{label}": "eins@b.example@a\nzwei ü@b\n@\n".encode(),
        "{label}\t{more}\t{text}": b"a\t1\ttext\nb\t\tx\n",
        None: b"one\ntwo\n\n three\n",
    }
    tokens = (b"@", b"@a", b" ", b"\t", b"\n", b"\r", b"__label__", b"__label__a ", b"__label__b\n")
    cases = st.sampled_from(list(kinds)).flatmap(
        lambda line: st.tuples(st.just(line), mutated([kinds[line]], tokens * 2))
    )

    def check(case) -> bool:
        line, content = case
        path.write_bytes(content)
        settings = {"file_name": "data-{label}.txt"} if line is None else {"line": line}
        found, refused = attempt(lambda: rows_of(path, format="lines", **settings), path.name)
        if refused is None:
            there = [
                number
                for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
                if raw.strip()
            ]
            numbers = [number for number, *_ in (*found[0], *found[1])]
            assert set(numbers) <= set(range(1, content.count(b"\n") + 2)) and len(numbers) == len(set(numbers))
            assert line is not None or len(numbers) <= len(there)
        return refused is not None

    fuzz("lines", cases, check, [("{label} {text}", b""), (None, b"\xff\xfe")])


def test_fasttext(tmp_path, small_blocks):
    path = tmp_path / "data.txt"
    content = "__label__a one two\n__label__b __label__a drei ü\nvier __label__b\n\nfive\r\n".encode()
    tokens = (b"__label__", b"__label__a ", b" __label__b", b"\n", b"\r", b" ", b"\t")

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        return attempt(lambda: rows_of(path, task="multi_label", format="fasttext"), path.name)[1] is not None

    fuzz("fastText", mutated([content], tokens * 2), check, [b"", b"\n"])


ENCODINGS = [
    "utf-8",
    "utf-16",
    "utf-16-le",
    "utf-32",
    "cp1252",
    "cp932",
    "gb18030",
    "big5",
    "euc-kr",
    "koi8-r",
    "utf-7",
    "iso2022_jp",
]


def test_encodings(tmp_path, small_blocks):
    path = tmp_path / "data.csv"
    text = 'text,label\none,a\n"two, drei",b\r\nx,a\n'
    letters = {
        "cp1252": "é",
        "cp932": "とても良い",
        "gb18030": "这家店",
        "big5": "這家店",
        "euc-kr": "영화",
        "koi8-r": "да",
        "iso2022_jp": "良い",
    }
    contents = {code: (text + f"{letters.get(code, 'ü')},a\n").encode(code) for code in ENCODINGS}
    cases = st.sampled_from(ENCODINGS).flatmap(
        lambda code: st.tuples(
            st.sampled_from([code, code, None]), mutated([contents[code]], (b"\x81", b"\xd8\x00", b"\n\0"))
        )
    )

    def check(case) -> bool:
        code, content = case
        path.write_bytes(content)
        found, refused = attempt(lambda: rows_of(path, encoding=code), path.name)
        assert refused is not None or all(usable(text, label) for _, text, label in found[0])
        guessed(content)
        return refused is not None

    fuzz("data.encoding", cases, check, [(code, contents[code]) for code in ENCODINGS])


def test_zip(tmp_path, small_blocks):
    path = tmp_path / "data.zip"
    files = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        for names in (
            ["train.csv"],
            ["train.csv", "README.md"],
            ["a/train.csv", "__MACOSX/._train.csv"],
            ["train.csv", "test.csv"],
        ):
            sink = io.BytesIO()
            with zipfile.ZipFile(sink, "w", method) as archive:
                for name in names:
                    archive.writestr(name, "text,label\none,a\ntwo,b\n")
            files.append(sink.getvalue())
    sources = st.sampled_from(["data.zip", "data.zip", "data.zip/train.csv", "data.zip/*.csv", "data.zip/../x"])

    def check(case) -> bool:
        content, source = case
        path.write_bytes(content)
        return attempt(lambda: rows_of(f"{tmp_path}/{source}"), "data.zip")[1] is not None

    fuzz("zip", st.tuples(mutated(files), sources), check, [(file, "data.zip") for file in (b"", *files)])
    assert [each.name for each in tmp_path.iterdir()] == ["data.zip"]


def test_names_that_say_nothing(tmp_path, small_blocks):
    """Content decides, or the line says what to set."""
    path = tmp_path / "data.txt"
    contents = [
        "text\tlabel\none\ta\n".encode("utf-16"), b"text,label\none,a\n", b'{"text": "x", "label": "a"}\n',
        b"__label__a x\n",
        b"a\tone\nb\ttwo\n" * 3, b"one@a\ntwo@b\n" * 3, b"one two\nthree\n", b"%PDF-1.7\n", b"\x80\x04\x95" + b"\0" * 9,
        b"PK\x03\x04", b"<html>", b"<?xml version='1.0'?>", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"\x1f\x8b\x08",
        b"BZh91AY&SY",
        b"SQLite format 3\0", b"\0" * 8 + b"DUCK" + b"\0" * 9, b"PAR1\0", b"Obj\x01\0", b"ORC\0", b"FEA1\0\0",
        b"\x93NUMPY\x01\0",
        arrow_files()[0], arrow_files()[1],
    ]  # fmt: skip

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        return attempt(lambda: rows_of(path), path.name)[1] is not None

    fuzz("content", mutated(contents), check, contents)
