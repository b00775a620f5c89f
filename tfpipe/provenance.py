"""The origin of a result, for records: the versions of the packages that decide it, and the machine."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tfpipe import __version__
from tfpipe.artifacts import FORMATS

_RECORDED_PACKAGES = (
    "tensorflow", "tensorflow-tpu", "libtpu", "tf-keras", "tensorflow-text", "tensorflow-model-optimization",
    "keras-nlp", "tokenizers", "numpy", "pyarrow", "safetensors",
    "rensa", "regex", "scikit-learn", "scipy", "cleanlab", "nltk", "datasets", "tensorflow-datasets", "openpyxl",
    "duckdb",
)  # fmt: skip

RELEASE = ".".join(__version__.split(".")[:2])
"""major and minor version of tfpipe: part of every fingerprint"""


def package_versions() -> dict[str, str]:
    """Gives the versions of Python and of the packages that decide a result, without importing any."""
    return dict(_package_versions())


@functools.cache
def _package_versions() -> dict[str, str]:
    # tfpipe's own from the code that runs: the metadata of an editable installation may be those of another time.
    versions = {"python": platform.python_version(), "tfpipe": __version__}
    of_formats = (package for each in FORMATS for package in (*each.written_with, *each.run_with))
    for package in dict.fromkeys((*_RECORDED_PACKAGES, *of_formats)):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def other_versions(recorded: Any, packages: Iterable[str] | None = None) -> dict[str, tuple[Any, str | None]]:
    """Compares the versions in a record with those here.

    Args:
      recorded: package -> version, as `package_versions` had them; a damaged record may hold anything.
      packages: those that are compared; None: all.

    Returns:
      Package -> version in the record and version here, None where there is none; of those that differ.
    """
    before, here = recorded if isinstance(recorded, dict) else {}, package_versions()
    pairs = {name: (before.get(name), here.get(name)) for name in packages or {**before, **here}}
    return {name: (old, new) for name, (old, new) in pairs.items() if old != new}


def machine() -> str:
    """Names the processor and counts the logical processors, for records of measurements."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} processors"
