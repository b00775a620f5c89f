"""`tfpipe doctor`: versions, devices, and the choices that training will make on this machine, with reasons."""

from __future__ import annotations

import os

import tensorflow as tf
from rich.console import Console
from rich.table import Table

from tfpipe.devices.processor import cpu_flags, int8_outlook
from tfpipe.devices.strategy import choose_precision, choose_xla, explain_strategy
from tfpipe.provenance import package_versions


def run() -> None:
    """Prints one table."""
    flags = cpu_flags()
    known = [flag for flag in ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx_vnni") if flag in flags]
    table = Table("what", "here", show_lines=False)
    table.add_row("processors", f"{os.cpu_count()}, {', '.join(known) or 'no bfloat16 or int8 instructions'}")
    devices = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
    table.add_row("devices", ", ".join(devices))
    table.add_row("strategy", str(explain_strategy("auto")))
    table.add_row("precision", str(choose_precision("auto")))
    table.add_row("xla", str(choose_xla("auto")))
    table.add_row("int8 in ONNX Runtime", int8_outlook(flags))
    for package, version in package_versions().items():
        table.add_row(package, version)
    Console().print(table)
