"""Prints the digest of every stage that a run has committed, to compare two builds of tfpipe.

    tfpipe run configs/quickstart.yaml --run-dir before     # with one build
    tfpipe run configs/quickstart.yaml --run-dir after      # with the other, on the same machine
    diff <(python tests/digests.py before) <(python tests/digests.py after)

A change of structure changes none of them. `verify`, `publish` and `report` hold measured latencies: of these, only the
answers count. Reads the records as JSON, so that it serves every build.
"""

import json
import sys
from pathlib import Path

MEASURED = ("verify", "publish", "report")


def digests(run: Path) -> dict[str, str]:
    """Stage -> SHA-256 of its output, where it measures nothing, else of its answers."""
    found = {}
    for file in sorted(run.glob("*/stage.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["stage"] not in MEASURED:
            found[record["stage"]] = record["output"]
        for name, entry in record["files_written"].items():
            if record["stage"] in MEASURED and name.endswith(".safetensors"):
                found[f"{record['stage']}/{name}"] = entry["sha256"]
    return found


if __name__ == "__main__":
    for stage, digest in digests(Path(sys.argv[1])).items():
        print(f"{stage:<28} {digest}")
