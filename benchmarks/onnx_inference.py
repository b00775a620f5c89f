"""tfpipe's ONNX files against optimum-onnx's from the same weights: latency and accuracy, in one process, alternating.

    python3 -m venv .venv-peer && .venv-peer/bin/pip install -r benchmarks/onnx_inference.requirements.txt
    .venv-peer/bin/python benchmarks/onnx_inference.py runs/quickstart

The peer exports the run's dense classifier (`train/` is in the transformers layout) and quantizes it dynamically
(`avx512_vnni`, per channel). Two threads each; per shape the four files take turns, one session alive at a time;
medians and fastest tenths are compared. Accuracy is over the run's test rows in batches of 32 of similar length. Writes
benchmarks/results/onnx_inference.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa

SHAPES = {"1x32": (1, 32), "1x128": (1, 128), "32x64": (32, 64)}
THREADS = 2
ROUNDS = 7
SHARES = {"median": 50, "fastest_tenth": 10}
Session = onnxruntime.InferenceSession
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def export_peer(source: Path, directory: Path) -> dict[str, Path]:
    """The peer's float32 and int8 files, by its documented calls."""
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    ORTModelForSequenceClassification.from_pretrained(source, export=True).save_pretrained(directory / "float32")
    quantizer = ORTQuantizer.from_pretrained(directory / "float32")
    settings = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    quantizer.quantize(save_dir=directory / "int8", quantization_config=settings)
    return {
        "peer float32": directory / "float32" / "model.onnx",
        "peer int8": directory / "int8" / "model_quantized.onnx",
    }


def open_session(path: Path) -> Session:
    """A session as a user makes it, on two threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answer(session: Session, tokens: dict[str, np.ndarray]) -> np.ndarray:
    """Logits of a batch."""
    return session.run(["logits"], tokens)[0]


def rows_of(run: Path, split: str) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Reads ids, token types and labels of a split."""
    ids, types, labels = [], [], []
    for path in sorted((run / "prepare" / split).glob("part-*.arrow")):
        with pa.ipc.open_file(path) as reader:
            shard = reader.get_batch(0).to_pydict()
        ids += [np.array(row) for row in shard["input_ids"]]
        types += [np.array(row) for row in shard["token_type_ids"]]
        labels += shard["labels"]
    return ids, types, np.array(labels).argmax(axis=1)


def accuracy(session: Session, run: Path) -> float:
    """Share of the test rows whose label is right."""
    ids, types, labels = rows_of(run, "test")
    order = np.argsort([len(row) for row in ids], kind="stable")
    right = 0
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        length = max(len(ids[row]) for row in rows)
        tokens = {name: np.zeros((len(rows), length), np.int64) for name in INPUTS}
        for place, row in enumerate(rows):
            tokens["input_ids"][place, : len(ids[row])] = ids[row]
            tokens["token_type_ids"][place, : len(ids[row])] = types[row]
            tokens["attention_mask"][place, : len(ids[row])] = 1
        right += int((answer(session, tokens).argmax(axis=1) == labels[rows]).sum())
    return right / len(labels)


def latencies(files: dict[str, Path], batch: int, length: int, runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each file over `ROUNDS` rounds, in which they take turns in changing order.

    The median is what a caller meets on this machine; the fastest tenth is what is left of it where nothing else asks
    for the processor. Where the two are far apart, the machine was busy.

    One session lives at a time: the idle threads of another go on spinning for a while and take its processor away.
    """
    random = np.random.default_rng(0)
    tokens = {
        "input_ids": random.integers(1000, 30000, (batch, length)),
        "attention_mask": np.ones((batch, length), np.int64),
        "token_type_ids": np.zeros((batch, length), np.int64),
    }
    seconds: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(ROUNDS):
        for name in random.permutation(list(files)):
            session = open_session(files[name])
            for number in range(runs + 3):
                started = time.perf_counter()
                answer(session, tokens)
                if number >= 3:
                    seconds[name].append(time.perf_counter() - started)
            del session
    return {
        share: {name: round(float(np.percentile(values, percent)) * 1000, 3) for name, values in seconds.items()}
        for share, percent in SHARES.items()
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run of tfpipe")
    parser.add_argument("--runs", type=int, default=30, help="timed calls per file, shape and round (a fifth at 32x64)")
    arguments = parser.parse_args()
    ours = {
        "tfpipe float32": arguments.run / "export" / "dense" / "onnx" / "onnx" / "model.onnx",
        "tfpipe int8": arguments.run / "export" / "int8" / "onnx" / "onnx" / "model_quantized.onnx",
    }
    with tempfile.TemporaryDirectory() as directory:
        files = ours | export_peer(arguments.run / "train", Path(directory))
        sizes = {name: path.stat().st_size for name, path in files.items()}
        table = {}
        for shape, (batch, length) in SHAPES.items():
            runs = arguments.runs if batch == 1 else max(arguments.runs // 5, 3)
            table[shape] = latencies(files, batch, length, runs)
        scores = {name: round(accuracy(open_session(path), arguments.run), 4) for name, path in files.items()}

    def ratio(row: dict[str, float], kind: str) -> float:
        return round(row[f"tfpipe {kind}"] / row[f"peer {kind}"], 3)

    ratios = {
        share: {kind: {shape: ratio(row[share], kind) for shape, row in table.items()} for kind in ("float32", "int8")}
        for share in SHARES
    }
    described = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next(line.split(":", 1)[1].strip() for line in described if line.startswith("model name"))
    packages = ("onnxruntime", "optimum-onnx", "torch", "transformers", "numpy")
    result = {
        "latency_ms": table,
        "ratio": ratios,
        "accuracy": scores,
        "size_bytes": sizes,
        "threads": THREADS,
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
        "processor": processor,
        "date": time.strftime("%Y-%m-%d"),
    }
    target = Path(__file__).parent / "results" / "onnx_inference.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for share in SHARES:
        print(f"{share:<16}" + "".join(f"{shape:>10}" for shape in SHAPES) + f"{'accuracy':>10}{'MB':>8}")
        for name in files:
            cells = "".join(f"{table[shape][share][name]:>10.2f}" for shape in SHAPES)
            print(f"{name:<16}{cells}{scores[name]:>10.4f}{sizes[name] / 1e6:>8.1f}")
        for kind, row in ratios[share].items():
            print(f"{'ratio ' + kind:<16}" + "".join(f"{row[shape]:>10.2f}" for shape in SHAPES))
    print(f"written: {target}")


if __name__ == "__main__":
    main()
