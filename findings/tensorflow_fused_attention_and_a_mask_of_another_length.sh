#!/usr/bin/env bash
# TensorFlow on a CPU computes q k^T * scale + mask where the mask has the wrong length: it adds one number to all scores.
#
# Expected: a mask of 4 keys can't be added to scores of 5: InvalidArgumentError "Incompatible shapes", in a graph as
# eagerly.
# Seen (tensorflow 2.20.0, Linux x86-64): grappler fuses the product, the scale and the sum into one oneDNN operator,
# which does not compare the shapes. In a graph a mask of 3, 4 or 7 keys counts as its first element, for every key, so
# that attention is as though nothing were masked. With TF_ENABLE_ONEDNN_OPTS=0 the graph fails as it should.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.20.0
cat >"$folder/ask.py" <<'PY'
import sys

import numpy as np
import tensorflow as tf

rows = tf.TensorSpec([None, 4, None, 8])


@tf.function(input_signature=[rows, rows, tf.TensorSpec([None, 1, 1, None])])
def scores(query, key, mask):
    return tf.matmul(query, key, transpose_b=True) * 0.25 + mask


random = np.random.default_rng(0)
query, key = (tf.constant(random.normal(size=(1, 4, 5, 8)), tf.float32) for _ in range(2))
unmasked = scores(query, key, tf.zeros([1, 1, 1, 5])).numpy()
first_alone = []
for length in (3, 4, 7):
    mask = tf.constant(np.arange(1, length + 1)[None, None, None], tf.float32)
    try:
        scores.python_function(query, key, mask)
        sys.exit("eager TensorFlow takes the mask")
    except tf.errors.InvalidArgumentError as error:
        print(length, "eager:", str(error).partition("}}")[2])
    try:
        first_alone.append(bool(np.abs(scores(query, key, mask).numpy() - (unmasked + 1.0)).max() < 1e-5))
    except tf.errors.InvalidArgumentError:
        first_alone.append(False)
    print(length, "graph:", "adds the first element" if first_alone[-1] else "fails, or adds the mask")
fused = sys.argv[1] == "fused"
as_before = first_alone == [fused] * 3
print("as before" if as_before else "TensorFlow has changed")
sys.exit(not as_before)
PY
CUDA_VISIBLE_DEVICES=-1 "$folder/venv/bin/python" "$folder/ask.py" fused 2>"$folder/said"
CUDA_VISIBLE_DEVICES=-1 TF_ENABLE_ONEDNN_OPTS=0 "$folder/venv/bin/python" "$folder/ask.py" plain 2>"$folder/said"
