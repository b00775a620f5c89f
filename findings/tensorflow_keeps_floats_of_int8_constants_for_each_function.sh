#!/usr/bin/env bash
# TensorFlow keeps a float32 copy of a dequantized int8 constant for each signature that was called.
#
# A SavedModel holds 16 kernels of [1500, 1500] int8 as constants (34 MiB), cast and scaled before each product, in one
# function that two signatures call. Expected: at most one float32 copy of the kernels (137 MiB) in memory, or none.
# Seen (tensorflow-cpu 2.20.0, Linux): the constants are folded to float32 when a signature is called first, for each
# signature anew. The resident set grows by 528 MiB at the first call of the first signature, and by 361 MiB at that of
# the second; with the same kernels as float32 variables by 2 and 1. An 8-bit SavedModel thus takes several times the
# memory of the float one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.20.0
cat >"$folder/model.py" <<'PY'
import ctypes
import gc
import os
import sys

import numpy as np
import tensorflow as tf

KERNELS, WIDTH = 16, 1500


class Model(tf.Module):
    def __init__(self, constants):
        super().__init__()
        random = np.random.default_rng(0)
        codes = [random.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8) for _ in range(KERNELS)]
        self.variables_ = [] if constants else [tf.Variable(each.astype(np.float32) * 0.001) for each in codes]

        def answer(x):
            for at, each in enumerate(codes):
                x = tf.tanh(tf.matmul(x, tf.cast(tf.constant(each), tf.float32) * 0.001 if constants else self.variables_[at]))
            return x

        shape = [tf.TensorSpec([None, WIDTH], tf.float32, "x")]
        self.answer = tf.function(answer, input_signature=shape)
        self.one = tf.function(lambda x: {"y": self.answer(x)}, input_signature=shape)
        self.two = tf.function(lambda x: {"y": self.answer(x + 1.0)}, input_signature=shape)


def resident():
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


if sys.argv[1] == "save":
    model = Model(sys.argv[3] == "constants")
    tf.saved_model.save(model, sys.argv[2], signatures={"one": model.one, "two": model.two})
else:
    tf.matmul(tf.ones([4, WIDTH]), tf.ones([WIDTH, WIDTH]))
    loaded = tf.saved_model.load(sys.argv[2])
    grown, before = [], resident()
    for name in ("one", "two"):
        loaded.signatures[name](x=tf.ones([1, WIDTH]))
        after = resident()
        grown.append(after - before)
        before = after
    print(sys.argv[3], "MiB at the first call of each signature:", *grown)
    as_before = min(grown) > 120 if sys.argv[3] == "constants" else grown[1] < 30
    print("as before" if as_before else "TensorFlow has changed")
    sys.exit(not as_before)
PY
export CUDA_VISIBLE_DEVICES=-1 TF_CPP_MIN_LOG_LEVEL=3
for kind in constants variables; do
    "$folder/venv/bin/python" "$folder/model.py" save "$folder/$kind" "$kind" 2>/dev/null
    "$folder/venv/bin/python" "$folder/model.py" ask "$folder/$kind" "$kind" 2>/dev/null
done
