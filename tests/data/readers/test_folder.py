import pytest
from data.row_reading import rows_of

from tfpipe.data import block as block_module
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
    usable, rejected, filtered = rows_of(str(reviews), filter={"label": ["pos", "neg"]})
    assert usable == [(1, f"{label} text {n}\n", None, label) for label in ("neg", "pos") for n in range(5)]
    assert filtered == 5 and not rejected


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
