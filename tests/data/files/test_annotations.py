"""Exports of annotation tools, each as its tool writes them."""

import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from data.row_reading import rows_of

from tfpipe.config.file import parse_config
from tfpipe.data import readers
from tfpipe.data.files.sources import source_files
from tfpipe.data.labels.survey import before_reading
from tfpipe.data.rows import read_rows
from tfpipe.errors import InputError

PRODIGY = {"text": "x", "meta": {}, "_input_hash": -1, "_task_hash": -2, "spans": [], "_view_id": "classification"}
"""Prodigy 1.18, textcat.manual and choice"""


def prodigy(text, answer, **label):
    return PRODIGY | {"text": text, "answer": answer, "_timestamp": 1700000000, "_session_id": "ann-1"} | label


def label_studio(text, *answers, cancelled=False):
    """Label Studio 1.23, JSON."""
    value = [
        {"from_name": "mood", "to_name": "text", "type": "choices", "value": {"choices": choices}}
        for choices in answers
    ]
    annotations = [
        {"id": n, "completed_by": n, "result": [result], "was_cancelled": cancelled, "lead_time": 3.2}
        for n, result in enumerate(value)
    ] or [{"id": 1, "result": [], "was_cancelled": cancelled}]
    return {"id": 1, "annotations": annotations, "predictions": [], "data": {"text": text, "source": "batch 0"}}


def argilla(text, *answers, status="completed"):
    """Argilla 2.8, `to_json`."""
    responses = {"mood": [{"value": answer, "user_id": f"user {n}"} for n, answer in enumerate(answers)]}
    suggestions = {"mood": {"value": "bad", "score": 0.9, "agent": None}}
    record = {"id": "b18e", "fields": {"text": text}, "metadata": {}, "suggestions": suggestions, "vectors": {}}
    return record | {"responses": responses if answers else {}, "status": status, "_server_id": None}


def write(path, records, *, array):
    lines = [json.dumps(record) for record in records]
    path.write_text("[" + ",\n".join(lines) + "]" if array else "".join(f"{line}\n" for line in lines))
    return str(path)


def read(path, task="single_label", **data):
    """Text and labels of each row, reasons of the rejected ones, and how many rows are not labeled."""
    config = parse_config({"name": "x", "task": task, "data": {"source": path, **data}, "encoder": {"source": "x"}}, "")
    files = source_files(config.data)
    form, labels = before_reading(config, files)
    found = [read_rows(block, config, form, labels) for file in files for block in readers.blocks(file, config.data)]
    rows = [row for each in found for row in zip(each.texts, each.labels, strict=True)]
    return rows, [rejection.reason for each in found for rejection in each.rejections], sum(e.unlabeled for e in found)


@pytest.mark.parametrize("array", [False, True])
def test_prodigy(tmp_path, capsys, array):
    binary = [
        prodigy(f"{answer} {n}", answer, label="SPORT") for n, answer in enumerate(("accept", "reject", "ignore"))
    ]
    path = write(tmp_path / "binary.json", binary, array=array)
    assert read(path) == ([("accept 0", ("SPORT",))], [], 2)
    assert "prodigy wrote the records, and they are read so" in " ".join(capsys.readouterr().err.split())
    choices = [
        prodigy("one", "accept", accept=["pos"], options=[]),
        prodigy("two", "accept", accept=["pos", "neg"], options=[]),
        prodigy("no", "reject", accept=["pos"], options=[]),
        prodigy("none", "ignore", options=[]),
    ]
    path = write(tmp_path / "choices.json", choices, array=array)
    assert read(path, "multi_label") == ([("one", ("pos",)), ("two", ("pos", "neg"))], [], 2)
    assert read(path) == ([("one", ("pos",))], ["2 labels (task: single_label expects one)"], 2)
    # As the fields stand, what was rejected counts.
    assert len(read(str(tmp_path / "binary.json"), format="json_lines")[0]) == 3


def test_label_studio(tmp_path):
    records = [
        label_studio("one", ["good"]),
        label_studio("two", ["good", "warm, dry"]),
        label_studio("agreed", ["good"], ["good"]),
        label_studio("disagreed", ["good"], ["bad"]),
        label_studio("skipped", ["good"], cancelled=True),
        label_studio("empty"),
    ]
    path = write(tmp_path / "export.json", records, array=True)
    reason = "its annotators disagree (bad; good)"
    rows = [("one", ("good",)), ("two", ("good", "warm, dry")), ("agreed", ("good",))]
    assert read(path, "multi_label", label_column="mood") == (rows, [reason], 2)
    found = read(path, label_column="mood")
    assert found == ([rows[0], rows[2]], ["2 labels (task: single_label expects one)", reason], 2)
    assert read(path, label_column="mood", format="label_studio") == found
    assert read(path, label_column="other")[2] == 6  # a question that no one answered


def test_label_studio_a_row_for_each_annotation(tmp_path):
    about = {"id": 1, "annotator": 1, "annotation_id": 60, "created_at": "2026-11-28", "lead_time": 3.2}
    rows = [about | {"text": "two", "mood": {"choices": ["good", "warm, dry"]}}, about | {"text": "one", "mood": "bad"}]
    path = write(tmp_path / "min.json", [*rows, about | {"text": "empty"}], array=True)
    expected = [("two", ("good", "warm, dry")), ("one", ("bad",))]
    assert read(path, "multi_label", label_column="mood") == (expected, [], 1)
    table = tmp_path / "export.csv"
    table.write_text(
        '"annotation_id","annotator","created_at","id","lead_time","mood","text"\n'
        '60,"1","2026",61,3.2,"{""choices"":[""good"",""warm, dry""]}","two"\n'
        '61,"1","2026",62,3.2,"bad","one"\n62,"1","2026",62,3.2,"","empty"\n'
    )
    assert read(str(table), "multi_label", label_column="mood") == (expected, [], 1)
    assert read(str(table), label_column="mood", missing=["none"])[1][1] == "empty label"


def test_argilla(tmp_path):
    records = [
        argilla("one", "good"),
        argilla("agreed", "good", "good"),
        argilla("not", "good", "bad"),
        argilla("none"),
        argilla("draft", "good", status="pending"),
    ]
    path = write(tmp_path / "records.json", records, array=True)
    expected = [("one", ("good",)), ("agreed", ("good",))]
    assert read(path, label_column="mood") == (expected, ["its annotators disagree (bad; good)"], 2)
    flat = {"text": ["one"], "mood.responses": [["good", "bad"]], "mood.responses.users": [["u", "v"]]}
    path = tmp_path / "flat.parquet"  # of `to_datasets`
    parquet.write_table(pa.table(flat), path)
    with pytest.raises(InputError, match=r"'mood.responses' .* holds the answers of several annotators; export the"):
        read(str(path), label_column="mood.responses")


def test_doccano(tmp_path):
    """doccano 1.8: JSONL and CSV of a project of text classification."""
    path = write(
        tmp_path / "all.jsonl",
        [{"id": 1, "text": "two", "label": ["insult", "toxic"], "Comments": []}, {"id": 2, "text": "no", "label": []}],
        array=False,
    )
    expected = [("two", ("insult", "toxic")), ("no", ())]
    assert read(path, "multi_label") == (expected, [], 0)
    assert read(path, "multi_label", format="doccano") == (expected, [], 0)
    table = tmp_path / "all.csv"
    table.write_text("id,data,label\n1,two,insult#toxic\n2,one,toxic\n")
    assert read(str(table), "multi_label", format="doccano", text_column="data")[0] == [
        ("two", ("insult", "toxic")),
        ("one", ("toxic",)),
    ]


def test_a_tool_whose_files_are_others(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"x.parquet: parquet, and data.format is prodigy, whose exports are JSON"):
        rows_of(str(tmp_path / "x.parquet"), format="prodigy")


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet", "rows.jsonl"])
def test_answers_of_prodigy_in_other_files(tmp_path, name):
    rows = [prodigy(f"text {n}", ("accept", "reject")[n % 2], label="ab"[n // 2 % 2]) for n in range(8)]
    if name.endswith("parquet"):
        parquet.write_table(
            pa.Table.from_pylist([row | {"meta": None, "spans": None} for row in rows]), tmp_path / name
        )
    elif name.endswith("jsonl"):  # its first record is longer than what is looked at
        (tmp_path / name).write_text("".join(json.dumps(row | {"text": row["text"] * 20_000}) + "\n" for row in rows))
    else:
        separator = "," if name.endswith("csv") else "\t"
        keys = ("text", "label", "answer", "_task_hash")
        lines = [keys, *([str(row[key]) for key in keys] for row in rows)]
        (tmp_path / name).write_text("".join(separator.join(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=r"those whose answer is reject or ignore bear a label, too; set data.filter"):
        read(str(tmp_path / name))
    found = read(str(tmp_path / name), filter={"answer": ["accept"]})[0]
    assert [labels for _, labels in found] == [("a",), ("b",)] * 2


def test_labels_of_prodigy_in_other_fields(tmp_path):
    rows = [prodigy(f"{n}", ("accept", "reject")[n % 2], label="SPAM", cls={"name": "ab"[n % 2]}) for n in range(2)]
    path = write(tmp_path / "rows.jsonl", rows, array=False)
    assert read(path, label_column="cls.name") == ([("0", ("a",))], [], 1)
    assert read(path, label_column="answer") == ([("0", ("accept",)), ("1", ("reject",))], [], 0)
    rows, reasons, unlabeled = read(path, label_column="other")
    assert (rows, unlabeled) == ([], 1) and reasons[0].startswith("no field 'other'")
    with open(tmp_path / "utf16.jsonl", "w", encoding="utf-16") as file:
        file.write((tmp_path / "rows.jsonl").read_text())
    assert read(str(tmp_path / "utf16.jsonl")) == ([("0", ("SPAM",))], [], 1)
