import datetime
import sys

import openpyxl
import pytest
from data.row_reading import rows_of

from tfpipe.errors import InputError


def write(path, *sheets):
    """A workbook: (title, rows) for each sheet."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return str(path)


def error(path, **settings):
    with pytest.raises(InputError) as caught:
        rows_of(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values(tmp_path):
    rows = [
        ("id", "text", "label", None), (1, " one ", 1), (2, "two", 1.0), (3, "three", True), (4, "four", 2.5),
        (None,) * 3,
        (5, "five", datetime.date(2020, 1, 2)), (6, None, "a"), (7, "seven", None), (8, 2024, "a"),
        (9, "a_x000D_\nb", " b "),
    ]  # fmt: skip
    usable, rejected, _ = rows_of(write(tmp_path / "x.xlsx", ("Sheet1", rows)))
    assert [(line, text, label) for line, text, _, label in usable] == [
        (2, " one ", "1"), (3, "two", "1"), (4, "three", "true"), (5, "four", "2.5"),
        (7, "five", "2020-01-02 00:00:00"), (10, "2024", "a"),
        (11, "a\r\nb", "b"),
    ]  # fmt: skip
    assert [(line, reason) for line, reason, _ in rejected] == [
        (8, "empty text"), (9, "empty label"),
    ]  # fmt: skip


def test_sheets(tmp_path):
    rows = [("text", "label"), ("one", "a"), ("two", "b")]
    path = write(tmp_path / "x.xlsx", ("empty", []), ("rows", rows))
    assert len(rows_of(path)[0]) == 2  # the only one that has any
    assert len(rows_of(path, sheet="rows")[0]) == 2
    assert "no sheet 'x' (data.sheet); its sheets: 'empty', 'rows'" in error(path, sheet="x")
    path = write(tmp_path / "y.xlsx", ("2023", rows), ("notes", [("see",)]), ("2024", rows))
    assert "y.xlsx: 3 sheets have rows: '2023', 'notes', '2024'; set data.sheet to one of them" in error(path)
    assert len(rows_of(path, sheet="2024")[0]) == 2
    assert "no sheet has a row" in error(write(tmp_path / "z.xlsx", ("a", []), ("b", [])))


def test_headers(tmp_path):
    rows = [("text", "label"), ("one", "a")]
    path = write(tmp_path / "x.xlsx", ("S", [("Reviews of 2023",), (), *rows]))
    assert "x.xlsx, sheet 'S': its header is in row 3, expected in the first; delete the rows above it" in error(path)
    path = write(tmp_path / "x.xlsx", ("S", [("Text", "label"), ("one", "a")]))
    assert (
        "sheet 'S': no column 'text' (data.text_column); columns in the file: 'Text', 'label'; did you mean 'Text'?"
        in error(path)
    )
    assert "occurs 2 times" in error(write(tmp_path / "x.xlsx", ("S", [("text", "text", "label"), ("one", "x", "a")])))
    assert "a header and no row" in error(write(tmp_path / "x.xlsx", ("S", rows[:1])))


def test_errors_and_formulas(tmp_path):
    """A formula counts by the value that was stored with it; an error is no label."""
    path = write(
        tmp_path / "x.xlsx",
        ("S", [("text", "label"), ("one", "a"), ("two", "#N/A"), ("three", "=1/0"), ("#REF!", "a")]),
    )
    usable, rejected, _ = rows_of(path)
    assert [row[0] for row in usable] == [2]
    assert [(line, reason) for line, reason, _ in rejected] == [
        (3, "an error of Excel in 'label' (#N/A)"), (4, "empty label"), (5, "an error of Excel in 'text' (#REF!)"),
    ]  # fmt: skip


def test_a_far_cell_costs_nothing(tmp_path):
    book = openpyxl.Workbook()
    for row in (("text", "label"), ("one", "a")):
        book.active.append(row)
    book.active["XFD1048576"] = "x"
    book.save(tmp_path / "x.xlsx")
    assert len(rows_of(str(tmp_path / "x.xlsx"))[0]) == 1


def test_without_openpyxl(tmp_path, monkeypatch):
    path = write(tmp_path / "x.xlsx", ("S", [("text", "label"), ("one", "a")]))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert (
        "x.xlsx: Excel files are read by openpyxl, which is not installed; install it with: "
        "pip install 'tfpipe[excel]', or save" in error(path)
    )
