import os
import re

from tfpipe.provenance import package_versions
from tfpipe.tools import doctor


def test_one_table_with_machine_choices_and_versions(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    doctor.run()
    captured = capsys.readouterr()
    rows = {
        cells[0].strip(): cells[1].strip()
        for line in captured.out.splitlines()
        if len(cells := re.split("[│┃]", line)[1:-1]) == 2
    }
    assert rows["processors"].startswith(f"{os.cpu_count()}, ")
    assert "CPU:0" in rows["devices"]
    assert re.fullmatch(r"(one_device|mirrored) \(.+\)", rows["strategy"])  # the choice, and why
    assert re.fullmatch(r"(float32|mixed_bfloat16) \(.+\)", rows["precision"])
    assert {name: rows[name] for name in package_versions()} == package_versions()
    assert captured.err == ""
