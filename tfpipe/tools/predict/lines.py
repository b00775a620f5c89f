"""Lines of a pipe or a file, a text each, answered as they come."""

from __future__ import annotations

import itertools
import os
import queue
import re
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from tfpipe.console import say
from tfpipe.errors import InputError, told_by

T = TypeVar("T")

BATCH = 64
LONGEST_LINE_BYTES = 1 << 20
COMPRESSED = re.compile(rb"(?P<gz>\x1f\x8b)|(?P<bz2>BZh[1-9]1AY&SY)|(?P<xz>\xfd7zXZ\0)|(?P<zst>\(\xb5/\xfd)")
"""how compressed data begins, with the end of the file name under which `--input` reads it"""
_HEADER = re.compile(r'"?(?:\w+"?[,;\t|]"?)*(?:text|label|sentence|review|comment|message)(?:"?[,;\t|]"?\w+)+"?', re.I)
"""names of columns, one of them of the texts"""


def as_they_come(items: Iterable[T]) -> Iterator[list[T]]:
    """Yields batches of the items that are there: a thread reads some batches ahead while one is answered."""
    arrived: queue.Queue[tuple[str, Any]] = queue.Queue(4 * BATCH)

    def read() -> None:
        try:
            for item in items:
                arrived.put(("item", item))
            arrived.put(("end", None))
        except BaseException as error:  # handed on to the one who waits
            arrived.put(("error", error))

    threading.Thread(target=read, daemon=True).start()
    while True:
        batch = [arrived.get()]
        while len(batch) < BATCH and batch[-1][0] == "item" and not arrived.empty():
            batch.append(arrived.get())
        kind, last = batch[-1]
        if there := [item for kind, item in batch if kind == "item"]:
            yield there
        if kind == "error":
            raise last
        if kind == "end":
            return


def is_stream(source: str) -> bool:
    """Tells whether a name is that of a pipe or a device, which can be read once: `-` is standard input."""
    try:
        return source == "-" or not (stat.S_ISREG(mode := os.stat(source).st_mode) or stat.S_ISDIR(mode))
    except (OSError, ValueError):
        return False


def open_lines(path: Path) -> Iterator[str]:
    """Opens a file at once, before any model is loaded, and yields its texts."""
    from tfpipe.data.files.streams import open_bytes

    try:
        if path.suffix[1:] in COMPRESSED.groupindex and os.path.isfile(path) and not path.stat().st_size:
            raise InputError(f"{path}: empty, which no compressed file is; make the file again")
        file = open(sys.stdin.fileno(), "rb", closefd=False) if str(path) == "-" else open_bytes(str(path))  # noqa: SIM115
    except (OSError, InputError) as error:
        raise InputError(f"--input {error}") from error
    return _lines(file, path)


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    """Yields lines, which end with LF or CR LF, as other tools count them: a CR alone is a character of a text."""
    from tfpipe.data.files.streams import READ_ERRORS

    with file:
        for number in itertools.count(1):
            where = f"--input {path}, line {number}"
            try:
                line = file.readline(LONGEST_LINE_BYTES + 1)
            except READ_ERRORS as error:  # a compressed file that is damaged
                raise InputError(f"{where}: can't be read on ({told_by(error)}); make the file again") from error
            if not line:
                return
            if number == 1 and (found := COMPRESSED.match(line)):
                raise InputError(f"{where}: compressed, not text; decompress it, or name it FILE.{found.lastgroup}")
            if len(line) > LONGEST_LINE_BYTES:
                raise InputError(f"{where}: more than 1 MB; expected one text a line")
            if b"\0" in line:
                raise InputError(f"{where}: a NUL character, so this is no text file; give one text a line in UTF-8")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{where}: not UTF-8 ({error.reason}); convert it") from None
            text = text.removesuffix("\n").removesuffix("\r")
            if number == 1 and _HEADER.fullmatch(text):
                say(f"  {where}: each line is read as a text, and this one looks like a header; put rows into a file")
            yield text
