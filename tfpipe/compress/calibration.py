"""Calibration: the ranges of activations from real rows, and the layers that 8 bits damage most.

Enters: a float model and training rows. Leaves: a range for every quantization point, and a ranking of the layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tf_keras

from tfpipe.compress.grid import LARGEST_CODE, nudged, on_grid
from tfpipe.console import progress_bar
from tfpipe.encoders.parameters import is_embedding, kernels_by_point
from tfpipe.errors import InputError
from tfpipe.model.layers import QuantizationPoint
from tfpipe.model.weights import get_weights, set_weights
from tfpipe.tasks import task_of
from tfpipe.tokens.batches import batches
from tfpipe.tokens.plan import Plan
from tfpipe.tokens.table import TokenTable
from tfpipe.train.step import Batch, model_inputs

BINS = 8192  # of a histogram, over the range of all values
SMALLEST_WIDTH = BINS * float(np.finfo(np.float32).tiny)  # of one: below it, TensorFlow takes a bin for nothing

Ranges = dict[str, tuple[float, float]]


class CalibrationRows:
    """The first rows of the plan: about the number that is asked for."""

    def __init__(self, table: TokenTable, plan: Plan, rows: int):
        """Reads nothing yet.

        Args:
          table: training rows.
          plan: made from them; its first steps are used.
          rows: how many rows, about; at most all.
        """
        self._table, self._plan = table, plan
        share = min(rows, table.num_rows) / table.num_rows
        self.steps = math.ceil(share * plan.steps_per_epoch)

    def __iter__(self) -> Iterator[Batch]:
        return iter(batches(self._table, self._plan, 0, self.steps).take(self.steps))


def min_max_ranges(model: tf_keras.Model, rows: CalibrationRows) -> Ranges:
    """Finds the range at every quantization point: the mean, over batches, of the smallest and largest value, and 0.

    Args:
      model: a training model, float.
      rows: what to run through it.

    Raises:
      InputError: a value is NaN or infinite.
    """
    seen = _extremes(model, rows)
    means = {name: np.mean([each[name] for each in seen], axis=0) for name in seen[0]}
    return {name: _with_zero(*bounds) for name, bounds in means.items()}


def percentile_ranges(model: tf_keras.Model, rows: CalibrationRows, percentile: float) -> Ranges:
    """Finds the range at every quantization point: between two percentiles of all values, by histogram, and 0.

    Args:
      model: a training model, float.
      rows: what to run through it, twice.
      percentile: of the upper end; the lower is as far from 0 %.

    Raises:
      InputError: a value is NaN or infinite.
    """
    seen = _extremes(model, rows)
    bounds = {
        name: (min(float(each[name][0]) for each in seen), max(float(each[name][1]) for each in seen))
        for name in seen[0]
    }
    # A constant, such as the zeros of a ReLU that is off, has no histogram.
    counts = {name: np.zeros(BINS, np.int64) for name, (low, high) in bounds.items() if high - low > SMALLEST_WIDTH}
    for values in observed(model, rows) if counts else ():
        for name in counts:
            counts[name] += tf.histogram_fixed_width(values[name], bounds[name], BINS).numpy()
    ranges = {name: _with_zero(*constant) for name, constant in bounds.items() if name not in counts}
    for name, count in counts.items():
        low, high = bounds[name]
        shares = np.cumsum(count) / count.sum()
        first, last = np.searchsorted(shares, [1.0 - percentile / 100.0, percentile / 100.0])
        width = (high - low) / BINS
        ranges[name] = _with_zero(low + first * width, low + (last + 1) * width)
    return ranges


def _with_zero(low: float, high: float) -> tuple[float, float]:
    """Widens a range to hold 0, as FakeQuant needs: it makes NaN of a range that is a single other value."""
    return min(float(low), 0.0), max(float(high), 0.0)


class Probe:
    """A float model with a switch at every quantization point, for looking at one layer or at all of them."""

    def __init__(self, model: tf_keras.Model):
        """Copies the graph and shares the weights.

        Args:
          model: a training model, float.
        """
        self.model = tf_keras.models.clone_model(
            model, clone_function=lambda layer: _Switched.of(layer) if isinstance(layer, QuantizationPoint) else layer
        )
        """training model: with every switch off, the one that was given"""
        self._switches = {layer.name: layer for layer in self.model.layers if isinstance(layer, _Switched)}

    def switch_on(self, ranges: Ranges) -> None:
        """Rounds the values at these quantization points to 256 levels, and no others."""
        for name, switch in self._switches.items():
            switch.set(nudged(*ranges[name]) if name in ranges else None)


def damage_by_layer(
    model: tf_keras.Model, rows: CalibrationRows, ranges: Ranges, task: str, largest_code: int = LARGEST_CODE
) -> dict[str, float]:
    """Measures how far the answers move when one layer alone is quantized, the worst first.

    Args:
      model: a training model, float; its weights are as before in the end.
      rows: what to run through it, once for each layer and once as it is.
      ranges: quantization point -> range; empty: weights alone.
      task: `single_label` or `multi_label`.
      largest_code: of a kernel.

    Returns:
      Layer -> Kullback-Leibler divergence from the float model's probabilities, mean over the rows. A layer is a
      quantization point with the kernels behind it, or `embeddings`.
    """
    probe = Probe(model)
    before = get_weights(model)
    layers = kernels_by_point(before) | {"embeddings": [name for name in before if is_embedding(name)]}
    answer = tf.function(
        lambda batch: probe.model(model_inputs(batch), training=False), reduce_retracing=True, autograph=False
    )

    def probabilities() -> np.ndarray:
        found = []
        for batch in rows:
            logits = answer(batch).numpy()
            found.append(task_of(task).probabilities(logits[batch["weights"].numpy() > 0]))
        return np.concatenate(found)

    damage = {}
    with progress_bar("sensitivity", len(layers) + 1) as bar:
        expected = probabilities()
        bar.advance()
        for layer, kernels in layers.items():
            largest = LARGEST_CODE if layer == "embeddings" else largest_code
            set_weights(model, before | {name: on_grid(before[name], largest)[0] for name in kernels})
            probe.switch_on({layer: ranges[layer]} if layer in ranges else {})
            damage[layer] = task_of(task).divergence(probabilities(), expected)
            bar.advance()
    set_weights(model, before)
    return dict(sorted(damage.items(), key=lambda item: -item[1]))


class _Switched(tf_keras.layers.Layer):
    """A quantization point with a switch: on, it rounds to the 256 levels of a range."""

    @classmethod
    def of(cls, layer: tf_keras.layers.Layer) -> _Switched:
        return cls(name=layer.name)

    def build(self, input_shape):
        self._on, self._low, self._high = (
            tf.Variable(value, trainable=False, dtype=tf.float32) for value in (0.0, -1.0, 1.0)
        )

    def set(self, bounds: tuple[float, float] | None) -> None:
        self._on.assign(0.0 if bounds is None else 1.0)
        if bounds is not None:
            self._low.assign(bounds[0])
            self._high.assign(bounds[1])

    def call(self, x):
        return tf.cond(
            self._on > 0.0,
            lambda: tf.quantization.fake_quant_with_min_max_vars(x, self._low, self._high),
            lambda: tf.identity(x),
        )


def observed(model: tf_keras.Model, rows: CalibrationRows) -> Iterator[dict[str, tf.Tensor]]:
    """Yields, batch by batch, the values at each quantization point: [tokens or examples, width] float32, unpadded."""
    outputs = {layer.name: layer.output for layer in model.layers if isinstance(layer, QuantizationPoint)}
    observed = tf_keras.Model(model.input, outputs)
    answer = tf.function(
        lambda batch: observed(model_inputs(batch), training=False), reduce_retracing=True, autograph=False
    )
    for batch in rows:
        tokens, examples = batch["segment_ids"] > 0, batch["weights"] > 0  # [rows, length], [rows, slots]
        yield {
            name: tf.boolean_mask(x, tokens if x.shape[1] == tokens.shape[1] else examples)
            for name, x in answer(batch).items()
        }


def _extremes(model: tf_keras.Model, rows: CalibrationRows) -> list[dict[str, np.ndarray]]:
    """Finds, batch by batch, the smallest and the largest value at each quantization point, `[2] float32`."""
    seen = []
    for values in observed(model, rows):
        seen.append({name: np.array([tf.reduce_min(x), tf.reduce_max(x)]) for name, x in values.items()})
        for name, bounds in seen[-1].items():
            if not np.isfinite(bounds).all():
                raise InputError(
                    f"quantize: what passes {name} is NaN or infinite on the calibration rows, so it has no range; "
                    "train again with a lower train.learning_rate, or set quantize.mode: weight_only"
                )
    return seen
