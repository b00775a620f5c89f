"""Detection of Cloud TPU machines, and the variables that TensorFlow reads there when it is imported.

The package sets the variables before anything imports TensorFlow. Variables that the user has set stay.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import MutableMapping
from pathlib import Path

DEVICES = (Path("/dev/accel0"), Path("/dev/vfio/0"))  # v2 to v4; v5e and later


def pod_name(environment: MutableMapping[str, str] = os.environ) -> str | None:
    """Returns TPU_NAME where it names a TPU of several hosts or a remote one; None on a TPU VM that trains alone."""
    name = environment.get("TPU_NAME", "")
    return name if name not in ("", "local") else None


def local_device(devices: tuple[Path, ...] = DEVICES) -> Path | None:
    """Finds the first chip of this machine; None without a chip, or without the package tensorflow-tpu."""
    try:
        importlib.metadata.distribution("tensorflow-tpu")
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((device for device in devices if device.exists()), None)


def set_variables(environment: MutableMapping[str, str] = os.environ, devices: tuple[Path, ...] = DEVICES) -> None:
    """Sets, on a TPU VM, PJRT by the library of the package libtpu; for a pod, no TPU of the coordinator's own."""
    if pod_name(environment) is not None:
        environment.setdefault("TPU_LOAD_LIBRARY", "0")
    elif local_device(devices) is not None:
        found = importlib.util.find_spec("libtpu")
        if found is not None:
            environment.setdefault("NEXT_PLUGGABLE_DEVICE_USE_C_API", "true")
            environment.setdefault("TF_PLUGGABLE_DEVICE_LIBRARY_PATH", str(Path(found.origin).parent / "libtpu.so"))
