"""What made a result: the versions of the packages that decide it, and the machine, for records."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

_RECORDED_PACKAGES = (
    "tfpipe", "tensorflow", "tensorflow-tpu", "libtpu", "tf-keras", "tensorflow-text",
    "tensorflow-model-optimization", "tf2onnx", "onnx", "onnxruntime", "transformers", "keras-nlp", "numpy", "pyarrow",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions of what decides a result, Python included."""
    versions = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def machine() -> str:
    """The processor's name and how many of them there are, for records of what was measured where."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} processors"
