"""Quantization-aware training: the stored grid and ranges, and that they answer as the model that was trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import TINY, tiny_vocabulary, tiny_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file

from tfpipe import metrics
from tfpipe.compress import quantize
from tfpipe.compress.prune import is_prunable
from tfpipe.compress.quantize import LARGEST_CODE, KeptZeros, bias_on_grid, kernels_of, nudged, on_grid
from tfpipe.data.plan import choose_batching
from tfpipe.data.token_table import TokenTable
from tfpipe.export.export import float_model
from tfpipe.model.bert import Architecture, build_training_form
from tfpipe.model.layers import QuantizationPoint
from tfpipe.model.weights import QUANTIZATION_FILE, WEIGHTS_FILE, get_weights, load_classifier, set_weights
from tfpipe.rundir import StageDirectory, sha256_of_file
from tfpipe.train.evaluation import Evaluation

POINTS = {f"encoder.layer.{layer}.{part}.input" for layer in (0, 1) for part in (
    "attention.self", "attention.output", "intermediate", "output")} | {"pooler.input"}  # fmt: skip
EMBEDDINGS = {f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")}


@pytest.fixture(scope="module")
def pruned(tiny_run) -> dict[str, np.ndarray]:
    return load_file(tiny_run[1] / "prune" / WEIGHTS_FILE)


@pytest.fixture(scope="module")
def weights(tiny_run) -> dict[str, np.ndarray]:
    return load_file(tiny_run[1] / "quantize" / WEIGHTS_FILE)


@pytest.fixture(scope="module")
def quantization(tiny_run) -> dict[str, np.ndarray]:
    return load_file(tiny_run[1] / "quantize" / QUANTIZATION_FILE)


@dataclass
class Requantized:
    """The stage done once more, its model kept."""

    stage: StageDirectory
    calibrated: dict[str, tuple[float, float]] = field(default_factory=dict)
    model: tf_keras.Model | None = None


@pytest.fixture(scope="module")
def requantized(tiny_run, tmp_path_factory) -> Requantized:
    config, run = tiny_run
    inputs = {name: run / name for name in ("prepare", "train", "prune")}
    result = Requantized(StageDirectory("quantize", tmp_path_factory.mktemp("quantize"), inputs))
    calibrate, fit = quantize.calibrate, quantize.fit

    def keep_ranges(*args):
        result.calibrated = calibrate(*args)
        return result.calibrated

    def keep_model(model, **kwargs):
        result.model = model
        return fit(model, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "calibrate", keep_ranges)
        patch.setattr(quantize, "fit", keep_model)
        quantize.run(config, result.stage)
    return result


def scales_of(quantization: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removesuffix(".scale"): scale for name, scale in quantization.items() if name.endswith(".scale")}


def test_what_is_quantized(weights, quantization):
    scales = scales_of(quantization)
    kernels = {name for name, value in weights.items() if is_prunable(name, value)}
    assert set(scales) == kernels | EMBEDDINGS | {"bert.pooler.dense.weight"}
    for name, scale in scales.items():
        assert scale.dtype == np.float32 and scale.shape == weights[name].shape[:1], name
    ranges = {name.rsplit(".", 1)[0] for name in quantization if not name.endswith(".scale")}
    assert ranges == POINTS
    assert len(quantization) == len(scales) + 2 * len(POINTS)


def test_weights_lie_on_their_grid(weights, quantization):
    for name, scale in scales_of(quantization).items():
        codes = weights[name] / scale[:, None]
        assert np.abs(codes - np.round(codes)).max() <= 1e-3, name
        assert np.abs(codes).max() <= LARGEST_CODE + 1e-3, name
        # The largest weight of each row takes the last code: no part of the grid is wasted.
        largest = np.abs(np.round(codes)).max(axis=1)
        assert set(np.unique(largest)) <= {0.0, float(LARGEST_CODE)}, name


def test_biases_lie_in_steps_of_the_sums_that_they_join(weights, quantization):
    checked = 0
    for name, scale in scales_of(quantization).items():
        if "embeddings" in name:
            continue
        projection = name.removesuffix(".weight")
        point = f"{projection.removeprefix('bert.').rpartition('.')[0]}.input"
        assert point in POINTS, name
        low, high = (float(quantization[f"{point}.{end}"]) for end in ("minimum", "maximum"))
        steps = weights[f"{projection}.bias"] / (scale.astype(np.float64) * (high - low) / 255)
        used = weights[name].any(axis=1)
        assert np.abs(steps - np.round(steps))[used].max() <= 0.01, name
        assert np.abs(np.round(steps))[used].max() > 1, name
        checked += 1
    assert checked == 2 * 6 + 1


def test_a_bias_of_an_empty_channel_is_kept():
    kernel = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32)
    found = bias_on_grid(np.array([0.26, 0.26], np.float32), kernel, np.array([0.1, 1.0], np.float32))
    assert found == pytest.approx([0.3, 0.26]) and found.dtype == np.float32


def test_zeros_of_pruning_stay_zeros(pruned, weights):
    for name, before in pruned.items():
        if is_prunable(name, before):
            assert (before == 0).mean() == pytest.approx(0.5, abs=1e-3), name
            assert (weights[name][before == 0] == 0).all(), name


def test_the_kernels_were_trained_and_the_embeddings_were_not(pruned, weights):
    for name, before in pruned.items():
        if name in EMBEDDINGS:
            assert np.array_equal(weights[name], on_grid(before)[0])
        else:
            assert not np.array_equal(weights[name], before), name
            if is_prunable(name, before):
                assert not np.array_equal(weights[name], on_grid(before)[0]), name


def test_learned_ranges_differ_from_the_calibrated_ones(requantized):
    learned = load_classifier(requantized.stage.path).ranges
    assert requantized.calibrated.keys() == learned.keys() == POINTS
    for name, (low, high) in learned.items():
        assert math.isfinite(low) and math.isfinite(high) and low <= 0.0 < high, name
        # More than what moving 0 onto a level accounts for.
        assert (low, high) != pytest.approx(nudged(*requantized.calibrated[name]), rel=1e-6), name
        assert (low, high) == pytest.approx(requantized.calibrated[name], rel=0.5, abs=0.5), name


def test_zero_is_a_level_of_every_stored_range(quantization):
    for name in POINTS:
        low, high = float(quantization[f"{name}.minimum"]), float(quantization[f"{name}.maximum"])
        level = -low / ((high - low) / 255)
        assert abs(level - round(level)) <= 1e-3, name


def test_the_stage_repeats_itself(tiny_run, requantized):
    _, run = tiny_run
    for name in (WEIGHTS_FILE, QUANTIZATION_FILE, "config.json", "history.json"):
        assert sha256_of_file(requantized.stage.path / name) == sha256_of_file(run / "quantize" / name), name


def test_the_stored_result_answers_as_the_model_that_was_trained(tiny_run, requantized):
    """TF-MOT's fake quantization against the mask form with fixed ranges, over all rows of the run."""
    config, run = tiny_run
    classifier = load_classifier(requantized.stage.path)
    ours = float_model(classifier)
    assert len(classifier.ranges) == len(POINTS)
    trained, stored, rows = [], [], 0
    for split in ("train", "validation", "test"):
        table = TokenTable.open(run / "prepare" / split)
        batching, _ = choose_batching("packed", table.lengths, batch_size=16, max_length=config.data.max_length)
        trained.append(Evaluation(requantized.model, table, config.task, batching).logits())
        stored.append(ours(table.padded(np.arange(table.num_rows)), training=False).numpy())
        rows += table.num_rows
    assert rows == 400
    trained, stored = np.concatenate(trained), np.concatenate(stored)
    assert (trained.argmax(1) == stored.argmax(1)).mean() >= 0.98
    difference = metrics.probabilities(trained, config.task) - metrics.probabilities(stored, config.task)
    assert np.abs(difference).mean() <= 0.01


def test_quantization_is_at_work_in_the_mask_form(tiny_run, weights):
    """Without its ranges, the same weights answer a little differently: or the test above would compare floats."""
    _, run = tiny_run
    classifier = load_classifier(run / "quantize")
    table = TokenTable.open(run / "prepare" / "test")
    inputs = table.padded(np.arange(32))
    quantized = float_model(classifier)(inputs).numpy()
    plain = float_model(classifier.with_weights(classifier.weights))(inputs).numpy()
    assert 1e-4 < np.abs(quantized - plain).max() < 1.0


def test_kernels_of_are_the_quantized_ones(requantized, quantization):
    assert set(kernels_of(requantized.model)) | EMBEDDINGS == set(scales_of(quantization))
    for name, kernel in kernels_of(requantized.model).items():
        assert isinstance(kernel, tf.Variable) and "classifier" not in name


def test_only_kernels_that_pruning_made_zeros_in_are_held(tiny_run):
    _, run = tiny_run
    for stage, held in (("prune", 12), ("train", 0)):
        classifier = load_classifier(run / stage)
        model = build_training_form(classifier.architecture, 2)
        set_weights(model, classifier.weights)
        zeros = KeptZeros(model)
        for kernel in kernels_of(model).values():
            kernel.assign_add(tf.ones_like(kernel))
        zeros.update(tf.constant(0, tf.int64))
        after = get_weights(model)
        kept = [
            name
            for name, value in classifier.weights.items()
            if is_prunable(name, value) and np.array_equal(after[name] == 0, value == 0) and (value == 0).any()
        ]
        assert len(kept) == held


def test_a_dense_model_is_quantized_as_well():
    """Without pruning: the first ranges are taken, the embeddings are frozen, and nothing else is."""
    architecture = Architecture.from_dict(TINY | {"vocab_size": len(tiny_vocabulary()), "num_hidden_layers": 1})
    model = build_training_form(architecture, 2)
    set_weights(
        model,
        {f"bert.{name}": value for name, value in tiny_weights(architecture.to_dict()).items()}
        | {"classifier.weight": np.ones((2, 32), np.float32), "classifier.bias": np.zeros(2, np.float32)},
    )
    points = [layer.name for layer in model.layers if isinstance(layer, QuantizationPoint)]
    ranges = {name: (-1.0 - number, 2.0 + number) for number, name in enumerate(points)}
    aware = quantize.quantization_aware(model, ranges)
    assert quantize.learned_ranges(aware) == ranges
    frozen = {layer.name for layer in aware.layers if layer.weights and not layer.trainable_weights}
    assert {name.removeprefix("bert.").removesuffix(".weight") for name in EMBEDDINGS} <= frozen
    kernels = {id(variable) for variable in aware.trainable_variables}
    assert all(id(kernel) in kernels for kernel in kernels_of(aware).values())


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
        | st.just(0.0)
        | st.floats(-(2**-20), 2**-20, width=32, allow_subnormal=False),
    )
)
def test_on_grid(weight):
    moved, scale = on_grid(weight)
    assert moved.dtype == scale.dtype == np.float32
    assert moved.shape == weight.shape and scale.shape == weight.shape[:1]
    assert (scale > 0).all() and np.isfinite(moved).all()
    error = np.abs(moved.astype(np.float64) - weight.astype(np.float64))
    assert (error <= scale[:, None] * (0.5 + 1e-4)).all()
    assert (moved[weight == 0] == 0).all()
    codes = moved / scale[:, None]
    assert np.abs(codes - np.round(codes)).max() <= 1e-3 and np.abs(codes).max() <= LARGEST_CODE + 1e-3
    # What lies on a grid already is not moved again.
    again, _ = on_grid(moved)
    assert np.allclose(again, moved, rtol=1e-5, atol=0)


def test_on_grid_of_zeros_alone():
    moved, scale = on_grid(np.array([[0.0, 0.0], [1.0, -127.0]], np.float32))
    assert moved.tolist() == [[0.0, 0.0], [1.0, -127.0]]
    assert scale.tolist() == [1.0, 1.0]


@settings(max_examples=300, deadline=None)
@given(st.floats(-50.0, 50.0), st.floats(0.01, 100.0))
def test_nudged_holds_zero_exactly(low, width):
    high = low + width
    moved_low, moved_high = nudged(low, high)
    assert moved_low <= 0.0 <= moved_high
    step = (moved_high - moved_low) / 255
    assert abs(-moved_low / step - round(-moved_low / step)) <= 1e-6
    # It moves by half a level at most.
    assert abs(moved_low - min(low, 0.0)) <= step * 0.5001
    assert abs(moved_high - max(high, 0.0)) <= step * 0.5001
    # FakeQuant, which nudges by itself, leaves the answer as it is, and 0 stays 0.
    found = tf.quantization.fake_quant_with_min_max_args(tf.constant([0.0, -1e9, 1e9]), moved_low, moved_high)
    assert found.numpy().tolist() == pytest.approx([0.0, moved_low, moved_high], rel=1e-5, abs=1e-6)
    assert found[0] == 0.0


def test_nudged_of_an_empty_range_is_finite():
    low, high = nudged(0.0, 0.0)
    assert low <= 0.0 < high < 1e-5
