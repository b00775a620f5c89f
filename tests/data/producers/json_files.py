"""JSON as programs write it."""

from __future__ import annotations

import json

from data.producers.example import Example

_ROWS = [("the kettle sings", "warm"), ('she said "no"', "cold"), ("naïve café", "warm")]
_RECORDS = [{"text": text, "label": label} for text, label in _ROWS]


def _lines(records) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def _chat(text, label):
    roles = (("system", "Classify the text."), ("user", text), ("assistant", label))
    return {"messages": [{"role": role, "content": content} for role, content in roles]}


_HITS = [{"_index": "t", "_id": str(n), "_score": 1.0, "_source": record} for n, record in enumerate(_RECORDS)]
_RESPONSE = {"took": 2, "timed_out": False, "hits": {"total": {"value": 3, "relation": "eq"}, "hits": _HITS}}
_CLINC = {"oos_val": [["what now", "oos"]], "train": [["call me", "phone"], ["pay it", "bill"]]}

EXAMPLES = [
    Example("Python 3.11", "`json.dump`, an array", {"x.json": json.dumps(_RECORDS)}, _ROWS),
    Example("Python 3.11", "`json.dump(indent=2)`", {"x.json": json.dumps(_RECORDS, indent=2)}, _ROWS),
    Example("JSON Lines", "an object a line", {"x.jsonl": _lines(_RECORDS)}, _ROWS),
    Example(
        "jq 1.7", "objects over several lines", {"x.json": "\n".join(json.dumps(r, indent=2) for r in _RECORDS)}, _ROWS
    ),
    Example("web APIs", '`{"data": […]}`', {"x.json": json.dumps({"count": 3, "data": _RECORDS})}, _ROWS),
    Example(
        "web APIs",
        "nested objects",
        {
            "x.jsonl": _lines(
                {"review": {"title": "On tea", "body": text}, "is": {"mood": label}} for text, label in _ROWS
            )
        },
        [(f"On tea: {text}", label) for text, label in _ROWS],
        {"text": "{review.title}: {review.body}", "label_column": "is.mood"},
        read="dotted names are fields of objects; a template puts texts together",
    ),
    Example(
        "web APIs",
        "splits in a document",
        {"x.json": json.dumps({"train": _RECORDS[:2], "test": _RECORDS[2:]})},
        _ROWS,
        splits=("train", "train", "test"),
        read="as given splits",
    ),
    Example(
        "web APIs",
        "truth values",
        {"x.jsonl": _lines({"text": text, "label": label == "warm"} for text, label in _ROWS)},
        [(text, str(label == "warm").lower()) for text, label in _ROWS],
        read="as `true` and `false`, as everywhere",
        names=("false", "true"),
    ),
    Example(
        "Elasticsearch 8",
        "response of a search",
        {"x.json": json.dumps(_RESPONSE)},
        _ROWS,
        {"records": "hits.hits", "text_column": "_source.text", "label_column": "_source.label"},
    ),
    Example(
        "OpenAI",
        "chats for fine-tuning",
        {"x.jsonl": _lines(_chat(*row) for row in _ROWS)},
        _ROWS,
        {"text_column": "messages.1.content", "label_column": "messages.-1.content"},
        read="a number in a dotted name counts in a list",
    ),
    Example(
        "any",
        "texts as lists of tokens",
        {"x.jsonl": _lines({"text": text.split(), "label": label} for text, label in _ROWS)},
        rejected=3,
        read="rejected: only their author knows how tokens were joined",
    ),
    Example(
        "clinc150",
        "`data_full.json`, arrays of arrays",
        {"x.json": json.dumps(_CLINC)},
        refused="jq",
        read="refused: no column has a name; the error has the `jq` command that gives names",
    ),
]
