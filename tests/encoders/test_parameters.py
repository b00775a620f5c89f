"""The names of parameters, against the layers of the Keras model and the tensors of transformers."""

import pytest
from conftest import TINY, tiny_vocabulary

from tfpipe.encoders.parameters import (
    depth_of,
    is_embedding,
    is_kernel,
    is_projection,
    is_prunable,
    kernels_by_point,
    layer_of,
    layer_prefix,
    point_of,
)
from tfpipe.model.bert import Architecture, build_training_model
from tfpipe.model.layers import QuantizationPoint
from tfpipe.model.weights import get_weights, variables_by_name


@pytest.fixture(scope="module")
def model():
    return build_training_model(Architecture.from_dict(TINY | {"vocab_size": len(tiny_vocabulary())}), 2)


def test_each_projection_but_the_head_stands_behind_a_point(model):
    """Against the layers of the model, where a projection reads the point."""
    points = {layer.name for layer in model.layers if isinstance(layer, QuantizationPoint)}
    kernels = kernels_by_point(get_weights(model))
    assert set(kernels) == points and len(points) == 2 * 4 + 1
    for point, names in kernels.items():
        for name in names:
            layer = model.get_layer(name.removeprefix("bert.").removesuffix(".weight"))
            read = layer.input.node.layer.name if hasattr(layer.input.node, "layer") else None
            assert read is None or read == point or point.startswith("encoder.layer.1"), name
    every = {name for names in kernels.values() for name in names}
    assert every == {name for name in get_weights(model) if is_projection(name)} and len(every) == 2 * 6 + 1
    assert sum(map(is_embedding, get_weights(model))) == 3
    assert not is_projection("classifier.weight") and not is_projection("bert.encoder.layer.0.output.LayerNorm.weight")
    assert point_of("bert.encoder.layer.0.attention.self.query.weight") == "encoder.layer.0.attention.self.input"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert.encoder.layer.0.attention.self.query.weight", True),
        ("bert.encoder.layer.0.attention.self.query.bias", False),
        ("bert.encoder.layer.0.output.LayerNorm.weight", False),
        ("bert.embeddings.word_embeddings.weight", False),
        ("bert.pooler.dense.weight", False),
        ("classifier.weight", False),
    ],
)
def test_is_prunable(name, expected):
    assert is_prunable(name) is expected


def test_matrices_are_kernels_or_embeddings(model):
    matrices = {name for name, variable in variables_by_name(model).items() if len(variable.shape) == 2}
    assert matrices == {name for name in get_weights(model) if is_kernel(name) or is_embedding(name)}


def test_layers_have_numbers():
    assert layer_of("bert.encoder.layer.11.output.dense.bias") == layer_of("encoder.layer.11.output.LayerNorm") == 11
    assert layer_of("bert.pooler.dense.weight") is None and layer_of("classifier.weight") is None
    assert layer_prefix(11) == "bert.encoder.layer.11"
    assert depth_of("embeddings.LayerNorm", 12) == 0 and depth_of("classifier", 12) == 13
