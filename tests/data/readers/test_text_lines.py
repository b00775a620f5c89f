import gzip

import pytest
from data.row_reading import rows_of
from pydantic import ValidationError

from tfpipe.config.data import Data
from tfpipe.data.files.sources import identity, source_files
from tfpipe.errors import InputError


def read(tmp_path, content, name="x.txt", **settings):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    usable, rejected, _ = rows_of(str(path), **{"format": "lines", **settings})
    return [(line, text, label) for line, text, _, label in usable], [(line, reason) for line, reason, _ in rejected]


@pytest.mark.parametrize(
    ("line", "content", "expected"),
    [
        ("{label} {text}", "DESC:manner How ?", ("How ?", "DESC:manner")),
        ("{label}:{fine} {text}", "DESC:manner How: so ?", ("How: so ?", "DESC")),
        ("{text}@{label}", "write to a@b.example .@positive", ("write to a@b.example .", "positive")),
        ("{label}\t{text}", "ham\tone\ttwo \"quoted", ("one\ttwo \"quoted", "ham")),
        ("{label} ||| {text}", "1 ||| a ||| b", ("a ||| b", "1")),
        ("[{label}] {text}", "[a.b] x (y)", ("x (y)", "a.b")),
        ("{n},{label},{text}", "7,a,x, y", ("x, y", "a")),
    ],
)  # fmt: skip
def test_patterns(tmp_path, line, content, expected):
    assert read(tmp_path, content + "\r\n\r\n", line=line) == ([(1, *expected)], [])


def test_lines_that_do_not_fit(tmp_path):
    usable, rejected = read(tmp_path, "\ufeffa x\n\nlonely\n  \nb y\n", line="{label} {text}")
    assert usable == [(1, "x", "a"), (5, "y", "b")]
    assert rejected == [(3, "does not fit data.line '{label} {text}'")]


def test_other_columns(tmp_path):
    settings = {
        "line": "{stars}\t{review}",
        "text_column": "review",
        "label_column": "stars",
        "filter": {"stars": ["1"]},
    }
    assert read(tmp_path, "1\tx\n2\ty\n", **settings)[0] == [(1, "x", "1")]


def test_the_files_name_says_the_label(tmp_path):
    for label in ("pos", "neg"):
        (tmp_path / f"rt-polarity.{label}").write_text(f"a {label} text\n")
        (tmp_path / f"rt-{label}.txt.gz").write_bytes(gzip.compress(f"a {label} text\n".encode()))
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.txt").write_text(f"a {label} text\n")
    wanted = [("a neg text", "neg"), ("a pos text", "pos")]
    for pattern, file_name in (
        ("rt-polarity.*", "rt-polarity.{label}"),
        ("*.gz", "rt-{label}.txt.gz"),
        ("*/*.txt", "{label}/*.txt"),
    ):
        usable = rows_of(f"{tmp_path}/{pattern}", format="lines", file_name=file_name)[0]
        assert [(text, label) for _, text, _, label in usable] == wanted
    with pytest.raises(
        InputError, match=r"'rt-polarity.neg' does not fit data.file_name 'rt-\{label\}.txt'; correct one"
    ):
        rows_of(f"{tmp_path}/rt-polarity.*", format="lines", file_name="rt-{label}.txt")


def test_the_name_is_part_of_the_identity(tmp_path):
    def found(name, **settings):
        path = tmp_path / name
        path.write_text("x\n")
        return set(identity(Data(source=str(path), format="lines", **settings)).values())

    assert found("a.pos", file_name="a.{label}") != found("a.neg", file_name="a.{label}")
    assert found("a.pos", line="{label} {text}") == found("a.neg", line="{label} {text}")


def test_nothing_says_the_label(tmp_path):
    with pytest.raises(
        InputError, match=r"x\.txt: no column 'label'.*set data.line, such as \"\{label\} \{text\}\", or data.f"
    ):
        read(tmp_path, "x\n")
    with pytest.raises(InputError, match=r"the file is empty; expected a text a line"):
        read(tmp_path, "", line="{label} {text}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"line": "{label}{text}"}, "expected columns in braces with something between them"),
        ({"line": "label text"}, "names no column"),
        ({"line": "{label {text}"}, "expected columns in braces"),
        ({"line": "{label} {label}"}, "name the column 'label' twice"),
        ({"line": "{label} {text}", "file_name": "{label}.txt"}, "name the column 'label' twice"),
        ({"line": "{label} {text}", "format": "csv"}, "data.line has no effect with data.format: csv, only with data"),
        ({"file_name": "{label}", "format": "auto"}, "data.file_name has no effect with data.format: auto"),
    ],
)  # fmt: skip
def test_settings(settings, message):
    with pytest.raises(ValidationError, match=message):
        Data(**{"source": "x", "format": "lines", **settings})


FASTTEXT = "__label__a one two\n__label__b __label__a three\nfour __label__b five\nno label\n\n"


def test_fasttext(tmp_path):
    path = tmp_path / "train.ft.txt"
    path.write_text(FASTTEXT)
    usable, rejected, _ = rows_of(str(path), task="multi_label")
    assert [(line, text, label) for line, text, _, label in usable] == [
        (1, "one two", "a"), (2, "three", "b|a"), (3, "four five", "b"),
    ]  # fmt: skip
    assert [(line, reason) for line, reason, _ in rejected] == [(4, "no __label__ in the line")]
    usable, rejected = read(tmp_path, FASTTEXT, format="fasttext")
    assert [line for line, *_ in usable] == [1, 3]
    assert rejected[0] == (2, "2 labels (task: single_label expects one)")


def test_fasttext_by_content(tmp_path, capsys):
    for name in ("train.ft.txt", "x.valid", "noname"):
        (tmp_path / name).write_text(FASTTEXT)
        assert source_files(Data(source=str(tmp_path / name)))[0].format == "fasttext"
    assert "noname: read as fasttext, by its content" in capsys.readouterr().err
