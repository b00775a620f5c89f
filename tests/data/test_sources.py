import csv

import pytest

from tfpipe.config import Data
from tfpipe.data.sources import Filtered, RawRow, Rejection, excerpt, read_csv, resolve
from tfpipe.errors import InputError


def read(tmp_path, content, **settings):
    path = tmp_path / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    label_required = settings.pop("label_required", True)
    return list(read_csv(path, Data(source="data.csv", **settings), label_required=label_required))


def error(tmp_path, content, **settings):
    with pytest.raises(InputError) as caught:
        read(tmp_path, content, **settings)
    message = str(caught.value)
    assert "data.csv" in message and "\n" not in message
    return message


def test_rows_carry_the_line_on_which_they_start(tmp_path):
    content = 'text,label\none,a\n"two\nlines, ""quoted""",b\n\r\nthree, c \n'
    assert read(tmp_path, content) == [
        RawRow(2, "one", None, "a"),
        RawRow(3, 'two\nlines, "quoted"', None, "b"),
        RawRow(6, "three", None, "c"),
    ]


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    assert read(tmp_path, "\ufefftext,label\r\nnaïve,a\r\n") == [RawRow(2, "naïve", None, "a")]


def test_columns_are_found_by_name(tmp_path):
    rows = read(tmp_path, "y,second,first\na,B,A\n", text_column="first", text_pair_column="second", label_column="y")
    assert rows == [RawRow(2, "A", "B", "a")]


def test_each_unusable_row_has_a_reason(tmp_path):
    content = b'text,label\nok,a\ncaf\xe9,a\nx,a,b\nshort\n  ,a\nno label,\n"bad" quote,a\nfine,b\n'
    rows = read(tmp_path, content)
    assert rows[0] == RawRow(2, "ok", None, "a") and rows[-1] == RawRow(9, "fine", None, "b")
    assert rows[1:-1] == [
        Rejection(3, "undecodable bytes in the text (not UTF-8)", r"caf\xe9"),
        Rejection(4, "wrong number of columns (3, expected 2)", "x,a,b"),
        Rejection(5, "wrong number of columns (1, expected 2)", "short"),
        Rejection(6, "empty text", ""),
        Rejection(7, "empty label", "no label"),
        Rejection(8, "malformed CSV (',' expected after '\"')", "in the record of lines 8 to 8"),
    ]


def test_rows_lost_to_a_stray_quote_are_all_counted(tmp_path):
    rows = read(tmp_path, 'text,label\n"stray,a\nlost,b\nlost,a\n"also lost",b\nfine,b\n')
    assert [row.line for row in rows] == [2, 3, 4, 5, 6] and rows[-1] == RawRow(6, "fine", None, "b")
    assert {(row.reason, row.excerpt) for row in rows[:-1]} == {
        ("malformed CSV (',' expected after '\"')", "in the record of lines 2 to 5")
    }


def test_undecodable_label_and_empty_second_text(tmp_path):
    rows = read(tmp_path, b"a,b,label\nx,y,\xff\nx,,1\n", text_column="a", text_pair_column="b")
    assert [row.reason for row in rows] == ["undecodable bytes in the label (not UTF-8)", "empty second text"]


def test_a_multi_label_row_may_have_no_label(tmp_path):
    assert read(tmp_path, "text,label\nx,\n", label_required=False) == [RawRow(2, "x", None, "")]


def test_filter_counts_what_it_leaves_out_before_judging_it(tmp_path):
    content = "text,label,source,lang\n1,a,x,en\n2,b,y,en\n,a,z,en\n4,a,y,de\n"
    rows = read(tmp_path, content, filter={"source": ["x", "y"], "lang": "en"})
    assert rows == [RawRow(2, "1", None, "a"), RawRow(3, "2", None, "b"), Filtered(4), Filtered(5)]


def test_long_fields_are_read(tmp_path):
    text = "word " * 100_000
    assert len(text) > 131_072  # where Python's csv stops by default
    assert read(tmp_path, f"text,label\n{text},a\n")[0].text == text


def test_missing_file(tmp_path):
    path = tmp_path / "nowhere.csv"
    with pytest.raises(InputError, match=r"nowhere\.csv: can't read it \(No such file.*; give the path"):
        next(read_csv(path, Data(source="x")))
    with pytest.raises(InputError, match="can't read it"):
        next(read_csv(tmp_path, Data(source="x")))


def test_empty_file(tmp_path):
    assert "the file is empty; expected a CSV file with a header" in error(tmp_path, "")


def test_header_only(tmp_path):
    assert "a header and no row; expected at least one row" in error(tmp_path, "text,label\n")


def test_missing_column_names_those_that_exist_and_the_nearest(tmp_path):
    message = error(tmp_path, "review_text,label\nx,a\n", text_column="reviewtext")
    assert "no column 'reviewtext' (data.text_column)" in message
    assert "'review_text', 'label'" in message and "did you mean 'review_text'?" in message
    assert "set data.label_column to one of them" in error(tmp_path, "text,zzz\nx,a\n", label_column="q")
    assert "data.filter" in error(tmp_path, "text,label\nx,a\n", filter={"origin": "y"})


def test_other_separators_are_recognised(tmp_path):
    assert "separated by commas" in error(tmp_path, "text;label\nx;a\n")
    assert "separated by commas" in error(tmp_path, "text\tlabel\nx\ta\n")


def test_column_that_occurs_twice(tmp_path):
    assert "column 'text' (data.text_column) occurs 2 times; rename" in error(tmp_path, "text,text,label\nx,y,a\n")


def test_not_utf8_header(tmp_path):
    assert "not UTF-8 text; convert it" in error(tmp_path, "text,label\nx,a\n".encode("utf-16"))
    assert "not UTF-8 text; convert it" in error(tmp_path, "größe,label\nx,a\n".encode("latin-1"))


def test_nothing_passes_the_filter_says_what_the_column_holds(tmp_path):
    message = error(tmp_path, "text,label,source\nx,a,imdb\ny,b,rotten\n", filter={"source": "imbd"})
    assert "no row passes data.filter {'source': ['imbd']}" in message
    assert "column 'source' holds 'imdb', 'rotten'; change data.filter" in message
    many = "text,label,source\n" + "".join(f"x,a,s{number}\n" for number in range(30))
    message = error(tmp_path, many, filter={"source": "s"})
    assert "'s9' and more" in message and "'s10'" not in message


def test_quote_that_is_never_closed_is_not_swallowed(tmp_path):
    message = error(tmp_path, 'text,label\nx,a\n"cut short,b\nmore,c\n')
    assert "line 3: a quoted field that begins in this row is never closed; close the quote" in message


def test_header_with_malformed_quoting(tmp_path):
    assert "line 1: not a CSV header" in error(tmp_path, '"text"x,label\nx,a\n')


def test_excerpt_is_short_and_on_one_line():
    assert excerpt("a\n b") == "a b"
    assert len(excerpt("x" * 1000)) == 80 and excerpt("x" * 1000).endswith("…")


def test_what_csv_writes_is_read_back(tmp_path):
    texts = ['a,"b"', "line\nbreak", "carriage\r\nreturn", "tab\t;", "'", '""']
    path = tmp_path / "data.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((text, "a") for text in texts)])
    assert [row.text for row in read_csv(path, Data(source="x"))] == texts


def test_resolve_a_path(tmp_path):
    (tmp_path / "x.csv").write_text("")
    assert resolve(str(tmp_path / "x.csv")) == tmp_path / "x.csv"
    with pytest.raises(InputError, match=r"y\.csv: no such file in .*; give the path"):
        resolve(str(tmp_path / "y.csv"))
    with pytest.raises(InputError, match=r"gs://b/x: only local files are read; copy it"):
        resolve("gs://b/x")


def test_resolve_inside_a_package_does_not_import_it(tmp_path, monkeypatch):
    package = tmp_path / "tfpipe_test_package"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data" / "rows.csv").write_text("text,label\n")
    (tmp_path / "tfpipe_test_module.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("package:tfpipe_test_package/data/rows.csv") == package / "data" / "rows.csv"
    assert resolve("package:tfpipe_test_package/data") == package / "data"
    with pytest.raises(InputError, match=r"no data/other\.csv in .*tfpipe_test_package; check the path"):
        resolve("package:tfpipe_test_package/data/other.csv")
    with pytest.raises(InputError, match="a single module"):
        resolve("package:tfpipe_test_module/rows.csv")


def test_resolve_names_what_to_install():
    with pytest.raises(InputError, match=r"package no_such_package is not installed; .* pip install no-such-package"):
        resolve("package:no_such_package/data.csv")


@pytest.mark.parametrize("source", ["package:numpy", "package:/x", "package:a.b/x", "package:numpy/"])
def test_resolve_malformed(source):
    with pytest.raises(InputError, match="expected package:NAME/PATH"):
        resolve(source)


@pytest.mark.parametrize("inside", ["../x", "a/../../x", "/etc/passwd"])
def test_resolve_stays_in_the_package(inside):
    with pytest.raises(InputError, match="leaves the package"):
        resolve(f"package:numpy/{inside}")
