"""The choice of strategy and precision, with its reasons; callers print them.

    one_device     what TensorFlow does by itself
    mirrored       all GPUs of the machine, or all logical CPU devices
    multi_worker   MultiWorkerMirroredStrategy over the workers of TF_CONFIG: see `cluster.py` and `workers.py`
    tpu            all chips of a TPU VM, or of a pod: see `tpu.py`

A configuration means the same under each strategy. The rows of a batch are shared out in order (`tokens/batches.py`),
the gradient is that of the whole batch, and dropout goes by a row's place in it (`train/step.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

import tensorflow as tf
import tf_keras

from tfpipe.console import native_output_hidden
from tfpipe.devices import tpu
from tfpipe.devices.cluster import Cluster, workers_of
from tfpipe.devices.processor import cpu_flags
from tfpipe.errors import InputError


@dataclass(frozen=True)
class Choice:
    """A choice, and its reason."""

    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


def explain_strategy(requested: str) -> Choice:
    """Tells which strategy it will be, without making it: making `multi_worker` waits for the other workers.

    Args:
      requested: `auto`, `one_device`, `mirrored`, `multi_worker` or `tpu`.

    Raises:
      InputError: what was requested is not to be had here.
    """
    cluster = workers_of(requested)
    if cluster is not None:
        return Choice("multi_worker", f"TF_CONFIG: {cluster}")
    if requested == "multi_worker":
        return Choice("one_device", "TF_CONFIG names one worker")
    if requested == "tpu" or (requested == "auto" and tpu.is_here()):
        return Choice("tpu", tpu.described() + ("" if requested == "auto" else ", as requested"))
    gpus = tf.config.list_physical_devices("GPU")
    if requested == "mirrored" or (requested == "auto" and len(gpus) > 1):
        devices = tf.config.list_logical_devices("GPU" if gpus else "CPU")
        reason = f"{len(devices)} {'GPU' if gpus else 'CPU'} device(s)" + (
            "" if requested == "auto" else ", as requested"
        )
        return Choice("mirrored", reason)
    return Choice("one_device", "as requested" if requested != "auto" else ("one GPU" if gpus else "no GPU"))


def choose_strategy(requested: str, worker_timeout: float = 300.0) -> tuple[tf.distribute.Strategy, Choice]:
    """Makes the tf.distribute strategy of this process.

    Args:
      requested: see `explain_strategy`.
      worker_timeout: seconds that `multi_worker` waits for the other workers.

    Raises:
      InputError: what was requested is not to be had here.
    """
    choice = explain_strategy(requested)
    if choice.value == "mirrored":
        gpus = tf.config.list_logical_devices("GPU")
        devices = gpus or tf.config.list_logical_devices("CPU")
        return _mirrored(tuple(device.name for device in devices)), choice
    if choice.value == "multi_worker":
        if not _multi_worker.cache_info().currsize:
            Cluster.from_environment().wait_for_all(worker_timeout)
        return _multi_worker(), choice
    if choice.value == "tpu":
        return tpu.strategy(), choice
    return tf.distribute.get_strategy(), choice


# Each of these is one for the whole process. A strategy numbers its collective operations from the start, and the
# runtime remembers the shape behind a number: it refuses those of a second strategy.


@cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    return tf.distribute.MirroredStrategy(list(devices))


@cache
def _multi_worker() -> tf.distribute.MultiWorkerMirroredStrategy:
    implementations = tf.distribute.experimental.CommunicationImplementation
    gpus = tf.config.list_physical_devices("GPU")
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=implementations.NCCL if gpus else implementations.AUTO
    )
    with native_output_hidden():
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def choose_precision(requested: str) -> Choice:
    """Chooses the Keras policy of training: compute type; variables, softmax, layer norm and loss stay float32.

    Args:
      requested: `auto`, `float32`, `mixed_bfloat16` or `mixed_float16`.

    Raises:
      InputError: float16 on a TPU.
    """
    if _on_tpu():
        return tpu_precision(requested)
    if requested != "auto":
        return Choice(requested, "as requested")
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


def tpu_precision(requested: str) -> Choice:
    """Chooses the Keras policy for a TPU, whether there is one here or not.

    Raises:
      InputError: float16.
    """
    if requested == "mixed_float16":
        raise InputError("train.precision: mixed_float16 is for GPUs; for a TPU use auto or mixed_bfloat16")
    if requested != "auto":
        return Choice(requested, "as requested")
    return Choice("mixed_bfloat16", "a TPU multiplies nothing else as fast")


def choose_xla(requested: str) -> Choice:
    """Decides whether XLA compiles forward and backward pass into one program: `on` or `off`.

    Args:
      requested: `auto`, `on` or `off`.
    """
    if _on_tpu():
        return Choice("off", "a TPU compiles the whole step anyway")
    if requested != "auto":
        return Choice(requested, "as requested")
    if tf.config.list_physical_devices("GPU"):
        return Choice("on", "joins a GPU's kernels")
    return Choice("off", "compiled matrix products take twice as long on a CPU; chains between them are compiled")


@contextmanager
def float32_kept() -> Iterator[None]:
    """Multiplies float32 at full precision, for values that are computed outside a strategy and compared.

    A TPU rounds its factors, so its host computes. A GPU has TF32, with 10 bits of a mantissa, which TensorFlow uses by
    default: the block turns it off. Training keeps both.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        with tf.device("/CPU:0") if _on_tpu() else nullcontext():
            yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _on_tpu() -> bool:
    return tpu.is_here() or bool(tf.config.list_logical_devices("TPU"))


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Sets the global Keras policy for the block."""
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)
