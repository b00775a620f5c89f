#!/usr/bin/env bash
# openpyxl gives texts of Excel with _x000D_ where a cell has a carriage return.
#
# Expected: a text that was written into a cell is read again as it was.
# Seen (openpyxl 3.1.5, xlsxwriter 3.3.1, CPython 3.11, Linux): "one\r\ntwo" is read as "one_x000D_\ntwo", and a bell as
# "_x0007_". XML has no such characters, so .xlsx files hold them as _xHHHH_ (ECMA-376, ST_Xstring). A text that has
# these letters itself is held as _x005F_x000D_, and is read as _x000D_: the two can't be told apart any more. pandas
# reads .xlsx by openpyxl, so its frames have them too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openpyxl==3.1.5 xlsxwriter==3.3.1
cat >"$folder/read.py" <<'PY'
import sys

import openpyxl
import xlsxwriter

texts = ["one\r\ntwo", "bell\a", "_x000D_"]
book = xlsxwriter.Workbook(sys.argv[1])
book.add_worksheet().write_row(0, 0, texts)
book.close()
found = list(next(openpyxl.load_workbook(sys.argv[1]).active.iter_rows(values_only=True)))
print(found)
if found != ["one_x000D_\ntwo", "bell_x0007_", "_x000D_"]:
    sys.exit("other texts: openpyxl or xlsxwriter has changed")
PY
"$folder/venv/bin/python" "$folder/read.py" "$folder/x.xlsx"
