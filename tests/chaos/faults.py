"""Does the faults of tests/test_faults.py to a run, and a lost worker, and prints what became of each.

.venv/bin/python tests/chaos/faults.py          (make chaos)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
WHERE = ("test_faults.py", "devices/test_multi_worker.py")


def main() -> None:
    """Runs the tests, prints the table."""
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "faults.jsonl"
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *(str(TESTS / each) for each in WHERE)],
            cwd=TESTS.parent,
            env=os.environ | {"FAULT_TABLE": str(table)},
        )
        rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()] if table.exists() else []
    print("\n| fault | what happened | exit code |\n|---|---|---|")
    for row in rows:
        print(f"| {row['fault']} | {row['happened']} | {row['code']} |")
    sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
