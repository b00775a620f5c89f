"""A compiler of StableHLO for TPUs, libtpu's compile-only client: a process of its own, with JAX and no TensorFlow.

    python -m tfpipe.tools.tpu_check.compile REQUEST.json

Enters: a file `{"stablehlo": FILE, "topologies": [NAME, …], "answer": FILE}`. Leaves: the answer, topology -> facts of
the compiler about the program on one chip:

- `compiled`; where it is not: `reason` on one line, and where memory was short `needed_hbm_bytes`,
  `available_hbm_bytes` and `largest`, the largest buffers in words.
- `memory`: bytes of `arguments`, `outputs`, `alias` (outputs that take the place of arguments), `temporary`, `code`.
- `flops` and `xla_bytes_accessed`, as XLA counts them; `hbm_bytes`, `unknown_loops` and `estimated_cycles`: `hlo.py`.
- `seconds` that the compiler took.

The client is not part of JAX's public interface: its releases are pinned, and nothing else of tfpipe knows of them. The
TPU wheel of TensorFlow 2.20 runs with libtpu 0.0.14.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tfpipe.errors import InputError
from tfpipe.tools.tpu_check.hlo import Module

PINNED = {"jax": "0.6.1", "jaxlib": "0.6.1", "libtpu": "0.0.14"}

# No metadata server, no other host, no lock on the machine's own TPU, no log files.
_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
    "TPU_ACCELERATOR_TYPE": "",
    "TPU_LOG_DIR": "disabled",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
_NOT_FOR_IT = ("XLA_FLAGS",)  # may hold flags that only TensorFlow's XLA knows
_HOST_CHIPS = (2, 2, 1)  # of the part of a slice that libtpu takes for one host, unless told otherwise

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_LISTED = 3
_LONGEST_REASON = 300


def check_installed() -> None:
    """Checks that the compiler is installed, in the pinned releases.

    Raises:
      InputError: it is not.
    """
    for package, wanted in PINNED.items():
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            found = "none"
        if found != wanted:
            raise InputError(
                f"tpu-check: needs {package} {wanted}, found {found}; install tfpipe[tpu-check], "
                f"or pip install {' '.join(f'{name}=={version}' for name, version in PINNED.items())}"
            )


def compile_for(stablehlo: str, topologies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Compiles in a process of its own.

    Args:
      stablehlo: text of a module, as TensorFlow writes it.
      topologies: such as `v5e:2x4`.

    Returns:
      The answer, see the top of this module. If the process itself crashed, all topologies have its last words as their
      reason.
    """
    with tempfile.TemporaryDirectory(prefix="tfpipe-tpu-") as name:
        directory = Path(name)
        request, program, answer = (directory / each for each in ("request.json", "step.mlir", "answer.json"))
        program.write_text(stablehlo, encoding="utf-8")
        request.write_text(
            json.dumps({"stablehlo": str(program), "topologies": list(topologies), "answer": str(answer)}),
            encoding="utf-8",
        )
        environment = {key: value for key, value in os.environ.items() if key not in _NOT_FOR_IT} | _ENVIRONMENT
        command = [sys.executable, "-m", "tfpipe.tools.tpu_check.compile", str(request)]
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
        if ended.returncode == 0:
            return json.loads(answer.read_text(encoding="utf-8"))
    said = [line.strip() for line in ended.stderr.splitlines() if line.strip()] or ["nothing said"]
    how = f"signal {-ended.returncode}" if ended.returncode < 0 else f"exit code {ended.returncode}"
    reason = f"the compiler's process ended with {how}: {said[-1][:_LONGEST_REASON]}"
    return {topology: {"compiled": False, "reason": reason} for topology in topologies}


def without_copies(stablehlo: str) -> str:
    """Removes TensorFlow's `mhlo.copy` from a module, as StableHLO lacks it: each becomes its operand."""
    lines: list[str] = []
    renamed: dict[str, str] = {}
    for line in stablehlo.splitlines():
        if line.lstrip().startswith("func.func"):
            renamed.clear()  # names are those of one function
        copied = re.match(r'\s*(%\w+) = "?mhlo\.copy"?\(?\s*(%[\w#]+)', line)
        if copied:
            renamed[copied[1]] = renamed.get(copied[2], copied[2])
        elif renamed and "%" in line:
            parts = re.split(r"(%\w+(?:#\d+)?)", line)
            lines.append("".join(renamed.get(part, part) for part in parts))
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def explain(message: str) -> dict[str, Any]:
    """Reads the compiler's error: `reason`; where memory was short, also the needed and available bytes."""
    first = " ".join(message.strip().splitlines()[0].split()) if message.strip() else "no reason given"
    used = re.search(r"Ran out of memory in memory space (\w+)\. Used ([\d.]+\w?) of ([\d.]+\w?)", message)
    if used is None:
        return {"reason": first[:_LONGEST_REASON]}
    if used[1] != "hbm":
        return {"reason": f"out of memory in {used[1]}: needs {used[2]} of {used[3]}"}
    needed, available = _bytes(used[2]), _bytes(used[3])
    output = re.search(r"Output size ([\d.]+\w?); shares ([\d.]+\w?) with arguments", message)
    if output is not None:  # the compiler forgets outputs that take nobody's place
        needed += _bytes(output[1]) - _bytes(output[2])
    found = re.findall(
        r"Size: ([\d.]+\w?)\n(?:\s+Operator: ([^\n]*)\n)?\s+Shape: (\S+?)(?:\{[^\n]*)?\n", message.replace("\r", "")
    )
    largest = [
        {"size_bytes": _bytes(size), "shape": shape, "operator": _operator_name(operator)}
        for size, operator, shape in found
    ]
    return {
        "reason": f"out of memory: at least {needed / 2**30:.2f} GiB of {available / 2**30:.2f}",
        "needed_hbm_bytes": needed,
        "available_hbm_bytes": available,
        "largest": largest[:_LISTED],
    }


def _operator_name(text: str) -> str:
    found = re.search(r'op_name="([^"]*)"', text)
    return found[1] if found else ""


def _bytes(text: str) -> int:
    number, unit = re.fullmatch(r"([\d.]+)([KMGT]?)B?", text).groups()
    return round(float(number) * _UNITS[unit])


def _compile(stablehlo: str, topology: str) -> dict[str, Any]:
    import numpy as np
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jax._src.lib.mlir import ir
    from jax.experimental import topologies

    described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **topology_options(topology))
    device = described.devices[0]
    with mlir.make_ir_context():
        program = mlir.module_to_bytecode(ir.Module.parse(stablehlo))
    options = compiler.get_compile_options(
        num_replicas=1, num_partitions=1, device_assignment=np.zeros((1, 1), int), backend=device.client
    )
    started = time.monotonic()
    try:
        compiled = device.client.compile(
            program, executable_devices=xla_client.DeviceList((device,)), compile_options=options
        )
    except xla_client.XlaRuntimeError as error:
        return {"compiled": False, "seconds": round(time.monotonic() - started, 1), **explain(str(error))}
    seconds = round(time.monotonic() - started, 1)
    memory, cost = compiled.get_compiled_memory_stats(), compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return {
        "compiled": True,
        "seconds": seconds,
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "alias": memory.alias_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
        },
        "flops": int(cost["flops"]),
        "xla_bytes_accessed": int(cost["bytes accessed"]),
        **vars(Module(compiled.hlo_modules()[0].to_string()).traffic()),
    }


def topology_options(topology: str) -> dict[str, Any]:
    """Gives the options of a topology that libtpu needs beside its name."""
    chip, _, shape = topology.partition(":")
    sizes = tuple(int(size) for size in shape.split("x"))
    sizes += (1,) * (3 - len(sizes))
    options: dict[str, Any] = {}
    if any(size % unit for size, unit in zip(sizes, _HOST_CHIPS, strict=True)):
        options["chips_per_host_bounds"] = sizes
    if chip == "v4":
        options["chip_config_name"] = "megacore"  # both of a chip's cores as one device, as on the later chips
    return options


def main() -> None:
    """Answers one request."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    check_installed()
    program = without_copies(Path(request["stablehlo"]).read_text(encoding="utf-8"))
    answers = {topology: _compile(program, topology) for topology in request["topologies"]}
    Path(request["answer"]).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main()
