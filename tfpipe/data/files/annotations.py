"""Exports of annotation tools: the text and the label in a tool's record.

Enters: a record as the tool wrote it. Leaves: the same record with the text and the label where `data.text_column` and
`data.label_column` look for them. The label is null where no annotator gave one; such a row is left out and counted.

    prodigy        JSON Lines; `label`, or the choices in `accept`; an `answer` of reject or ignore gives no label
    label_studio   JSON: the choices of the question that `data.label_column` names, and the fields of `data`;
                   JSON_MIN, CSV and TSV: a row for each annotation, without a label where it holds no choice
    argilla        JSON of `to_json` and `to_dict`: the answers in completed records, and the content of `fields`
    doccano        JSON Lines and CSV: a list of labels, which the CSV joins by #
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from tfpipe.config.data import TOOLS, Data
from tfpipe.data.block import Rejection, as_json, as_text, excerpt, label_columns
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.nested import value_at

Record = dict[str, Any]


class Disagreement(Exception):
    """The annotators of a record gave it different labels."""


def _prodigy(record: Record, column: str) -> Any:
    answer = record.get("answer")
    if column == "answer":
        return None if answer == "ignore" else answer
    if answer != "accept":
        return None
    chosen = {"label": record["accept"]} if "accept" in record else {}  # with options, in place of a label
    return value_at(chosen | record, column)


def _label_studio(record: Record, column: str) -> Any:
    if "annotations" not in record:  # JSON_MIN has no field for a question without an answer
        return record.get(column)
    answers = []
    for annotation in record.get("annotations") or ():
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        for result in annotation.get("result") or ():
            value = result.get("value") if isinstance(result, dict) and result.get("from_name") == column else None
            if isinstance(value, dict):
                answers.append(value.get("choices") or value.get("taxonomy") or value.get("rating"))
    return _agreed(answers)


def _argilla(record: Record, column: str) -> Any:
    if record.get("status") == "pending":
        return None  # too few answers were submitted, and an answer does not say whether it is a draft
    responses = record.get("responses")
    given = responses.get(column) if isinstance(responses, dict) else None
    submitted = [each for each in given or () if isinstance(each, dict) and each.get("status") in (None, "submitted")]
    return _agreed([each.get("value") for each in submitted])


def _doccano(record: Record, column: str) -> Any:
    return value_at(record, column)


def _agreed(answers: list[Any]) -> Any:
    """Returns the answer of all annotators; None where no annotator answered."""
    answers = [answer for answer in answers if answer is not None]
    sets = {frozenset(map(as_text, answer if isinstance(answer, list) else [answer])) for answer in answers}
    if len(sets) > 1:
        listed = "; ".join(sorted(", ".join(sorted(each)) for each in sets))
        raise Disagreement(f"its annotators disagree ({excerpt(listed)})")
    return answers[0] if answers else None


_LABEL: dict[str, Callable[[Record, str], Any]] = {
    "prodigy": _prodigy,
    "label_studio": _label_studio,
    "argilla": _argilla,
    "doccano": _doccano,
}
_CLOSED_QUESTIONS = ("choices", "taxonomy", "rating")
_ABOUT_ANNOTATION = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time")
INSIDE = {"label_studio": "data", "argilla": "fields"}
"""field of a record that holds the fields which were shown to the annotator"""
assert set(_LABEL) == set(TOOLS)
_SIGNS = (
    ("prodigy", ("_task_hash", "answer")),
    ("label_studio", ("annotations", "was_cancelled", "data")),
    ("label_studio", ("annotation_id", "annotator", "lead_time")),
    ("argilla", ("fields", "responses", "suggestions")),
)
"""names that a record of a tool holds, and those of others hardly"""


def wrote(head: str, *, delimited: bool) -> str | None:
    """Recognizes the tool that wrote a file of JSON, or of columns, by its beginning; None for another file."""
    pattern, head = (r"\w+", head.partition("\n")[0]) if delimited else (r'"(\w+)"\s*:', head)
    found, names = ("label_studio",) if delimited else TOOLS, set(re.findall(pattern, head))
    return next((tool for tool, signs in _SIGNS if tool in found and names.issuperset(signs)), None)


def names(record: Record, tool: str) -> list[str]:
    """Names the field with the longest text, and the questions."""
    inside = record.get(INSIDE.get(tool, ""))
    shown = inside if isinstance(inside, dict) else record
    texts = {name: len(value) for name, value in shown.items() if isinstance(value, str) and not name.startswith("_")}
    text = max(texts, key=texts.get, default=None)
    found = [name for name in ("accept", "label") if name in record]
    if tool == "argilla":
        found = [name for key in ("responses", "suggestions") for name in record.get(key) or ()]
    elif tool == "label_studio" and "annotations" in record:
        results = [result for each in record["annotations"] or () for result in each.get("result") or ()]
        found = [result["from_name"] for result in results if result.get("type") in _CLOSED_QUESTIONS]
    elif tool == "label_studio":
        found = [name for name in record if name not in _ABOUT_ANNOTATION and name != text]
    return list(dict.fromkeys([text, *found] if text else found))


def answered(
    records: Iterable[tuple[int, Record | Rejection, str | None]], file: SourceFile, data: Data
) -> Iterator[tuple[int, Record | Rejection, str | None]]:
    """Puts the text and the label of each record where the settings look for them.

    Args:
      records: number, fields (or the reason for none), and the record as it stands.
      file: of the records; its tool wrote them.
      data: names the columns.
    """
    for number, record, raw in records:
        if isinstance(record, dict):
            try:
                record = _with_answer(record, file.tool, data)
            except Disagreement as error:
                record = Rejection(file.name, number, str(error), excerpt(as_json(record)))
        yield number, record, raw


def _with_answer(record: Record, tool: str, data: Data) -> Record:
    inside = record.get(INSIDE[tool]) if tool in INSIDE else None
    found = record | (inside if isinstance(inside, dict) else {})
    for column in label_columns(data):
        with suppress(KeyError):  # the reader says which fields there are
            found[column] = _LABEL[tool](record, column)
    return found
