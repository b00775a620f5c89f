"""Rows, prepared."""

import csv

import pytest

from tfpipe.config_file import parse_config
from tfpipe.data import prepare
from tfpipe.rundir import StageDirectory


@pytest.fixture
def prepared(tmp_path, tiny_encoder, capsys):
    """A function that prepares rows and returns the stage's directory and what was printed."""

    def run(rows, columns=("text", "label"), name="prepare", task="single_label", seed=0, resume=False, **data):
        path = tmp_path / "rows.csv"
        if isinstance(rows, bytes):
            path.write_bytes(rows)
        else:
            with open(path, "w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([columns, *rows])
        settings = {"source": str(path), "max_length": 32} | data
        tree = {"name": "x", "task": task, "seed": seed, "data": settings, "encoder": {"source": str(tiny_encoder)}}
        stage = StageDirectory("prepare", tmp_path / name, {})
        stage.path.mkdir(exist_ok=resume)
        prepare.run(parse_config(tree, where="test"), stage)
        return stage.path, capsys.readouterr().err

    return run
