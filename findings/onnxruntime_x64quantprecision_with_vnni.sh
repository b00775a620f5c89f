#!/usr/bin/env bash
# ONNX Runtime: session.x64quantprecision = 1 makes int8 products slower on processors that need no help.
#
# Expected: the header says of this session option that it works around the overflow of U8S8 products on "x64 SSE4.1/AVX2/
# AVX512 (with no VNNI)" by slower U8U8 products. So on a processor with VNNI, whose U8S8 products are exact, it changes
# nothing, and one setting serves a fleet of old and new machines.
# Seen (onnxruntime 1.32.0, AMD EPYC with avx512_vnni, Linux): int8 weights become uint8 there as well, and a product of
# [512, 768] by [768, 3072] takes twice as long or more, with the same result. Set it only where the processor lacks VNNI
# and AMX, or store weights of 7 bits.
set -euo pipefail
grep -qE 'avx512_vnni|avx_vnni' /proc/cpuinfo || { echo "this processor has no VNNI: nothing to see here"; exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)
weight = random.integers(-127, 128, (768, 3072)).astype(np.int8)
graph = helper.make_graph(
    [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
    "product",
    [helper.make_tensor_value_info("a", TensorProto.UINT8, [512, 768])],
    [helper.make_tensor_value_info("y", TensorProto.INT32, [512, 3072])],
    [numpy_helper.from_array(weight, "b")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
codes = {"a": random.integers(0, 256, (512, 768)).astype(np.uint8)}
seconds, answers, kinds, sessions = {"0": [], "1": []}, {}, {}, {}
for value in seconds:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.optimized_model_filepath = 1, f"optimized-{value}.onnx"
    options.add_session_config_entry("session.x64quantprecision", value)
    sessions[value] = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    stored = onnx.load(options.optimized_model_filepath).graph.initializer
    kinds[value] = next(TensorProto.DataType.Name(each.data_type) for each in stored if list(each.dims) == [768, 3072])
for _ in range(20):
    for value, session in sessions.items():
        started = time.process_time()
        (answers[value],) = session.run(None, codes)
        seconds[value].append(time.process_time() - started)
medians = {value: float(np.median(each)) for value, each in seconds.items()}
print("weights:", kinds, "milliseconds:", {value: round(1000 * each, 1) for value, each in medians.items()})
exact = codes["a"].astype(np.int64) @ weight.astype(np.int64)
assert (answers["0"] == exact).all() and (answers["1"] == exact).all()
assert kinds == {"0": "INT8", "1": "UINT8"}, "the option leaves int8 weights alone here: ONNX Runtime has changed"
assert medians["1"] > 1.3 * medians["0"], "no slower: ONNX Runtime has changed"
PY
