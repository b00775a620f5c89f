"""What is set for TensorFlow on a TPU VM, before it is imported; written for machines without a TPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tfpipe import tpu_environment


@pytest.fixture
def tpu_vm(monkeypatch, tmp_path):
    """The packages and the device of a TPU VM."""
    known = importlib.metadata.distribution
    monkeypatch.setattr(
        importlib.metadata, "distribution", lambda name: object() if name == "tensorflow-tpu" else known(name)
    )
    found = SimpleNamespace(origin=str(tmp_path / "libtpu" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "libtpu" else None)
    device = tmp_path / "accel0"
    device.touch()
    return (tmp_path / "vfio", device)


def test_on_a_tpu_vm_pjrt_is_set_up(tpu_vm, tmp_path):
    environment = {}
    tpu_environment.set_variables(environment, tpu_vm)
    assert environment == {
        "NEXT_PLUGGABLE_DEVICE_USE_C_API": "true",
        "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": str(tmp_path / "libtpu" / "libtpu.so"),
    }
    local = {"TPU_NAME": "local", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "/my/libtpu.so"}
    tpu_environment.set_variables(local, tpu_vm)  # what is set stays
    assert local["TF_PLUGGABLE_DEVICE_LIBRARY_PATH"] == "/my/libtpu.so" and "TPU_LOAD_LIBRARY" not in local
    assert tpu_environment.local_device(tpu_vm) == tpu_vm[1]


def test_for_a_pod_the_coordinator_loads_no_tpu(tpu_vm):
    environment = {"TPU_NAME": "my-pod"}
    tpu_environment.set_variables(environment, tpu_vm)
    assert environment == {"TPU_NAME": "my-pod", "TPU_LOAD_LIBRARY": "0"}


def test_elsewhere_nothing_is_set(tpu_vm, monkeypatch):
    environment = {}
    tpu_environment.set_variables(environment, tpu_vm[:1])  # no device
    monkeypatch.undo()
    tpu_environment.set_variables(environment, tpu_vm)  # no tensorflow-tpu: libtpu alone is there for tpu-check
    assert environment == {} and tpu_environment.local_device(tpu_vm) is None


def test_the_package_sets_them_before_tensorflow_is_imported():
    code = "import sys, os, tfpipe; assert 'tensorflow' not in sys.modules; print(os.environ['TPU_LOAD_LIBRARY'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"TPU_NAME": "pod"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"
