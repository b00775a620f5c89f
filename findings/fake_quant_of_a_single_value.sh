#!/usr/bin/env bash
# TensorFlow: fake quantization over a range that is one value other than 0 answers NaN, without an error.
#
# Expected: fake_quant_with_min_max_vars(x, min, max) of a constant activation, whose observed smallest and largest value
# are both 0.3, answers 0.3 or an error.
# Seen (tensorflow 2.20.0, CPU, CPython 3.11, Linux): NaN for every x, for a positive and for a negative value; 0 for the
# range 0 to 0. Widened to hold 0 (0 to 0.3), the answer is 0.3. So calibration by the smallest and largest value has to
# widen each range to hold 0, or a layer whose output is constant makes the whole model NaN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.20.0
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PY'
import numpy as np
import tensorflow as tf


def answer(value, low, high):
    x = tf.constant([value, 0.0, 1.0], tf.float32)
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high).numpy()


for value in (0.3, -0.3):
    found = answer(value, value, value)
    print(f"range {value} to {value}:", found)
    assert np.isnan(found).all(), "no NaN: TensorFlow has changed"
    widened = answer(value, min(value, 0.0), max(value, 0.0))
    print("widened to hold 0:", widened)
    assert abs(widened[0] - value) < 1e-6
print("range 0 to 0:", answer(0.3, 0.0, 0.0))
assert (answer(0.3, 0.0, 0.0) == 0.0).all()
PY
