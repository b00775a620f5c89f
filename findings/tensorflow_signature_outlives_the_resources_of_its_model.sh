#!/usr/bin/env bash
# A signature of a SavedModel keeps the variables of its model, and not the resources that have a destroyer.
#
# Expected: `tf.saved_model.load(path).signatures["serving_default"]` can be asked as long as it exists, as it can where
# the model has variables: programs often keep a signature alone.
# Seen (tensorflow-cpu 2.20.0): a `tf.saved_model.experimental.TrackableResource` with `_destroy_resource`, as its
# documentation shows, is destroyed when Python drops the loaded object, while the signature that reads it lives on. It
# fails with FailedPreconditionError, "Could not find variable". Without a destroyer it answers, and the memory of the
# resource is not freed before the process ends.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.20.0
cat >"$folder/model.py" <<'PY'
import gc
import sys

import tensorflow as tf


class Kept(tf.saved_model.experimental.TrackableResource):
    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], shared_name=type(self).__name__, container="")

    def _initialize(self):
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=tf.constant(2.0))


class Destroyed(Kept):
    def _destroy_resource(self):
        tf.raw_ops.DestroyResourceOp(resource=self.resource_handle, ignore_lookup_error=True)


class Model(tf.Module):
    def __init__(self, kind):
        super().__init__()
        self.held = tf.Variable(2.0) if kind is None else kind()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def answer(x):
            held = self.held
            value = held if kind is None else tf.raw_ops.ReadVariableOp(resource=held.resource_handle, dtype=tf.float32)
            return {"y": x * value}

        self.answer = answer


seen = {}
for name, kind in (("variable", None), ("kept", Kept), ("destroyed", Destroyed)):
    model, path = Model(kind), f"{sys.argv[1]}/{name}"
    tf.saved_model.save(model, path, signatures={"serving_default": model.answer})
    signature = tf.saved_model.load(path).signatures["serving_default"]
    gc.collect()
    try:
        seen[name] = signature(x=tf.constant([3.0]))["y"].numpy().tolist()
    except tf.errors.FailedPreconditionError as error:
        seen[name] = "Could not find variable" if "Could not find variable" in str(error) else str(error)
print(seen)
as_before = seen == {"variable": [6.0], "kept": [6.0], "destroyed": "Could not find variable"}
print("as before" if as_before else "TensorFlow has changed")
sys.exit(not as_before)
PY
CUDA_VISIBLE_DEVICES=-1 TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/model.py" "$folder" 2>/dev/null
