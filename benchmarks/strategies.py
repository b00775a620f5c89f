"""Whether a configuration means the same under every strategy: the loss of each step, side by side.

    tfpipe prepare configs/quickstart.yaml && .venv/bin/python benchmarks/strategies.py configs/quickstart.yaml

Trains the first steps of a configuration in float32 on one device, mirrored over two logical devices, and with two
workers, processes of their own that speak gRPC over loopback: packed, with and without gradient accumulation and
dropout. Writes benchmarks/results/strategies_RUN.json: the largest difference of any step's loss, and of any gradient's
norm by ratio, to one device.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STRATEGIES = ("one_device", "mirrored", "multi_worker")


def work(config_file: str, run_dir: str, strategy: str, overrides: list[str]) -> None:
    """One training process."""
    import tfpipe  # noqa: F401, before TensorFlow: the package sets what TensorFlow reads when it is imported

    import tensorflow as tf  # isort: skip

    from tfpipe import pipeline
    from tfpipe.config.file import load_config
    from tfpipe.rundir.directory import RunDirectory

    if strategy == "mirrored":
        devices = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    config = load_config(Path(config_file), [f"train.strategy={strategy}", *overrides])
    pipeline.run(config, RunDirectory(run_dir), until="train")


def start(arguments: argparse.Namespace, run: Path, strategy: str, overrides: list[str]) -> float:
    """Trains in new processes; seconds that they took."""
    command = [sys.executable, __file__, arguments.config, "--work", str(run), strategy, *overrides]
    environments = [os.environ]
    if strategy == "multi_worker":
        listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in listening]}
        for each in listening:
            each.close()
        tasks = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(2)]
        environments = [os.environ | {"TF_CONFIG": json.dumps(task)} for task in tasks]
    began = time.monotonic()
    processes = [subprocess.Popen(command, env=environment) for environment in environments]
    codes = [process.wait() for process in processes]
    if any(codes):
        sys.exit(f"{strategy}: failed")
    return time.monotonic() - began


def curves(run: Path) -> dict[str, list[float]]:
    """Loss and norm of the gradient, by step, as TensorBoard shows them."""
    import tensorflow as tf

    found: dict[str, dict[int, float]] = {"loss": {}, "gradient_norm": {}}
    for path in (run / "train" / "logs").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag in found:
                    found[value.tag][event.step] = float(tf.make_ndarray(value.tensor))
    return {tag: [values[step] for step in sorted(values)] for tag, values in found.items()}


def main() -> None:
    """Trains, compares, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--epochs", type=float, default=0.2, help="of the training rows")
    parser.add_argument("--work", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        run, strategy, *overrides = arguments.work
        work(arguments.config, run, strategy, overrides)
        return

    from tfpipe.config.file import load_config
    from tfpipe.provenance import package_versions

    name = load_config(Path(arguments.config), []).name
    rows = []
    for accumulation in (1, 2):
        for dropout in (0.0, 0.1):
            reference = None
            for strategy in STRATEGIES:
                with tempfile.TemporaryDirectory() as scratch:
                    run = Path(scratch) / "run"
                    shutil.copytree(Path("runs") / name / "prepare", run / "prepare")
                    settings = {
                        "precision": "float32",
                        "epochs": arguments.epochs,
                        "dropout": dropout,
                        "gradient_accumulation": accumulation,
                    }
                    seconds = start(arguments, run, strategy, [f"train.{key}={each}" for key, each in settings.items()])
                    found = curves(run)
                reference = reference or found
                pairs = {tag: list(zip(found[tag], reference[tag], strict=True)) for tag in found}
                row = {
                    "strategy": strategy,
                    "gradient_accumulation": accumulation,
                    "dropout": dropout,
                    "steps": len(found["loss"]),
                    "first_loss": round(found["loss"][0], 4),
                    "last_loss": round(found["loss"][-1], 4),
                    "largest_loss_difference": max(abs(a - b) for a, b in pairs["loss"]),
                    "largest_norm_ratio": max(abs(a / b - 1.0) for a, b in pairs["gradient_norm"]),
                    "seconds": round(seconds, 1),
                }
                rows.append(row)
                print(row, flush=True)
    target = Path(__file__).parent / "results" / f"strategies_{name}.json"
    target.write_text(json.dumps({"rows": rows, "versions": package_versions()}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
