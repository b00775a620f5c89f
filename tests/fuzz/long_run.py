"""`make fuzz`: a million cases, other ones each time, by two processes; a table, and what failed, at the end.

FUZZ_CASES: cases in all. FUZZ_SEED: seed of an earlier run, to see it again. FUZZ_ONLY: a part of the modules' names.
FUZZ_PROCESSES: how many at a time.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
PROCESSES = int(os.environ.get("FUZZ_PROCESSES", "2"))


def run(module: Path, scratch: Path, environment: dict[str, str]) -> tuple[int, str, dict[str, dict[str, float]]]:
    """The exit code of a module's tests, what they printed, and its targets' tallies."""
    summary = scratch / f"{module.stem}.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", str(module)],
        env=environment | {"FUZZ_SUMMARY": str(summary)},
        cwd=HERE.parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout, json.loads(summary.read_text()) if summary.exists() else {}


def main() -> int:
    """Runs all modules; 1 where one failed."""
    cases, seed = os.environ.get("FUZZ_CASES", "1000000"), os.environ.get("FUZZ_SEED", secrets.token_hex(4))
    print(f"{cases} cases, FUZZ_SEED={seed}", flush=True)
    environment = os.environ | {"FUZZ_CASES": cases, "FUZZ_SEED": seed}
    modules = [path for path in sorted(HERE.glob("test_*.py")) if os.environ.get("FUZZ_ONLY", "") in path.stem]
    worst, tallies = 0, {}
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(PROCESSES) as pool:
        for code, printed, found in pool.map(lambda module: run(module, Path(scratch), environment), modules):
            worst = max(worst, int(code != 0))
            tallies |= found
            print(printed if code else printed.splitlines()[-1], flush=True)
    print(f"\n{'target':<30} {'cases':>9} {'refused':>9} {'seconds':>8} {'faults':>6}")
    for target, tally in tallies.items():
        print(f"{target:<30} {tally['cases']:>9,} {tally['refused']:>9,} {tally['seconds']:>8.0f} {tally['faults']:>6}")
    total = {name: sum(tally[name] for tally in tallies.values()) for name in ("cases", "seconds", "faults")}
    print(f"{'all':<30} {total['cases']:>9,} {'':>9} {total['seconds']:>8.0f} {total['faults']:>6}")
    return worst


if __name__ == "__main__":
    sys.exit(main())
