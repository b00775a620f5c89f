"""What `prepare` reads, `predict` reads: every example of docs/data.md, with all its rows and columns."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from data.producers.table import EXAMPLES

from tfpipe.errors import InputError
from tfpipe.tools.predict import scoring
from tfpipe.tools.predict.answers import Answers
from tfpipe.tools.predict.rows import _READING, Columns, open_input

ANSWERER = SimpleNamespace(name="x", names=("no", "yes"), one_label=True, pairs=False)
TEXTS_A_LINE = {  # .txt files: each line is a text, and a line on the console says what it may be otherwise
    "Excel 365, “Unicode Text”, UTF-16": r"the first looks like a header of columns \(--set data\.format=csv\)",
    "fastText, `__label__`": r"the first looks like a line of fastText \(--set data\.format=fasttext\)",
}


def opened(example, folder: Path, *more: str):
    source = example.source_below(folder)
    parts = source.values() if isinstance(source, dict) else [source]
    listed = [each for part in parts for each in (part if isinstance(part, list) else [part])]
    names = ("text_column", "text", "text_pair_column")
    columns = Columns(**{name: example.settings[name] for name in names if name in example.settings})
    of_reading = {name: value for name, value in example.settings.items() if f"data.{name}" in _READING}
    of_reading.pop("text", None)
    return open_input(listed, columns, [*(f"data.{name}={json.dumps(of_reading[name])}" for name in of_reading), *more])


def rows_of(source, output: str):
    """The texts of all rows, each of which can be written as the output has it."""
    layout = scoring.layout_of(source, ANSWERER, Path(output), True)
    for block in source.blocks():
        rows = source.read(block)
        answers = Answers(["no"] * len(rows), np.tile(np.float32([0.75, 0.25]), (len(rows), 1)))
        assert scoring.part_of(block, rows, answers, layout).rows == len(rows)
        yield from zip(rows.texts, rows.text_pairs, strict=True) if rows.text_pairs else rows.texts


def stripped(text):
    return text.strip() if isinstance(text, str) else text


@pytest.mark.parametrize("example", [each for each in EXAMPLES if not each.refused], ids=lambda each: each.id)
def test_every_row_is_read(example, tmp_path, capsys):
    expected, more = [row[0] for row in example.rows], ()
    example.write(tmp_path)
    if not expected:
        with pytest.raises(InputError, match="none of its rows can be answered"):
            list(rows_of(opened(example, tmp_path), "x.csv"))
        return
    if example.id in TEXTS_A_LINE:
        found = list(rows_of(opened(example, tmp_path), "x.csv"))
        assert len(found) == len(expected) + ("header" in TEXTS_A_LINE[example.id])
        said = capsys.readouterr().err
        assert re.search(f"each line is read as a text, and {TEXTS_A_LINE[example.id]}", said)
        more = ("data.format=fasttext" if "fastText" in said else "data.format=csv",)
    for output in ("x.csv", "x.jsonl", "x.parquet"):
        found = rows_of(opened(example, tmp_path, *more), output)
        # Rows without a label, which `prepare` leaves out, come between.
        assert all(any(text in (each, stripped(each)) for each in found) for text in expected)
