"""Quotes around fields: tfpipe decides once for a file whether quotes enclose fields, by its first quoted lines."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from tfpipe.console import say_once
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.readers.records import Dialect, records

SAMPLE_BYTES = 1 << 18
_KNOWN_LABELS = 1000
_LONGEST_LABEL = 100
_FIELD = re.compile(r'(?:^|\t)"[^\t]*"(?:\t|$)')


def settled(dialect: Dialect, text: str, first: int, file: SourceFile) -> Dialect:
    """Returns the dialect of a file, once a quote was met or as escapes need it.

    In a file separated by tabs, a quote is a plain character if fewer lines are lost that way: many tools write such
    files without quoting. If as many lines are lost and `data.escape` is set, it is a plain character unless most lines
    have a field in quotes. The reason: databases write other escapes without quotes than R writes within them. In any
    other file quotes enclose fields, but not whole rows (`records.swallowed`).

    Args:
      dialect: whose `quoting` is None.
      text: lines of the file, among them those from the first quote on.
      first: number of the text's first line.
      file: the file.
    """
    believed = records(text, replace(dialect, quoting=True), file.name, first)
    counts = Counter(row[dialect.label].strip() for row in believed.rows)
    labels = frozenset(label for label, _ in counts.most_common(_KNOWN_LABELS) if len(label) <= _LONGEST_LABEL)
    quoted = replace(dialect, quoting=True, labels=labels, longest_label=max(map(len, labels), default=0))
    if dialect.separator != "\t":
        return quoted
    plain = replace(dialect, quoting=False)
    read = records(text, plain, file.name, first)
    lost = records(text, quoted, file.name, first).rejections
    if dialect.escape and len(lost) == len(read.rejections):
        lines = text.splitlines()
        return quoted if len(list(filter(_FIELD.search, lines))) > len(lines) / 2 else plain
    if len(lost) <= len(read.rejections) or any(_enclosed(row[dialect.label]) for row in read.rows):
        return quoted
    say_once(
        f"  {file.name}: a quote is read as a character like any other (line {lost[0].line}: it encloses no field); "
        "data.quoting: false says so, true reads fields in quotes",
        kind="data.quoting",
    )
    return plain


def _enclosed(label: str) -> bool:
    return len(label) > 2 and label.startswith('"') and label.endswith('"')
