"""tfpipe's artifacts and its peers' files, each in the runtimes that open it: time, accuracy, agreement.

    tfpipe run configs/quickstart.yaml --set 'export.formats=[saved_model,onnx,openvino,litert]'
    python3 -m venv .venv-peer && .venv-peer/bin/pip install -r benchmarks/runtimes.requirements.txt
    .venv-peer/bin/python benchmarks/runtimes.py runs/quickstart

The peers start from the run's dense classifier (`train/` is in the transformers layout): transformers' own exporters
(ONNX with its fusions, ONNX Runtime's dynamic int8, NNCF's int8 on ONNX and on OpenVINO, calibrated on 300 training
rows) and, with `--optimum PYTHON` of an environment with `benchmarks/onnx_inference.requirements.txt`, optimum-onnx.
`--more NAME=RUN` adds the int8 artifacts of another run; `--without-peers` leaves the peers out.

All contestants run in this process, on two threads (`--threads`), and take turns in changing order. Before each turn a
probe measures the rate of a matrix product: turns at less than 85 % of the best rate do not count. The fastest tenth
and the median count, with processor time beside the clock. The loop is over the run's test rows in batches of 32,
sorted by length and
padded to a multiple of 16. Labels and logits are compared with the Keras model that a file was made of, as `verify` has
kept its answers. Static OpenVINO programs are compiled for each shape before the clock starts. It refuses to
begin while the machine has other work (a load above 0.3). Writes benchmarks/results/runtimes.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import openvino
from ai_edge_litert.interpreter import Interpreter
from machine_state import LEAST_RATE, probe, wait_for_quiet
from onnx_inference import INPUTS, SHAPES, rows_of
from safetensors.numpy import load_file

SETTINGS = {"threads": 2}
"""of this run"""
ROUNDS = 9
STEP = 16
"""tokens: lengths of the loop are multiples of it"""
Tokens = dict[str, np.ndarray]
Ask = Callable[[Tokens], np.ndarray]


class Contestant(NamedTuple):
    """A file in a runtime."""

    name: str
    runtime: str
    ask: Ask
    size_bytes: int
    expected: np.ndarray
    """[rows, labels] float32: what the Keras model answers that it was made of"""


def onnx_runtime(path: Path) -> Ask:
    """A session on two threads, which stop spinning when a call ends, as another contestant comes next."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = SETTINGS["threads"], 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda tokens: session.run(["logits"], {name: tokens[name] for name in names})[0]


def open_vino(path: Path, *, static: bool, precision: str | None) -> Ask:
    """Programs of a model: one of open dimensions, or one for each shape that is asked.

    Args:
      path: an IR or an ONNX file.
      static: whether each shape has a program of its own.
      precision: the hint; None: OpenVINO's default, bfloat16 where the processor multiplies it.
    """
    model = openvino.Core().read_model(str(path))
    settings = {"INFERENCE_NUM_THREADS": SETTINGS["threads"], "PERFORMANCE_HINT": "LATENCY"}
    settings |= {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    programs: dict[tuple[int, ...], tuple[openvino.InferRequest, list[str]]] = {}

    def ask(tokens: Tokens) -> np.ndarray:
        shape = tokens["input_ids"].shape if static else (-1, -1)
        if shape not in programs:
            own = model.clone()
            own.reshape({each.any_name: list(shape) for each in own.inputs})
            names = [each.any_name for each in own.inputs]
            programs[shape] = openvino.compile_model(own, "CPU", settings).create_infer_request(), names
        program, names = programs[shape]
        program.infer({name: tokens[name] for name in names})
        return program.get_output_tensor(0).data.copy()

    return ask


def litert(path: Path) -> Ask:
    """An interpreter on two threads, given the shape of each call."""
    interpreter = Interpreter(str(path), num_threads=SETTINGS["threads"])
    details = interpreter.get_signature_runner("serving_default").get_input_details()
    logits = interpreter.get_signature_runner("serving_default").get_output_details()["logits"]["index"]
    shape: list[tuple[int, ...]] = [()]

    def ask(tokens: Tokens) -> np.ndarray:
        if tokens["input_ids"].shape != shape[0]:
            shape[0] = tokens["input_ids"].shape
            for name in INPUTS:
                interpreter.resize_tensor_input(details[name]["index"], shape[0])
            interpreter.allocate_tensors()
        for name in INPUTS:
            interpreter.set_tensor(details[name]["index"], tokens[name].astype(np.int32))
        interpreter.invoke()
        return interpreter.get_tensor(logits)

    return ask


def sorted_batches(run: Path, split: str, size: int = 32) -> Iterator[tuple[np.ndarray, Tokens]]:
    """Numbers of rows, and their tokens, padded to a multiple of `STEP`."""
    ids, types, _ = rows_of(run, split)
    order = np.argsort([len(row) for row in ids], kind="stable")
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        length = -(-max(len(ids[row]) for row in rows) // STEP) * STEP
        tokens = {name: np.zeros((len(rows), length), np.int64) for name in INPUTS}
        for place, row in enumerate(rows):
            tokens["input_ids"][place, : len(ids[row])] = ids[row]
            tokens["token_type_ids"][place, : len(ids[row])] = types[row]
            tokens["attention_mask"][place, : len(ids[row])] = 1
        yield rows, tokens


def answers_of_keras(run: Path, variant: str) -> np.ndarray:
    """Reads what `verify` has kept of the Keras model of a variant.

    Raises:
      SystemExit: `verify` has asked a sample of the rows alone.
    """
    kept = load_file(run / "verify" / "logits.safetensors")
    if len(kept["rows"]) < len(rows_of(run, "test")[2]):
        sys.exit(f"{run}: verify has asked a sample of the test rows; raise verify.rows")
    return kept[f"{variant}.keras"]


def ours(run: Path, name: str, variants: tuple[str, ...]) -> Iterator[Contestant]:
    """The artifacts of a run."""
    for variant in variants:
        exported, own, expected = run / "export" / variant, f"{name} {variant}", answers_of_keras(run, variant)
        onnx = next((exported / "onnx" / "onnx").glob("model*.onnx"))
        yield Contestant(own, "ONNX Runtime", onnx_runtime(onnx), size(onnx), expected)
        ir = exported / "openvino" / "openvino_model.xml"
        for precision in ("f32", "bf16"):
            ask = open_vino(ir, static=True, precision=precision)
            yield Contestant(own, f"OpenVINO static {precision}", ask, size(ir.with_suffix(".bin")), expected)
        file = exported / "litert" / "model.tflite"
        yield Contestant(own, "LiteRT", litert(file), size(file), expected)


def size(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size


def peers(run: Path, directory: Path, optimum: Path | None) -> Iterator[Contestant]:
    """The peers' files, by their documented calls."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.exporters.configs import OnnxConfig, OpenVINOConfig
    from transformers.exporters.exporter_onnx import OnnxExporter
    from transformers.exporters.exporter_openvino import OpenVINOExporter
    from transformers.exporters.quantizers import NNCFOnnxQuantizer, NNCFOpenVINOQuantizer, OnnxRuntimeQuantizer
    from transformers.exporters.quantizers.quantizer_nncf import NNCFQuantizationConfig
    from transformers.exporters.quantizers.quantizer_onnxruntime import OnnxRuntimeDynamicConfig

    expected = answers_of_keras(run, "dense")
    ids, types, _ = rows_of(run, "train")

    def tensors(row: int) -> dict[str, torch.Tensor]:
        found = {"input_ids": ids[row], "attention_mask": np.ones_like(ids[row]), "token_type_ids": types[row]}
        return {name: torch.tensor(value[None], dtype=torch.int64) for name, value in found.items()}

    sample = {
        name: value.repeat(2, 1) for name, value in tensors(max(range(300), key=lambda row: len(ids[row]))).items()
    }
    calibration = [tensors(row) for row in range(300)]
    nncf_int8 = NNCFQuantizationConfig(model_type="transformer")
    plans = {
        "transformers float": (OnnxExporter, OnnxConfig(dynamic=True, ort_fusions="cpu")),
        "transformers dynamic int8": (
            OnnxExporter,
            OnnxConfig(dynamic=True, quantizer=OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(per_channel=True))),
        ),
        "transformers NNCF int8": (
            OnnxExporter,
            OnnxConfig(dynamic=True, quantizer=NNCFOnnxQuantizer(nncf_int8, calibration_dataset=calibration)),
        ),
        "transformers NNCF int8 IR": (
            OpenVINOExporter,
            OpenVINOConfig(dynamic=True, quantizer=NNCFOpenVINOQuantizer(nncf_int8, calibration_dataset=calibration)),
        ),
    }
    for name, (exporter, config) in plans.items():
        model = AutoModelForSequenceClassification.from_pretrained(run / "train").eval()
        target = directory / name.replace(" ", "-")
        exporter().export(model, dict(sample), config=config).save_pretrained(target)
        if exporter is OnnxExporter:
            (file,) = target.glob("*.onnx")
            total = sum(each.stat().st_size for each in target.glob("*.onnx*"))
            yield Contestant(name, "ONNX Runtime", onnx_runtime(file), total, expected)
        else:
            (file,) = target.glob("*.xml")
            for static, precision in ((False, None), (True, None), (True, "f32")):
                runtime = f"OpenVINO {'static' if static else 'open'} {precision or 'default'}"
                ask = open_vino(file, static=static, precision=precision)
                yield Contestant(name, runtime, ask, size(file.with_suffix(".bin")), expected)
    if optimum is not None:
        script = (
            "import sys; sys.path.insert(0, 'benchmarks'); from pathlib import Path; import onnx_inference as own; "
            "own.export_peer(Path(sys.argv[1]), Path(sys.argv[2]))"
        )
        subprocess.run([optimum, "-c", script, run / "train", directory / "optimum"], check=True)
        for name, file in (("float32", "float32/model.onnx"), ("int8", "int8/model_quantized.onnx")):
            path = directory / "optimum" / file
            yield Contestant(f"optimum-onnx {name}", "ONNX Runtime", onnx_runtime(path), size(path), expected)


DENSE = "tfpipe dense"


class Timed(NamedTuple):
    """One timed call."""

    seconds: float
    processor_seconds: float
    rate: float
    """of the probe before its turn"""


def turns(contestants: list[Contestant], calls: list[Tokens], repeats: int, rounds: int) -> dict[int, list[Timed]]:
    """Times contestants in turns: number of the contestant -> one entry a repeat, in which all calls are made once."""
    random, found = np.random.default_rng(0), defaultdict(list)
    for contestant in contestants:  # compiles, allocates
        for tokens in calls:
            contestant.ask(tokens)
    for _ in range(rounds):
        for number in random.permutation(len(contestants)):
            ask, rate = contestants[number].ask, probe()
            ask(calls[0])
            for _ in range(repeats):
                started, used = time.perf_counter(), time.process_time()
                for tokens in calls:
                    ask(tokens)
                found[int(number)].append(Timed(time.perf_counter() - started, time.process_time() - used, rate))
    best = max(each.rate for values in found.values() for each in values)
    return {
        number: [each for each in values if each.rate >= LEAST_RATE * best] or values
        for number, values in found.items()
    }


def summary(values: list[Timed]) -> dict[str, float]:
    """Milliseconds: fastest tenth, median, and processor time."""
    seconds = [each.seconds for each in values]
    return {
        "fastest_tenth_ms": round(float(np.percentile(seconds, 10)) * 1000, 3),
        "median_ms": round(float(np.median(seconds)) * 1000, 3),
        "processor_ms": round(float(np.percentile([each.processor_seconds for each in values], 10)) * 1000, 3),
        "counted": len(values),
    }


def random_tokens(batch: int, length: int) -> Tokens:
    """A full batch."""
    ids = np.random.default_rng(0).integers(1000, 20000, (batch, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run of tfpipe with all four formats")
    parser.add_argument("--more", action="append", default=[], metavar="NAME=RUN", help="int8 of another run")
    parser.add_argument("--optimum", type=Path, metavar="PYTHON", help="of an environment with optimum-onnx")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--threads", type=int, default=SETTINGS["threads"])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--wait", type=float, default=0.0, metavar="MINUTES", help="for other work to end")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "runtimes.json")
    arguments = parser.parse_args()
    SETTINGS["threads"] = arguments.threads
    with tempfile.TemporaryDirectory() as directory:
        contestants = [*ours(arguments.run, "tfpipe", ("dense", "int8"))]
        for name, _, run in (each.partition("=") for each in arguments.more):
            contestants += ours(Path(run), name, ("int8",))
        if not arguments.without_peers:
            contestants += peers(arguments.run, Path(directory), arguments.optimum)
        _, _, labels = rows_of(arguments.run, "test")
        batches = [*sorted_batches(arguments.run, "test")]
        wait_for_quiet(arguments.wait)
        logits = [np.zeros((len(labels), labels.max() + 1), np.float32) for _ in contestants]
        for contestant, found in zip(contestants, logits, strict=True):
            for rows, tokens in batches:
                found[rows] = contestant.ask(tokens)
        measured = {
            shape: turns(contestants, [random_tokens(*dimensions)], 20 if dimensions[0] == 1 else 3, arguments.rounds)
            for shape, dimensions in SHAPES.items()
        }
        measured["loop"] = turns(contestants, [tokens for _, tokens in batches], 1, max(arguments.rounds // 2, 3))
    dense = next(number for number, each in enumerate(contestants) if each.name == DENSE)
    entries = []
    for number, contestant in enumerate(contestants):
        chosen = logits[number].argmax(axis=1)
        times = {shape: summary(found[number]) for shape, found in measured.items()}
        entries.append(
            {
                "file": contestant.name,
                "runtime": contestant.runtime,
                "accuracy": round(float((chosen == labels).mean()), 4),
                "same_labels": round(float((chosen == contestant.expected.argmax(axis=1)).mean()), 4),
                "max_logit_diff": float(np.abs(logits[number] - contestant.expected).max()),
                "size_bytes": contestant.size_bytes,
                "times": times,
                "processor_speedup_over_dense": {
                    shape: round(summary(found[dense])["processor_ms"] / times[shape]["processor_ms"], 2)
                    for shape, found in measured.items()
                },
                "speedup_over_dense": {
                    shape: round(summary(found[dense])["fastest_tenth_ms"] / times[shape]["fastest_tenth_ms"], 2)
                    for shape, found in measured.items()
                },
            }
        )
    packages = ("onnxruntime", "openvino", "ai-edge-litert", "nncf", "torch", "transformers", "numpy")
    described = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    result = {
        "artifacts": entries,
        "best_peer": {} if arguments.without_peers else best_of(entries, "transformers", "optimum"),
        "best_tfpipe_int8": best_of(entries, "tfpipe int8"),
        "threads": SETTINGS["threads"],
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
        "processor": next(line.split(":", 1)[1].strip() for line in described if line.startswith("model name")),
        "date": time.strftime("%Y-%m-%d"),
    }
    result["ratio_to_best_peer"] = {
        shape: round(found["ms"] / result["best_peer"][shape]["ms"], 3)
        for shape, found in result["best_tfpipe_int8"].items()
        if shape in result["best_peer"]
    }
    arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print_table(entries)
    print("ratio to the best peer: " + "  ".join(f"{k} {v:.3f}" for k, v in result["ratio_to_best_peer"].items()))
    print(f"written: {arguments.json}")


def best_of(entries: list[dict], *names: str) -> dict[str, dict]:
    """Shape -> the fastest of the contestants whose name begins so, by its fastest tenth."""
    own = [each for each in entries if each["file"].startswith(names)]
    found = {}
    for shape in own[0]["times"]:
        best = min(own, key=lambda each: each["times"][shape]["fastest_tenth_ms"])
        found[shape] = {
            "file": best["file"],
            "runtime": best["runtime"],
            "ms": best["times"][shape]["fastest_tenth_ms"],
            "accuracy": best["accuracy"],
        }
    return found


def print_table(entries: list[dict]) -> None:
    """The table, as Markdown."""
    shapes = [*entries[0]["times"]]
    headings = [
        "file",
        "runtime",
        "accuracy %",
        "same labels %",
        "Δlogit",
        "MB",
        *(f"{s} ms (× dense)" for s in shapes),
    ]
    print(f"| {' | '.join(headings)} |")
    print("|" + "---|" * len(headings))
    for each in entries:
        times, speedups = each["times"], each["speedup_over_dense"]
        cells = [
            each["file"],
            each["runtime"],
            f"{each['accuracy'] * 100:.2f}",
            f"{each['same_labels'] * 100:.2f}",
            f"{each['max_logit_diff']:.1e}",
            f"{each['size_bytes'] / 1e6:.1f}",
            *(f"{times[shape]['fastest_tenth_ms']:.2f} ({speedups[shape]:.2f})" for shape in shapes),
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
