"""Explanations in files: JSON Lines, an explanation a line, or one page of HTML that needs nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import markupsafe

from tfpipe.errors import InputError
from tfpipe.evaluate.explained import GRADIENT_X_INPUT, ExplainedText, Explanation
from tfpipe.evaluate.explained_html import STYLE, content_policy, fragment
from tfpipe.files import json_line
from tfpipe.tasks import split_labels
from tfpipe.templates import stream_html
from tfpipe.tools.explain.rows import Row

HTML = (".html", ".htm")
JSON_LINES = (".jsonl", ".ndjson")
_PAGE = resources.files("tfpipe.tools.explain")

Explained = tuple[Row, list[Explanation]]


def json_lines(found: Iterable[Explained], *, one_label: bool) -> Iterator[str]:
    """Yields a line for each explanation.

    Args:
      found: rows with their explanations.
      one_label: whether a row has exactly one label.
    """
    for row, explanations in found:
        for each in explanations:
            line = _record(row, each, one_label=one_label)
            yield json_line(line, default=str)


def _record(row: Row, e: Explanation, *, one_label: bool) -> dict[str, Any]:
    record: dict[str, Any] = {"text": row.text}
    if row.text_pair is not None:
        record["text_pair"] = row.text_pair
    record["label"] = e.answer
    if not one_label:
        record["labels"] = split_labels(e.answer)
    record |= {"target": e.label, "probability": _few(e.probability)}
    record["words"] = _words(e.texts[0])
    if row.text_pair is not None:
        record["text_pair_words"] = _words(e.texts[1])
    record |= {
        "remainder": _few(e.remainder),
        "difference": _few(e.difference),
        "completeness_error": _few(e.completeness_error),
    }
    if e.rounding is not None:
        record["rounding"] = _few(e.rounding)
    record |= {"steps": e.steps, "method": e.method, "read_to": e.texts[0].read_to}
    if row.text_pair is not None:
        record["text_pair_read_to"] = e.texts[1].read_to
    return record | ({"row": row.fields} if row.fields else {})


def _words(text: ExplainedText) -> list[dict[str, Any]]:
    return [
        {"text": word.text, "start": word.start, "end": word.end, "attribution": _few(word.attribution)}
        for word in text.words
    ]


def _few(value: float) -> float:
    """Rounds a number to a millionth, far below the error of an explanation."""
    return round(value, 6) + 0.0  # no -0.0


def page(found: Iterable[Explained], name: str, method: str) -> Iterator[str]:
    """Yields the parts of a page, as the explanations come.

    Args:
      found: rows with their explanations.
      name: of the classifier.
      method: one of `explained.METHODS`.
    """
    style = (_PAGE / "page.css").read_text(encoding="utf-8") + STYLE
    return stream_html(
        _PAGE / "page.html.jinja",
        name=name,
        approximate=method == GRADIENT_X_INPUT,
        style=markupsafe.Markup(style),  # ours, and no text of anyone else
        policy=content_policy(style),
        explanations=(each for _, explanations in found for each in explanations),
        fragment=fragment,
    )


def write(parts: Iterable[str], output: Path) -> None:
    """Writes parts to a file, which appears as a whole or not at all; `-` is standard output, part by part.

    Raises:
      InputError: the file can't be written.
    """
    if str(output) == "-":
        for part in parts:
            sys.stdout.buffer.write(part.encode())  # UTF-8 whatever the terminal has
            sys.stdout.buffer.flush()
        return
    partial = output if _is_device(output) else output.with_name(f".{output.name}.partial")
    try:
        file = open(partial, "w", encoding="utf-8", newline="\n")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"--output {output}: can't be written ({error.strerror}); give another path") from error
    try:
        with file:
            for part in parts:
                file.write(part)
        if partial != output:
            os.replace(partial, output)
    finally:
        if partial != output:
            partial.unlink(missing_ok=True)


def _is_device(output: Path) -> bool:
    """Tells whether an output is a pipe or a device, which is written as it is."""
    return output.exists() and not output.is_file()


def writer_of(output: Path) -> Callable[..., Iterator[str]]:
    """Tells the form of an output by its name: `page` or `json_lines`.

    Raises:
      InputError: its name shows no form.
    """
    suffix = output.suffix.lower()
    if suffix in HTML:
        return page
    if suffix in JSON_LINES or str(output) == "-" or _is_device(output):
        return json_lines
    raise InputError(f"--output {output}: explanations are written as .jsonl or .html; give a name that ends so")
