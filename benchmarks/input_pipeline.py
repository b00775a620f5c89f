"""How fast token tables become batches: examples per second through tf.data, and the share of real tokens.

    tfpipe prepare configs/quickstart.yaml && .venv/bin/python benchmarks/input_pipeline.py runs/quickstart

Shuffled batches of 32 examples over one epoch, as training reads them, on the processors that TensorFlow finds; the
median of five epochs. Writes benchmarks/results/input_pipeline_RUN.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

from tfpipe.data.batches import batches
from tfpipe.data.plan import Plan, choose_batching
from tfpipe.data.token_table import TokenTable

KINDS = (("packed", None), ("packed", 512), ("bucketed", None), ("padded", None))


def measure(table: TokenTable, kind: str, row_length: int | None) -> dict[str, float | str]:
    """One way of batching."""
    longest = int(table.lengths.max())
    batching, words = choose_batching(kind, table.lengths, batch_size=32, max_length=longest, row_length=row_length)
    plan = Plan(table.lengths, batching, seed=0)
    tokens = sum(batching.rows * plan.step(n)[1] for n in range(plan.steps_per_epoch))
    rates = []
    for epoch in range(5):
        first = epoch * plan.steps_per_epoch
        started = time.perf_counter()
        last = first + plan.steps_per_epoch
        steps = sum(1 for _ in batches(table, plan, first, last).take(plan.steps_per_epoch))
        rates.append(table.num_rows / (time.perf_counter() - started))
        assert steps == plan.steps_per_epoch
    return {
        "batches": words,
        "real_tokens": round(float(table.lengths.sum()) / tokens, 4),
        "examples_per_second": round(statistics.median(rates)),
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run whose stage `prepare` is done")
    arguments = parser.parse_args()
    table = TokenTable.open(arguments.run / "prepare" / "train")
    result = {"rows": table.num_rows, "longest": int(table.lengths.max()), "processors": os.cpu_count()}
    for kind, row_length in KINDS:
        if row_length is None or row_length >= result["longest"]:
            name = kind if row_length is None else f"{kind}_{row_length}"
            result[name] = measure(table, kind, row_length)
            print(name, result[name], flush=True)
    target = Path(__file__).parent / "results" / f"input_pipeline_{arguments.run.name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
