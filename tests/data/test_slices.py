"""Columns of `report.slices`, from the files to the file that the report reads."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfpipe.config.file import parse_config
from tfpipe.data.slices import FILE, read_slices, slice_value
from tfpipe.errors import InputError
from tfpipe.rundir.stage import StageDirectory
from tfpipe.stages import prepare
from tfpipe.tokens.table import TokenTable

ROWS = [
    {
        "text": f"film number {at}",
        "label": "good" if at % 2 else "bad",
        "language": ["de", "en", None][at % 3],
        "year": at,
    }
    for at in range(60)
]


def written(path, rows=ROWS):
    if path.suffix == ".csv":
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        # a record may lack a field
        records = [{name: value for name, value in row.items() if value is not None} for row in rows]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def prepared(tmp_path, source, encoder, slices, **data):
    settings = {"source": str(source), "max_length": 16, "max_rejected_fraction": 0.0} | data
    tree = {"name": "x", "data": settings, "encoder": {"source": str(encoder)}, "report": {"slices": slices}}
    stage = StageDirectory("prepare", tmp_path / f"prepare-{source.suffix[1:]}", {})
    stage.path.mkdir()
    prepare.run(parse_config(tree, where="test"), stage)
    return stage


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_columns_are_kept_for_held_out_rows_from_every_kind_of_file(tmp_path, tiny_encoder, name):
    stage = prepared(tmp_path, written(tmp_path / name), tiny_encoder, ["language", "year"])
    for split in ("validation", "test"):
        table = TokenTable.open(stage.path / split)
        found = read_slices(stage.path, table.row_ids)
        numbers = [int(text.split()[-1]) for text in table.texts(range(table.num_rows))]
        assert table.num_rows and list(found) == ["language", "year"]
        assert found["language"] == [ROWS[at]["language"] for at in numbers]
        assert found["year"] == [str(at) for at in numbers]
    assert FILE in stage.listings  # the digest of the output, which training depends on, leaves it out
    with pytest.raises(InputError, match=r"not the slices of this run .*--redo prepare"):
        read_slices(stage.path, np.array([10**15]))


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_a_column_that_is_not_there_is_refused_with_the_nearest(tmp_path, tiny_encoder, name):
    with pytest.raises(InputError, match=r"'langage' \(report.slices\).*; did you mean 'language'\?"):
        prepared(tmp_path, written(tmp_path / name), tiny_encoder, ["langage"])


def test_without_columns_there_is_no_file(tmp_path, tiny_encoder):
    stage = prepared(tmp_path, written(tmp_path / "rows.csv"), tiny_encoder, [])
    assert not (stage.path / FILE).exists() and read_slices(stage.path, np.array([1])) == {}


def test_the_column_of_the_labels_may_be_a_slice_too(tmp_path, tiny_encoder):
    stage = prepared(tmp_path, written(tmp_path / "rows.csv"), tiny_encoder, ["label"])
    table = TokenTable.open(stage.path / "test")
    numbers = [int(text.split()[-1]) for text in table.texts(range(table.num_rows))]
    assert read_slices(stage.path, table.row_ids)["label"] == [ROWS[at]["label"] for at in numbers]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        *(
            (None, None),
            (float("nan"), None),
            ("", None),
            ("  ", None),
            (" a ", "a"),
            (3, "3"),
            (3.0, "3"),
            (2.5, "2.5"),
        ),
        *((True, "true"), (b"x\xff", "x\\xff"), (["a", 1], '["a", 1]'), ("b\udcff", "b\\xff"), ("y" * 300, "y" * 200)),
    ],
)
def test_a_value_is_the_text_of_its_cell(cell, value):
    assert slice_value(cell) == value


def test_a_column_named_twice_is_refused():
    tree = {"name": "x", "data": {"source": "x.csv"}, "encoder": {"source": "y"}, "report": {"slices": ["a", "a"]}}
    with pytest.raises(InputError, match="a column is named twice"):
        parse_config(tree, where="test")
