#!/usr/bin/env bash
# TensorFlow never frees the graph of a tf.function that holds a tf.custom_gradient.
#
# Expected: a tf.function that nothing refers to any more is collected, and its graph with it.
# Seen (tensorflow 2.20.0, CPython 3.11, Linux): each trace registers a gradient function of its own, "CustomGradient-N",
# in a registry of the process that is never cleared, and the function refers to the graph. Of 20 functions that were
# traced and dropped, 20 graphs are left with a custom gradient, none without. A process that trains many models, such
# as a search over settings or a test suite, grows by the graphs of all of them, and Python's collector goes through
# them each time. Deleting the entries of the registry frees the graphs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.20.0
cat >"$folder/graphs.py" <<'PY'
import gc

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.framework.ops import gradient_registry


def graphs():
    gc.collect()
    return sum(isinstance(each, FuncGraph) and each.name == "traced" for each in gc.get_objects())


@tf.custom_gradient
def doubled(x):
    return 2.0 * x, lambda upstream: 2.0 * upstream


def trace(operation):
    def traced(x):
        return tf.reduce_sum(operation(x))

    tf.function(traced)(tf.ones([2]))


for name, operation in (("without", tf.square), ("with", doubled)):
    before = graphs()
    for _ in range(20):
        trace(operation)
    print(f"graphs left, {name} a custom gradient: {graphs() - before}")
for key in [key for key in gradient_registry._registry if key.startswith("CustomGradient-")]:
    del gradient_registry._registry[key]
print(f"after the entries were deleted: {graphs() - before}")
PY
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 "$folder/venv/bin/python" "$folder/graphs.py" 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "TensorFlow has changed"; exit 1; }
graphs left, without a custom gradient: 0
graphs left, with a custom gradient: 20
after the entries were deleted: 0
SEEN
