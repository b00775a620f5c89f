import csv
import gzip

import pytest
from data.row_reading import rows_of

from tfpipe import console
from tfpipe.data import block as block_module
from tfpipe.errors import InputError


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(console, "_said", set())


def read(tmp_path, content, name="data.csv", **settings):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return rows_of(str(path), **settings)


def rows(tmp_path, content, name="data.csv", **settings):
    usable, rejected, _ = read(tmp_path, content, name, **settings)
    assert not rejected
    return [(line, text, label) for line, text, _, label in usable]


def error(tmp_path, content, name="data.csv", **settings):
    with pytest.raises(InputError) as caught:
        read(tmp_path, content, name, **settings)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_another_separator_is_found_and_said(tmp_path, monkeypatch, capsys, separator, quoting, block_bytes):
    monkeypatch.setattr(block_module, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "data.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, quoting=quoting)
        writer.writerows([("text", "label"), ("one, two; three | four", "a"), ('"five"', "b"), ("six\nseven", "a")])
    usable = rows_of(str(path))[0]
    assert [row[:2] for row in usable] == [(2, "one, two; three | four"), (3, '"five"'), (4, "six\nseven")]
    shown = {"\t": r"\t"}.get(separator, separator)
    assert (
        capsys.readouterr().err.count(f'data.csv: columns are separated by "{shown}" (data.separator: "{shown}"') == 1
    )
    rows_of(str(path), separator=separator)
    assert not capsys.readouterr().err


def test_commas_in_a_file_named_tsv(tmp_path, capsys):
    assert rows(tmp_path, "text,label\none,a\n", name="data.tsv") == [(2, "one", "a")]
    assert 'data.tsv: columns are separated by ","' in capsys.readouterr().err


def test_a_tab_separated_csv_is_read_like_a_tsv(tmp_path):
    content = 'text\tlabel\n"so it began\ta\nso it ended"\tb\n' + "x\ta\n" * 9
    assert rows(tmp_path, content)[:2] == [(2, '"so it began', "a"), (3, 'so it ended"', "b")]


def test_files_alike_are_told_of_once(tmp_path, capsys):
    for number in range(3):
        (tmp_path / f"{number}.csv").write_text("text;label\nx;a\n")
    assert len(rows_of(str(tmp_path / "*.csv"))[0]) == 3
    assert capsys.readouterr().err.count("separated by") == 1


def test_a_separator_that_does_not_fit_the_rows_is_not_taken(tmp_path):
    content = "text;label\none;a\ntwo; three;b\n"
    message = error(tmp_path, content)
    assert 'separated by ";", but a row has 3 of 2 columns; set data.separator: ";"' in message
    usable, rejected, _ = read(tmp_path, content, separator=";")
    assert len(usable) == 1 and rejected[0][1] == "wrong number of columns (3, expected 2)"


def test_other_columns_between_another_separator_are_listed(tmp_path):
    message = error(tmp_path, '"review";"stars"\nfine;good\n')
    assert (
        "no column 'text' (data.text_column); columns in the file: 'review', 'stars'; they are separated by \";\""
        in message
    )
    assert rows(tmp_path, "review;stars\nfine;good\n", text_column="review", label_column="stars") == [
        (2, "fine", "good")
    ]


def test_any_one_character_separates_where_it_is_set(tmp_path):
    assert rows(tmp_path, "text^label\none, two^a\n", separator="^") == [(2, "one, two", "a")]
    assert rows(tmp_path, "text\x01label\none\x01a\n", separator="\x01") == [(2, "one", "a")]
    assert rows(tmp_path, '"text" "label"\n"one two" "a"\n', separator=" ") == [(2, "one two", "a")]


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\n', "SEP=;\n", "\ufeffsep=;\n"])
def test_a_line_for_excel_names_the_separator(tmp_path, first):
    assert rows(tmp_path, first + "text;label\none, two;a\n") == [(3, "one, two", "a")]


def test_lines_for_excel_and_powershell_are_no_headers(tmp_path, capsys):
    assert rows(tmp_path, "sep=,\ntext,label\none,a\n") == [(3, "one", "a")]
    assert rows(tmp_path, "sep=\t\ntext\tlabel\none\ta\n", name="data.tsv") == [(3, "one", "a")]
    assert rows(tmp_path, '#TYPE System.Data.DataRow\n"text","label"\n"one","a"\n') == [(3, "one", "a")]
    assert not capsys.readouterr().err
    assert rows(tmp_path, "sep=;\none;a\n", columns=["text", "label"]) == [(2, "one", "a")]


HEADERLESS = {
    "cola": ("gj04\t1\t\tThe lamp {n} is warm.", "gj04\t0\t*\tThe lamp {n} am.", ["src", "label", "star", "text"]),
    "sms": ("ham\tthe lamp {n} is warm", "spam\tthe lamp {n} is cold", ["label", "text"]),
    "goemotions": ("the lamp {n} is warm\t27\teb{n}", "the lamp {n} is cold\t2,3\teb{n}", ["text", "label", "id"]),
    "words": ("the lamp is warm and bright, says {n} again\tham", "the lamp is cold and dark, says {n} again\tspam",
              ["text", "label"]),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERLESS)
def test_files_without_a_header_lose_no_row(tmp_path, name):
    even, odd, columns = HEADERLESS[name]
    content = "".join((even, odd)[n % 2].format(n=n) + "\n" for n in range(40))
    message = error(tmp_path, content, name="data.tsv")
    assert "data.tsv, line 1: no header: the first line looks like a row (" in message
    places = ", ".join(f"column_{number}" for number in range(1, len(columns) + 1))
    assert f"name its {len(columns)} columns, data.columns: [{places}], with 'text' (data.text_column)" in message
    found = rows(tmp_path, content, name="data.tsv", columns=columns)
    assert len(found) == 40 and [line for line, *_ in found] == list(range(1, 41))
    assert len(rows(tmp_path, gzip.compress(content.encode()), name="data.tsv.gz", columns=columns)) == 40


def test_a_column_named_like_a_cell_of_the_first_row_loses_no_row(tmp_path):
    content = "".join(f"gj04\t{n % 2}\t\tThe lamp {n} is warm.\n" for n in range(40))
    settings = {"text_column": "The lamp 0 is warm.", "label_column": "0"}
    assert "line 1: no header: the first line looks like a row" in error(tmp_path, content, name="data.tsv", **settings)


def test_columns_that_the_first_line_repeats_are_its_header(tmp_path):
    content = "text,label\none,a\ntwo,b\n"
    assert rows(tmp_path, content, columns=["text", "label"]) == [(2, "one", "a"), (3, "two", "b")]
    content, named = "words,spam\none,spam\ntwo,spam\n", {"text_column": "words", "label_column": "spam"}
    assert "or repeat the line there if these are names" in error(tmp_path, content, **named)
    assert len(rows(tmp_path, content, columns=["words", "spam"], **named)) == 2


def test_columns_over_a_header_of_other_names_are_refused(tmp_path):
    for content in ("review,label\none,a\ntwo,b\n", "review,stars\none,1\ntwo,2\n"):
        message = error(tmp_path, content, columns=["text", "label"])
        assert (
            "line 1: its first line looks like names of columns (review, " in message
            and "leave data.columns out" in message
        )
    texts = "review,gold\n" + "".join(f"the lamp {n} is warm,{'ab'[n % 2]}\n" for n in range(30))
    assert "looks like names of columns (review, gold)" in error(tmp_path, texts, columns=["text", "label"])


def test_a_first_row_of_several_numbers_is_no_header(tmp_path):
    content = "so glad\t17,2\nnot bad\t2\nwhat now\t27\n"
    assert len(rows(tmp_path, content, name="data.tsv", columns=["text", "label"])) == 3


def test_columns_of_another_number_than_the_rows_are_refused(tmp_path):
    message = error(tmp_path, "1,one,a\n2,two,b\n", columns=["text", "label"])
    assert "data.columns names 2 columns, but its rows have 3" in message


def test_columns_and_another_separator(tmp_path, capsys):
    assert len(rows(tmp_path, "one, two;a\nthree;b\n", columns=["text", "label"])) == 2
    assert 'separated by ";"' in capsys.readouterr().err


def test_numbered_columns_of_pandas_are_a_header(tmp_path):
    settings = {"text_column": "0", "label_column": "1"}
    content = "0,1\nx,1\ny,0\nz,1\n"
    assert len(rows(tmp_path, content, **settings)) == 3
    assert "columns in the file: '0', '1'" in error(tmp_path, content)
    assert len(rows(tmp_path, ",0,1\n0,x,1\n1,y,0\n2,z,1\n", **settings)) == 3


def test_row_names_of_r(tmp_path, capsys):
    content = '"text"\t"label"\n"1"\t"one"\t"a"\n"7"\t"two"\t"b"\n'
    assert rows(tmp_path, content, name="data.tsv") == [(2, "one", "a"), (3, "two", "b")]
    assert "data.tsv: each row has a column before those of the header, as R writes" in capsys.readouterr().err
    assert rows(tmp_path, '"","text","label"\n"1","one","a"\n') == [(2, "one", "a")]


def test_rows_with_a_comma_too_many_have_no_row_names(tmp_path):
    usable, rejected, _ = read(tmp_path, "text,label\nwell, one,a\nhm, two,b\n")
    assert not usable and {reason for _, reason, _ in rejected} == {"wrong number of columns (3, expected 2)"}
    usable, rejected, _ = read(tmp_path, "text\tlabel\none\ta\t\ntwo\tb\t\n", name="data.tsv")
    assert not usable and len(rejected) == 2
