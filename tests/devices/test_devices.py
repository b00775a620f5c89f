"""Which strategy and precision are chosen, and what is said about it. Written for machines without a GPU too."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfpipe.devices import strategy as devices
from tfpipe.devices.strategy import (
    Choice,
    choose_precision,
    choose_strategy,
    choose_xla,
    explain_strategy,
    float32_kept,
    precision,
)
from tfpipe.errors import InputError

HAS_GPU = bool(tf.config.list_physical_devices("GPU"))
without_gpu = pytest.mark.skipif(HAS_GPU, reason="what is chosen on a machine with a GPU is another thing")


def test_one_device_as_requested():
    strategy, choice = choose_strategy("one_device")
    assert strategy.num_replicas_in_sync == 1 and not isinstance(strategy, tf.distribute.MirroredStrategy)
    assert str(choice) == "one_device (as requested)"


@without_gpu
def test_auto_is_one_device_without_a_gpu():
    """Two logical processors alone are no reason to mirror."""
    strategy, choice = choose_strategy("auto")
    assert strategy.num_replicas_in_sync == 1
    assert choice == Choice("one_device", "no GPU")


@without_gpu
def test_mirrored_takes_every_device():
    strategy, choice = choose_strategy("mirrored")
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == 2
    assert str(choice) == "mirrored (2 CPU device(s), as requested)"


def test_several_workers_come_first(monkeypatch):
    """Explained, not made: that would wait for the others."""
    cluster = {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert str(explain_strategy("auto")) == "multi_worker (TF_CONFIG: worker 1 of 2, 10.0.0.2:2222)"
    assert explain_strategy("one_device").value == "one_device"
    monkeypatch.setenv("TF_CONFIG", json.dumps({**config, "cluster": {"worker": cluster["worker"][:1]}}))
    with pytest.raises(InputError, match=r"^TF_CONFIG: has task index 1"):
        explain_strategy("auto")
    monkeypatch.delenv("TF_CONFIG")
    with pytest.raises(InputError, match=r"^train\.strategy: multi_worker needs TF_CONFIG"):
        explain_strategy("multi_worker")


def test_a_tpu_comes_before_gpus(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "imdb")
    assert str(explain_strategy("auto")) == "tpu (TPU_NAME=imdb)"
    assert explain_strategy("mirrored").value == "mirrored"


def test_xla_by_device(monkeypatch):
    assert choose_xla("on") == Choice("on", "as requested") and choose_xla("off").value == "off"
    gpu = [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")]
    for found, value in (([], "off"), (gpu, "on")):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind, found=found: found)
        assert choose_xla("auto").value == value
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["TPU:0"] if kind == "TPU" else [])
    assert choose_xla("on") == Choice("off", "a TPU compiles the whole step anyway")


@pytest.mark.parametrize("requested", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_requested_precision_is_taken(requested):
    assert choose_precision(requested) == Choice(requested, "as requested")


@without_gpu
@pytest.mark.parametrize(
    ("flags", "value", "reason"),
    [
        ({"avx512f", "avx512_bf16"}, "mixed_bfloat16", "the processor has avx512_bf16"),
        ({"avx512_bf16", "amx_bf16"}, "mixed_bfloat16", "the processor has amx_bf16"),
        ({"avx2", "avx512f"}, "float32", "the processor has neither amx_bf16 nor avx512_bf16"),
        (set(), "float32", "the processor has neither amx_bf16 nor avx512_bf16"),
    ],
)
def test_precision_follows_the_processor(monkeypatch, flags, value, reason):
    monkeypatch.setattr(devices, "cpu_flags", lambda: flags)
    assert choose_precision("auto") == Choice(value, reason)


@pytest.mark.parametrize(
    ("capability", "value", "reason"),
    [
        ((8, 0), "mixed_float16", "GPU of compute capability 8.0, with dynamic loss scaling"),
        ((7, 0), "mixed_float16", "GPU of compute capability 7.0, with dynamic loss scaling"),
        ((6, 1), "float32", "GPU of compute capability 6.1 has no fast float16 products"),
    ],
)
def test_precision_follows_the_gpu(monkeypatch, capability, value, reason):
    found = [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: found)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: {"compute_capability": capability})
    assert choose_precision("auto") == Choice(value, reason)


def test_a_tpu_multiplies_bfloat16(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["TPU:0"] if kind == "TPU" else [])
    assert choose_precision("auto").value == "mixed_bfloat16"


def test_beside_a_tpu_float32_is_computed_on_the_host(monkeypatch):
    @float32_kept()
    def product():
        return tf.matmul([[1.0]], [[2.0]]).device[-len("CPU:0") :]

    with tf.device("/CPU:1"):  # what a TPU takes by itself
        assert product() == "CPU:1"
        monkeypatch.setenv("TPU_NAME", "imdb")
        assert product() == "CPU:0"


@pytest.mark.parametrize("before", [True, False])
def test_tf32_is_off_while_answers_are_compared(before):
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    default = enabled()
    try:
        tf.config.experimental.enable_tensor_float_32_execution(before)
        with float32_kept():
            assert not enabled()
            with float32_kept():
                assert not enabled()
            assert not enabled()
        assert enabled() == before
        with pytest.raises(ZeroDivisionError), float32_kept():
            _ = 1 / 0
        assert enabled() == before
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(default)


@pytest.mark.skipif(not HAS_GPU, reason="TF32 is a GPU's")
def test_a_gpu_multiplies_float32_in_full():
    random = np.random.default_rng(0)
    left, right = (random.normal(size=(512, 512)).astype(np.float32) for _ in range(2))
    exact = left.astype(np.float64) @ right.astype(np.float64)

    @float32_kept()
    def product():
        return tf.matmul(left, right).numpy()

    assert np.abs(product() - exact).max() < 1e-3 < np.abs(tf.matmul(left, right).numpy() - exact).max()


def test_precision_sets_and_restores_the_policy():
    before = tf_keras.mixed_precision.global_policy().name
    with precision("mixed_bfloat16"):
        assert tf_keras.mixed_precision.global_policy().compute_dtype == "bfloat16"
        with precision("float32"):
            assert tf_keras.mixed_precision.global_policy().compute_dtype == "float32"
        assert tf_keras.mixed_precision.global_policy().compute_dtype == "bfloat16"
    assert tf_keras.mixed_precision.global_policy().name == before


def test_precision_is_restored_after_an_error():
    before = tf_keras.mixed_precision.global_policy().name
    with pytest.raises(RuntimeError), precision("mixed_bfloat16"):
        raise RuntimeError
    assert tf_keras.mixed_precision.global_policy().name == before
