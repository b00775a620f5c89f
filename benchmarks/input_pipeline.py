"""How fast token tables become batches: examples per second through tf.data, and the share of real tokens.

    tfpipe prepare configs/quickstart.yaml && .venv/bin/python benchmarks/input_pipeline.py runs/quickstart

Shuffled batches of 32 examples over one epoch, as training reads them, on the processors that TensorFlow finds; the
median of five epochs. Then packed batches from the same rows in 1 to 64 shards, and as one of 1 to 8 workers reads
them: the examples of the whole batch that it keeps up with, as it makes only its own rows. Writes
benchmarks/results/input_pipeline_RUN.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from tfpipe.tokens.batches import Share, batches
from tfpipe.tokens.plan import Plan, choose_batching
from tfpipe.tokens.table import TokenTable, write_manifest, write_shard

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


def rate(table: TokenTable, batch_size: int = 32, workers: int = 1) -> int:
    """Examples of the whole batch a second, as the first of some workers keeps up with them."""
    longest = int(table.lengths.max())
    batching, _ = choose_batching("packed", table.lengths, batch_size=batch_size, max_length=longest)
    plan = Plan(table.lengths, batching, seed=0)
    rates = []
    for epoch in range(5):
        first = epoch * plan.steps_per_epoch
        dataset = batches(table, plan, first, first + plan.steps_per_epoch, share=Share(workers))
        started = time.perf_counter()
        assert sum(1 for _ in dataset.take(plan.steps_per_epoch)) == plan.steps_per_epoch
        rates.append(table.num_rows / (time.perf_counter() - started))
    return round(statistics.median(rates))


def resharded(source: Path, shards: int, target: Path) -> TokenTable:
    """The same rows in so many shards."""
    parts = [pa.ipc.open_file(file).read_all() for file in sorted(source.glob("*.arrow"))]
    whole, names = pa.concat_tables(parts).combine_chunks(), []
    size = -(-len(whole) // shards)
    for first in range(0, len(whole), size):
        names.append(f"part-{first // size:05d}.arrow")
        (part,) = whole.slice(first, size).combine_chunks().to_batches()
        write_shard(target / names[-1], part)
    manifest = json.loads((source / "table.json").read_text(encoding="utf-8"))
    write_manifest(target, names, num_labels=manifest["num_labels"], pad_id=manifest["pad_id"])
    return TokenTable.open(target)


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
    result["shards"], result["workers"] = {}, {}
    for shards in (1, 4, 16, 64):
        with tempfile.TemporaryDirectory() as scratch:
            result["shards"][shards] = rate(resharded(arguments.run / "prepare" / "train", shards, Path(scratch)))
    for workers in (1, 2, 4, 8):  # of a batch of which eight can have a part
        result["workers"][workers] = rate(table, batch_size=256, workers=workers)
    print(result["shards"], result["workers"])
    target = Path(__file__).parent / "results" / f"input_pipeline_{arguments.run.name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
