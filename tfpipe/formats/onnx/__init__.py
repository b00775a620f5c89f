"""ONNX files."""

import os

# `import onnxruntime` (1.32) makes an identity in the home directory and keeps events there for its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
