"""TF-MOT's fake quantization in a model of ours: what it wraps, what it leaves, the zeros that it keeps."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, tiny_vocabulary, tiny_weights

from tfpipe.compress.fake_quantization import KeptZeros, learned_ranges, quantization_aware
from tfpipe.compress.grid import LARGEST_CODE, REDUCED_CODE, balanced, on_grid
from tfpipe.devices.strategy import choose_strategy
from tfpipe.encoders.architecture import Architecture
from tfpipe.encoders.parameters import is_embedding, is_projection, is_prunable
from tfpipe.model.bert import build_training_model
from tfpipe.model.classifier import load_classifier
from tfpipe.model.layers import QuantizationPoint
from tfpipe.model.weights import get_weights, set_weights, variables_by_name


@pytest.mark.parametrize("replicas", [1, 2])
def test_only_kernels_that_pruning_made_zeros_in_are_held(tiny_run, replicas):
    _, run = tiny_run
    strategy = tf.distribute.get_strategy() if replicas == 1 else choose_strategy("mirrored")[0]
    for stage, held in (("prune", 12), ("train", 0)):
        classifier = load_classifier(run / stage)
        with strategy.scope():
            model = build_training_model(classifier.architecture, 2)
            set_weights(model, classifier.weights)
            zeros = KeptZeros(model)
            for name, kernel in variables_by_name(model).items():
                if is_projection(name):
                    kernel.assign(kernel + tf.ones_like(kernel))
        strategy.run(tf.function(zeros.update), args=(tf.constant(0, tf.int64),))
        after = get_weights(model)
        kept = [
            name
            for name, value in classifier.weights.items()
            if is_prunable(name) and np.array_equal(after[name] == 0, value == 0) and (value == 0).any()
        ]
        assert len(kept) == held


def small_model():
    architecture = Architecture.from_dict(TINY | {"vocab_size": len(tiny_vocabulary()), "num_hidden_layers": 1})
    model = build_training_model(architecture, 2)
    set_weights(
        model,
        {f"bert.{name}": value for name, value in tiny_weights(architecture.to_dict()).items()}
        | {"classifier.weight": np.ones((2, 32), np.float32), "classifier.bias": np.zeros(2, np.float32)},
    )
    return model


def test_what_has_a_range_is_quantized_and_nothing_else():
    model = small_model()
    points = [layer.name for layer in model.layers if isinstance(layer, QuantizationPoint)]
    ranges = {name: (-1.0 - number, 2.0 + number) for number, name in enumerate(points) if "intermediate" not in name}
    aware = quantization_aware(model, ranges)
    assert learned_ranges(aware) == ranges and len(ranges) == 4
    wrapped = {layer.layer.name for layer in aware.layers if layer.name.startswith("quant_")}
    assert set(ranges) < wrapped and "pooler.dense" in wrapped
    assert not [name for name in wrapped if "intermediate" in name or name == "classifier"]


def test_a_dense_model_is_quantized_as_well():
    """Without pruning: the first ranges are taken, the embeddings are frozen, and nothing else is."""
    model = small_model()
    points = [layer.name for layer in model.layers if isinstance(layer, QuantizationPoint)]
    ranges = {name: (-1.0 - number, 2.0 + number) for number, name in enumerate(points)}
    aware = quantization_aware(model, ranges)
    assert learned_ranges(aware) == ranges
    frozen = {layer.name for layer in aware.layers if layer.weights and not layer.trainable_weights}
    named = variables_by_name(aware)
    assert {name.removeprefix("bert.").removesuffix(".weight") for name in named if is_embedding(name)} <= frozen
    trained = {id(variable) for variable in aware.trainable_variables}
    assert all(id(variable) in trained for name, variable in named.items() if is_projection(name))


@pytest.mark.parametrize(("bits", "largest"), [(8, LARGEST_CODE), (7, REDUCED_CODE)])
def test_training_sees_the_grid_that_is_stored(bits, largest):
    model = small_model()
    ranges = {layer.name: (-1.0, 2.0) for layer in model.layers if isinstance(layer, QuantizationPoint)}
    wrapper = quantization_aware(model, ranges, bits).get_layer("quant_pooler.dense")
    kernel, bias = (get_weights(model)[f"bert.pooler.dense.{part}"] for part in ("weight", "bias"))
    seen = (wrapper(np.eye(len(kernel), dtype=np.float32)[None], training=True)[0] - bias).numpy().T
    assert seen == pytest.approx(on_grid(kernel, largest)[0], abs=1e-6)
    assert np.abs(seen - kernel).max() > 1e-4


def test_balanced_ranges_stay_balanced_while_they_move():
    model = small_model()
    ranges = {layer.name: balanced(-1.0, 2.0) for layer in model.layers if isinstance(layer, QuantizationPoint)}
    aware = quantization_aware(model, ranges, symmetric=True)
    point = aware.get_layer("quant_pooler.input")
    for number in range(3):
        point(tf.random.stateless_normal([2, 2, 32], [number, 0], stddev=9.0) - 4.0, training=True)
    low, high = learned_ranges(aware)["pooler.input"]
    assert high > 2.001 and low / high == pytest.approx(-128 / 127, rel=1e-5)
