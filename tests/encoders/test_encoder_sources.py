"""Every kind of encoder source, imported into tfpipe's own model, answers like the library that it comes from."""

import json
import shutil
import sys

import numpy as np
import pytest
import tf_keras
from conftest import TINY, write_encoder
from formats.test_other_loaders import answered
from model.transformers_reference.record import ACTIVATIONS, recorded
from safetensors.numpy import save_file

from tfpipe.encoders.source import open_source
from tfpipe.model.bert import build_inference_model
from tfpipe.model.weights import import_encoder

TOLERANCE = 1e-5  # on the last hidden state; seen: 2e-6


def rows(vocab_size: int, batch: int, length: int = 12) -> dict[str, np.ndarray]:
    random = np.random.default_rng(batch)
    lengths = random.integers(3, length + 1, (batch, 1))
    mask = (np.arange(length)[None] < lengths).astype(np.int32)
    return {
        "input_ids": random.integers(0, vocab_size, (batch, length)).astype(np.int32),
        "attention_mask": mask,
        "token_type_ids": (mask * (np.arange(length)[None] > length // 2)).astype(np.int32),
    }


def hidden_states(source: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The class tokens' last hidden states of tfpipe's model, built and filled from a source: [batch, hidden]."""
    encoder = open_source(source)
    architecture = encoder.architecture
    model = build_inference_model(architecture, 2)
    import_encoder(model, encoder.weights(), source)
    last = model.get_layer(f"encoder.layer.{architecture.num_hidden_layers - 1}.output.LayerNorm").output
    return tf_keras.Model(model.input, last)(inputs).numpy()[:, 0]


def worst(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference."""
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max())


@pytest.fixture(scope="module", params=ACTIVATIONS)
def checkpoint(request, tmp_path_factory):
    """A directory, and the class tokens' last hidden states that transformers has for it."""
    directory = write_encoder(tmp_path_factory.mktemp("checkpoint"), hidden_act=request.param)
    last = f"{request.param}.hidden.{TINY['num_hidden_layers'] - 1}"
    return directory, recorded().arrays[last][:, 0]


def assert_states(source: str, expected: np.ndarray, batch: int) -> None:
    inputs = {name: value[:batch] for name, value in recorded().inputs.items()}
    assert worst(hidden_states(source, inputs), expected[:batch]) < TOLERANCE


@pytest.mark.parametrize("batch", [1, 6])
def test_directory(checkpoint, batch):
    directory, expected = checkpoint
    assert_states(str(directory), expected, batch)


def test_gelus_differ(tmp_path):
    inputs = rows(90, 8)
    exact, tanh = (
        hidden_states(str(write_encoder(tmp_path / name, hidden_act=name)), inputs) for name in ("gelu", "gelu_new")
    )
    assert worst(exact, tanh) > TOLERANCE


@pytest.mark.parametrize("batch", [1, 6])
def test_package(checkpoint, batch, tmp_path, monkeypatch):
    directory, expected = checkpoint
    package = tmp_path / "weights_of_a_tiny_bert"
    shutil.copytree(directory, package / "model")
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert_states("package:weights_of_a_tiny_bert/model", expected, batch)


@pytest.mark.parametrize("batch", [1, 6])
def test_hub(checkpoint, batch, tmp_path, monkeypatch):
    directory, expected = checkpoint
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--tiny--bert"
    shutil.copytree(directory, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_states("hf:tiny/bert", expected, batch)


@pytest.mark.parametrize("batch", [1, 8])
def test_keras_nlp(preset, batch):
    directory, backbone = preset
    inputs = rows(backbone.vocabulary_size, batch)
    expected = backbone(
        {
            "token_ids": inputs["input_ids"],
            "segment_ids": inputs["token_type_ids"],
            "padding_mask": inputs["attention_mask"],
        }
    )["sequence_output"]
    states = hidden_states(f"keras-nlp:{directory}", inputs)
    assert worst(states, np.asarray(expected)[:, 0]) < TOLERANCE


STATES = """
import json, sys
import torch
from transformers import BertModel

model, report = BertModel.from_pretrained(sys.argv[1], output_loading_info=True)
assert not any(report.values()), report
with torch.no_grad():
    answer = model(**{name: torch.tensor(value) for name, value in json.loads(sys.argv[2]).items()})
print(json.dumps([answer.last_hidden_state.tolist(), answer.pooler_output.tolist()]))
"""


@pytest.mark.slow
def test_keras_nlp_against_transformers(preset, pytorch, tmp_path):
    """What tfpipe makes of a preset, opened by transformers on PyTorch: all states and the pooler's."""
    directory, backbone = preset
    encoder = open_source(f"keras-nlp:{directory}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **encoder.architecture.to_dict()}))
    save_file(encoder.weights(), tmp_path / "model.safetensors", {"format": "pt"})
    inputs = rows(backbone.vocabulary_size, 8)
    given = {name: value.tolist() for name, value in inputs.items()}
    states, pooled = answered([pytorch, "-c", STATES, tmp_path, json.dumps(given)])
    expected = backbone(
        {
            "token_ids": inputs["input_ids"],
            "segment_ids": inputs["token_type_ids"],
            "padding_mask": inputs["attention_mask"],
        }
    )
    filled = inputs["attention_mask"] == 1
    assert worst(np.array(states)[filled], np.asarray(expected["sequence_output"])[filled]) < TOLERANCE
    assert worst(np.array(pooled), np.asarray(expected["pooled_output"])) < TOLERANCE


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A KerasNLP preset on disk, its weights large enough that a mistake shows, and the backbone that it holds."""
    import keras_nlp
    from conftest import tiny_vocabulary

    vocabulary = tiny_vocabulary()
    backbone = keras_nlp.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=TINY["num_hidden_layers"],
        num_heads=TINY["num_attention_heads"],
        hidden_dim=TINY["hidden_size"],
        intermediate_dim=TINY["intermediate_size"],
        max_sequence_length=TINY["max_position_embeddings"],
    )
    random = np.random.default_rng(0)
    backbone.set_weights([random.normal(0.0, 0.3, weight.shape) for weight in backbone.get_weights()])
    directory = tmp_path_factory.mktemp("preset")
    backbone.save_to_preset(str(directory))
    keras_nlp.models.BertTokenizer(vocabulary=vocabulary, lowercase=True).save_to_preset(str(directory))
    return directory, backbone
