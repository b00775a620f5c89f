"""The stage `distill`: a student of the dense model's layers, or of another encoder with the same vocabulary."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import write_encoder

from tfpipe.config.file import parse_config
from tfpipe.model.classifier import load_classifier
from tfpipe.rundir.stage import StageDirectory
from tfpipe.stages import distill
from tfpipe.stages.distill import made_of_layers


@pytest.fixture(scope="module")
def distilled(tiny_run, tmp_path_factory):
    """The stage on the dense model of the finished run."""

    def done(student, **changes):
        config, run = tiny_run
        settings = {"student": {"epochs": 3, "learning_rate": 3e-3, **student}, **changes}
        config = parse_config(config.model_dump() | {"distill": settings}, where="the test")
        inputs = {"prepare": run / "prepare", "train": run / "train"}
        stage = StageDirectory("distill", tmp_path_factory.mktemp("distilled"), inputs)
        distill.run(config, stage)
        return load_classifier(stage.path), json.loads((stage.path / "history.json").read_text())

    return done


@pytest.fixture(scope="module")
def dense(tiny_run):
    return load_classifier(tiny_run[1] / "train")


def test_a_student_of_one_layer_learns_from_the_dense_model(distilled, dense, capsys):
    student, history = distilled({"layers": [1]}, hidden_weight=0.5)
    assert student.architecture.num_hidden_layers == 1 and student.labels == dense.labels
    assert not [name for name in student.weights if "layer.1." in name]
    assert max(entry["accuracy"] for entry in history) > 0.85
    assert "a student of 1 layers" in capsys.readouterr().err


def test_a_student_of_another_encoder(distilled, tmp_path):
    """Of other width: the soft labels teach it all the same."""
    encoder = write_encoder(tmp_path / "narrow", hidden_size=16, intermediate_size=24, num_attention_heads=2)
    student, history = distilled({"encoder": str(encoder)})
    assert student.architecture.hidden_size == 16 and len(history) == 3
    assert student.weights["bert.pooler.dense.weight"].shape == (16, 16)


def test_layers_are_taken_in_their_order(dense):
    architecture, weights = made_of_layers(dense, (1,))
    assert architecture.num_hidden_layers == 1
    for name, value in weights.items():
        assert np.array_equal(value, dense.weights[name.replace("layer.0.", "layer.1.")]), name
    whole, same = made_of_layers(dense, (0, 1))
    assert whole == dense.architecture and same.keys() == dense.weights.keys()
