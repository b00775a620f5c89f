"""Calibration: ranges against NumPy over the same values; the ranking leaves the model as it was."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfpipe.compress.calibration import (
    BINS,
    CalibrationRows,
    Probe,
    damage_by_layer,
    min_max_ranges,
    percentile_ranges,
)
from tfpipe.compress.fake_quantization import quantization_aware
from tfpipe.compress.grid import nudged, quantized
from tfpipe.encoders.parameters import kernels_by_point
from tfpipe.errors import InputError
from tfpipe.model.bert import build_training_model
from tfpipe.model.classifier import load_classifier
from tfpipe.model.layers import QuantizationPoint
from tfpipe.model.weights import get_weights, set_weights
from tfpipe.tokens.table import TokenTable
from tfpipe.train.recipe import training_plan
from tfpipe.train.step import model_inputs

LAST_LAYER = {
    "encoder.layer.1.attention.output.input",
    "encoder.layer.1.intermediate.input",
    "encoder.layer.1.output.input",
    "pooler.input",
}
"""points behind which the class tokens alone go on"""


@pytest.fixture(scope="module")
def rows(tiny_run) -> CalibrationRows:
    config, run = tiny_run
    table = TokenTable.open(run / "prepare" / "train")
    plan, _ = training_plan(config, table, table)
    return CalibrationRows(table, plan, 64)


@pytest.fixture(scope="module")
def model(tiny_run):
    classifier = load_classifier(tiny_run[1] / "train")
    model = build_training_model(classifier.architecture, 2)
    set_weights(model, classifier.weights)
    return model


@pytest.fixture(scope="module")
def values(model, rows) -> dict[str, list[np.ndarray]]:
    """What passes each point, by batch: of real tokens, and of class tokens of real examples."""
    points = {layer.name: layer.output for layer in model.layers if isinstance(layer, QuantizationPoint)}
    observed = tf_keras.Model(model.input, points)
    found = {name: [] for name in points}
    for batch in rows:
        masks = batch["segment_ids"].numpy() > 0, batch["weights"].numpy() > 0
        assert not masks[0].all()  # there is padding
        for name, x in observed(model_inputs(batch), training=False).items():
            of_class_tokens = name in LAST_LAYER
            found[name].append(x.numpy()[masks[of_class_tokens]].ravel())
    return found


def test_about_as_many_rows_as_asked_for_the_same_each_time(rows):
    counts = [int((batch["weights"].numpy() > 0).sum()) for batch in rows]
    assert len(counts) == rows.steps == 4 and 48 <= sum(counts) <= 80
    first, again = (np.concatenate([batch["input_ids"].numpy() for batch in rows]) for _ in range(2))
    assert np.array_equal(first, again)


def test_min_max_is_the_mean_over_batches(model, rows, values):
    found = min_max_ranges(model, rows)
    assert found.keys() == values.keys()
    for name, batches in values.items():
        expected = np.mean([each.min() for each in batches]), np.mean([each.max() for each in batches])
        assert found[name] == pytest.approx(expected, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("percentile", [90.0, 99.9])
def test_percentile_is_that_of_all_values_to_a_bin(model, rows, values, percentile):
    found = percentile_ranges(model, rows, percentile)
    assert found.keys() == values.keys()
    for name, batches in values.items():
        every = np.concatenate(batches)
        expected = np.percentile(every, [100.0 - percentile, percentile], method="inverted_cdf")
        width = float(every.max() - every.min()) / BINS
        assert found[name] == pytest.approx(expected, abs=3 * width), name


@pytest.fixture
def altered(model):
    """A function that gives the model other weights, until the end of the test."""
    before = get_weights(model)
    yield lambda **changes: set_weights(model, before | changes)
    set_weights(model, before)


RANGES = [min_max_ranges, lambda model, rows: percentile_ranges(model, rows, 99.9)]


@pytest.mark.parametrize("ranges_of", RANGES)
@pytest.mark.parametrize(("bias", "constant"), [(-50.0, 0.0), (0.3, 0.185), (-0.3, -0.115), (1e-38, 0.0)])
def test_a_constant_has_a_range_that_holds_zero(tiny_run, model, rows, altered, ranges_of, bias, constant):
    """A layer that is off, or always the same: its range is empty, and all that reads one must answer."""
    dense, point = "bert.encoder.layer.1.intermediate.dense", "encoder.layer.1.output.input"
    weights = get_weights(model)
    kernel, biases = np.zeros_like(weights[f"{dense}.weight"]), np.full_like(weights[f"{dense}.bias"], bias)
    altered(**{f"{dense}.weight": kernel, f"{dense}.bias": biases})
    ranges = ranges_of(model, rows)
    assert ranges[point] == pytest.approx((min(constant, 0.0), max(constant, 0.0)), abs=1e-3)
    assert all(np.isfinite(bounds).all() and bounds[0] <= 0.0 <= bounds[1] for bounds in ranges.values())
    batch = next(iter(rows))
    plain, probe = model(model_inputs(batch), training=False).numpy(), Probe(model)
    probe.switch_on({point: nudged(*ranges[point])})
    assert probe.model(model_inputs(batch), training=False).numpy() == pytest.approx(plain, abs=1e-2)
    assert all(np.isfinite(value) for value in damage_by_layer(model, rows, ranges, "single_label").values())
    aware = quantization_aware(model, ranges)
    assert np.isfinite(aware(model_inputs(batch), training=True).numpy()).all()
    kernels = [name for names in kernels_by_point(weights).values() for name in names]
    classifier = quantized(load_classifier(tiny_run[1] / "train"), get_weights(model), ranges, kernels)
    assert all(np.isfinite(value).all() for value in classifier.weights.values())


@pytest.mark.parametrize("ranges_of", RANGES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_has_no_range(model, rows, altered, ranges_of, value):
    name = "bert.encoder.layer.0.output.LayerNorm.bias"
    altered(**{name: np.full_like(get_weights(model)[name], value)})
    with pytest.raises(InputError, match=r"quantize: what passes encoder\.layer\.1\.\S+ is NaN or infinite on the cal"):
        ranges_of(model, rows)


@pytest.mark.parametrize("ranges_of", RANGES)
def test_one_row_is_a_step(model, tiny_run, ranges_of):
    config, run = tiny_run
    table = TokenTable.open(run / "prepare" / "train")
    one = CalibrationRows(table, training_plan(config, table, table)[0], 1)
    assert one.steps == len(list(one)) == 1
    assert all(low < high for low, high in ranges_of(model, one).values())


def test_a_probe_is_the_model_until_it_is_switched_on(model, rows):
    probe, batch = Probe(model), next(iter(rows))
    plain = model(model_inputs(batch), training=False).numpy()
    assert np.array_equal(probe.model(model_inputs(batch), training=False), plain)
    point = "encoder.layer.1.output.input"
    probe.switch_on({point: nudged(-0.1, 0.1)})
    assert np.abs(probe.model(model_inputs(batch), training=False) - plain).max() > 1e-3
    probe.switch_on({})
    assert np.array_equal(probe.model(model_inputs(batch), training=False), plain)


def test_damage_ranks_the_layers_and_leaves_the_model_as_it_was(model, rows):
    before, ranges = get_weights(model), min_max_ranges(model, rows)
    narrow = "encoder.layer.0.intermediate.input"
    damage = damage_by_layer(model, rows, ranges | {narrow: (-0.05, 0.05)}, "single_label")
    after = get_weights(model)
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    assert damage.keys() == ranges.keys() | {"embeddings"}
    assert next(iter(damage)) == narrow and damage[narrow] > 10 * sorted(damage.values())[-2]
    weights_alone = damage_by_layer(model, rows, {}, "single_label")
    assert weights_alone[narrow] < damage[narrow] / 10
    assert tf.reduce_all([value >= 0 for value in weights_alone.values()])
