"""What benchmarks/score.py keeps and tells: the result file, medians, ratios, agreement of labels, tables."""

from __future__ import annotations

import hashlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from machine_state import LEAST_RATE
from score_data import labels_of
from score_turns import CONTESTANTS, THREADS, Contestant, Places

from tfpipe.provenance import machine, package_versions

LEAST_AGREEMENT = 0.99
REFERENCE = "onnx script"
"""the contestant with whose labels the table compares"""
GOALS = {"before": 4.0, "pipeline": 2.5, "pipeline sorted": 1.2}
"""contestant -> how many of its texts per processor second the best of tfpipe's must answer"""
MOST_SECONDS, MOST_SHARE = 1.0, 1 / 6
"""one sentence: of the clock, and of what `before` takes"""
Turns = list[dict[str, Any]]


def key_of(places: Places, texts: Path | None = None) -> dict[str, Any]:
    """What turns must have in common to be compared."""
    files = {"weights": places.int8() / "onnx" / "onnx" / "model_quantized.onnx"} | ({"texts": texts} if texts else {})
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    return digests | {"machine": machine(), "threads": THREADS}


def opened(path: Path, key: dict[str, Any], fresh: Iterable[str]) -> dict[str, Any]:
    """The result file so far, without the turns of some contestants.

    Raises:
      SystemExit: it holds turns of other texts, weights or another machine.
    """
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"key": key, "turns": []}
    kept["turns"] = [each for each in kept["turns"] if each["contestant"] not in fresh]
    if kept["key"] != key and kept["turns"]:
        other = ", ".join(name for name, value in key.items() if kept["key"].get(name) != value)
        sys.exit(f"{path}: holds turns of another {other}; forget them with --fresh, or give another --json")
    return kept if kept["turns"] else {"key": key, "turns": []}


def save(path: Path, result: dict[str, Any]) -> None:
    """Whole, or not at all."""
    path.parent.mkdir(exist_ok=True, parents=True)
    new = path.with_suffix(".new")
    result |= {"versions": package_versions(), "date": time.strftime("%Y-%m-%d")}
    new.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    new.replace(path)


def version(code: Path | None) -> dict[str, str]:
    """Of a checkout: its commit, and the digest of its `tfpipe/`; + where files differ. Empty: no code."""
    if code is None:
        return {}

    def git(*asked: str) -> str:
        command = ["git", "-C", str(code), *asked]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    changed = "+" if git("status", "--porcelain", "tfpipe") else ""
    return {"commit": git("rev-parse", "--short", "HEAD") + changed, "code": git("rev-parse", "HEAD:tfpipe") + changed}


def peer_versions(python: Path) -> dict[str, str]:
    names = ("torch", "transformers", "optimum-onnx", "onnxruntime")
    script = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
    return json.loads(subprocess.run([python, "-c", script], check=True, capture_output=True).stdout)


def summary(turns: Turns, skipped: int = 0) -> dict[str, dict[str, float]]:
    """Contestant -> medians over the turns that count: done, after the first ones, with the machine at its rate."""
    turns = [each for each in turns if "error" not in each and each["round"] >= skipped]
    best, found = max((each["rate"] for each in turns), default=0.0), {}
    for name in (each.name for each in CONTESTANTS):
        own = [each for each in turns if each["contestant"] == name]
        own = [each for each in own if each["rate"] >= LEAST_RATE * best] or own
        if own:
            found[name] = {
                key: round(statistics.median(each[key] for each in own), 3) for key in ("seconds", "processor_seconds")
            } | {"counted": len(own)}
    return found


def rates(found: dict[str, dict[str, float]], texts: int) -> dict[str, dict[str, float]]:
    """The same with texts per second."""
    return {
        name: each
        | {
            "texts_per_second": round(texts / each["seconds"], 1),
            "texts_per_processor_second": round(texts / each["processor_seconds"], 1),
        }
        for name, each in found.items()
    }


def ratios(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Contestant of tfpipe -> other contestant -> how many times its texts per processor second."""
    seconds = {name: each["processor_seconds"] for name, each in found.items()}
    return {
        name: {other: round(its / seconds[name], 2) for other, its in seconds.items() if other != name}
        for name in seconds
        if name.startswith("tfpipe")
    }


def agreement(places: Places, known: dict[str, float]) -> dict[str, float]:
    """`A | B` -> the share of texts with the same label, of what contestants wrote last, or of what was known."""
    found = {each.name: labels_of(path) for each in CONTESTANTS if (path := places.output(each)).is_file()}
    return known | {
        f"{one} | {other}": round(float(np.mean(np.array(found[one]) == np.array(found[other]))), 4)
        for one, other in itertools.combinations(found, 2)
    }


def differing(agreed: dict[str, float]) -> dict[str, float]:
    """The pairs of contestants that ask one int8 model in one precision, and yet differ in too many labels."""
    alike = {each.name for each in CONTESTANTS if each.int8_of_tfpipe}
    return {k: value for k, value in agreed.items() if value < LEAST_AGREEMENT and alike.issuperset(k.split(" | "))}


def print_run(result: dict[str, Any]) -> None:
    """The table of `run` as Markdown, and the goals."""
    found, agreed, compared = result["summary"], result["agreement"], ("before", "pipeline", "pipeline sorted")
    titles = ["", "seconds", "processor s", "texts/s", "texts per processor s", *(f"× {each}" for each in compared)]
    print(f"| {' | '.join([*titles, 'same labels %'])} |\n" + "|---" * (len(titles) + 1) + "|")
    for name, each in found.items():
        own = each["processor_seconds"]
        cells = [name, f"{each['seconds']:.1f}", f"{own:.1f}"]
        cells += [f"{each['texts_per_second']:.0f}", f"{each['texts_per_processor_second']:.0f}"]
        cells += [f"{found[other]['processor_seconds'] / own:.2f}" if other in found else "" for other in compared]
        share = agreed.get(f"{name} | {REFERENCE}", agreed.get(f"{REFERENCE} | {name}"))
        print(f"| {' | '.join([*cells, '' if share is None else f'{share * 100:.2f}'])} |")
    for other, goal in GOALS.items():
        best = max(((own[other], name) for name, own in result["ratios"].items() if other in own), default=None)
        if best is not None:
            print(f"{best[1]} against {other}: {best[0]:.2f} (goal {goal:g}: {'met' if best[0] >= goal else 'missed'})")


def print_sentence(found: dict[str, dict[str, float]]) -> None:
    """The table of `sentence` as Markdown, and the goals."""
    before = found.get("before", {}).get("seconds")
    print("| | seconds | processor s | of before |\n|---|---|---|---|")
    for name, each in found.items():
        share = f"{each['seconds'] / before:.3f}" if before else ""
        print(f"| {name} | {each['seconds']:.2f} | {each['processor_seconds']:.2f} | {share} |")
    best = min((each["seconds"] for name, each in found.items() if name.startswith("tfpipe")), default=None)
    if best is not None and before:
        met = best <= MOST_SECONDS and best <= MOST_SHARE * before
        print(f"best {best:.2f} s, {best / before:.3f} of before (goals {MOST_SECONDS:g} s and {MOST_SHARE:.3f}: "
              f"{'met' if met else 'missed'})")  # fmt: skip


def error_of(turns: Turns, contestants: list[Contestant]) -> str:
    """The contestants of whom a turn failed, and why; empty: none."""
    names = {each.name for each in contestants}
    failed = [each for each in turns if "error" in each and each["contestant"] in names]
    return "; ".join(dict.fromkeys(f"{each['contestant']}: {each['error']}" for each in failed))
