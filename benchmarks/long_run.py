"""A long training: memory, file descriptors and threads over 20,000 steps, and what it leaves on the disk.

    .venv/bin/python benchmarks/long_run.py [--steps 20000]

The command `tfpipe train` on the quickstart's rows with a tiny encoder, an evaluation every thousand steps and a
checkpoint every ten seconds, watched from outside through /proc. Prints a table; writes
benchmarks/results/long_run.json. Ten minutes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parent
PROGRESS = re.compile(r"train: (\d+)/\d+, ")
ROWS_SHOWN = 10


def main() -> None:
    """Trains, watches, prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=20_000)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as scratch:
        config, run = made_config(Path(scratch), steps), Path(scratch) / "run"
        command = [sys.executable, "-m", "tfpipe.cli", "train", str(config), "--run-dir", str(run)]
        samples = watched(command)
        logs = sum(file.stat().st_size for file in (run / "train" / "logs").iterdir())
    results = {"steps": steps, "tensorboard_bytes": logs, "samples": samples}
    (ROOT / "results" / "long_run.json").write_text(json.dumps(results, indent=2) + "\n")
    print("| step | resident, MiB | peak, MiB | file descriptors | threads |\n|---|---|---|---|---|")
    for sample in samples[:: max(1, len(samples) // ROWS_SHOWN)]:
        print("| {step:,} | {rss_mib:.0f} | {peak_mib:.0f} | {descriptors} | {threads} |".format(**sample))
    print(f"TensorBoard's files: {logs:,} bytes")


def made_config(scratch: Path, steps: int) -> Path:
    """The configuration: the tiny encoder of the tests."""
    made = (
        f"from pathlib import Path; from conftest import write_encoder; write_encoder(Path({str(scratch / 'tiny')!r}))"
    )
    subprocess.run([sys.executable, "-c", made], cwd=ROOT.parent / "tests", check=True)
    settings = yaml.safe_load((ROOT.parent / "configs" / "quickstart.yaml").read_text(encoding="utf-8"))
    settings |= {
        "encoder": {"source": str(scratch / "tiny")},
        "train": {
            "precision": "float32",
            "batch_size": 8,
            "epochs": steps / 746,  # 5,970 rows
            "evaluations_per_epoch": 1,
            "checkpoint_every": "10 s",
        },
    }
    path = scratch / "long.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def watched(command: list[str]) -> list[dict[str, float]]:
    """What the process holds whenever it says how far it is: every 15 seconds."""
    samples = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            print(line, end="", file=sys.stderr)
            if found := PROGRESS.search(line):
                samples.append({"step": int(found[1]), **held(process.pid)})
    assert process.returncode == 0
    return samples


def held(pid: int) -> dict[str, float]:
    """Memory, descriptors and threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {
        "rss_mib": int(status["VmRSS"].split()[0]) / 1024,
        "peak_mib": int(status["VmHWM"].split()[0]) / 1024,
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(status["Threads"]),
    }


if __name__ == "__main__":
    main()
