"""The stage `prune`: what lies on disk, for each method."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tfpipe.config.file import parse_config
from tfpipe.encoders.architecture import INFERENCE_INPUTS
from tfpipe.encoders.parameters import WORD_EMBEDDINGS, is_prunable, sparsity_of
from tfpipe.errors import InputError
from tfpipe.files import sha256_of_file
from tfpipe.model.classifier import WEIGHTS_FILE, float_model, load_classifier
from tfpipe.rundir.stage import StageDirectory
from tfpipe.stages import prune
from tfpipe.train import loop, session

KERNELS_PER_LAYER = 6  # query, key, value, attention output, intermediate, output


def zeros_of(kernel: np.ndarray) -> int:
    return int((kernel == 0).sum())


@pytest.fixture(scope="module")
def stored(tiny_run):
    _, run = tiny_run
    return {stage: load_file(run / stage / WEIGHTS_FILE) for stage in ("train", "prune")}


@pytest.fixture(scope="module")
def pruned(tiny_run, tmp_path_factory):
    """The stage done with other settings, on the dense model of the finished run."""

    def done(name="pruned", **changes):
        config, run = tiny_run
        config = parse_config(
            config.model_dump() | {"prune": {"learning_rate": 1e-3, "epochs": 1, **changes}}, where="the test"
        )
        stage = StageDirectory(
            "prune", tmp_path_factory.mktemp(name), {"prepare": run / "prepare", "train": run / "train"}
        )
        prune.run(config, stage)
        return stage

    return done


def test_every_kernel_on_disk_is_half_zeros(tiny_run, stored):
    config, _ = tiny_run
    kernels = {name: value for name, value in stored["prune"].items() if is_prunable(name)}
    assert len(kernels) == 2 * KERNELS_PER_LAYER
    for name, kernel in kernels.items():
        assert abs(zeros_of(kernel) - config.prune.sparsity * kernel.size) <= 1, name
    assert sparsity_of(stored["prune"]) == pytest.approx(config.prune.sparsity, abs=1e-3)


def test_nothing_else_is_pruned(stored):
    assert all(zeros_of(value) == 0 for value in stored["train"].values())
    others = [name for name, value in stored["prune"].items() if not is_prunable(name)]
    assert {"bert.pooler.dense.weight", "classifier.weight", WORD_EMBEDDINGS} <= set(others)
    assert all(zeros_of(stored["prune"][name]) == 0 for name in others)


def test_the_kept_weights_were_trained_on(stored):
    for name, weight in stored["prune"].items():
        kept = weight != 0
        assert not np.array_equal(weight[kept], stored["train"][name][kept]), name


def test_two_of_each_four_inputs_are_zero_on_disk(pruned):
    weights = load_file(pruned(method="two_four").path / WEIGHTS_FILE)
    for name, kernel in weights.items():
        if is_prunable(name):
            assert ((kernel.reshape(len(kernel), -1, 4) == 0).sum(axis=2) == 2).all(), name  # [out, in]


def test_embeddings_are_pruned_whole_where_asked_for(pruned, capsys):
    """The rows of word pieces that occur in no text too."""
    table = load_file(pruned(sparsity=0.75, embeddings=True).path / WEIGHTS_FILE)[WORD_EMBEDDINGS]
    assert zeros_of(table) == pytest.approx(0.75 * table.size, abs=1)
    assert "zeros in the word embeddings: 75.00%" in capsys.readouterr().err


def test_structured_pruning_takes_heads_and_columns_away(pruned, stored, capsys):
    stage = pruned(method="structured", sparsity=0.4)
    said = capsys.readouterr().err
    classifier = load_classifier(stage.path)
    architecture = classifier.architecture
    sizes = [
        sum(v.size for k, v in each.items() if k.startswith("bert.encoder."))
        for each in (stored["train"], classifier.weights)
    ]
    removed = 1 - sizes[1] / sizes[0]
    assert 0.4 - 1 / 16 <= removed <= 0.42 and stage.notes["removed"] == pytest.approx(removed)
    assert f"removed {removed:.2%} of the encoder layers' parameters ({sizes[0]:,} -> {sizes[1]:,})" in said
    config = json.loads((stage.path / "config.json").read_text())
    assert config["attention_heads_per_layer"] == list(architecture.heads)
    assert config["intermediate_size_per_layer"] == list(architecture.widths)
    for layer, (heads, width) in enumerate(zip(architecture.heads, architecture.widths, strict=True)):
        prefix = f"bert.encoder.layer.{layer}"
        assert classifier.weights[f"{prefix}.attention.self.query.weight"].shape == (8 * heads, 32)
        assert classifier.weights[f"{prefix}.attention.output.dense.weight"].shape == (32, 8 * heads)
        assert classifier.weights[f"{prefix}.intermediate.dense.bias"].shape == (width,)
        assert classifier.weights[f"{prefix}.output.dense.weight"].shape == (32, width)
    # it is still a classifier
    last = json.loads((stage.path / "history.json").read_text())[-1]
    assert last["accuracy"] > 0.9
    ids = np.full((1, 6), 7, np.int32)
    answer = float_model(classifier)(dict(zip(INFERENCE_INPUTS, (ids, ids * 0 + 1, ids * 0), strict=True))).numpy()
    assert answer.shape == (1, 2) and np.isfinite(answer).all()


def test_structured_pruning_repeats_itself(pruned):
    first, again = (pruned(method="structured", sparsity=0.4).path / WEIGHTS_FILE for _ in range(2))
    assert sha256_of_file(first) == sha256_of_file(again)


@pytest.mark.parametrize(
    ("method", "said"), [("magnitude", "0.0% zeros after"), ("structured", "0.0% of the layers removed after")]
)
def test_a_share_that_was_not_reached_is_refused(pruned, monkeypatch, method, said):
    monkeypatch.setattr(
        session.Session, "fit", lambda *given: loop.Fitted([], 1.0, np.zeros((1, 2)))
    )  # a fit of no steps
    with pytest.raises(InputError, match=f"prune: {said}.* 50.0% expected"):
        pruned(method=method)
