#!/usr/bin/env bash
# SQLite reads a database that was cut within its last page without an error, with other values in its last rows.
#
# Expected: a file of fewer bytes than its own header says is an error, as it is where a whole page is missing.
# Seen (SQLite 3.54.1 of apsw 3.54.1.0, and SQLite 3.40.1; CPython 3.11, Linux): 1000 rows are read of a file that lacks
# its last 3996 bytes, some of them NULL, and no error is raised. SQLite takes the missing bytes for zeros. The header
# has the size of a page at byte 16 and the number of pages at byte 28. By these a program can tell that a file was not
# fetched to its end. PRAGMA integrity_check reports such pages too, but reads the whole file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check apsw==3.54.1.0
"$folder/venv/bin/python" - "$folder/x.db" <<'PY'
import os
import sys

import apsw

path = sys.argv[1]
connection = apsw.Connection(path)
connection.execute("CREATE TABLE t (text)")
with connection:
    connection.executemany("INSERT INTO t VALUES (?)", [(f"text {n} {'x' * 50}",) for n in range(1000)])
connection.close()
os.truncate(path, os.path.getsize(path) - 3996)
connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
texts = [text for (text,) in connection.execute("SELECT text FROM t")]
others = sum(text is None for text in texts)
((answer,), *_) = connection.execute("PRAGMA integrity_check")
print(apsw.sqlite_lib_version(), len(texts), "rows,", others, "of them NULL; integrity_check:", answer.splitlines()[0])
if len(texts) != 1000 or not others:
    sys.exit("other rows: SQLite has changed")
PY
