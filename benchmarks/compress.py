"""Every way to compress, on one dense model a seed: accuracy on the same test rows, size, latency of all files in turn.

    .venv/bin/python benchmarks/compress.py make rotten_tomatoes --seeds 0 1 2
    .venv/bin/python benchmarks/compress.py measure rotten_tomatoes --seeds 0 1 2
    .venv/bin/python benchmarks/compress.py make imdb && .venv/bin/python benchmarks/compress.py measure imdb

`make` brings a run of each point up to `export`; what points share is done once, and a killed one goes on. `measure`
lets every ONNX file answer the test rows, and then times the first seed's files in one process, in turn, for some
minutes: nothing else should run meanwhile. Differences of accuracy are paired, pooled over seeds (each seed splits the
rows otherwise), with 95 % intervals. A shared machine is now slower, now faster, and not equally for all: the medians
and the fastest tenths of the calls are given. Writes benchmarks/results/compress_*.json and .svg, and prints the table.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from tfpipe import metrics, pipeline
from tfpipe.artifacts import format_named
from tfpipe.config.file import load_config
from tfpipe.evaluate.full_batch import full_batch, timing_tokenizer
from tfpipe.evaluate.loaded import batches_of
from tfpipe.provenance import machine, package_versions
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools.pareto import marked, plot

RESULTS = Path(__file__).parent / "results"
SHAPES = {"1x32": (1, 32), "1x128": (1, 128), "32x64": (32, 64)}
THREADS = 2
SECONDS = {"1x32": 20, "1x128": 40, "32x64": 240}
BATCH = 32

DATA = {
    "rotten_tomatoes": ("configs/quickstart.yaml", []),
    # 5,000 training rows; a sample of 2,500 of the test rows is answered
    "imdb": (
        "configs/imdb.yaml",
        ["data.split={train: 0.2005, validation: 0.04, test: 0.7595}", "quantize.epochs=0.5"],
    ),
}
TEST_ROWS = 2500

# What is pruned hard has much to learn again; what is pruned by structure, least.
STRONG = ["prune.epochs=3", "prune.learning_rate=2.0e-4"]
GENTLE = ["prune.epochs=1", "prune.learning_rate=5.0e-5"]
POINTS = {
    # nothing is smaller here: what training once more, as STRONG does, is worth by itself
    "dense, taught once more": [
        "prune=null",
        "distill.student={layers: [0, 1, 2, 3, 4, 5], epochs: 3, learning_rate: 2.0e-4}",
        "quantize=null",
    ],
    "weight_only": ["prune=null", "quantize={mode: weight_only}"],
    "ptq": ["prune=null", "quantize={mode: ptq}"],
    "ptq percentile": ["prune=null", "quantize={mode: ptq, calibration: percentile}"],
    "ptq, 3 layers float": ["prune=null", "quantize={mode: ptq, float_layers: 3}"],
    "qat": ["prune=null"],
    "qat, no teacher": ["prune=null", "distill=null"],
    "magnitude 50, defaults": ["quantize=null"],
    "magnitude 50, defaults, no teacher": ["quantize=null", "distill=null"],
    "magnitude 50": [*STRONG, "quantize=null"],
    "two_four, defaults": ["prune={method: two_four}", "quantize=null"],
    "two_four": ["prune={method: two_four}", *STRONG, "quantize=null"],
    "magnitude 80": ["prune.sparsity=0.8", *STRONG, "quantize=null"],
    "magnitude 80, no teacher": ["prune.sparsity=0.8", *STRONG, "quantize=null", "distill=null"],
    "structured 30 + qat": ["prune={method: structured, sparsity: 0.3}", *GENTLE],
    "structured 50 + qat": ["prune={method: structured, sparsity: 0.5}", *GENTLE],
    "structured 50 + qat, no teacher": ["prune={method: structured, sparsity: 0.5}", *GENTLE, "distill=null"],
    "structured 50 + ptq": ["prune={method: structured, sparsity: 0.5}", *GENTLE, "quantize={mode: ptq}"],
    "structured 70 + qat": ["prune={method: structured, sparsity: 0.7}", *STRONG],
    "structured 85 + qat": ["prune={method: structured, sparsity: 0.85}", *STRONG],
    "3 layers distilled + qat": ["prune=null", "distill.student.layers=[1, 3, 5]"],
    "3 layers distilled, structured 50 + qat": [
        "prune={method: structured, sparsity: 0.5}",
        *STRONG,
        "distill.student.layers=[1, 3, 5]",
    ],
}


def runs_of(data: str, directory: Path, seed: int, only: str) -> dict[str, tuple[Any, RunDirectory]]:
    """Label -> configuration and run directory of every point of a seed."""
    path, overrides = DATA[data]
    found = {}
    for label, settings in POINTS.items():
        if re.search(only, label):
            config = load_config(path, [*overrides, *settings, f"seed={seed}"])
            name = re.sub(r"[^a-z0-9]+", "-", label)
            found[label] = config, RunDirectory(directory / data / f"seed-{seed}" / name)
    return found


def make(data: str, directory: Path, seeds: list[int], only: str) -> None:
    """Brings every point's run up to `export`."""
    for seed in seeds:
        runs = runs_of(data, directory, seed, only)
        others = [run for _, run in runs_of(data, directory, seed, "").values()]
        for label, (config, run) in runs.items():
            started = time.monotonic()
            print(f"== {data}, seed {seed}: {label}", flush=True)
            pipeline.run(config, run, until="export", others=others)
            print(f"== {data}, seed {seed}: {label}: {time.monotonic() - started:.0f} s", flush=True)


def measure(data: str, directory: Path, seeds: list[int], only: str) -> None:
    """Answers, times, writes, prints."""
    measured = [_answers_of_seed(runs_of(data, directory, seed, only)) for seed in seeds]
    made = runs_of(data, directory, seeds[0], "").values()
    config, run = next((config, run) for config, run in made if run.record("export") is not None)
    latency = _latencies({key: row["file"] for key, row in measured[0].items()}, run.path, config.seed)
    keys = dict.fromkeys(key for each in measured for key in each)
    rows = [
        _pooled([each[key] for each in measured if key in each], latency[key], latency["", "dense"]) for key in keys
    ]
    whole = [row for row in rows if row["seeds"] == len(seeds)]  # means of other seeds can't be compared with them
    on = {(row["point"], row["variant"]): row for row in marked(whole)}
    neither = {"on_speed_front": False, "on_size_front": False}
    rows = [on.get((row["point"], row["variant"]), row | neither) for row in rows]
    RESULTS.mkdir(exist_ok=True)
    result = {
        "data": data,
        "seeds": seeds,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "versions": package_versions(),
        "threads": THREADS,
        "rows": rows,
    }
    (RESULTS / f"compress_{data}.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(list(on.values()), RESULTS / f"compress_{data}.svg")
    _print(rows)


def _answers_of_seed(runs: dict[str, tuple[Any, RunDirectory]]) -> dict[tuple[str, str], dict[str, Any]]:
    found, before = {}, {}
    for label, (config, run) in runs.items():
        if run.record("export") is None:  # not every point was made for every seed
            continue
        prepared = run.path / "prepare"
        tables = {name: TokenTable.open(prepared / name) for name in ("validation", "test")}
        for variant in config.variants:
            if variant == "dense" and before:
                continue
            onnx, saved_model = format_named("onnx"), format_named("saved_model")
            artifact, served = (run.path / "export" / variant / each.path for each in (onnx, saved_model))
            answer = onnx.code.load(artifact, THREADS)[0].ask
            right = {}
            for name, table in tables.items():
                rows = table.sample(TEST_ROWS, config.seed)
                logits = np.zeros((len(rows), table.num_labels), np.float32)
                for chunk, batch in batches_of(table, rows, BATCH):
                    logits[np.searchsorted(rows, chunk)] = answer(batch)
                right[name] = metrics.correct(logits, table.labels[rows], config.task)
            if variant == "dense":
                label_shown, before = "", right
            else:
                label_shown = label
            key = (label_shown, variant)
            found[key] = {
                "point": label_shown,
                "variant": variant,
                "file": str(artifact),
                "right": right["test"],
                "before": before["test"],
                "validation_accuracy": float(right["validation"].mean()),
                "size_bytes": onnx.code.size_bytes(artifact),
                "saved_model_bytes": saved_model.code.size_bytes(served),
            }
            print(f"{label_shown or 'dense'} {variant}: {right['test'].mean():.4f}", flush=True)
    return found


def _latencies(files: dict[Any, str], run: Path, seed: int) -> dict[Any, dict[str, dict[str, float]]]:
    """Key -> shape -> milliseconds of the median and of the fastest tenth of the calls, on a run's test rows."""
    table = TokenTable.open(run / "prepare" / "test")
    tokenizer = timing_tokenizer(TokenizerSettings.read(run / "train"))
    answers = {key: format_named("onnx").code.load(Path(file), THREADS)[0].ask for key, file in files.items()}
    result: dict[Any, dict[str, dict[str, float]]] = {key: {} for key in answers}
    for shape, size in SHAPES.items():
        batch = full_batch(table, tokenizer, *size, pairs=False, seed=seed)
        seconds, started = {key: [] for key in answers}, time.monotonic()
        while time.monotonic() - started < SECONDS[shape]:
            for key, answer in answers.items():
                before = time.perf_counter()
                answer(batch)
                seconds[key].append((time.perf_counter() - before) * 1000)
        for key, values in seconds.items():
            counted = values[2:]  # the first allocate
            result[key][shape] = {"median": float(np.median(counted)), "fastest": float(np.percentile(counted, 10))}
    return result


def _pooled(each: list[dict[str, Any]], latency: dict[str, Any], dense: dict[str, Any]) -> dict[str, Any]:
    """One point over its seeds: rows pooled, sizes as medians."""
    right, before = (np.concatenate([one[name] for one in each]) for name in ("right", "before"))
    change, low, high = metrics.paired_change(right, before)
    speedups = {shape: {kind: dense[shape][kind] / value for kind, value in latency[shape].items()} for shape in SHAPES}
    return {
        "point": each[0]["point"],
        "variant": each[0]["variant"],
        "rows": len(right),
        "accuracy": float(right.mean()),
        "seeds": len(each),
        "accuracy_by_seed": [float(one["right"].mean()) for one in each],
        "accuracy_change": change,
        "accuracy_change_95": [low, high],
        "validation_accuracy": float(np.mean([one["validation_accuracy"] for one in each])),
        "size_bytes": int(np.median([one["size_bytes"] for one in each])),
        "saved_model_bytes": int(np.median([one["saved_model_bytes"] for one in each])),
        "latency_ms": latency,
        "speedup": speedups["32x64"]["fastest"],
        "speedups": speedups,
        "within_budget": True,
        "agrees": True,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    headings = (
        "point",
        "variant",
        "seeds",
        "validation %",
        "test %",
        "against dense",
        "MB",
        "SavedModel MB",
        *SHAPES,
        "front",
    )
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for row in rows:
        low, high = row["accuracy_change_95"]
        change = f"{row['accuracy_change'] * 100:+.2f} ({low * 100:+.2f} to {high * 100:+.2f})"
        cells = [
            row["point"],
            row["variant"],
            str(row["seeds"]),
            f"{row['validation_accuracy'] * 100:.2f}",
            f"{row['accuracy'] * 100:.2f}",
            change if row["point"] else "",
            f"{row['size_bytes'] / 1e6:.1f}",
            f"{row['saved_model_bytes'] / 1e6:.1f}",
            *(
                f"{row['latency_ms'][shape]['median']:.2f} / {row['latency_ms'][shape]['fastest']:.2f} "
                f"({row['speedups'][shape]['median']:.2f}×)"
                for shape in SHAPES
            ),
            ", ".join(name for name in ("speed", "size") if row[f"on_{name}_front"]),
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "measure"))
    parser.add_argument("data", choices=tuple(DATA))
    parser.add_argument("--directory", type=Path, default=Path("runs/compress"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", default="", help="regular expression: points whose label matches")
    given = parser.parse_args()
    {"make": make, "measure": measure}[given.what](given.data, given.directory, given.seeds, given.only)
