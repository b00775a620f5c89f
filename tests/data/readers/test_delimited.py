import csv
import gzip
import io

import pytest
from data.row_reading import rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tfpipe import console
from tfpipe.data import block as block_module
from tfpipe.data.block import excerpt
from tfpipe.data.readers import dialect
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


def test_a_header_that_comes_again_is_no_row(tmp_path):
    content = "text,label\none,a\ntext,label\ntext,b\nlabel,label\ntext,label\n"
    usable, rejected, _ = read(tmp_path, content)
    assert [row[:2] for row in usable] == [(2, "one"), (4, "text"), (5, "label")]
    assert rejected == [(line, "the header again, as in files put together", "text,label") for line in (3, 6)]


def test_a_second_header_in_another_order(tmp_path):
    message = error(tmp_path, "text,label\none,a\nlabel,text\nb,two\n")
    assert "line 3: a second header, with the columns in another order (label, text); split the file there" in message


@pytest.mark.parametrize("block_bytes", [1, 50, 1 << 20])
@pytest.mark.parametrize("gap", [1, 2, 140])
@pytest.mark.parametrize("order", [("text", "label"), ("label", "text"), ("id", "text", "label")])
def test_rows_between_two_stray_quotes_do_not_vanish(tmp_path, monkeypatch, order, gap, block_bytes):
    monkeypatch.setattr(block_module, "BLOCK_BYTES", block_bytes)
    rows = [{"id": n, "text": f"the lamp {n} is warm", "label": ("pos", "neg")[n % 2]} for n in range(200)]
    rows[10]["text"] = f'"{rows[10]["text"]}'
    rows[10 + gap]["text"] += '"'
    content = "\n".join([",".join(order), *(",".join(str(row[name]) for name in order) for row in rows)])
    usable, rejected, _ = read(tmp_path, content)
    assert len(usable) == 200 - gap - 1
    reason = "in a quoted field that holds whole rows; set data.quoting: false, or true to believe the quotes"
    assert rejected == [(line, reason, f"in the record of lines 12 to {12 + gap}") for line in range(12, 12 + gap + 1)]
    assert len(read(tmp_path, content, quoting=False)[0]) == 200
    assert len(read(tmp_path, content, quoting=True)[0]) == 200 - gap


@pytest.mark.parametrize("order", [("text", "label"), ("label", "text"), ("id", "text", "label")])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_texts_of_several_lines_with_commas_are_read(tmp_path, order, ending):
    texts = [
        "Well, I went.\nIt was good.", "Dear all, hi\nhow are you, friend\nbye", "a\n\nb, c\n", "\n, pos",
        "I liked it, really\nso did he, really", 'He said "no"\nand left, pos', "one, two\nthree, four\nfive, six",
        "x, pos\n",
    ]  # fmt: skip
    path = tmp_path / "data.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, order, extrasaction="ignore", lineterminator=ending)
        writer.writeheader()
        writer.writerows({"id": n, "text": text, "label": ("pos", "neg")[n % 2]} for n, text in enumerate(texts * 5))
    usable, rejected, _ = rows_of(str(path))
    assert [text for _, text, _, _ in usable] == texts * 5 and not rejected


TAB_SEPARATED = "".join(f"the lamp {n} is warm, and bright\t{('pos', 'neg')[n % 2]}\n" for n in range(200))


def tab_separated(tmp_path, changes, **settings):
    lines = ["text\tlabel\n", *TAB_SEPARATED.splitlines(keepends=True)]
    for number, line in changes.items():
        lines[number - 1] = line
    return read(tmp_path, "".join(lines), name="data.tsv", **settings)


@pytest.mark.parametrize("block_bytes", [1, 300, 1 << 20])
@pytest.mark.parametrize("last", [13, 152])
def test_a_quotation_over_rows_of_a_tsv_is_text(tmp_path, monkeypatch, capsys, last, block_bytes):
    monkeypatch.setattr(block_module, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(console, "_said", set())
    usable, rejected, _ = tab_separated(tmp_path, {12: '"so it began\tpos\n', last: 'so it ended"\tneg\n'})
    assert len(usable) == 200 and not rejected
    assert usable[10][1:] == ('"so it began', None, "pos") and usable[last - 2][1] == 'so it ended"'
    said = capsys.readouterr().err
    assert "data.tsv: a quote is read as a character like any other (line 12: it encloses no field)" in said
    assert said.count("data.quoting") == 1


def test_stray_quotes_far_behind_the_first_lines_are_text_too(tmp_path):
    rows = [f"the lamp {n} is warm, and bright\t{('pos', 'neg')[n % 2]}\n" for n in range(20_000)]
    rows[15_000], rows[19_000] = '"so it began\tpos\n', 'so it ended"\tneg\n'
    assert len("".join(rows[:15_000])) > dialect.HEAD_BYTES
    usable, rejected, _ = read(tmp_path, "text\tlabel\n" + "".join(rows), name="data.tsv")
    assert len(usable) == 20_000 and not rejected


def test_quoted_fields_of_a_tsv_are_read_as_such(tmp_path, capsys):
    usable, rejected, _ = tab_separated(
        tmp_path, {3: '"so ""warm"""\t"pos"\n', 5: '"one\ttwo"\tneg\n', 7: '"three"\tneg\n'}
    )
    assert not rejected and [usable[at][1] for at in (1, 3, 5)] == ['so "warm"', "one\ttwo", "three"]
    assert "data.quoting" not in capsys.readouterr().err
    quoted = '"text"\t"label"\n' + "".join(f'"x {n}"\t"{"ab"[n % 2]}"\n' for n in range(9)) + '"she "said"\t"a"\n'
    usable, rejected, _ = read(tmp_path, quoted, name="data.tsv")
    assert len(usable) == 9 and {label for *_, label in usable} == {"a", "b"}
    assert [line for line, *_ in rejected] == [11] and "set data.quoting: false" in rejected[0][1]


def test_lines_that_contradict_what_was_found_name_the_setting(tmp_path):
    changes = {3: '"so it began\tpos\n', 4: 'so it ended"\tneg\n', 150: '"one\ttwo"\tpos\n'}
    usable, rejected, _ = tab_separated(tmp_path, changes)
    reason = "wrong number of columns (3, expected 2); where fields stand in quotes, set data.quoting: true"
    assert len(usable) == 199 and [each[:2] for each in rejected] == [(150, reason)]
    _, rejected, _ = tab_separated(tmp_path, {3: '"so it began\tpos"\n'}, quoting=True)
    reason = (
        "wrong number of columns (1, expected 2); where quotes are characters like any other, set data.quoting: false"
    )
    assert [each[:2] for each in rejected] == [(3, reason)]


def test_escapes_of_databases(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(console, "_said", set())
    content = 'text\tlabel\na\\nb \\\\ c\\td\tx\nC:\\\\new "q\tx\nno\t\\N\nover\\\ntwo\ty\n\\w \\\ttab\ty\n'
    usable, rejected, _ = read(tmp_path, content, name="data.tsv", escape="backslash")
    assert not rejected and [row[:2] + row[3:] for row in usable] == [
        (2, "a\nb \\ c\td", "x"),
        (3, 'C:\\new "q', "x"),
        (5, "over\ntwo", "y"),
        (7, "\\w \ttab", "y"),
    ]
    assert "data.escape" not in capsys.readouterr().err
    assert read(tmp_path, "text\tlabel\na\\nb\tx\nno\t\\N\n", name="data.tsv")[0][0][1] == r"a\nb"
    assert 'data.tsv: it holds \\N, \\n, \\\\ or \\", as databases write text' in capsys.readouterr().err
    read(tmp_path, "text\tlabel\nattic\\wide\tx\n", name="data.tsv")
    assert "data.escape" not in capsys.readouterr().err


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_quotes_that_are_escaped_by_backslashes(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(block_module, "BLOCK_BYTES", block_bytes)
    content = 'text,label\n"she said \\"no, never\\"",a\n"C:\\temp\n\\"",b\nx,a\n'
    usable, rejected, _ = read(tmp_path, content, escape="backslash")
    assert not rejected
    assert [row[:2] for row in usable] == [(2, 'she said "no, never"'), (3, 'C:\\temp\n"'), (5, "x")]
    rejected = read(tmp_path, 'text,label\n"she \\"no\\" said",a\nx,b\n')[1]
    assert r"where \" stands for a quote, set data.escape: backslash" in rejected[0][1]


def test_escapes_as_python_writes_them_within_quotes_and_without(tmp_path):
    texts = ["plain", 'a "b" c', '"d"', "tab\there", "line\nbreak", r"C:\new", "ends with \\", r"\N"] * 3
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE):
        for name, separator in (("data.csv", ","), ("data.tsv", "\t")):
            with open(tmp_path / name, "w", newline="", encoding="utf-8") as file:
                form = {"delimiter": separator, "escapechar": "\\", "doublequote": False, "lineterminator": "\n"}
                csv.writer(file, quoting=quoting, **form).writerows(
                    [("text", "label"), *((text, "a") for text in texts)]
                )
            believed = {"quoting": False} if quoting == csv.QUOTE_NONE else {}
            usable, rejected, _ = rows_of(str(tmp_path / name), escape="backslash", **believed)
            assert [row[1] for row in usable] == texts and not rejected, (quoting, name)


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
