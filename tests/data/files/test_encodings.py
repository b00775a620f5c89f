import codecs

import pytest
from data.row_reading import rows_of
from pydantic import ValidationError

from tfpipe.config.data import Data
from tfpipe.data.files.encodings import guessed, open_utf8
from tfpipe.data.files.sources import source_files
from tfpipe.errors import InputError

SENTENCES = {
    "cp1252": [
        "The café costs £5.",
        "größe",
        "¿Dónde está el niño?",
        "C’est déjà l’été à Nîmes",
        "São Paulo não é a capital",
    ],
    "cp1250": ["Zażółć gęślą jaźń, bardzo dobra jakość", "Příliš žluťoučký kůň úpěl ďábelské ódy"],
    "cp1251": ["Очень хороший товар, всем советую", "МОСКВА — столица. Плохо!"],
    "koi8_r": ["Очень хороший товар, всем советую", "Плохо работает"],
    "cp1253": ["Πολύ καλό προϊόν, το συνιστώ"],
    "cp1254": ["Çok güzel bir ürün, teşekkürler, ılık ışık"],
    "cp1255": ["מוצר טוב מאוד, ממליץ"],
    "cp1256": ["منتج جيد جدا، أنصح به"],
    "cp874": ["สินค้าดีมาก แนะนำ"],
    "cp932": ["とても良い商品でした。3回目", "この映画は面白くなかった、残念です"],
    "euc_jp": ["とても良い商品でした。3回目", "この映画は面白くなかった、残念です"],
    "cp949": ["이 영화는 정말 재미있어요", "배송이 너무 느려서 실망했습니다"],
    "gb18030": ["这家店的服务很好，第3次", "包装破损，非常失望，编号0"],
    "big5": ["這家店的服務很好，第3次", "包裝破損，非常失望"],
}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_a_guess(encoding):
    assert {guessed(sentence.encode(encoding)) for sentence in SENTENCES[encoding]} == {encoding}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_the_setting_decides(tmp_path, encoding):
    for sentence in SENTENCES[encoding]:
        (tmp_path / "x.tsv").write_bytes(f"text\tlabel\r\n{sentence}\ta\r\n".encode(encoding))
        assert rows_of(str(tmp_path / "x.tsv"), encoding=encoding)[0] == [(2, sentence, None, "a")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.csv.gz"])
def test_a_byte_order_mark(tmp_path, capsys, encoding, order, name):
    import gzip

    text = (
        "text,label\r\ngrün,a\r\n汉字,b\r\n"
        if "csv" in name
        else '{"text": "grün", "label": "a"}\n{"text": "汉字", "label": "b"}\n'
    )
    mark = getattr(codecs, f"BOM_{encoding.replace('-', '').upper()}_{order.upper()}")
    content = mark + text.encode(f"{encoding}-{order}")
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    usable, rejected, _ = rows_of(str(path))
    assert [(text, label) for _, text, _, label in usable] == [("grün", "a"), ("汉字", "b")] and not rejected
    assert f"{name}: {encoding.upper()}, by its byte order mark" in capsys.readouterr().err
    assert rows_of(str(path), encoding=encoding)[0] == rows_of(str(path), encoding=f"{encoding}-{order}")[0] == usable
    assert capsys.readouterr().err == ""


def test_utf8_is_read_as_it_is(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\nx,a\n")
    for encoding in (None, "utf-8", "UTF8"):
        data = Data(source=str(tmp_path / "x.csv"), encoding=encoding)
        with open_utf8(source_files(data)[0]) as stream:
            assert stream.raw.name == data.source  # the file itself
    (tmp_path / "x.csv").write_text("\ufefftext,label\nx,a\n")
    assert (
        rows_of(str(tmp_path / "x.csv"), encoding="utf-8")[0]
        == rows_of(str(tmp_path / "x.csv"))[0]
        == [(2, "x", None, "a")]
    )


def test_bytes_that_are_not_of_the_encoding(tmp_path):
    content = "text,label\n良い,a\n良".encode("cp932") + b"\x81\n" + "い,b\n良い,a\n".encode("cp932")
    (tmp_path / "x.csv").write_bytes(content.replace(b"\x81\n", b"\x81\xff"))
    usable, rejected, _ = rows_of(str(tmp_path / "x.csv"), encoding="cp932")
    assert [line for line, *_ in usable] == [2, 4]
    assert [(line, reason) for line, reason, _ in rejected] == [(3, "undecodable bytes in the text (not UTF-8)")]
    # a row's bytes never come to make a character of UTF-8 by chance
    (tmp_path / "x.csv").write_bytes(b"text,label\nx\xc3\xa9,a\n")
    assert rows_of(str(tmp_path / "x.csv"), encoding="ascii")[1][0][1].startswith("undecodable bytes")


def test_large_files_are_decoded_piece_by_piece(tmp_path):
    rows = 60_000
    (tmp_path / "x.tsv").write_bytes(
        ("text\tlabel\n" + "".join(f"é汉 {n}\ta\n" for n in range(rows))).encode("gb18030")
    )
    usable, rejected, _ = rows_of(str(tmp_path / "x.tsv"), encoding="gb18030")
    assert (len(usable), len(rejected)) == (rows, 0) and usable[-1] == (rows + 1, f"é汉 {rows - 1}", None, "a")


def test_contradictions(tmp_path):
    def error(content, **settings):
        (tmp_path / "x.csv").write_bytes(content)
        with pytest.raises(InputError) as caught:
            rows_of(str(tmp_path / "x.csv"), **settings)
        return str(caught.value)

    text = "text,label\nx,a\n"
    assert "x.csv: looks like UTF-16 without a byte order mark; set data.encoding: utf-16-le" in error(
        text.encode("utf-16-le")
    )
    assert "set data.encoding: utf-16-be" in error(text.encode("utf-16-be"))
    assert "x.csv: no byte order mark; set data.encoding: utf-16-le, or utf-16-be" in error(
        text.encode(), encoding="utf-16"
    )
    assert "x.csv: has the byte order mark of UTF-16; leave out data.encoding" in error(
        text.encode("utf-16"), encoding="cp1252"
    )
    assert "x.csv: has the byte order mark of UTF-8; leave out" in error(text.encode("utf-8-sig"), encoding="cp1252")


def test_folders(tmp_path):
    for label, encoding in (("a", "cp1252"), ("b", "utf-16")):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.txt").write_bytes("grün".encode(encoding))
    assert [row[1] for row in rows_of(str(tmp_path))[0]] == ["grün"]
    (tmp_path / "b" / "1.txt").write_bytes(b"x\xfc")
    assert [row[1] for row in rows_of(str(tmp_path), encoding="latin-1")[0]] == ["grün", "xü"]


@pytest.mark.parametrize("name", ["hex", "rot13", "nothing", "idna", "unicode_escape", "", "undefined"])
def test_names_that_are_no_encodings(name):
    with pytest.raises(ValidationError, match="expected the name of an encoding, such as cp1252"):
        Data(source="x.csv", encoding=name)


def test_without_effect(tmp_path):
    with pytest.raises(ValidationError, match=r"data.encoding has no effect with data.format: parquet, only with"):
        Data(source="x", format="parquet", encoding="cp1252")
    (tmp_path / "x.parquet").write_text("")
    with pytest.raises(InputError, match=r"data.encoding has no effect on files of format parquet, only on csv, tsv"):
        source_files(Data(source=str(tmp_path / "x.parquet"), encoding="cp1252"))
