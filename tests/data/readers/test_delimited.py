import csv
import gzip
import io

import pytest
from data.row_reading import rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tfpipe.data import block as block_module
from tfpipe.data.block import excerpt
from tfpipe.errors import InputError


def read(tmp_path, content, name="data.csv", **settings):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return rows_of(str(path), **settings)


def error(tmp_path, content, **settings):
    with pytest.raises(InputError) as caught:
        read(tmp_path, content, **settings)
    message = str(caught.value)
    assert "data.csv" in message and "\n" not in message
    return message


def test_rows_carry_the_line_on_which_they_start(tmp_path):
    content = 'text,label\none,a\n"two\nlines, ""quoted""",b\n\r\nthree, c \n'
    assert read(tmp_path, content)[0] == [
        (2, "one", None, "a"),
        (3, 'two\nlines, "quoted"', None, "b"),
        (6, "three", None, "c"),
    ]


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    assert read(tmp_path, "\ufefftext,label\r\nnaïve,a\r\n")[0] == [(2, "naïve", None, "a")]


def test_a_quote_after_a_byte_order_mark_is_a_quote(tmp_path):
    columns = {"text_column": "te\nxt"}
    assert read(tmp_path, '\ufeff"te\nxt",label\none,a\n', **columns)[0] == [(3, "one", None, "a")]
    assert "line 1: not a CSV header" in error(tmp_path, '\ufeff"text,label\none,a\n')


def test_columns_are_found_by_name(tmp_path):
    columns = {"text_column": "first", "text_pair_column": "second", "label_column": "y"}
    assert read(tmp_path, "y,second,first\na,B,A\n", **columns)[0] == [(2, "A", "B", "a")]


MALFORMED = (
    "malformed CSV (',' expected after '\"'); where quotes are characters like any other, set data.quoting: false"
)
UNUSABLE = b'text,label\nok,a\ncaf\xe9,a\nx,a,b\nshort\n  ,a\nno label,\n"bad" quote,a\nfine,b\n'


@pytest.mark.parametrize("block_bytes", [1, 20, 1 << 20])
def test_each_unusable_row_has_a_reason(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(block_module, "BLOCK_BYTES", block_bytes)
    usable, rejected, _ = read(tmp_path, UNUSABLE)
    assert usable == [(2, "ok", None, "a"), (9, "fine", None, "b")]
    assert rejected == [
        (3, "undecodable bytes in the text (not UTF-8)", r"caf\xe9"),
        (4, "wrong number of columns (3, expected 2)", "x,a,b"),
        (5, "wrong number of columns (1, expected 2)", "short"),
        (6, "empty text", ""),
        (7, "empty label", "no label"),
        (8, MALFORMED, "in the record of lines 8 to 8"),
    ]


def test_rows_lost_to_a_stray_quote_are_all_counted(tmp_path):
    usable, rejected, _ = read(tmp_path, 'text,label\n"stray,a\nlost,b\nlost,a\n"also lost",b\nfine,b\n')
    assert usable == [(6, "fine", None, "b")]
    assert rejected == [(line, MALFORMED, "in the record of lines 2 to 5") for line in (2, 3, 4, 5)]


def test_undecodable_label_and_empty_second_text(tmp_path):
    rejected = read(tmp_path, b"a,b,label\nx,y,\xff\nx,,1\n", text_column="a", text_pair_column="b")[1]
    assert [reason for _, reason, _ in rejected] == ["undecodable bytes in the label (not UTF-8)", "empty second text"]


def test_a_multi_label_row_may_have_no_label(tmp_path):
    assert read(tmp_path, "text,label\nx,\n", task="multi_label")[0] == [(2, "x", None, "")]


def test_filter_counts_what_it_leaves_out_before_judging_it(tmp_path):
    content = "text,label,source,lang\n1,a,x,en\n2,b,y,en\n,a,z,en\n4,a,y,de\n"
    usable, rejected, filtered = read(tmp_path, content, filter={"source": ["x", "y"], "lang": "en"})
    assert usable == [(2, "1", None, "a"), (3, "2", None, "b")] and not rejected and filtered == 2


def test_long_fields_are_read(tmp_path):
    text = "word " * 100_000
    assert len(text) > 131_072  # where Python's csv stops by default
    assert read(tmp_path, f"text,label\n{text},a\n")[0][0][1] == text


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
    assert "(data.split.group_column)" in error(tmp_path, "text,label\nx,a\n", split={"group_column": "user"})


def test_column_that_occurs_twice(tmp_path):
    assert "column 'text' (data.text_column) occurs 2 times; rename" in error(tmp_path, "text,text,label\nx,y,a\n")


def test_not_utf8_header(tmp_path):
    assert "not UTF-8 text; it looks like cp1252 (a guess): set data.encoding: cp1252" in error(
        tmp_path, "größe,label\nx,a\n".encode("latin-1")
    )


def test_quote_that_is_never_closed_is_not_swallowed(tmp_path):
    message = error(tmp_path, 'text,label\nx,a\n"cut short,b\nmore,c\n')
    assert "line 3: a quoted field that begins in this row is never closed; close the quote" in message


def test_header_with_malformed_quoting(tmp_path):
    assert "line 1: not a CSV header" in error(tmp_path, '"text"x,label\nx,a\n')


def test_tab_separated(tmp_path):
    content = 'text\tlabel\nwith, comma\ta\n"two\nlines"\tb\n'
    assert read(tmp_path, content, name="data.tsv")[0] == [(2, "with, comma", None, "a"), (3, "two\nlines", None, "b")]


def test_quotes_can_be_plain_characters(tmp_path):
    content = 'text\tlabel\n"never closed\ta\n5" screen\tb\n'
    assert read(tmp_path, content, name="data.tsv", quoting=False)[0] == [
        (2, '"never closed', None, "a"),
        (3, '5" screen', None, "b"),
    ]


def test_compressed_and_cut_short(tmp_path):
    content = gzip.compress(("text,label\n" + "".join(f"row {n},a\n" for n in range(5000))).encode())
    assert len(read(tmp_path, content, name="data.csv.gz")[0]) == 5000
    with pytest.raises(InputError, match=r"data\.csv\.gz: can't read it to its end \(.*\); fetch the file again"):
        read(tmp_path, content[: len(content) // 2], name="data.csv.gz")


@pytest.mark.parametrize("count", [1, 5000, 100_000])
def test_compressed_files_are_read_whatever_their_size_and_their_end(tmp_path, count):
    content = "text,label\n" + "\n".join(f"row {n} of many,a" for n in range(count))
    usable, rejected, _ = read(tmp_path, gzip.compress(content.encode(), 1), name="data.csv.gz")
    assert len(usable) == count and not rejected and usable[-1][:2] == (count + 1, f"row {count - 1} of many")


def test_excerpt_is_short_and_on_one_line():
    assert excerpt("a\n b") == "a b"
    assert len(excerpt("x" * 1000)) == 80 and excerpt("x" * 1000).endswith("…")


CELLS = st.text(alphabet='ab,"\n\r\té\u2028', min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(st.lists(CELLS, min_size=1, max_size=30), st.integers(1, 60))
def test_what_csv_writes_is_read_back_however_it_is_cut(tmp_path_factory, texts, block_bytes):
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([("text", "label"), *((f"x{text}", "a") for text in texts)])
    path = tmp_path_factory.mktemp("cut") / "data.csv"
    path.write_bytes(buffer.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_module, "BLOCK_BYTES", block_bytes)
        usable, rejected, _ = rows_of(str(path), quoting=True)
    assert [text for _, text, _, _ in usable] == [f"x{text}" for text in texts] and not rejected
    lines = list(csv.reader(io.StringIO(buffer.getvalue(), newline="")))
    assert len(lines) == len(usable) + 1


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet='ab,"\n', max_size=60), st.integers(1, 40))
def test_the_cut_changes_nothing_of_malformed_files_either(tmp_path_factory, content, block_bytes):
    path = tmp_path_factory.mktemp("cut") / "data.csv"
    path.write_text(f"text,label\n{content}", encoding="utf-8")

    def found():
        try:
            return rows_of(str(path))
        except InputError as error:
            return str(error)

    whole = found()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_module, "BLOCK_BYTES", block_bytes)
        assert found() == whole
