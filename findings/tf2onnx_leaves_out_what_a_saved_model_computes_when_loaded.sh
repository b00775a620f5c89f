#!/usr/bin/env bash
# tf2onnx converts a SavedModel whose initializer fills a resource, and leaves the values out without a word.
#
# A SavedModel may compute variables when it is loaded, as it fills lookup tables: `tf.saved_model.experimental.
# TrackableResource`, whose `_initialize` TensorFlow and TF Serving call. Expected of a converter: it runs the
# initializer, or refuses the model.
# Seen (tf2onnx 1.17.0, TensorFlow 2.20.0): exit code 0, "ONNX model is saved". The file has the operators VarHandleOp,
# ReadVariableOp and MatMul, one input, and no constant: the kernel is nowhere. ONNX Runtime 1.32.0 refuses it
# (InvalidGraph). TensorFlow answers [[3, 5, 7]].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    tensorflow==2.20.0 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.32.0
cat >"$folder/save.py" <<'PY'
import sys

import numpy as np
import tensorflow as tf

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)


class Filled(tf.saved_model.experimental.TrackableResource):
    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[2, 3], shared_name="kernel", container="")

    def _initialize(self):
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=tf.constant(KERNEL))


class Model(tf.Module):
    def __init__(self):
        super().__init__()
        self.filled = Filled()

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def answer(self, x):
        kernel = tf.raw_ops.ReadVariableOp(resource=self.filled.resource_handle, dtype=tf.float32)
        return {"y": tf.matmul(x, tf.ensure_shape(kernel, [2, 3]))}


model = Model()
tf.saved_model.save(model, sys.argv[1], signatures={"serving_default": model.answer})
found = tf.saved_model.load(sys.argv[1])
print("TensorFlow", found.signatures["serving_default"](x=tf.ones([1, 2]))["y"].numpy().tolist())
PY
cat >"$folder/ask.py" <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime

model = onnx.load(sys.argv[1])
print("inputs", [each.name for each in model.graph.input], "constants", [list(each.dims) for each in model.graph.initializer])
print("operators", [node.op_type for node in model.graph.node])
try:
    (found,) = onnxruntime.InferenceSession(sys.argv[1]).run(["y"], {"x": np.ones((1, 2), np.float32)})
    print("ONNX Runtime", found.tolist())
    right = found.tolist() == [[3.0, 5.0, 7.0]]
except Exception as error:
    print("ONNX Runtime", type(error).__name__, str(error)[:200])
    right = False
has_kernel = any(list(each.dims) == [2, 3] for each in model.graph.initializer)
print("tf2onnx has changed" if right or has_kernel else "as before")
sys.exit(right or has_kernel)
PY
export CUDA_VISIBLE_DEVICES=-1 TF_CPP_MIN_LOG_LEVEL=3
"$folder/venv/bin/python" "$folder/save.py" "$folder/model" 2>/dev/null
"$folder/venv/bin/python" -m tf2onnx.convert --saved-model "$folder/model" --output "$folder/model.onnx" --opset 17 2>&1 | tail -n 1
"$folder/venv/bin/python" "$folder/ask.py" "$folder/model.onnx"
