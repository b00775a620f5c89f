#!/usr/bin/env bash
# tf2onnx names the nodes that it inserts by a counter of the process, which no conversion resets.
#
# Expected: one function, converted twice in one process, gives the same ONNX file.
# Seen (tf2onnx 1.17.0, tensorflow 2.20.0, onnx 1.19.1, CPython 3.11, Linux): the names of the second file go on where
# those of the first ended (`Shape__9` becomes `Shape__28`). Of equal constants, the optimizer then keeps another one, so
# that the files differ even without the numbers. A hash of such a file does not tell whether two models are equal.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    tensorflow-cpu==2.20.0 tf2onnx==1.17.0 onnx==1.19.1 'numpy<2.4' tf-keras==2.20.1
TF_CPP_MIN_LOG_LEVEL=3 TF_USE_LEGACY_KERAS=1 "$folder/venv/bin/python" - <<'PY'
import logging
import re

import tensorflow as tf
import tf2onnx

logging.getLogger("tf2onnx").setLevel(logging.ERROR)


@tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, name="x")])
def function(x):
    return tf.reduce_sum(x[:, 2:5] * tf.cast(tf.shape(x)[0], tf.float32), axis=1)


def converted():
    model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=17)
    return model


first, second = converted(), converted()
assert first.SerializeToString() != second.SerializeToString(), "the two files are equal: tf2onnx has changed"
names = [(a.name, b.name) for a, b in zip(first.graph.node, second.graph.node) if a.name != b.name]
print(f"{len(names)} of {len(first.graph.node)} nodes have other names, such as", *names[0])


def plain(model):
    return sorted(re.sub(r"__\d+", "", line) for line in str(model.graph).splitlines())


print("equal without the numbers:", plain(first) == plain(second))
PY
