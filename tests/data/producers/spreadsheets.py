"""Spreadsheets, Windows and archives."""

from __future__ import annotations

import zipfile

from data.producers.example import Example
from data.producers.frames import ROWS

_TEXT = [("naïve café", "warm"), ("no; really", "cold")]


def _workbook(path):
    import openpyxl

    book = openpyxl.Workbook()
    for row in (("text", "label"), *ROWS):
        book.active.append(row)
    book.create_sheet("Notes")
    book.save(path)


def _two_sheets(path):
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(("remark",))
    sheet = book.create_sheet("Reviews")
    for row in (("text", "label"), *ROWS):
        sheet.append(row)
    book.save(path)


def _zip(**members):
    def write(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in members.items():
                archive.writestr(f"{name}.csv", text)

    return write


_EXCEL = 'text;label\r\nnaïve café;warm\r\n"no; really";cold\r\n'
_CSV = "text,label\nnaïve café,warm\nno; really,cold\n"

EXAMPLES = [
    Example(
        "Excel 365",
        "“CSV UTF-8” where the decimal sign is a comma",
        {"x.csv": "\ufeff" + _EXCEL},
        _TEXT,
        read="as it is; the header shows the separator",
    ),
    Example("Excel 365", "the same with a line `sep=;`", {"x.csv": "\ufeffsep=;\r\n" + _EXCEL}, _TEXT),
    Example(
        "Excel 365",
        "“CSV”, in Windows' own encoding",
        {"x.csv": _EXCEL.encode("cp1252")},
        _TEXT,
        {"encoding": "cp1252"},
        read="without the setting, the error names a guess",
    ),
    Example(
        "Excel 365",
        "“Unicode Text”, UTF-16",
        {"x.txt": "text\tlabel\r\nnaïve café\twarm\r\nno; really\tcold\r\n".encode("utf-16")},
        _TEXT,
        read="by its byte order mark and its content; tfpipe reports it",
        says="read as tsv, by its content",
    ),
    Example("openpyxl 3.1.5, Excel", "workbook (.xlsx)", {"x.xlsx": _workbook}, ROWS, read="the only sheet with rows"),
    Example("openpyxl 3.1.5, Excel", "workbook of several sheets", {"x.xlsx": _two_sheets}, ROWS, {"sheet": "Reviews"}),
    *(
        Example(
            "Windows",
            f"CSV in {where}",
            {"x.csv": f"text,label\n{text},warm\n{text[::-1]},cold\n".encode(encoding)},
            [(text, "warm"), (text[::-1], "cold")],
            {"encoding": encoding},
            read="without the setting, the error names a guess",
        )
        for where, text, encoding in (("China", "好茶与旧港口", "gb18030"), ("Japan", "古い港のお茶です", "cp932"))
    ),
    Example(
        "PowerShell 5.1",
        "`Export-Csv`",
        {
            "x.csv": "#TYPE System.Management.Automation.PSCustomObject\r\n"
            '"text","label"\r\n"the kettle sings, softly","warm"\r\n"she said ""no"" twice","cold"\r\n'
        },
        ROWS[:2],
    ),
    Example(
        "PowerShell 5.1",
        "`> x.jsonl`, UTF-16",
        {"x.jsonl": '{"text": "naïve café", "label": "warm"}\r\n{"text": "no", "label": "cold"}\r\n'.encode("utf-16")},
        [("naïve café", "warm"), ("no", "cold")],
        read="by its byte order mark",
    ),
    Example("zip", "archive of one file", {"x.csv.zip": _zip(x=_CSV)}, _TEXT),
    Example(
        "zip",
        "archive of several files",
        {"x.zip": _zip(train=_CSV, test="text,label\nlast,cold\n")},
        [*_TEXT, ("last", "cold")],
        source={"train": "x.zip/train.csv", "test": "x.zip/test.csv"},
        splits=("train", "train", "test"),
    ),
]
