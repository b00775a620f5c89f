"""Files answered by Beam's DirectRunner: the same rows as by this machine alone, whatever its processes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tfpipe.data import block as blocks_module
from tfpipe.errors import InputError
from tfpipe.tools.predict import command
from tfpipe.tools.predict.options import Options

pytest.importorskip("apache_beam")


def written(path: Path, count: int) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([n, f"a {'good' if n % 3 else 'bad'} film {n} " * (n % 5)] for n in range(count))
    return path


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_beam_gives_the_same_bytes(tiny_run, tmp_path, monkeypatch, suffix, processes):
    """Two processes read blocks of the usual size."""
    if processes == 1:
        monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 2000)
    source = written(tmp_path / "in.csv", 300)
    found = []
    for name, options in {
        "local": {},
        "beam": {
            "runner": "DirectRunner",
            "runner_options": (f"--direct_num_workers={processes}", "--direct_running_mode=multi_processing"),
        },
    }.items():
        if processes == 1 and options:
            options["runner_options"] = ()
        output = tmp_path / f"{name}{suffix}"
        command.run(str(tiny_run[1]), [], Options(input=(str(source),), output=output, variant="int8", **options))
        found.append(output.read_bytes())
        assert len((tmp_path / f"{name}{suffix}.rejected.jsonl").read_text().splitlines()) == 60
    assert found[0] == found[1]
    assert len(list(tmp_path.iterdir())) == 5  # the input, two outputs, what was rejected


def test_what_beam_cannot_do_is_said(tiny_run, tmp_path):
    source = written(tmp_path / "in.csv", 3)
    given = Options(input=(str(source),), output=tmp_path / "out.csv", runner="DataflowRunner")
    with pytest.raises(InputError, match=r"DataflowRunner needs scratch space .* --runner-option of predict"):
        command.run(str(tiny_run[1]), [], given)
    with pytest.raises(InputError, match=r"--runner Flink: expected DirectRunner, .*Runner or Spark"):
        command.run(str(tiny_run[1]), [], Options(input=(str(source),), output=tmp_path / "out.csv", runner="Flink"))
