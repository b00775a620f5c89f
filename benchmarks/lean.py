"""What a run costs beside its training: seconds and memory of each stage, of two builds in turns.

    python benchmarks/lean.py configs/quickstart.yaml --before CHECKOUT --scratch DIR --redo verify
    python benchmarks/lean.py configs/quickstart.yaml --before CHECKOUT --scratch DIR

With `--redo`, each build brings its own run up to date once, which is not timed, and then does that stage and what
follows again in each turn. Without it, each turn is a whole run from an empty directory. `--before` is a checkout of
another commit; both builds run with this Python and its packages. The memory is the resident set of the process and all
below it, looked at four times a second: the most of it within each stage. Processor seconds are theirs too. Each turn
tells the rate of the machine beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from machine_state import probe
from prepare import processes_below, processor_time

HERE = Path(__file__).resolve().parent
PROGRAM = "import sys; sys.argv[0] = 'tfpipe'; from tfpipe.cli import main; main()"
HEADING = re.compile(r"\[\d+/\d+\] (\w+): (.*)")
START = "start"
"""what comes before the first stage"""
TRAINING = ("train", "distill", "prune", "quantize")
INTERVAL = 0.25


class Watched:
    """A process, its stages as it prints them, and what they use."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.stages: dict[str, dict[str, float]] = {}
        self._now, self._ended = START, threading.Event()
        self._begin(START)

    def watch(self, log: Path) -> dict[str, dict[str, float]]:
        """Reads what the process prints until it ends.

        Returns:
          Stage -> `seconds`, `processor_seconds`, `mib`, of those that it did.
        """
        sampler = threading.Thread(target=self._sample)
        sampler.start()
        with log.open("w", encoding="utf-8") as file:
            for line in self.process.stderr:
                file.write(line)
                match = HEADING.match(line)
                if match and match[2].startswith("done"):
                    self._finish()
                elif match and match[2] != "up to date":
                    self._begin(match[1])
        self._ended.set()
        sampler.join()
        self.process.wait()
        return {stage: found for stage, found in self.stages.items() if "seconds" in found}

    def _begin(self, stage: str) -> None:
        if self._now == START and stage != START:
            self._finish()
        self._now = stage
        self.stages[stage] = {"mib": 0.0, "started": time.perf_counter(), "used": self._used()}

    def _finish(self) -> None:
        found = self.stages[self._now]
        self._look()
        found["seconds"] = round(time.perf_counter() - found.pop("started"), 2)
        found["processor_seconds"] = round(self._used() - found.pop("used"), 2)

    def _used(self) -> float:
        return sum(processor_time(pid) for pid in processes_below(self.process.pid))

    def _look(self) -> None:
        found = self.stages[self._now]
        found["mib"] = max(found["mib"], round(sum(map(resident_mib, processes_below(self.process.pid)))))

    def _sample(self) -> None:
        while not self._ended.wait(INTERVAL):
            self._look()


def resident_mib(pid: int) -> float:
    """Resident set of a process; cheaper to ask for than a proportional one, which takes a tenth of a processor."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:  # it ended meanwhile
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def turn(code: Path, arguments: list[str], log: Path) -> dict[str, Any]:
    """One command of a build, watched.

    Raises:
      SystemExit: it failed.
    """
    rate = probe()
    environment = {**os.environ, "PYTHONPATH": str(code), "CUDA_VISIBLE_DEVICES": "-1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", *arguments],
        env=environment,
        cwd=code,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = time.perf_counter()
    stages = Watched(process).watch(log)
    if process.returncode:
        sys.exit(f"{' '.join(arguments)}: exit {process.returncode}; see {log}")
    return {"stages": stages, "seconds": round(time.perf_counter() - started, 2), "rate": round((rate + probe()) / 2)}


def summary(turns: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Build -> stage, or a sum of several -> medians over the turns."""
    found = {}
    for build, each in turns.items():
        stages = {stage: [turn["stages"][stage] for turn in each] for stage in each[0]["stages"]}
        rows = {
            stage: {name: statistics.median(one[name] for one in ones) for name in ones[0]}
            for stage, ones in stages.items()
        }
        beside = [stage for stage in rows if stage not in TRAINING]
        for title, names in (
            ("verify + report", [stage for stage in ("verify", "report") if stage in rows]),
            ("all but training", beside),
            ("all", list(rows)),
        ):
            if not names:
                continue
            rows[title] = {
                "seconds": sum(rows[name]["seconds"] for name in names),
                "processor_seconds": sum(rows[name]["processor_seconds"] for name in names),
                "mib": max(rows[name]["mib"] for name in names),
            }
        found[build] = rows
    return found


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """The table in Markdown, with ratios."""
    lines = ["| stage | " + " | ".join(f"{build}: s, processor s, MiB" for build in found) + " | ratios |"]
    lines.append("|" + "---|" * (len(found) + 2))
    for stage in dict.fromkeys(stage for rows in found.values() for stage in rows):
        cells, values = [], []
        for rows in found.values():
            row = rows.get(stage)
            values.append(row)
            cells.append("–" if row is None else "{seconds:.1f}, {processor_seconds:.1f}, {mib:,.0f}".format(**row))
        ratios = "–"
        if len(values) == 2 and all(values):
            before, now = values
            ratios = ", ".join(f"{now[name] / before[name]:.2f}" for name in before if before[name] >= 1.0)
        lines.append(f"| {stage} | {' | '.join(cells)} | {ratios} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the turns; prints the table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="configuration, a path within each build")
    parser.add_argument("--before", type=Path, help="checkout of another commit")
    parser.add_argument("--scratch", type=Path, required=True, help="directory for runs and logs")
    parser.add_argument("--redo", help="stage that each turn does again, and those after it")
    parser.add_argument("--set", action="append", default=[], help="a setting, for both builds")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()
    now = HERE.parent
    builds = {"now": now} if arguments.before is None else {"before": arguments.before.resolve(), "now": now}
    scratch = arguments.scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    settings = [part for each in arguments.set for part in ("--set", each)]
    common = {build: [arguments.config, *settings, "--run-dir", str(scratch / build)] for build in builds}
    if arguments.redo:
        for build, code in builds.items():
            turn(code, common[build], scratch / f"{build}.log")
    turns: dict[str, list[dict[str, Any]]] = {build: [] for build in builds}
    for number in range(arguments.rounds):
        for build in list(builds)[:: -1 if number % 2 else 1]:
            if not arguments.redo:
                shutil.rmtree(scratch / build, ignore_errors=True)
            redo = ["--redo", arguments.redo] if arguments.redo else []
            turns[build].append(turn(builds[build], [*common[build], *redo], scratch / f"{build}-{number}.log"))
            print(build, json.dumps(turns[build][-1]), file=sys.stderr, flush=True)
    found = summary(turns)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps({"turns": turns, "medians": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
