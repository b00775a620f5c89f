"""Scoring, from a CSV on disk to a file on disk: tfpipe's `predict` now and before, and what others would write.

    tfpipe run configs/quickstart.yaml --run-dir runs/quickstart256 --set data.max_length=256 \\
        --set name=quickstart256 --set 'export.formats=[saved_model,onnx,openvino]'
    python3 -m venv .venv-peer && .venv-peer/bin/pip install -r benchmarks/score.requirements.txt
    git worktree add --detach ../before COMMIT
    .venv/bin/python benchmarks/score.py data scratch/texts.csv
    .venv/bin/python benchmarks/score.py run --run runs/quickstart256 --data scratch/texts.csv --before ../before \\
        --peer .venv-peer/bin/python
    .venv/bin/python benchmarks/score.py sentence --run runs/quickstart256 --before ../before
    .venv/bin/python benchmarks/score.py memory --run runs/quickstart256 --rows 100000 5000000

`data` writes 20,000 texts of mixed length (`score_data.py`). `run` gives them to every contestant of `score_turns.py`.
Each is a process of its own on two threads. They take turns in changing order. The clock and the processor time of all
its processes run from its start to its end. Before and after each turn a probe measures the rate of a matrix product:
turns at less than 85 % of the best rate do not count. The peers quantize the run's dense weights themselves, once,
outside the turns. The labels of all contestants with tfpipe's int8 model must agree on 99 % of the texts. `sentence`
times the answer to one text from the start of the process, five times each, after one turn that does not count.
`memory` scores short rows and watches the memory of all processes together: shared pages counted once (PSS), and for
each process (RSS).

Every turn is kept in benchmarks/results/score_*.json when it ends. The same command does the turns that are missing,
have failed, or are of other code in `tfpipe/`. `--only` names contestants, `--fresh` forgets their earlier turns. It
refuses to begin while the machine has other work.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine_state import wait_for_quiet
from prepare import adopt_orphans, clear
from score_data import fault_of, read_rows, short_rows, write_lines, write_rows, write_texts
from score_results import (
    agreement,
    differing,
    error_of,
    key_of,
    opened,
    peer_versions,
    print_run,
    print_sentence,
    rates,
    ratios,
    save,
    summary,
    version,
)
from score_turns import CONTESTANTS, THREADS, Contestant, Places, environment, last_line, memory, turn


def data(arguments: argparse.Namespace) -> str:
    """Writes the texts."""
    print(json.dumps({"file": str(arguments.output), "texts": write_texts(arguments.output, arguments.texts)}))
    return ""


def places_of(arguments: argparse.Namespace) -> Places:
    """Absolute paths, links kept: the Python of an environment is one."""
    given = {name: getattr(arguments, name, None) for name in ("run", "scratch", "before", "peer")}
    return Places(**{name: path and Path(os.path.abspath(path)) for name, path in given.items()})


def chosen(arguments: argparse.Namespace, places: Places) -> list[Contestant]:
    """The contestants that were asked for; those that lack something are named and left out.

    Raises:
      SystemExit: none is left.
    """
    if arguments.command == "sentence":
        wanted = [each for each in CONTESTANTS if each.sentence is not None]
    else:
        wanted = [each for each in CONTESTANTS if each.usual or arguments.only]
    wanted = [each for each in wanted if not arguments.only or each.name in arguments.only]
    for each in wanted:
        if lack := places.lacks(each):
            print(f"{each.name}: left out, needs {lack}", flush=True)
    if not (able := [each for each in wanted if not places.lacks(each)]):
        raise SystemExit("no contestant left")
    return able


def take_turns(
    arguments: argparse.Namespace, places: Places, result: dict[str, Any], contestants: list[Contestant]
) -> None:
    """Does the turns that are missing, in an order that changes by round, and keeps each when it ends.

    A turn whose output lacks a label has failed, and its output goes.
    """
    if not arguments.anyway:
        wait_for_quiet(arguments.wait)
    versions = {each.name: version(places.code(each)) for each in contestants}
    done = {
        (each["contestant"], each["round"])
        for each in result["turns"]
        if "error" not in each and each.get("code") == versions.get(each["contestant"], {}).get("code")
    }
    orders = [np.random.default_rng(number).permutation(len(CONTESTANTS)) for number in range(arguments.rounds)]
    for number, contestant in ((number, CONTESTANTS[place]) for number, order in enumerate(orders) for place in order):
        if contestant not in contestants or (contestant.name, number) in done:
            continue
        output, code = places.output(contestant), places.code(contestant)
        clear(output.parent)
        output.parent.mkdir(parents=True)
        wanted = contestant.sentence if arguments.command == "sentence" else contestant.arguments
        found = turn(places.command(contestant, wanted), code, output.parent / "log", arguments.minutes)
        if arguments.command == "run":
            found |= {} if "error" in found else fault_of(output, result["texts"])
        if "error" in found:
            output.unlink(missing_ok=True)
        entry = {"contestant": contestant.name, "round": number} | versions[contestant.name] | found
        others = [each for each in result["turns"] if (each["contestant"], each["round"]) != (contestant.name, number)]
        result["turns"] = [*others, entry]
        save(arguments.json, result)
        told = "{seconds} s, {processor_seconds} s of processors, probe {rate}"
        print(f"round {number}  {contestant.name:20s} {entry.get('error') or told.format(**entry)}", flush=True)


def run(arguments: argparse.Namespace) -> str:
    """Scores the texts with every contestant, and says what failed or differs."""
    rows = read_rows(arguments.data, arguments.texts)
    arguments.scratch = arguments.scratch or arguments.data.with_suffix("")
    places = places_of(arguments)
    places = places._replace(data=places.scratch / "texts.csv")
    write_rows(places.data, rows)
    write_lines(places.lines(), rows)
    contestants = chosen(arguments, places)
    fresh = {each.name for each in contestants} if arguments.fresh else set()
    key = key_of(places, places.data)
    places = places._replace(scored=f"scored-{key['weights'][:8]}-{key['texts'][:8]}")
    result = opened(arguments.json, key, fresh) | {"texts": len(rows)}
    if any(each.side == "peer" for each in contestants):
        places.make_optimum()
        result["peer_versions"] = peer_versions(places.peer)
    take_turns(arguments, places, result, contestants)
    result["summary"] = rates(summary(result["turns"]), len(rows))
    result["ratios"] = ratios(result["summary"])
    result["agreement"] = agreement(places, result.get("agreement", {}))
    save(arguments.json, result)
    print_run(result)
    if low := differing(result["agreement"]):
        return f"labels of one int8 model differ: {low}"
    return error_of(result["turns"], contestants)


def sentence(arguments: argparse.Namespace) -> str:
    """Asks one sentence, from the start of a process to its end; the first round fills the disk cache."""
    places, arguments.rounds = places_of(arguments), arguments.rounds + 1
    contestants = chosen(arguments, places)
    fresh = {each.name for each in contestants} if arguments.fresh else set()
    result = opened(arguments.json, key_of(places), fresh)
    take_turns(arguments, places, result, contestants)
    result["summary"] = summary(result["turns"], skipped=1)
    save(arguments.json, result)
    print_sentence(result["summary"])
    return error_of(result["turns"], contestants)


def watched(arguments: argparse.Namespace, places: Places, contestant: Contestant, count: int) -> dict[str, Any]:
    """Scores a number of rows, and watches the memory, by minute and at most."""
    output, code = places.output(contestant), places.code(contestant)
    clear(output.parent)
    output.parent.mkdir(parents=True)
    started, by_minute, peak_rss = time.perf_counter(), [0.0], 0.0
    with open(output.parent / "log", "wb") as log:
        command = places.command(contestant, contestant.arguments)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(code), cwd=output.parent,
            start_new_session=True,
        )  # fmt: skip
        for elapsed, rss, pss in memory(process, arguments.minutes):
            by_minute += [0.0] * (int(elapsed // 60) + 1 - len(by_minute))
            by_minute[-1], peak_rss = max(by_minute[-1], pss), max(peak_rss, rss)
    found = {
        "contestant": contestant.name,
        "rows": count,
        "csv_mb": round(places.data.stat().st_size / 1e6, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "exit": process.returncode,
        "peak_pss_mib": round(max(by_minute)),
        "peak_rss_mib": round(peak_rss),
        "pss_mib_by_minute": [round(each) for each in by_minute],
    }
    if found["seconds"] >= 60 * arguments.minutes and process.returncode:
        return found | {"ended_after_minutes": arguments.minutes}
    return found | ({"error": last_line(output.parent / "log")} if process.returncode else {})


def memory_by_rows(arguments: argparse.Namespace) -> str:
    """Watches the memory of each contestant at each number of rows."""
    places = places_of(arguments)
    contestants = chosen(arguments, places)
    result = {"key": key_of(places), "scored": []}
    for count in arguments.rows:
        places = places._replace(data=places.scratch / f"short-{count}.csv")
        write_rows(places.data, short_rows(count, arguments.words))
        if any(each.side == "before" for each in contestants):
            write_lines(places.lines(), read_rows(places.data))
        for contestant in contestants:
            found = watched(arguments, places, contestant, count)
            result["scored"].append(found)
            save(arguments.json, result)
            print(json.dumps(found), flush=True)
        places.data.unlink()
    print("| | rows | CSV MB | seconds | peak PSS MiB | peak RSS MiB |\n|---|---|---|---|---|---|")
    for each in result["scored"]:
        keys = ("contestant", "rows", "csv_mb", "seconds", "peak_pss_mib", "peak_rss_mib")
        print(f"| {' | '.join(str(each[key]) for key in keys)} |")
    return "; ".join(f"{each['contestant']}: {each['error']}" for each in result["scored"] if "error" in each)


def names_in(text: str) -> list[str]:
    """Names with commas between them.

    Raises:
      ArgumentTypeError: no contestant has such a name.
    """
    known, found = [each.name for each in CONTESTANTS], [each.strip() for each in text.split(",")]
    if unknown := [name for name in found if name not in known]:
        raise argparse.ArgumentTypeError(f"no contestant {', '.join(unknown)}; there are {', '.join(known)}")
    return found


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    writes = commands.add_parser("data")
    writes.set_defaults(function=data)
    writes.add_argument("output", type=Path, metavar="OUT.csv")
    writes.add_argument("--texts", type=int, default=20_000)
    for name, function, minutes in (("run", run, 60.0), ("sentence", sentence, 5.0), ("memory", memory_by_rows, 240.0)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--run", type=Path, required=True, help="a finished run with saved_model, onnx, openvino")
        command.add_argument("--before", type=Path, metavar="CHECKOUT", help="of the commit to compare with")
        command.add_argument("--only", type=names_in, metavar="NAME,NAME", help="contestants")
        command.add_argument("--scratch", type=Path, help="directory for what is written on the way")
        command.add_argument("--minutes", type=float, default=minutes, help="that one turn may take")
        command.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / f"score_{name}.json")
        if name == "memory":
            command.add_argument("--rows", type=int, nargs="+", default=[100_000, 5_000_000])
            command.add_argument("--words", type=int, metavar="N", help="rows of up to so many words, not of sentences")
            command.set_defaults(only=["tfpipe onnx"], scratch=Path(tempfile.gettempdir(), "score-memory"))
            continue
        command.add_argument("--rounds", type=int, default=3 if name == "run" else 5)
        command.add_argument("--fresh", action="store_true", help="forget earlier turns of these contestants")
        command.add_argument("--wait", type=float, default=0.0, metavar="MINUTES", help="for other work to end")
        command.add_argument("--anyway", action="store_true", help="although the machine has other work")
    commands.choices["run"].add_argument("--data", type=Path, required=True, metavar="CSV", help="written by `data`")
    commands.choices["run"].add_argument("--texts", type=int, help="only the first ones")
    commands.choices["run"].add_argument("--peer", type=Path, metavar="PYTHON", help="of the peers' environment")
    commands.choices["sentence"].set_defaults(scratch=Path(tempfile.gettempdir(), "score-sentence"))
    return parser.parse_args()


def main() -> None:
    """Does what the command says; exit 1 where a contestant failed or labels differ."""
    arguments = parsed()
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the contestant of the turn is ended too
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    if message := arguments.function(arguments):
        raise SystemExit(message)


if __name__ == "__main__":
    main()
