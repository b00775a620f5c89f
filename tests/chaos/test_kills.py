"""A short form of `make chaos`: one run, killed in some of its stages."""

import json
import subprocess
import sys
from pathlib import Path

from tfpipe.config.file import dump_config

HARNESS = Path(__file__).parent / "kills.py"


def test_a_run_that_is_killed_in_its_stages_ends_with_the_same_bytes(tiny_run, tmp_path):
    config, directory = tiny_run
    (tmp_path / "tiny.yaml").write_text(dump_config(config), encoding="utf-8")
    # This seed draws the training, and instants that waste little of a stage.
    command = [sys.executable, HARNESS, "--kills", "4", "--seed", "7", "--json", tmp_path / "kills.json"]
    ended = subprocess.run(
        [*command, "--config", tmp_path / "tiny.yaml", "--undisturbed", directory],
        cwd=HARNESS.parents[2],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "kills.json").read_text())
    assert sum(found["kills"].values()) == found["recoveries"] == 4 and found["mismatches"] == []
    assert sum(count > 0 for count in found["kills"].values()) >= 2
