"""The stage `quantize`: quantization-aware training; the result is a float file whose weights lie on an 8-bit grid.

Enters: `prepare` and the pruned classifier where there is one (its zeros stay zeros), else the dense one. Leaves: the
classifier in the transformers layout, `quantization.safetensors` beside it, and `history.json`.

What is quantized (Jacob et al., 2018): the kernels of all projections but the head's, per output channel, symmetric,
[-127, 127]; what enters them, per tensor, asymmetric, [0, 255]; their biases in steps of the products, 32 bits; the
embedding tables per row, symmetric, without training. Residuals, layer norms, softmax and the head stay float.
FakeQuant knows float32 only, so training is in it.
"""

from __future__ import annotations

import math

import numpy as np
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

from tfpipe.config import Config
from tfpipe.console import say
from tfpipe.data.batches import batches
from tfpipe.data.plan import Plan
from tfpipe.data.token_table import TokenTable
from tfpipe.model import layers
from tfpipe.model.bert import build_training_form
from tfpipe.model.weights import get_weights, load_classifier, save_classifier, set_weights, variables_by_name
from tfpipe.rundir import StageDirectory, write_json
from tfpipe.train.devices import choose_strategy, precision
from tfpipe.train.loop import fit
from tfpipe.train.recipe import recipe_of, training_plan
from tfpipe.train.step import Hooks, model_inputs

LARGEST_CODE = 127  # of a weight: the grid is symmetric, -128 is not used


def run(config: Config, stage: StageDirectory) -> None:
    """Calibrates, trains with fake quantization, puts the weights on their grid."""
    prepared = stage.inputs["prepare"]
    training, validation = TokenTable.open(prepared / "train"), TokenTable.open(prepared / "validation")
    base = load_classifier(stage.inputs.get("prune", stage.inputs["train"]))
    strategy, _ = choose_strategy(config.train.strategy)
    recipe = recipe_of(
        config,
        "quantize",
        keep="last",
        precision="float32",
        labels=base.labels,
        training=training,
    )
    plan, _ = training_plan(config, training, validation)
    weights, scales = dict(base.weights), {}
    for name in weights:
        if "embeddings" in name and name.endswith("_embeddings.weight"):
            weights[name], scales[name] = on_grid(weights[name])
    with precision("float32"), strategy.scope():
        architecture = base.architecture.with_dropout(config.train.dropout)
        float_model = build_training_form(architecture, len(base.labels))
        set_weights(float_model, weights)
        ranges = calibrate(float_model, training, plan, config.quantize.calibration_rows)
        model = quantization_aware(float_model, ranges)
        masks = KeptZeros(model)
    say(f"  {len(ranges)} activations calibrated on {min(config.quantize.calibration_rows, training.num_rows)} rows")

    hooks = Hooks(after_update=masks.update, tracked=masks)
    fitted = fit(
        model,
        stage=stage,
        training=training,
        validation=validation,
        plan=plan,
        recipe=recipe,
        strategy=strategy,
        hooks=hooks,
    )
    weights = get_weights(model)
    for name in sorted(kernels_of(model)):
        weights[name], scales[name] = on_grid(weights[name])
    quantization = {f"{name}.scale": scale for name, scale in scales.items()}
    learned = {name: nudged(low, high) for name, (low, high) in learned_ranges(model).items()}
    for name, (low, high) in learned.items():
        quantization |= {f"{name}.minimum": np.float32(low), f"{name}.maximum": np.float32(high)}
    for name in kernels_of(model):
        projection = name.removesuffix(".weight")
        low, high = learned[f"{projection.removeprefix('bert.').rpartition('.')[0]}.input"]
        bias = f"{projection}.bias"
        weights[bias] = bias_on_grid(weights[bias], weights[name], scales[name] * np.float32((high - low) / 255))
    say(f"  {len(scales)} weights on an 8-bit grid, {len(ranges)} activations with a learned range")
    save_classifier(stage.path, base.with_weights(weights, quantization), prepared / "tokenizer")
    write_json(stage.path / "history.json", fitted.history)


def on_grid(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a weight to its symmetric 8-bit grid, one scale per row.

    Args:
      weight: [rows, columns] float32; a row is an output channel or an embedding.

    Returns:
      The weight on the grid, float32, and the scales, [rows] float32: `weight / scale` is whole, within ±127. Zeros
      stay zeros.
    """
    scale = np.abs(weight).max(axis=1) / np.float32(LARGEST_CODE)
    scale = np.where(scale > 0, scale, np.float32(1.0)).astype(np.float32)
    codes = np.clip(np.round(weight / scale[:, None]), -LARGEST_CODE, LARGEST_CODE)
    return (codes * scale[:, None]).astype(np.float32), scale


def bias_on_grid(bias: np.ndarray, kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Rounds a bias to the steps of the sums that it is added to, so that it can be added as an int32.

    The steps are not always small beside it: rounded at the export alone, biases would cost more agreement than all
    else in the int8 file.

    Args:
      bias: [channels] float32.
      kernel: [channels, into] float32, on its grid; a channel without weights keeps its bias, as its sums are 0.
      scale: [channels] float32, the kernel's scale times the input's.
    """
    return np.where(kernel.any(axis=1), np.round(bias / scale) * scale, bias).astype(np.float32)


def nudged(low: float, high: float) -> tuple[float, float]:
    """Moves a range so that it holds 0 and 0 is one of its 256 levels, as FakeQuant does when it runs."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-6) / 255.0
    zero_point = min(max(round(-low / scale), 0), 255)
    return -zero_point * scale, (255 - zero_point) * scale


def calibrate(model: tf_keras.Model, table: TokenTable, plan: Plan, rows: int) -> dict[str, tuple[float, float]]:
    """The range at every quantization point: the mean, over batches, of the smallest and largest value.

    Args:
      model: training form, float.
      table: training rows.
      plan: made from them; its first steps are used.
      rows: how many rows, about.
    """
    outputs = {layer.name: layer.output for layer in model.layers if isinstance(layer, layers.QuantizationPoint)}
    observed = tf_keras.Model(model.input, outputs)

    @tf.function(reduce_retracing=True)
    def extremes(batch):
        answers = observed(model_inputs(batch), training=False)
        return {name: tf.stack([tf.reduce_min(x), tf.reduce_max(x)]) for name, x in answers.items()}

    share = min(rows, table.num_rows) / table.num_rows
    steps = math.ceil(share * plan.steps_per_epoch)
    seen = [extremes(batch) for batch in batches(table, plan, 0, steps)]
    means = {name: np.mean([each[name].numpy() for each in seen], axis=0) for name in outputs}
    return {name: (float(low), float(high)) for name, (low, high) in means.items()}


def quantization_aware(model: tf_keras.Model, ranges: dict[str, tuple[float, float]]) -> tf_keras.Model:
    """The same model with TF-MOT's fake quantization in it, its ranges set, its embeddings frozen.

    Args:
      model: training form, float.
      ranges: quantization point -> first range.
    """

    def annotate(layer):
        if isinstance(layer, tf_keras.layers.Dense) and layer.name != "classifier":
            return quantize_annotate_layer(layer, _KernelConfig())
        if isinstance(layer, layers.QuantizationPoint):
            return quantize_annotate_layer(layer, _OutputConfig())
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
    """Quantization point -> learned range."""
    return {name: (float(low.numpy()), float(high.numpy())) for name, (low, high) in _range_variables(model).items()}


def kernels_of(model: tf_keras.Model) -> dict[str, tf.Variable]:
    """Name -> kernel, for every quantized projection of a quantization-aware model."""
    return {
        name: variable
        for name, variable in variables_by_name(model).items()
        if name.endswith(".weight")
        and len(variable.shape) == 2
        and "embeddings" not in name
        and name != "classifier.weight"
    }


class KeptZeros(tf.Module):
    """Keeps the zeros that pruning made: masks over the kernels that have any, applied after every update."""

    def __init__(self, model: tf_keras.Model):
        super().__init__()
        self._kernels = [kernel for kernel in kernels_of(model).values() if (kernel.numpy() == 0).mean() > 0.01]
        self._masks = [tf.constant(kernel.numpy() != 0, tf.float32) for kernel in self._kernels]

    def update(self, step: tf.Tensor) -> None:
        """After the update of any step."""
        for kernel, mask in zip(self._kernels, self._masks, strict=True):
            kernel.assign(kernel * mask)


def _range_variables(model: tf_keras.Model) -> dict[str, tuple[tf.Variable, tf.Variable]]:
    found = {}
    for layer in model.layers:
        by_suffix = {weight.name.rsplit("/", 1)[-1]: weight for weight in layer.weights}
        if "output_min:0" in by_suffix:
            found[layer.layer.name] = (by_suffix["output_min:0"], by_suffix["output_max:0"])
    return found


class _KernelConfig(QuantizeConfig):
    """Per-channel symmetric kernel; the output is left to the layer that ends it."""

    def get_weights_and_quantizers(self, layer):
        quantizer = quantizers.LastValueQuantizer(num_bits=8, per_axis=True, symmetric=True, narrow_range=True)
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
        return {}


class _OutputConfig(_KernelConfig):
    """Per-tensor asymmetric activation, its range a moving average."""

    def get_weights_and_quantizers(self, layer):
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        pass

    def get_output_quantizers(self, layer):
        return [quantizers.MovingAverageQuantizer(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)]


class _NoTransform(quantize_layout_transform.QuantizeLayoutTransform):
    """Leaves the graph as it was annotated."""

    def apply(self, model, layer_quantize_map):
        return model, layer_quantize_map


class _AnnotatedOnly(quantize_registry.QuantizeRegistry):
    """Quantizes nothing but what was annotated."""

    def supports(self, layer):
        return False

    def get_quantize_config(self, layer):
        raise TypeError(f"no quantization was chosen for {layer.name}")


class _Scheme(quantize_scheme.QuantizeScheme):
    def get_layout_transformer(self):
        return _NoTransform()

    def get_quantize_registry(self):
        return _AnnotatedOnly()
