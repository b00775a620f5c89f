import os

import pytest
from data.row_reading import rows_of

from tfpipe.config.file import parse_config
from tfpipe.data import block as block_module
from tfpipe.data.files.sources import identity
from tfpipe.errors import InputError


@pytest.fixture
def reviews(tmp_path):
    for label in ("pos", "neg", "unsup"):
        (tmp_path / "train" / label).mkdir(parents=True)
        for n in range(5):
            (tmp_path / "train" / label / f"{n}_7.txt").write_text(f"{label} text {n}\n", encoding="utf-8")
    (tmp_path / "train" / "urls_pos.txt").write_text("not a row")
    (tmp_path / "train" / "pos" / ".hidden").write_text("not a row")
    return tmp_path / "train"


@pytest.mark.parametrize("records", [2, 1000])
def test_the_layout_of_acl_imdb(reviews, monkeypatch, records):
    monkeypatch.setattr(block_module, "BLOCK_RECORDS", records)
    found = [(1, f"{label} text {n}\n", None, label) for label in ("neg", "pos") for n in range(5)]
    assert rows_of(str(reviews)) == (found, [], 0)
    assert rows_of(str(reviews), filter={"label": ["pos", "neg"]}, missing=[]) == (found, [], 5)


def test_unusable_files(reviews):
    (reviews / "pos" / "0_7.txt").write_bytes(b"caf\xe9")
    (reviews / "neg" / "1_7.txt").write_text("  ")
    rejected = rows_of(str(reviews))[1]
    assert sorted(rejected) == [(1, "empty text", ""), (1, "undecodable bytes in the text (not UTF-8)", r"caf\xe9")]


def test_wrong_settings(reviews, tmp_path):
    with pytest.raises(InputError, match=r"\(a folder per class\): no column 'review' .* 'text', 'label', 'file'"):
        rows_of(str(reviews), text_column="review")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no file in a folder of it; expected .*/CLASS/FILE, a text a file"):
        rows_of(str(tmp_path / "empty"))


def test_links_that_lead_nowhere_are_no_files(reviews):
    (reviews / "pos" / "loop").symlink_to(reviews / "pos" / "loop")
    (reviews / "pos" / "broken").symlink_to(reviews / "absent")
    (reviews / "round").symlink_to(reviews / "round")
    assert len(rows_of(str(reviews))[0]) == 10


@pytest.mark.parametrize("name", [b"pos/\xff.txt", b"\xfe/1.txt"])
def test_a_name_that_is_not_utf8_is_refused(reviews, name):
    path = os.path.join(os.fsencode(reviews), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write("text")
    with pytest.raises(InputError, match=r"\\udcf[ef].*: its name is not UTF-8; rename it"):
        rows_of(str(reviews))
    with pytest.raises(InputError, match="its name is not UTF-8"):
        identity(parse_config({"name": "x", "data": {"source": str(reviews)}, "encoder": {"source": "x"}}, "test").data)
