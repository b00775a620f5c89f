import os
import re

import pytest

from tfpipe.rundir import package_versions
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


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"avx2", "avx512bw", "avx512_vnni"}, "fast and exact"),
        ({"avx_vnni", "avx2"}, "fast and exact"),
        ({"amx_int8"}, "fast and exact"),
        ({"avx2"}, "may saturate"),
        ({"sse2"}, "unknown processor"),
        (set(), "unknown processor"),
    ],
)
def test_int8_outlook_follows_the_instruction_set(flags, said):
    assert said in doctor.int8_outlook(flags)
