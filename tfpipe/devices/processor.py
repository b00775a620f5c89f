"""The processor of this machine: its instruction sets, and the way in which it multiplies 8-bit numbers."""

from __future__ import annotations

from pathlib import Path

INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""instruction sets that multiply 8-bit integers exactly"""


CLIPS = "this processor has neither VNNI nor AMX, so ONNX Runtime clips sums of two 8-bit products at 16 bits"
"""the cause, where an int8 file answers wrongly"""


def cpu_flags() -> set[str]:
    """Lists the instruction sets of the processor, as Linux names them; empty where Linux does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "").split())


def sums_overflow(flags: set[str]) -> bool:
    """Tells whether ONNX Runtime adds two 8-bit products in 16 bits here: see `compress/saturation.py`."""
    return "avx2" in flags and not flags & INT8_FLAGS


def int8_outlook(flags: set[str]) -> str:
    """Describes 8-bit matrix products on a processor with these instruction sets."""
    if flags & INT8_FLAGS:
        return "fast and exact (VNNI or AMX)"
    if sums_overflow(flags):
        return (
            "slower, and sums of two products may saturate at 16 bits: no VNNI; set quantize.reduce_range: true for "
            "models that run here"
        )
    return "unknown processor; check the parity table and the latencies of a run made here"
