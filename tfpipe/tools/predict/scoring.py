"""Files answered: block by block, into parts from which a killed scoring resumes.

    blocks -> rows -> tokens (a thread, one block ahead) -> answers -> a part

A block is answered alone: its answers depend on nothing but its rows and the model.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfpipe.console import progress_bar, say
from tfpipe.data.block import Block, Rejection, excerpt
from tfpipe.data.files import hubs
from tfpipe.data.files.encodings import not_utf8
from tfpipe.data.files.sniff import TEXT_FORMATS
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.sources import folder_files, size_bytes
from tfpipe.data.files.streams import gfile, is_remote, zip_and_member
from tfpipe.data.rows import UNDECODABLE
from tfpipe.errors import InputError
from tfpipe.tools.predict import written
from tfpipe.tools.predict.answers import Answerer, Answers
from tfpipe.tools.predict.parts import Parts
from tfpipe.tools.predict.rows import Input, Rows
from tfpipe.tools.predict.written import Layout

_AHEAD = 1  # blocks that are read and tokenized before they are answered


class Part(NamedTuple):
    """The result of a block."""

    content: bytes
    """its rows, answered, in the format of the output"""
    rejections: list[Rejection]
    rows: int
    """that were answered"""


def score(
    source: Input,
    answerer: Answerer,
    model: dict[str, Any],
    output: Path,
    *,
    probabilities: bool | None = None,
    overwrite: bool = False,
    run: Callable[..., Iterator[tuple[Block, Part]]] | None = None,
) -> None:
    """Answers every row of some files.

    Args:
      source: the files.
      answerer: answers them.
      model: its identity, as JSON.
      output: the file that is made; its name tells the format.
      probabilities: see `written.layout_of`.
      overwrite: whether an output that exists is replaced.
      run: runs the work, `(source, layout, done)` -> parts, in any order; None: this process does.

    Raises:
      InputError: the output exists or can't be written, no row can be answered, a file changed meanwhile, or the model
        failed at a row.
    """
    format, parts = written.format_of(output), Parts(output)
    with parts.held(overwrite=overwrite):
        before = identity(source)
        scoring = {
            "input": before,
            "settings": source.data.model_dump(mode="json", exclude={"source", "label_column"}, exclude_defaults=True),
            "model": model,
            "output": {"format": format, "probabilities": probabilities},
        }
        done = parts.begin(scoring, overwrite=overwrite)
        if done:
            say(f"  goes on after {len(done):,} of its blocks")
        layout = layout_of(source, answerer, output, probabilities)
        found = parts_of(source, answerer, layout, done) if run is None else run(source, layout, done)
        rows = _store(found, source, parts, before, done)
        for file in source.files:
            _check_unchanged(file, before)
        reasons = parts.join(layout)
    say(f"{output}: {_rows(rows)} answered{' now, the others before' if done else ''}")
    if reasons:
        say(f"warning: {_rows(reasons.total())} could not be answered: {_why(reasons, source)}; see {parts.rejected}")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _why(reasons: Counter[str], source: Input) -> str:
    """Lists the commonest reasons, and advice for bytes that are not UTF-8."""
    listed = "; ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common(3))
    if any(reason.startswith(UNDECODABLE) for reason in reasons):
        advice = not_utf8([file for file in source.files if file.format in TEXT_FORMATS], source.data)
        listed += f"; {advice}" if advice else ""
    return listed + ("; …" if len(reasons) > 3 else "")


def layout_of(source: Input, answerer: Answerer, output: Path, probabilities: bool | None) -> Layout:
    """Decides the layout of the output, by the first rows that can be answered.

    Raises:
      InputError: there are no such rows.
    """
    reasons: Counter[str] = Counter()
    for block in source.blocks():
        rows = source.read(block)
        if len(rows):
            return written.layout_of(output, rows, answerer.names, answerer.one_label, probabilities, source.columns())
        reasons.update(each.reason for each in rows.rejections)
    names = ", ".join(file.name for file in source.files[:3]) + (", …" if len(source.files) > 3 else "")
    raise InputError(f"{names}: none of its rows can be answered: {_why(reasons, source) or 'there is none'}")


def _store(
    found: Iterator[tuple[Block, Part | None]],
    source: Input,
    parts: Parts,
    before: dict[str, str],
    done: frozenset[str],
) -> int:
    """Stores the parts as they come; returns the number of their rows."""
    sizes = [size_bytes(file) for file in source.files]
    # Of files with types, blocks are counted in Arrow's bytes.
    typed = any(file.format in ("parquet", "arrow") for file in source.files)
    kilobytes = None if typed or None in sizes else round(sum(sizes) / 1e3)
    rows = size = 0
    started = time.monotonic()
    with progress_bar("answering (kB)", kilobytes) as bar:
        for block, part in found:
            shown = round(size / 1e3)
            size += block.size_bytes
            if part is None:
                bar.skip(round(size / 1e3) - shown)
                continue
            if block.file.format not in (*hubs.HUBS, "folder"):  # these are many files
                _check_unchanged(block.file, before)
            parts.store(block.name, part.content, part.rejections)
            rows += part.rows
            bar.advance(round(size / 1e3) - shown, f"{rows / (time.monotonic() - started):,.0f} rows/s")
    return rows


def _check_unchanged(file: SourceFile, before: dict[str, str]) -> None:
    if identity_of(file) != before[place_of(file)]:
        raise InputError(
            f"{file.name}: changed while it was read; what was answered is not used. Give the command again when the "
            "file is whole, with --overwrite"
        )


def parts_of(
    source: Input, answerer: Answerer, layout: Layout, done: frozenset[str] = frozenset()
) -> Iterator[tuple[Block, Part | None]]:
    """Yields the blocks and their parts; None for blocks that are done."""
    for block, rows, answers in answered(source, answerer, done):
        yield block, None if rows is None else part_of(block, rows, answers, layout)


def answered(
    source: Input, answerer: Answerer, done: frozenset[str] = frozenset()
) -> Iterator[tuple[Block, Rows | None, Answers | None]]:
    """Yields the blocks, their rows and the answers to them; None for blocks that are done."""

    def prepared(block: Block) -> tuple[Block, Rows | None, Any]:
        if block.name in done:
            return block, None, None
        rows = source.read(block)
        return block, rows, answerer.prepare(rows.texts, rows.text_pairs)

    for block, rows, ready in _ahead(map(prepared, source.blocks())):
        yield block, rows, None if rows is None else answerer.answer(ready)


def part_of(block: Block, rows: Rows, answers: Answers, layout: Layout) -> Part:
    """Writes the answered rows of a block.

    Raises:
      InputError: the answers are not numbers, or a row can't be written.
    """
    where = f"{block.file.name}, rows from {block.first} on"
    if not len(rows):
        return Part(b"", rows.rejections, 0)
    finite = np.isfinite(answers.probabilities).all(axis=1)
    if not finite.all():
        text = rows.texts[int(np.argmin(finite))]
        raise InputError(f"{where}: the model gives no number for {excerpt(text)!r}; export it again")
    return Part(written.part(rows, answers, layout, where), rows.rejections, len(rows))


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Yields items that a thread makes, a few before they are asked for."""
    made: queue.Queue[tuple[str, Any]] = queue.Queue(_AHEAD)
    ended = threading.Event()

    def put(kind: str, item: Any) -> None:
        while not ended.is_set():
            try:
                made.put((kind, item), timeout=0.2)
                return
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put("item", item)
                if ended.is_set():
                    return
            put("end", None)
        except BaseException as error:  # handed on to the one who waits
            put("error", error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            kind, item = made.get()
            if kind == "error":
                raise item
            if kind == "end":
                return
            yield item
    finally:
        ended.set()


def identity(source: Input) -> dict[str, str]:
    """Identifies the content of each file: place -> a text that changes with the file."""
    return {place_of(file): identity_of(file) for file in source.files}


def place_of(file: SourceFile) -> str:
    """Names a file by its place, however it was named: `./rows.csv` is `rows.csv`."""
    here = file.format not in hubs.HUBS and not is_remote(file.path)
    return os.path.abspath(file.path) if here else file.name


def identity_of(file: SourceFile) -> str:
    """Returns the bytes and the time of change of a file, or of all files in a folder; a hub's dataset has its own.

    Raises:
      InputError: the file is gone.
    """
    if file.format in hubs.HUBS:
        return hubs.identity(file.path)
    paths = folder_files(file) if file.format == "folder" else [file.path]
    try:
        found = [_stat((zip_and_member(path) or (path,))[0]) for path in paths]
    except OSError as error:
        raise InputError(f"{file.name}: can't be read any more ({error.strerror}); give it back its place") from error
    return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()


def _stat(path: str) -> str:
    if is_remote(path):
        about = gfile().stat(path)
        return f"{about.length} bytes of {about.mtime_nsec}"
    about = os.stat(path)
    return f"{about.st_size} bytes of {about.st_mtime_ns}"
