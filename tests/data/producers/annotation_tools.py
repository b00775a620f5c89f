"""Exports of annotation tools."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as parquet
from data.producers.example import Example

_ABOUT = {"id": 1, "annotator": 1, "annotation_id": 60, "created_at": "2026-11-28T13:32:47Z", "lead_time": 3.2}


def _prodigy(text, answer, **label):
    record = {"text": text, "meta": {}, "_input_hash": -1, "_task_hash": -2, "_view_id": "classification"}
    return record | label | {"answer": answer, "_timestamp": 1700000000, "_session_id": "ann-1"}


def _label_studio(text, choices=None, cancelled=False):
    value = {"from_name": "mood", "to_name": "text", "type": "choices", "value": {"choices": choices}}
    annotation = {"id": 1, "completed_by": 1, "result": [value] if choices else [], "was_cancelled": cancelled}
    return {"id": 1, "annotations": [annotation], "drafts": [], "predictions": [], "data": {"text": text}}


def _argilla(text, *answers):
    responses = {"mood": [{"value": answer, "user_id": f"user {n}"} for n, answer in enumerate(answers)]}
    record = {"id": "b18e", "fields": {"text": text}, "metadata": {}, "suggestions": {}, "vectors": {}}
    return record | {"responses": responses if answers else {}, "status": "completed" if answers else "pending"}


def _lines(*records) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def _table(separator: str) -> str:
    lines = (
        ("annotation_id", "annotator", "created_at", "id", "lead_time", "mood", "text"),
        (60, "1", "2026", 61, 3.2, '{""choices"":[""warm"",""dry, cold""]}', "both"),
        (61, "1", "2026", 62, 3.2, "warm", "one"),
        (62, "1", "2026", 63, 3.2, "", "skipped"),
    )
    quoted = (separator.join(f'"{cell}"' if isinstance(cell, str) else str(cell) for cell in line) for line in lines)
    return "".join(f"{line}\r\n" for line in quoted)


def _flat(path):
    columns = {"text": ["one", "two"], "mood.responses": [["warm", "cold"], ["warm"]]}
    parquet.write_table(pa.table(columns | {"mood.responses.users": [["u", "v"], ["u"]]}), path)


_SEVERAL = [("both", "warm", "dry, cold"), ("one", "warm")]
_OPTIONS = {"options": [{"id": "warm", "text": "warm"}, {"id": "cold", "text": "cold"}]}
_MOOD = {"task": "multi_label", "settings": {"label_column": "mood"}}
_LABEL_STUDIO, _PRODIGY = "Label Studio 1.23.2", "Prodigy 1.18"

EXAMPLES = [
    Example(
        _LABEL_STUDIO,
        "JSON",
        {
            "x.json": json.dumps(
                [
                    _label_studio("both", ["warm", "dry, cold"]),
                    _label_studio("one", ["warm"]),
                    _label_studio("skipped", ["warm"], cancelled=True),
                    _label_studio("empty"),
                ]
            )
        },
        _SEVERAL,
        unlabeled=2,
        read="`label_column` is the question; skipped tasks have no label, disputed ones are rejected",
        says="label_studio wrote the records",
        **_MOOD,
    ),
    Example(
        _LABEL_STUDIO,
        "JSON-MIN",
        {
            "x.json": json.dumps(
                [
                    {"text": "both", "mood": {"choices": ["warm", "dry, cold"]}, **_ABOUT},
                    {"text": "one", "mood": "warm", **_ABOUT},
                    {"text": "empty", **_ABOUT},
                ],
                indent=2,
            )
        },
        _SEVERAL,
        unlabeled=1,
        **_MOOD,
    ),
    Example(_LABEL_STUDIO, "CSV", {"x.csv": _table(",")}, _SEVERAL, unlabeled=1, **_MOOD),
    Example(
        _LABEL_STUDIO,
        "TSV, which it names .csv",
        {"x.csv": _table("\t")},
        _SEVERAL,
        unlabeled=1,
        read="as it is; the header shows the separator",
        **_MOOD,
    ),
    Example(
        "doccano 1.8.4",
        "JSONL",
        {
            "all.jsonl": _lines(
                {"id": 1, "text": "both", "label": ["warm", "dry"], "Comments": []},
                {"id": 2, "text": "one", "label": ["dry"]},
            )
        },
        [("both", "warm", "dry"), ("one", "dry")],
        task="multi_label",
    ),
    Example(
        "doccano 1.8.4",
        "CSV",
        {"all.csv": "id,data,label\n1,both,warm#dry\n2,one,dry\n"},
        [("both", "warm", "dry"), ("one", "dry")],
        {"format": "doccano", "text_column": "data"},
        task="multi_label",
        read="with `#` between labels",
    ),
    Example(
        _PRODIGY,
        "binary answers",
        {
            "x.jsonl": _lines(
                _prodigy("goal", "accept", label="SPORT"),
                _prodigy("vote", "accept", label="POLITICS"),
                _prodigy("choir", "reject", label="SPORT"),
                _prodigy("ferry", "ignore", label="SPORT"),
            )
        },
        [("goal", "SPORT"), ("vote", "POLITICS")],
        unlabeled=2,
        read="what was rejected or ignored has no label",
        says="prodigy wrote the records",
    ),
    Example(
        _PRODIGY,
        "choices",
        {
            "x.jsonl": _lines(
                _prodigy("one", "accept", accept=["warm"], **_OPTIONS),
                _prodigy("two", "accept", accept=["cold"], **_OPTIONS),
                _prodigy("three", "reject", accept=["warm"], **_OPTIONS),
                _prodigy("four", "ignore", **_OPTIONS),
            )
        },
        [("one", "warm"), ("two", "cold")],
        unlabeled=2,
        read="the choices in `accept`",
    ),
    Example(
        _PRODIGY,
        "rows in CSV",
        {
            "x.csv": "text,label,answer,_input_hash,_task_hash\n"
            "goal,SPORT,accept,-1,-2\nvote,POLITICS,accept,-3,-4\nchoir,SPORT,reject,-5,-6\n"
        },
        [("goal", "SPORT"), ("vote", "POLITICS")],
        {"filter": {"answer": ["accept"]}},
        read="refused without the setting, as rejected rows bear a label, too",
    ),
    Example(
        "spaCy 3",
        "`cats` in JSON Lines",
        {
            "x.jsonl": _lines(
                {"text": "fine tea", "cats": {"WARM": 1.0, "COLD": 0.0}},
                {"text": "wet harbor", "cats": {"WARM": 0.0, "COLD": 1.0}},
            )
        },
        [("fine tea", "WARM"), ("wet harbor", "COLD")],
        {"label_column": ["cats.WARM", "cats.COLD"], "label_names": {"cats.WARM": "WARM", "cats.COLD": "COLD"}},
        read="a column for each label",
        names=("WARM", "COLD"),
    ),
    Example(
        "Argilla 2.8",
        "`to_json`",
        {
            "x.json": json.dumps(
                [
                    _argilla("one", "warm", "warm"),
                    _argilla("two", "cold"),
                    _argilla("not", "warm", "cold"),
                    _argilla("none"),
                ]
            )
        },
        [("one", "warm"), ("two", "cold")],
        {"label_column": "mood"},
        rejected=1,
        unlabeled=1,
        read="answers in completed records; disputed records are rejected",
        says="argilla wrote the records",
    ),
    Example(
        "Argilla 2.8",
        "`to_datasets`, as Parquet",
        {"x.parquet": _flat},
        settings={"label_column": "mood.responses"},
        refused="holds the answers of several annotators",
        read="refused: a list of all answers, drafts included; export by `to_json`",
    ),
]
