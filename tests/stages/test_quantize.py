"""Quantization-aware training: the stored grid and ranges, and that they answer as the model that was trained."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import tf_keras
from safetensors.numpy import load_file

from tfpipe import metrics
from tfpipe.artifacts import format_named
from tfpipe.compress.grid import LARGEST_CODE, REDUCED_CODE, nudged, on_grid
from tfpipe.compress.limits import least_bytes
from tfpipe.config.file import parse_config
from tfpipe.encoders.parameters import is_prunable, kernels_by_point
from tfpipe.files import sha256_of_file
from tfpipe.model.classifier import QUANTIZATION_FILE, WEIGHTS_FILE, float_model, load_classifier
from tfpipe.rundir.record import RECORD, parse_record
from tfpipe.rundir.stage import StageDirectory
from tfpipe.stages import quantize
from tfpipe.tasks import task_of
from tfpipe.tokens.plan import choose_batching
from tfpipe.tokens.table import TokenTable
from tfpipe.train import session
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
    calibrate, fit = quantize.min_max_ranges, session.Session.fit

    def keep_ranges(*args):
        result.calibrated = calibrate(*args)
        return result.calibrated

    def keep_model(self, model, hooks):
        result.model = model
        return fit(self, model, hooks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "min_max_ranges", keep_ranges)
        patch.setattr(session.Session, "fit", keep_model)
        quantize.run(config, result.stage)
    return result


def scales_of(quantization: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removesuffix(".scale"): scale for name, scale in quantization.items() if name.endswith(".scale")}


def test_what_is_quantized(weights, quantization):
    scales = scales_of(quantization)
    kernels = {name for name, value in weights.items() if is_prunable(name)}
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


def test_zeros_of_pruning_stay_zeros(pruned, weights):
    for name, before in pruned.items():
        if is_prunable(name):
            assert (before == 0).mean() == pytest.approx(0.5, abs=1e-3), name
            assert (weights[name][before == 0] == 0).all(), name


def test_the_kernels_were_trained_and_the_embeddings_were_not(pruned, weights):
    for name, before in pruned.items():
        if name in EMBEDDINGS:
            assert np.array_equal(weights[name], on_grid(before)[0])
        else:
            assert not np.array_equal(weights[name], before), name
            if is_prunable(name):
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
    """TF-MOT's fake quantization against the inference model with fixed ranges, over all rows of the run."""
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
    difference = task_of(config.task).probabilities(trained) - task_of(config.task).probabilities(stored)
    assert np.abs(difference).mean() <= 0.01


def test_quantization_is_at_work_in_the_inference_model(tiny_run, weights):
    """Without its ranges, the same weights answer a little differently: or the test above would compare floats."""
    _, run = tiny_run
    classifier = load_classifier(run / "quantize")
    table = TokenTable.open(run / "prepare" / "test")
    inputs = table.padded(np.arange(32))
    quantized = float_model(classifier)(inputs).numpy()
    plain = float_model(classifier.with_weights(classifier.weights))(inputs).numpy()
    assert 1e-4 < np.abs(quantized - plain).max() < 1.0


@pytest.fixture(scope="module")
def requantize(tiny_run, tmp_path_factory):
    """The stage done in another way: settings of `quantize` -> the classifier, and what was said."""

    def done(capsys, base="prune", sections=None, **changes):
        config, run = tiny_run
        settings = {"calibration_rows": 64, **changes}
        config = parse_config(config.model_dump() | {"quantize": settings, **(sections or {})}, where="the test")
        inputs = {name: run / name for name in ("prepare", "train", base)}
        stage = StageDirectory("quantize", tmp_path_factory.mktemp("quantize"), inputs)
        quantize.run(config, stage)
        return load_classifier(stage.path), stage, capsys.readouterr().err

    return done


@pytest.mark.parametrize("calibration", ["min_max", "percentile"])
def test_ptq_changes_nothing_but_the_rounding(requantize, capsys, tiny_run, pruned, calibration):
    classifier, stage, said = requantize(capsys, mode="ptq", calibration=calibration)
    assert classifier.ranges.keys() == POINTS
    for name, value in pruned.items():
        if f"{name}.scale" in classifier.quantization:
            assert np.array_equal(classifier.weights[name], on_grid(value)[0]), name
        elif name.endswith(".weight") or "LayerNorm" in name:
            assert np.array_equal(classifier.weights[name], value), name
    (entry,) = json.loads((stage.path / "history.json").read_text())
    assert entry["accuracy"] > 0.9 and f"accuracy {entry['accuracy']:.4f}" in said
    # what was evaluated is what is stored
    table = TokenTable.open(tiny_run[1] / "prepare" / "validation")
    logits = float_model(classifier)(table.padded(np.arange(table.num_rows)), training=False).numpy()
    assert metrics.evaluate(logits, table.labels, "single_label")["loss"] == pytest.approx(entry["loss"], abs=2e-3)


@pytest.mark.parametrize("mode", ["ptq", "qat"])
def test_reduced_kernels_take_7_bits_and_never_overflow(requantize, capsys, pruned, mode):
    classifier, stage, _ = requantize(capsys, mode=mode, reduce_range=True)
    for name, (codes, _) in classifier.codes.items():
        largest = np.abs(codes.astype(int)).max(axis=1)
        assert set(np.unique(largest)) <= {0, LARGEST_CODE if name in EMBEDDINGS else REDUCED_CODE}, name
        if mode == "ptq" and name not in EMBEDDINGS:
            assert np.array_equal(classifier.weights[name], on_grid(pruned[name], REDUCED_CODE)[0]), name
    assert stage.notes["saturation"]["sums"] == stage.notes["saturation"]["outputs"] == 0.0
    (*_, last) = json.loads((stage.path / "history.json").read_text())
    assert last["accuracy"] > 0.9


@pytest.mark.parametrize("mode", ["ptq", "qat"])
def test_symmetric_ranges_have_their_zero_in_the_middle(requantize, capsys, mode):
    classifier, stage, _ = requantize(capsys, mode=mode, scheme="symmetric")
    assert classifier.signed and classifier.ranges.keys() == POINTS
    for name, (low, high) in classifier.ranges.items():
        assert low / high == pytest.approx(-128 / 127, rel=1e-5), name
    (*_, last) = json.loads((stage.path / "history.json").read_text())
    assert last["accuracy"] > 0.9
    assert not load_classifier(stage.inputs["prune"]).signed


def test_the_share_of_sums_that_overflow_is_noted(tiny_run):
    notes = parse_record((tiny_run[1] / "quantize" / RECORD).read_bytes(), tiny_run[1]).notes["saturation"]
    assert 0.0 < notes["sums"] < notes["outputs"] < 1.0 and notes["outputs"] <= notes["worst_outputs"]


def test_weight_only_leaves_activations_and_biases_float(requantize, capsys, pruned):
    classifier, stage, said = requantize(capsys, mode="weight_only", epochs=2.0, reduce_range=True, scheme="symmetric")
    assert "saturation" not in stage.notes
    assert classifier.ranges == {} and len(classifier.quantization) == 13 + 3
    idle = "quantize.epochs, quantize.scheme, quantize.reduce_range"
    assert f"no effect with quantize mode weight_only, calibration min_max: {idle}" in said
    for name, value in pruned.items():
        scaled = f"{name}.scale" in classifier.quantization
        assert np.array_equal(classifier.weights[name], on_grid(value)[0] if scaled else value), name


@pytest.mark.parametrize("mode", ["ptq", "qat"])
def test_the_most_sensitive_layers_stay_float(requantize, capsys, pruned, mode):
    classifier, stage, said = requantize(capsys, mode=mode, float_layers=2)
    found = json.loads((stage.path / "sensitivity.json").read_text())
    damage, kept = found["divergence_by_layer"], found["float_layers"]
    assert damage.keys() == POINTS | {"embeddings"}
    assert list(damage.values()) == sorted(damage.values(), reverse=True) and min(damage.values()) > 0
    assert kept == [layer for layer in damage if layer != "embeddings"][:2]
    assert classifier.ranges.keys() == POINTS - set(kept)
    for point, kernels in kernels_by_point(pruned).items():
        for name in kernels:
            assert (f"{name}.scale" in classifier.quantization) == (point not in kept), name
            if mode == "ptq" and point in kept:
                assert np.array_equal(classifier.weights[name], pruned[name])
    assert all(layer in said for layer in kept)


def test_one_layer_stays_quantized_however_many_may_not(requantize, capsys):
    classifier, _, _ = requantize(capsys, mode="qat", float_layers=100)
    assert len(classifier.ranges) == 1


def test_layers_stay_float_within_the_size_budget_alone(requantize, capsys, pruned):
    shapes = {name: value.shape for name, value in pruned.items()}
    least = least_bytes(shapes, int8=True)
    _classifier, stage, said = requantize(
        capsys,
        mode="ptq",
        float_layers=9,
        sections={"budget": {"max_size_bytes": least + format_named("onnx").overhead_bytes + 6 * 32 * 32}},
    )
    kept = json.loads((stage.path / "sensitivity.json").read_text())["float_layers"]
    assert 1 <= len(kept) <= 2 and "is not left in float: about" in said


def test_a_dense_run_is_quantized_from_the_dense_model(requantize, capsys, tiny_run):
    sections = {"prune": None, "distill": {"weight": 0.5}}
    classifier, _, said = requantize(capsys, base="train", mode="weight_only", sections=sections)
    assert "calibration min_max: quantize.calibration_rows, distill" in said  # where nothing is trained, nobody learns
    dense = load_file(tiny_run[1] / "train" / WEIGHTS_FILE)
    name = "bert.pooler.dense.weight"
    assert np.array_equal(classifier.weights[name], on_grid(dense[name])[0])
