"""The outline of a JSON object: the names of its members and the places of their values, found in one pass over it."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from tfpipe.data.files.encodings import open_utf8
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.streams import READ_ERRORS
from tfpipe.data.readers.json_structure import COMMA, Scanner
from tfpipe.errors import InputError

CHUNK_BYTES = 2 << 20
_HEAD_BYTES = 4096  # of a member: its name, and how its value begins
_MOST_MEMBERS = 10_000  # that are kept; an object of more is a table of rows
_MEMBER = re.compile(rb'\s*("(?:[^"\\]|\\.)*")\s*:\s*', re.DOTALL)
_BRACKETS = b"[]{}"
_LARGE_BYTES = 64 << 20  # of which an outline takes a while


@dataclass(frozen=True)
class Member:
    """A member of an object."""

    name: str
    start: int
    """offset of its value in the file"""
    end: int
    """offset behind its value"""
    begins: bytes
    """the value's first byte, and the one after it that is no white space: `[{` for an array of objects"""


@dataclass
class Outline:
    """An object that begins a file, or lies in it."""

    start: int
    """offset of its opening brace"""
    members: list[Member] = field(default_factory=list)
    """the first ones; the last of them is cut off where the object is not whole"""
    count: int = 0
    """of all members"""
    whole: bool = False
    """whether the object ends at all, and every member kept has a name"""
    lines: int = 1
    """lines that the object stands on"""
    follows: bool = False
    """whether anything but white space is behind it"""

    def named(self, name: str) -> Member | None:
        """Finds a member."""
        return next((member for member in self.members if member.name == name), None)


def chunks_from(file: SourceFile, start: int, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yields the bytes of a file from an offset on.

    Raises:
      InputError: the file can't be read.
    """
    try:
        with open_utf8(file) as stream:
            _skip(stream, start)
            while chunk := stream.read(size):
                yield chunk
    except READ_ERRORS as error:
        raise InputError(f"{file.name}: can't read it to its end ({error}); fetch the file again") from error


def _skip(stream: BinaryIO, count: int) -> None:
    if count and stream.seekable():
        try:
            stream.seek(count)
            return
        except OSError:  # a compressed stream of Arrow says that it can and does not
            pass
    while count and (read := stream.read(min(count, CHUNK_BYTES))):
        count -= len(read)


def outline_of(file: SourceFile, start: int) -> Outline:
    """Outlines the object whose brace stands at an offset of a file; remembers the outline of a large one."""
    try:
        about = os.stat(file.path)
    except OSError:  # remote, or in an archive
        return _outlined(file, start)
    if about.st_size < _LARGE_BYTES:
        return _outlined(file, start)
    return _kept(file, start, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _kept(file: SourceFile, start: int, size_bytes: int, changed: int) -> Outline:
    return _outlined(file, start)


def _outlined(file: SourceFile, start: int) -> Outline:
    outline, scanner = Outline(start), Scanner()
    head, head_at, at = b"", start + 1, start  # of the member being read: its beginning, and the offset of that
    for chunk in chunks_from(file, start):
        places, characters, depths = scanner.feed(chunk)
        (ends,) = np.nonzero(depths == 0)
        last = len(chunk) if not len(ends) else int(places[ends[0]])
        outline.lines += chunk.count(b"\n", 0, last)
        bounds = places[(characters == COMMA) & (depths == 1) & (places < last)].tolist()
        for bound in [*bounds, *([last] if len(ends) else [])]:
            head += chunk[max(0, head_at + len(head) - at) : bound][: _HEAD_BYTES - len(head)]
            _add(outline, head, head_at, at + bound)
            head, head_at = b"", at + bound + 1
        if len(ends):
            outline.whole = outline.count == len(outline.members) or outline.count > _MOST_MEMBERS
            outline.follows = bool(chunk[last + 1 :].strip()) or any(
                rest.strip() for rest in chunks_from(file, at + len(chunk))
            )
            return outline
        head += chunk[max(0, head_at + len(head) - at) :][: _HEAD_BYTES - len(head)]
        at += len(chunk)
    _add(outline, head, head_at, at)
    return outline


def _add(outline: Outline, head: bytes, head_at: int, end: int) -> None:
    """Adds a member, if there is one: there is none in `{}`, or behind a last comma."""
    if not head.strip():
        return
    outline.count += 1
    found = _MEMBER.match(head)
    if found is None or outline.count > _MOST_MEMBERS:
        return
    try:
        name = json.loads(found[1].decode("utf-8", "surrogateescape"))
    except ValueError:
        return
    value = head[found.end() :]
    begins = value[:1] + (value[1:].lstrip()[:1] if value[:1] in (b"[", b"{") else b"")
    outline.members.append(Member(name, head_at + found.end(), end, begins))
