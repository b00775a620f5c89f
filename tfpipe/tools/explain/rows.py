"""The texts to explain: from the command line, a pipe or files, a few at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tfpipe.console import say
from tfpipe.data.block import Rejection
from tfpipe.errors import InputError
from tfpipe.tools.explain.options import Options
from tfpipe.tools.predict import lines
from tfpipe.tools.predict.files import columns_of, in_options
from tfpipe.tools.predict.options import Options as PredictOptions
from tfpipe.tools.predict.rows import Input, Rows, open_input

_TOGETHER = 16  # texts whose points share batches
_NAMED = 10  # rows that can't be explained of which each is named


class Row(NamedTuple):
    """A text, or a pair."""

    text: str
    text_pair: str | None = None
    fields: dict[str, Any] | None = None
    """the row's other columns, where it comes from a file"""


def rows_of(run: str, texts: list[str], options: Options, *, pairs: bool) -> Iterator[list[Row]]:
    """Yields the rows to explain, a few at a time; inputs are opened before the first is asked for.

    Args:
      run: its settings name the columns.
      texts: from the command line.
      options: of the command.
      pairs: whether the run's texts come in pairs.

    Raises:
      InputError: an input can't be read, or single texts are given for pairs, or pairs for single texts.
    """
    if not options.input:
        _check_pairs(pairs, given=bool(options.text_pairs), option="--text-pair")
        found = itertools.zip_longest(texts, options.text_pairs)
        return _batches(Row(*each) for each in found)
    if lines.is_stream(options.input[0]):
        if pairs:
            raise InputError(f"--input {options.input[0]}: texts come in pairs; give a file with two columns")
        waiting = lines.open_lines(Path(options.input[0]))
        return (list(map(Row, some)) for some in lines.as_they_come(itertools.islice(waiting, options.limit)))
    asked = PredictOptions(
        text_column=options.text_column, text_pair_column=options.text_pair_column, overrides=options.overrides
    )
    columns, said_by = columns_of(run, asked)
    _check_pairs(pairs, given=columns.text_pair_column is not None, option="--text-pair-column")
    try:
        source = open_input(list(options.input), columns, list(options.overrides))
    except InputError as error:
        raise InputError(in_options(str(error), said_by)) from error
    return _batches(itertools.islice(_of_files(source, said_by), options.limit))


def _check_pairs(pairs: bool, *, given: bool, option: str) -> None:
    if pairs and not given:
        each = " TEXT once for each text" if option == "--text-pair" else " NAME, the column of the second texts"
        raise InputError(f"explain: the run's texts come in pairs; give {option}{each}")
    if given and not pairs:
        raise InputError(f"{option}: the run takes single texts, so it has no effect; leave it out")


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while batch := list(itertools.islice(rows, _TOGETHER)):
        yield batch


def _of_files(source: Input, said_by: str) -> Iterator[Row]:
    left_out = 0
    try:
        for block in source.blocks():
            found = source.read(block)
            left_out += _say_left_out(found.rejections, left_out)
            yield from _rows(found, source)
    except InputError as error:
        raise InputError(in_options(str(error), said_by)) from error
    if left_out:
        say(f"warning: {left_out} row{'s'[: left_out > 1]} could not be explained")


def _rows(found: Rows, source: Input) -> Iterator[Row]:
    texts = {source.data.text_column, source.data.text_pair_column}
    for at, text in enumerate(found.texts):
        row = found.records[at] if found.columns is None else {name: each[at] for name, each in found.columns.items()}
        fields = {name: value for name, value in row.items() if name not in texts}
        yield Row(text, found.text_pairs[at] if found.text_pairs else None, fields)


def _say_left_out(rejections: list[Rejection], before: int) -> int:
    for each in rejections[: max(_NAMED - before, 0)]:
        say(f"warning: {each.name}, {each.unit} {each.line}: not explained: {each.reason}")
    return len(rejections)
