"""Text in other encodings than UTF-8, read as UTF-8.

Enters: the bytes of a file and `data.encoding`. Leaves: a stream of UTF-8. A byte order mark tells UTF-16 and UTF-32.
Other encodings have no mark: where bytes are not UTF-8, a guess is part of the message, and the setting decides.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from tfpipe.config.data import Data
from tfpipe.console import say_once
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.streams import READ_ERRORS, open_bytes
from tfpipe.errors import InputError

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_READ_BYTES = 1 << 20
_SEARCHED_BYTES = 64 << 20  # for bytes that are not UTF-8
_GUESSED_BYTES = 1 << 16

# What the text of an encoding consists of, apart from ASCII. The first of the best is taken.
_HIGH = "\u0080-\uffff"
_SIGNS = "«»“”„‘’–—…•€£§©®°·\u00a0"


def _latin(letters: str) -> str:
    """Makes a pattern of letters that stand among those of ASCII, or alone, as in Latin script."""
    among = f"(?<=[A-Za-z])[{letters}]|[{letters}](?=[A-Za-z])|(?<![{_HIGH}])[{letters}](?![{_HIGH}])"
    return f"{among}|[{_SIGNS}]|(?<![A-Za-z])[¡¿²³½¼ªº]"


def _words(letters: str) -> str:
    """Makes a pattern of letters with others of their script beside them, and none of ASCII."""
    return f"(?<![A-Za-z{letters}])[{letters}]{{2,}}(?![A-Za-z{letters}])"


_RUSSIAN = "(?<![A-Za-zА-Яа-яЁё])(?:[А-ЯЁ]?[а-яё]+|[А-ЯЁ]+)(?![A-Za-zА-Яа-яЁё])|[«»–—“”’№]"
_JAPANESE = "[ぁ-ヿ一-鿿、。・「」！？ー々〇０-９Ａ-Ｚａ-ｚ（）]"
_CANDIDATES: tuple[tuple[str, str], ...] = (
    ("cp1252", _latin("àâäáãåæçèéêëìíîïñòóôöõøœùúûüÿßÀÂÄÁÅÆÇÈÉÊÍÎÑÓÔÖØŒÚÜ")),
    ("cp1250", _latin("ąćęłńóśźżĄĆĘŁŃŚŹŻáčďéěíňřšťúůýžÁČĎĚŇŘŠŤŮŽőűŐŰöüăâîșşțţäôĺľŕ") + "|[ąćęłńóśźż]"),
    ("cp1254", _latin("çğıöşüâîûÇĞİÖŞÜ")),
    ("cp932", _JAPANESE),
    ("euc_jp", _JAPANESE),
    ("cp949", "[가-힣]"),
    ("gb18030", "[一-鿿，。！？、；：“”‘’（）《》０-９…—]"),
    ("big5", "[一-鿿，。！？、；：「」（）《》０-９…—]"),
    ("cp1255", _words("א-ת")),
    ("cp1253", _words("Α-ΩΆ-Ώά-ία-ώ")),
    ("cp1251", _RUSSIAN),
    ("koi8_r", _RUSSIAN),
    ("cp1256", _words("ء-يپچژگ") + "|[،؟]"),
    ("cp874", _words("ก-๛")),
)


def open_utf8(file: SourceFile) -> BinaryIO:
    """Opens a file of text as a stream of UTF-8; for a file that is UTF-8, that of `open_bytes`.

    Bytes that are no text in their encoding become 0xFF, which is no text in UTF-8 either: their row is rejected.

    Raises:
      InputError: the file can't be read.
    """
    return as_utf8(open_bytes(file.path), file.name, file.encoding)


def as_utf8(stream: BinaryIO, name: str, encoding: str | None, said_of: str | None = None) -> BinaryIO:
    """Makes UTF-8 of a stream of text.

    Args:
      stream: of `open_bytes`, at its beginning.
      name: of the file, as it is shown.
      encoding: its name in Python; None: UTF-8, unless a byte order mark names another.
      said_of: name for which a byte order mark is reported once; None: the file's.

    Raises:
      InputError: the file can't be read.
    """
    start = _peek(stream, name)
    marked = _marked(start)
    encoding = encoding and codecs.lookup(encoding).name
    if encoding is None and marked not in (None, "utf-8-sig"):
        say_once(f"  {said_of or name}: {marked.upper()}, by its byte order mark")
    elif encoding is None and _is_utf16(start):
        raise InputError(
            f"{name}: looks like UTF-16 without a byte order mark; set data.encoding: utf-16-{_order(start)}"
        )
    elif encoding and marked and not encoding.startswith(marked.removesuffix("-sig")):
        raise InputError(
            f"{name}: has the byte order mark of {marked.removesuffix('-sig').upper()}; leave out data.encoding"
        )
    elif encoding in ("utf-16", "utf-32") and not marked:
        raise InputError(f"{name}: no byte order mark; set data.encoding: {encoding}-le, or {encoding}-be")
    encoding = encoding or marked
    if encoding in (None, "utf-8", "utf-8-sig"):
        return stream
    return io.BufferedReader(_Transcoded(stream, encoding), _READ_BYTES)


class _Transcoded(io.RawIOBase):
    """A stream of bytes in some encoding, as UTF-8; a byte order mark becomes that of UTF-8, or is dropped."""

    def __init__(self, stream: BinaryIO, encoding: str):
        self._stream, self._ready, self._ended = stream, memoryview(b""), False
        self._decoder = codecs.getincrementaldecoder(encoding)("tfpipe-marked")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self._ready and not self._ended:
            content = self._stream.read(_READ_BYTES)
            self._ended = not content
            try:
                text = self._decoder.decode(content, final=self._ended)
            except UnicodeError as error:  # of a codec that asks no handler
                raise OSError(" ".join(str(error).split())) from error
            self._ready = memoryview(text.encode("utf-8", "surrogateescape"))
        part = self._ready[: len(buffer)]
        buffer[: len(part)] = part
        self._ready = self._ready[len(part) :]
        return len(part)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Replaces bytes that can't be decoded by the mark that stands for 0xFF."""
    return "\udcff", error.end


codecs.register_error("tfpipe-marked", _mark)


def not_utf8(files: list[SourceFile], data: Data) -> str:
    """Describes bytes that are not UTF-8, and the setting for them; "" where there are none.

    Args:
      files: the first that has such bytes is described, by the lines that hold them.
      data: its `encoding`.
    """
    if data.encoding is not None:
        return f"data.encoding is {data.encoding}: check it"
    for file in files:
        bad, others = _lines_that_are_not_utf8(file)
        if not bad:
            continue
        which = f"{file.name} " if len(files) > 1 else "it "
        if (guess := guessed(bad)) is None:
            return f"{which}has text in another encoding: set data.encoding to its name"
        if others:
            return f"{which}has lines of UTF-8 and others that look like {guess} (a guess): write these again as UTF-8"
        return f"{which}looks like {guess} (a guess): set data.encoding: {guess}, and look at the texts"
    return ""


def decoded_head(head: bytes, data: Data) -> str:
    """Returns the text at the beginning of a file, up to its last whole line; undecodable bytes are marked.

    Args:
      head: the first bytes of the file.
      data: its `encoding`.
    """
    encoding = _marked(head) or data.encoding or (f"utf-16-{_order(head)}" if _is_utf16(head) else "utf-8")
    try:
        text = codecs.getincrementaldecoder(encoding)("tfpipe-marked").decode(head)
    except UnicodeError:
        text = head.decode("latin-1")
    return text[: text.rfind("\n") + 1] or text


def guessed(content: bytes) -> str | None:
    """Guesses the encoding of text that is not UTF-8, by the letters that it would have."""
    best, best_share = None, 0.5
    for encoding, letters in _CANDIDATES:
        text = content.decode(encoding, "replace")
        others = re.sub(r"[\x00-\x7f]", "", text)
        if others.count("\ufffd") * 50 > len(others):
            continue
        kana = len(re.findall("[ぁ-ヿ]", text))
        if encoding in ("cp932", "euc_jp") and kana * 10 < len(others):
            continue  # nearly every Japanese text has kana, and Chinese in these encodings has none
        share = len("".join(re.findall(letters, text))) / max(len(others), 1)
        if encoding in ("gb18030", "big5"):
            share *= _common(text, encoding)
        if share > best_share + 0.02:
            best, best_share = encoding, share
    return best


def _common(text: str, encoding: str) -> float:
    """Returns the share of a text's ideographs that are in an encoding's part of common ones."""
    first, last = {"gb18030": (0xB0, 0xD7), "big5": (0xA4, 0xC6)}[encoding]
    ideographs = re.findall("[一-鿿]", text)
    common = sum(first <= character.encode(encoding, "replace")[0] <= last for character in ideographs)
    return common / max(len(ideographs), 1)


def _peek(stream: BinaryIO, name: str) -> bytes:
    try:
        return stream.peek(4)[:_GUESSED_BYTES]
    except READ_ERRORS as error:
        raise InputError(f"{name}: can't read it to its end ({error}); fetch the file again") from error


def _marked(start: bytes) -> str | None:
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), None)


def _is_utf16(start: bytes) -> bool:
    """Tells whether every other byte is 0, most of the time, as in Latin text in UTF-16."""
    even, odd = start[0:400:2], start[1:400:2]
    if len(odd) < 4:
        return False
    zeros = sorted((even.count(0) / len(even), odd.count(0) / len(odd)))
    return zeros[0] == 0 and zeros[1] > 0.7


def _order(start: bytes) -> str:
    return "be" if start[:400:2].count(0) else "le"


def _lines_that_are_not_utf8(file: SourceFile) -> tuple[bytes, bool]:
    """Returns some lines that are not UTF-8, and whether other lines have UTF-8 beyond ASCII."""
    bad, others = b"", False
    for line in _lines(file):
        if line.isascii():
            continue
        try:
            line.decode()
            others = True
        except UnicodeDecodeError:
            bad += line[: _GUESSED_BYTES - len(bad)]
            if len(bad) >= _GUESSED_BYTES:
                break
    return bad, others


def _lines(file: SourceFile) -> Iterator[bytes]:
    read = 0
    try:
        with open_bytes(file.path) as stream:
            while read < _SEARCHED_BYTES and (line := stream.readline(_READ_BYTES)):
                read += len(line)
                yield line
    except READ_ERRORS:
        return
