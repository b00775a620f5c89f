#!/usr/bin/env bash
# tf2onnx makes another file of one function in each process, with PYTHONHASHSEED=0 too.
#
# Expected: one function, converted first thing in a fresh process, always gives the same ONNX file.
# Seen (tf2onnx 1.17.0, tensorflow 2.20.0, onnx 1.19.1, CPython 3.11, Linux): five processes, five files. Of equal
# constants the optimizer keeps one, and which differs from process to process (it goes through sets of objects, whose
# order is that of their addresses in memory). Names of constants differ, and the inputs of the nodes that read them;
# nodes, their order and all values are the same. Builds that compare hashes of such files have to name constants anew.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    tensorflow-cpu==2.20.0 tf2onnx==1.17.0 onnx==1.19.1 'numpy<2.4' tf-keras==2.20.1
cat >"$folder/convert.py" <<'PY'
import hashlib
import logging

import tensorflow as tf
import tf2onnx

logging.getLogger("tf2onnx").setLevel(logging.ERROR)


@tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, name="x")])
def function(x):
    for layer in range(6):
        kernel = tf.random.stateless_normal([8, 8], [layer, 0])
        x = tf.quantization.fake_quant_with_min_max_args(x @ kernel, -1.0, 1.0, name=f"point_{layer}")
    return x


model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=17)
print(hashlib.sha256(model.SerializeToString()).hexdigest())
PY
export TF_CPP_MIN_LOG_LEVEL=3 TF_USE_LEGACY_KERAS=1
for _ in 1 2 3 4 5; do
    PYTHONHASHSEED=0 "$folder/venv/bin/python" "$folder/convert.py" 2>/dev/null >>"$folder/hashes"
done
cat "$folder/hashes"
files=$(sort -u "$folder/hashes" | wc -l)
((files > 1)) || { echo "all processes gave one file: tf2onnx has changed"; exit 1; }
echo "$files different files of one function"
