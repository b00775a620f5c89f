#!/usr/bin/env bash
# optimum-onnx does not find a local ONNX file by a name with a folder in it, and says that it found just this file.
#
# Expected: the call that model cards of the hub show for quantized files, file_name="onnx/model_quantized.onnx", opens a
# local folder in the same layout as well.
# Seen (optimum-onnx 0.1.0, transformers 4.57.6, torch 2.13.0): FileNotFoundError "Could not find any ONNX files with
# target file name onnx/model_quantized.onnx, only found: [PosixPath('onnx/model_quantized.onnx')]". The name is compared
# with the last part of each path. With no argument at all the file is found (with a warning), and also with
# file_name="model_quantized.onnx" and subfolder="onnx".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 optimum-onnx==0.1.0 onnxruntime==1.32.0 transformers==4.57.6 onnx==1.23.2
cat >"$folder/open.py" <<'PY'
import json
import pathlib
import sys

import onnx
from onnx import TensorProto, helper
from optimum.onnxruntime import ORTModelForSequenceClassification

folder = pathlib.Path(sys.argv[1], "model")
(folder / "onnx").mkdir(parents=True)
(folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])]
outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length"])]
cast = helper.make_node("Cast", ["input_ids"], ["logits"], to=TensorProto.FLOAT)
graph = helper.make_graph([cast], "classifier", inputs, outputs)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.save(model, str(folder / "onnx" / "model_quantized.onnx"))
found = []
for options in (
    {},
    {"file_name": "model_quantized.onnx", "subfolder": "onnx"},
    {"file_name": "onnx/model_quantized.onnx"},
):
    try:
        ORTModelForSequenceClassification.from_pretrained(folder, **options)
        found.append("opened")
    except FileNotFoundError as error:
        found.append("only found" in str(error) and "not found")
    print(options, found[-1], flush=True)
as_before = found == ["opened", "opened", "not found"]
print("as before" if as_before else "optimum-onnx has changed", flush=True)
sys.exit(not as_before)
PY
"$folder/venv/bin/python" "$folder/open.py" "$folder" 2>/dev/null
