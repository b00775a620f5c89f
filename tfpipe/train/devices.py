"""Which strategy and which precision, and why: chosen here, printed by whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tensorflow as tf
import tf_keras


@dataclass(frozen=True)
class Choice:
    """What was chosen, and the reason."""

    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


def choose_strategy(requested: str) -> tuple[tf.distribute.Strategy, Choice]:
    """The tf.distribute strategy of this process.

    Args:
      requested: `auto`, `one_device` or `mirrored`.
    """
    gpus = tf.config.list_logical_devices("GPU")
    cpus = tf.config.list_logical_devices("CPU")
    if requested == "mirrored" or (requested == "auto" and len(gpus) > 1):
        devices = [device.name for device in (gpus or cpus)]
        kind = "GPU" if gpus else "CPU"
        reason = f"{len(devices)} {kind} device(s)" + ("" if requested == "auto" else ", as requested")
        return _mirrored(tuple(devices)), Choice("mirrored", reason)
    reason = "as requested" if requested != "auto" else ("one GPU" if gpus else "no GPU")
    return tf.distribute.get_strategy(), Choice("one_device", reason)


@cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """One for the whole process.

    Each strategy numbers its collective operations from the start, and the runtime remembers the shape behind a number:
    it refuses those of a second strategy.
    """
    return tf.distribute.MirroredStrategy(list(devices))


def choose_precision(requested: str) -> Choice:
    """The Keras policy of training: compute type; variables, softmax, layer norm and loss stay float32.

    Args:
      requested: `auto`, `float32`, `mixed_bfloat16` or `mixed_float16`.
    """
    if requested != "auto":
        return Choice(requested, "as requested")
    if tf.config.list_logical_devices("TPU"):
        return Choice("mixed_bfloat16", "a TPU multiplies nothing else as fast")
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        shown = f"GPU of compute capability {capability[0]}.{capability[1]}"
        if capability >= (7, 0):
            return Choice("mixed_float16", f"{shown}, with dynamic loss scaling")
        return Choice("float32", f"{shown} has no fast float16 products")
    flags = cpu_flags()
    for flag in ("amx_bf16", "avx512_bf16"):
        if flag in flags:
            return Choice("mixed_bfloat16", f"the processor has {flag}")
    return Choice("float32", "the processor has neither amx_bf16 nor avx512_bf16")


def cpu_flags() -> set[str]:
    """Instruction sets of the processor, as Linux names them; empty where Linux does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "").split())


def int8_outlook(flags: set[str]) -> str:
    """What 8-bit matrix products will do on a processor with these instruction sets."""
    if flags & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        return "fast and exact (VNNI or AMX)"
    if flags & {"avx2", "avx512bw"}:
        return "slower, and sums of large products may saturate: no VNNI; check the parity table of a run made here"
    return "unknown processor; check the parity table and the latencies of a run made here"


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Sets the global Keras policy for the block."""
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)
