"""Quantization-aware training by TF-MOT: a model with fake quantization in it.

TF-MOT's default 8-bit scheme would quantize the integer inputs. The scheme here quantizes annotated layers alone and
leaves the graph as it is. Kernels are quantized per output channel, symmetric. The inputs of projections are quantized
per tensor, their range a moving average. FakeQuant knows float32 only, so training uses float32.
"""

from __future__ import annotations

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import (
    quantize_layout_transform,
    quantize_registry,
    quantize_scheme,
)
from tensorflow_model_optimization.quantization.keras import (
    QuantizeConfig,
    quantize_annotate_layer,
    quantize_apply,
    quantizers,
)

from tfpipe.compress.masks import zeroing
from tfpipe.encoders.parameters import is_projection, point_of
from tfpipe.model import layers
from tfpipe.model.weights import get_weights, set_weights, variables_by_name


@tf.autograph.experimental.do_not_convert
def quantization_aware(
    model: tf_keras.Model,
    ranges: dict[str, tuple[float, float]],
    kernel_bits: int = 8,
    *,
    symmetric: bool = False,
) -> tf_keras.Model:
    """Copies a model with TF-MOT's fake quantization in it, its ranges set, its embeddings frozen.

    Args:
      model: a training model, float.
      ranges: quantization point -> first range; the others, and the projections behind them, stay float.
      kernel_bits: 8, or 7 where sums of two products must fit into 16 bits.
      symmetric: whether ranges of activations stay balanced around 0.
    """

    def annotate(layer):
        if isinstance(layer, tf_keras.layers.Dense) and point_of(layer.name) in ranges:
            return quantize_annotate_layer(layer, _KernelConfig(kernel_bits))
        if layer.name in ranges:
            return quantize_annotate_layer(layer, _OutputConfig(symmetric))
        return layer

    annotated = tf_keras.models.clone_model(model, clone_function=annotate)
    custom = {name: value for name, value in vars(layers).items() if isinstance(value, type)}
    with tf_keras.utils.custom_object_scope(custom | {c.__name__: c for c in (_KernelConfig, _OutputConfig)}):
        aware = quantize_apply(annotated, _Scheme())
    set_weights(aware, get_weights(model))
    for layer in aware.layers:
        if isinstance(layer, tf_keras.layers.Embedding):
            layer.trainable = False  # on its grid already
    for name, bounds in _range_variables(aware).items():
        for variable, value in zip(bounds, ranges[name], strict=True):
            variable.assign(value)
    return aware


def learned_ranges(model: tf_keras.Model) -> dict[str, tuple[float, float]]:
    """Lists the learned ranges: quantization point -> range."""
    return {name: (float(low.numpy()), float(high.numpy())) for name, (low, high) in _range_variables(model).items()}


class KeptZeros:
    """The zeros that pruning made, kept by masks over the kernels that have any; applied after every update."""

    def __init__(self, model: tf_keras.Model):
        kernels = [
            variable
            for name, variable in variables_by_name(model).items()
            if is_projection(name) and (variable.numpy() == 0).mean() > 0.01
        ]
        self._zero = zeroing(kernels, [tf.constant(kernel.numpy() != 0, tf.float32) for kernel in kernels])

    def update(self, step: tf.Tensor) -> None:
        """Applies the masks after the update of any step."""
        self._zero()


def _range_variables(model: tf_keras.Model) -> dict[str, tuple[tf.Variable, tf.Variable]]:
    found = {}
    for layer in model.layers:
        by_suffix = {weight.name.rsplit("/", 1)[-1]: weight for weight in layer.weights}
        if "output_min:0" in by_suffix:
            found[layer.layer.name] = (by_suffix["output_min:0"], by_suffix["output_max:0"])
    return found


class _KernelConfig(QuantizeConfig):
    """Per-channel symmetric kernel; the output is left to the layer that ends it."""

    def __init__(self, bits: int = 8):
        self._bits = bits

    def get_weights_and_quantizers(self, layer):
        quantizer = quantizers.LastValueQuantizer(num_bits=self._bits, per_axis=True, symmetric=True, narrow_range=True)
        return [(layer.kernel, quantizer)]

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        layer.kernel = quantize_weights[0]

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        return []

    def get_config(self):
        return {"bits": self._bits}


class _OutputConfig(_KernelConfig):
    """Per-tensor activation, its range a moving average."""

    def __init__(self, symmetric: bool = False):
        super().__init__()
        self._symmetric = symmetric

    def get_config(self):
        return {"symmetric": self._symmetric}

    def get_weights_and_quantizers(self, layer):
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        pass

    def get_output_quantizers(self, layer):
        quantizer = quantizers.MovingAverageQuantizer(
            num_bits=8, per_axis=False, symmetric=self._symmetric, narrow_range=False
        )
        return [quantizer]


class _NoTransform(quantize_layout_transform.QuantizeLayoutTransform):
    """A transform that leaves the graph as it was annotated."""

    def apply(self, model, layer_quantize_map):
        return model, layer_quantize_map


class _AnnotatedOnly(quantize_registry.QuantizeRegistry):
    """A registry without layers: only annotated ones are quantized."""

    def supports(self, layer):
        return False

    def get_quantize_config(self, layer):
        raise TypeError(f"no quantization was chosen for {layer.name}")


class _Scheme(quantize_scheme.QuantizeScheme):
    def get_layout_transformer(self):
        return _NoTransform()

    def get_quantize_registry(self):
        return _AnnotatedOnly()
