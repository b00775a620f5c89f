#!/usr/bin/env bash
# SQLite reads a database that was cut within its last page without an error, with other values in its last rows.
#
# Expected: a file of fewer bytes than its own header says is an error, as it is where a whole page is missing.
# Seen (SQLite 3.40.1, CPython 3.11's sqlite3, Linux): 1000 rows are read of a file that lacks its last 3996 bytes, some
# of them NULL, and no error is raised. Bytes that are missing from the last page are taken for zeros. The header has
# the size of a page at byte 16 and the number of pages at byte 28, by which a program can tell that a file was not
# fetched to its end; PRAGMA integrity_check, which reads the whole file, reports such pages too.
set -euo pipefail
python3 - <<'PY'
import os
import sqlite3
import sys
import tempfile

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "x.db")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (text)")
        connection.executemany("INSERT INTO t VALUES (?)", [(f"text {n} {'x' * 50}",) for n in range(1000)])
    connection.close()
    os.truncate(path, os.path.getsize(path) - 3996)
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    texts = [text for (text,) in connection.execute("SELECT text FROM t")]
    others = sum(text is None for text in texts)
    (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
    print(sqlite3.sqlite_version, len(texts), "rows,", others, "of them NULL; integrity_check:", answer.splitlines()[0])
    if len(texts) != 1000 or not others:
        sys.exit("other rows: SQLite has changed")
PY
