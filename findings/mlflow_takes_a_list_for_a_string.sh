#!/usr/bin/env bash
# MLflow's check of a model's signature lets a list pass where the signature has a text.
#
# Expected: mlflow.pyfunc refuses an input whose column `text` holds something else than texts, as it refuses numbers.
# Seen (mlflow-skinny 3.17.2, pandas 3.1.1, CPython 3.11): {"text": ["a", "b"]}, two texts to people who know pandas, is
# taken for one row whose text is the list ["a", "b"], and the model gets it. It answers once, or whatever it makes of a
# list. A DataFrame of numbers is refused, and so is a list of texts without a name. Who writes a model must look at
# every cell.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mlflow-skinny==3.17.2 pandas==3.1.1 2>/dev/null
cat >"$folder/model_code.py" <<'PY'
def _load_pyfunc(path):
    return Model()


class Model:
    def predict(self, model_input, params=None):
        return [f"{type(text).__name__} {text}" for text in model_input["text"]]
PY
cat >"$folder/ask.py" <<'PY'
import sys

import mlflow
import pandas
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

folder = sys.argv[1]
signature = ModelSignature(Schema([ColSpec("string", "text")]), Schema([ColSpec("string", "label")]))
mlflow.pyfunc.save_model(
    f"{folder}/model",
    loader_module="model_code",
    code_paths=[f"{folder}/model_code.py"],
    signature=signature,
    pip_requirements=["pandas"],
)
model = mlflow.pyfunc.load_model(f"{folder}/model")
for name, value in (
    ("a list of mappings", [{"text": "a"}, {"text": "b"}]),
    ("a mapping of a list", {"text": ["a", "b"]}),
    ("numbers", pandas.DataFrame({"text": [1, 2]})),
    ("a list of texts", ["a", "b"]),
):
    try:
        print(f"{name}: {model.predict(value)}")
    except mlflow.exceptions.MlflowException:
        print(f"{name}: refused")
PY
MLFLOW_DISABLE_TELEMETRY=true "$folder/venv/bin/python" "$folder/ask.py" "$folder" 2>/dev/null | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "MLflow has changed"; exit 1; }
a list of mappings: ['str a', 'str b']
a mapping of a list: ["list ['a', 'b']"]
numbers: refused
a list of texts: refused
SEEN
