#!/usr/bin/env bash
# Letting go of a tf.data iterator can take up to a minute in which nothing is computed.
#
# Expected: deleting an iterator, whose dataset has nothing to tune (a counter), ends its threads at once.
# Seen (tensorflow 2.20.0, CPython 3.11, Linux, two cores): each iterator has a thread that tunes its dataset, also one
# that can't be tuned. It sleeps between two looks for twice as long each time, up to a minute. Now and then it misses
# that the iterator is deleted, and the deletion waits for the rest of its sleep: in a stack of that time,
# ~IteratorResource waits in UnboundedThreadPool's ~LogicalThreadWrapper. Of 150 iterators that were 40 seconds old four
# took 0.8, 41, 58 and 59 s; of iterators that were 10 seconds old the 9th, the 21st and the 57th, in three runs, took
# 10 s. With options.autotune.enabled = False none of 200 took a hundredth of a second.
# The longer an iterator lives, the longer it may take, whoever deletes it: a loop over epochs, a function's return, or
# Python's collector, wherever it happens to run.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.20.0
cat >"$folder/iterators.py" <<'PY'
import os
import time

import tensorflow as tf

kept = []


def slowest_deletion(autotune, count=200, age=10.0, enough=3.0):
    options = tf.data.Options()
    options.autotune.enabled = autotune
    kept[:] = [iter(tf.data.Dataset.counter().with_options(options)) for _ in range(count)]
    for iterator in kept:
        next(iterator)
    del iterator
    time.sleep(age)
    slowest = 0.0
    while kept and slowest < enough:
        start = time.perf_counter()
        kept.pop()
        slowest = max(slowest, time.perf_counter() - start)
    print(f"autotune {autotune}: {count - len(kept)} of {count} deleted, the slowest in {slowest:.1f} s", flush=True)
    return slowest


untuned, tuned = slowest_deletion(False), slowest_deletion(True)
changed = not untuned < 1.0 < tuned
print("TensorFlow has changed" if changed else "as before", flush=True)
os._exit(changed)  # the iterators that are left would end late too
PY
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 "$folder/venv/bin/python" "$folder/iterators.py"
