"""Answered rows as bytes of CSV, TSV, JSON Lines or Parquet: each row as it was read, and its answer.

An answer is `label` and `probability`, and for each label a column `probability_NAME`, or in JSON Lines the object
`probabilities`. With several labels, `label` joins the chosen ones by `|`, and `labels` lists them, where the format
has lists. A file that has a column `label` or the like gets all of these as `predicted_label` and so on.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from tfpipe.data.block import as_json, excerpt
from tfpipe.errors import InputError
from tfpipe.escaping import SURROGATES
from tfpipe.files import json_line
from tfpipe.tools.predict.answers import Answers, probability_of_answers
from tfpipe.tools.predict.rows import Rows
from tfpipe.tools.predict.shown import in_few_digits

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "json_lines", ".ndjson": "json_lines", ".parquet": "parquet"}
_PREDICTED = "predicted_"


@dataclass(frozen=True)
class Layout:
    """The layout of the rows that are written."""

    format: str
    """one of `FORMATS`"""
    names: tuple[str, ...] | None
    """of the labels, in the order of the probabilities; None: the model does not tell"""
    one_label: bool
    probabilities: bool
    """whether each label's probability is written"""
    columns: tuple[str, ...]
    """the columns of the first rows, which are those of CSV; rows of JSON Lines have fields of their own"""

    @property
    def answers(self) -> dict[str, str]:
        """Lists the written parts of an answer, each -> the name of its column.

        Raises:
          InputError: the rows have such a column too.
        """
        found = ["label", "probability"] if self.one_label else ["label", "labels", "probability"]
        if self.format in ("csv", "tsv"):
            found = [name for name in found if name != "labels"]
        if self.probabilities and self.names is not None:
            if self.format == "json_lines":
                found.append("probabilities")
            else:
                found += [f"probability_{name}" for name in self.names]
        for prefix in ("", _PREDICTED):
            if not {prefix + name for name in found} & set(self.columns):
                return {name: prefix + name for name in found}
        both = next(name for name in found if _PREDICTED + name in self.columns)
        raise InputError(
            f"--input: the rows have columns {both if both in self.columns else 'such as label'!r} and "
            f"{_PREDICTED + both!r}, as answers are named; rename {_PREDICTED + both!r}"
        )


def layout_of(
    path: Path,
    rows: Rows,
    names: tuple[str, ...] | None,
    one_label: bool,
    probabilities: bool | None,
    columns: Iterable[str] = (),
) -> Layout:
    """Decides the layout.

    Args:
      path: of the output; its suffix tells the format.
      rows: the first ones.
      names: of the labels, or None.
      one_label: whether a row has exactly one label.
      probabilities: whether each label's probability is written; None: in JSON Lines, and of several labels.
      columns: of all files that have columns.
    """
    format = format_of(path)
    wanted = format == "json_lines" or not one_label if probabilities is None else probabilities
    if wanted and names is None and probabilities:
        raise InputError("--probabilities: the model does not tell the names of its labels; leave it out")
    layout = Layout(format, names, one_label, wanted, tuple(dict.fromkeys((*columns, *rows.names()))))
    _ = layout.answers  # said before anything is answered
    return layout


def format_of(path: Path) -> str:
    """Tells the format of an output by its name.

    Raises:
      InputError: the name shows no format.
    """
    format = FORMATS.get(path.suffix.lower())
    if format is None:
        raise InputError(
            f"--output {path}: answered rows are written as {', '.join(FORMATS)}; give a name that ends so"
        )
    return format


def header(layout: Layout) -> bytes:
    """Returns the text before the first row."""
    if layout.format not in ("csv", "tsv"):
        return b""
    return _delimited([[*layout.columns, *layout.answers.values()]], layout)


def part(rows: Rows, answers: Answers, layout: Layout, where: str) -> bytes:
    """Writes answered rows.

    Args:
      rows: as they were read.
      answers: to them.
      layout: of the output.
      where: names the rows, for errors.

    Raises:
      InputError: a row can't be written in this format.
    """
    found = _answer_columns(answers, layout)
    if layout.format == "parquet":
        return _parquet(rows, found, where)
    if layout.format == "json_lines":
        return _json_lines(rows, found, layout, where)
    return _delimited(_cells(rows, found, layout, where), layout)


def _answer_columns(answers: Answers, layout: Layout) -> dict[str, Any]:
    """Collects labels, lists of labels, probabilities [rows] float32; JSON's `probabilities` are [rows, labels]."""
    probabilities = np.asarray(answers.probabilities, np.float32)
    probability, chosen = probability_of_answers(answers, layout.names, one_label=layout.one_label)
    found: dict[str, Any] = {"label": answers.labels, "labels": chosen, "probability": probability}
    for at, name in enumerate(layout.names or ()):
        found[f"probability_{name}"] = probabilities[:, at]
    found["probabilities"] = probabilities
    return {column: found[name] for name, column in layout.answers.items()}


def _delimited(rows: list[list[str]], layout: Layout) -> bytes:
    lines = _Lines()
    # A field with a carriage return is quoted only where the line terminator has one.
    csv.writer(lines, delimiter="\t" if layout.format == "tsv" else ",", lineterminator="\r\n").writerows(rows)
    return "".join([f"{line[:-2]}\n" for line in lines.written]).encode()


class _Lines:
    """A file of lines, for csv's writer."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, line: str) -> None:
        """Keeps a line."""
        self.written.append(line)


def _cells(rows: Rows, found: dict[str, Any], layout: Layout, where: str) -> list[list[str]]:
    if other := next((name for name in rows.names() if name not in layout.columns), None):
        raise InputError(
            f"{where}: a row has {other!r}, which the first rows have not, so the header lacks it; write --output as "
            ".jsonl or .parquet"
        )
    columns = [_texts(_column(rows, name), name, where) for name in layout.columns]
    columns += [_shortest(values) if isinstance(values, np.ndarray) else values for values in found.values()]
    return list(map(list, zip(*columns, strict=True)))


def _column(rows: Rows, name: str) -> list[Any]:
    if rows.columns is not None:
        return rows.columns.get(name, [None] * len(rows))
    return [record.get(name) for record in rows.records]


def _texts(values: list[Any], name: str, where: str) -> list[str]:
    texts = values if set(map(type, values)) == {str} else [_text(value) for value in values]
    _check_is_text(texts, name, where)
    return texts


def _check_is_text(texts: list[Any], name: str, where: str) -> None:
    for text in texts:
        if isinstance(text, str) and not text.isascii() and SURROGATES.search(text):
            raise InputError(f"{where}: column {name!r} holds bytes that are no text; write --output as .parquet")


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if not isinstance(value, dict | list | tuple):
        return str(value)
    text = as_json(value)
    return json.dumps(value, default=str) if SURROGATES.search(text) else text  # half a character, as JSON names it


def _shortest(values: np.ndarray) -> list[str]:
    """Writes float32 in the fewest digits that restore it."""
    return values.astype(str).tolist()


def _json_lines(rows: Rows, found: dict[str, Any], layout: Layout, where: str) -> bytes:
    answers: dict[str, list[Any]] = {}
    for name, values in found.items():
        if isinstance(values, np.ndarray):
            values = in_few_digits(values).tolist()
            if name == layout.answers.get("probabilities"):
                values = [dict(zip(layout.names, row, strict=True)) for row in values]
        answers[name] = values
    records = rows.records
    if records is None:
        for name, values in rows.columns.items():
            _check_is_text(values, name, where)
        records = [dict(zip(rows.columns, values, strict=True)) for values in zip(*rows.columns.values(), strict=True)]
    names = list(answers)
    lines = []
    for record, values in zip(records, zip(*answers.values(), strict=True), strict=True):
        if both := record.keys() & names:
            raise InputError(
                f"{where}: a row has {excerpt(both.pop())!r}, as its answer is named, which the first rows have not; "
                "rename it"
            )
        lines.append(json_line(record | dict(zip(names, values, strict=True)), default=_plain).encode())
    return b"".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        raise InputError("--output: a row holds bytes that are no text within other values; write it as .parquet")
    return str(value)


def _parquet(rows: Rows, found: dict[str, Any], where: str) -> bytes:
    if rows.arrow is not None:
        columns = {name: rows.arrow.column(name) for name in rows.columns}
    else:
        columns = {name: as_arrow(_column(rows, name)) for name in rows.names()}
    for name, values in found.items():
        if name in columns:
            raise InputError(f"{where}: a row has {name!r}, as its answer is named, which the first rows have not")
        lists = isinstance(values, list) and name in (f"{prefix}labels" for prefix in ("", _PREDICTED))
        columns[name] = pa.array(values, pa.list_(pa.string()) if lists else None)
    content = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), content, compression="zstd")
    return content.getvalue()


def as_arrow(values: list[Any]) -> pa.Array:
    """Turns values of any kind into an array: of their type, or of texts where they have several types."""
    try:
        found = pa.array(values)
        return as_text(values) if pa.types.is_struct(found.type) and not found.type.num_fields else found
    except (pa.ArrowException, ValueError, TypeError, OverflowError, UnicodeError):
        return as_text(values)


def as_text(values: list[Any]) -> pa.Array:
    """Turns values of any kind into an array of texts."""
    return pa.array([None if value is None else _text(value) for value in values], pa.string())
