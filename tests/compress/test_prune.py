"""Magnitude pruning: what lies on disk, the masks under every strategy and precision, the schedule."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import TINY, tiny_vocabulary, tiny_weights
from safetensors.numpy import load_file

from tfpipe.compress import prune
from tfpipe.compress.prune import MASK_UPDATES, MagnitudeMasks, is_prunable, sparsity_of
from tfpipe.config import Train
from tfpipe.data.token_table import TokenTable
from tfpipe.errors import InputError
from tfpipe.model.bert import Architecture, build_training_form
from tfpipe.model.weights import WEIGHTS_FILE, get_weights, import_encoder
from tfpipe.rundir import StageDirectory
from tfpipe.train import loop
from tfpipe.train.devices import choose_strategy, precision
from tfpipe.train.loop import fit
from tfpipe.train.recipe import Recipe, training_plan
from tfpipe.train.step import Hooks, Loss

ARCHITECTURE = Architecture.from_dict(TINY | {"vocab_size": len(tiny_vocabulary()), "num_hidden_layers": 1})
KERNELS_PER_LAYER = 6  # query, key, value, attention output, intermediate, output


def new_model():
    tf_keras.utils.set_random_seed(0)
    model = build_training_form(ARCHITECTURE, 2)
    import_encoder(model, tiny_weights(ARCHITECTURE.to_dict()), "the test")
    return model


def recipe_in(policy: str, settings: Train) -> Recipe:
    return Recipe("test", 1.0, 1e-3, "last", settings, Loss("single_label"), policy, seed=0)


def zeros_of(kernel: np.ndarray) -> int:
    return int((kernel == 0).sum())


def copies_of(variable) -> list[np.ndarray]:
    """A variable's value on every replica."""
    return [copy.numpy() for copy in getattr(variable, "values", (variable,))]


@pytest.fixture(scope="module")
def stored(tiny_run):
    _, run = tiny_run
    return {stage: load_file(run / stage / WEIGHTS_FILE) for stage in ("train", "prune")}


def test_every_kernel_on_disk_is_half_zeros(tiny_run, stored):
    config, _ = tiny_run
    kernels = {name: value for name, value in stored["prune"].items() if is_prunable(name, value)}
    assert len(kernels) == 2 * KERNELS_PER_LAYER
    for name, kernel in kernels.items():
        assert abs(zeros_of(kernel) - config.prune.sparsity * kernel.size) <= 1, name
    assert sparsity_of(stored["prune"]) == pytest.approx(config.prune.sparsity, abs=1e-3)


def test_nothing_else_is_pruned(stored):
    assert all(zeros_of(value) == 0 for value in stored["train"].values())
    others = [name for name, value in stored["prune"].items() if not is_prunable(name, value)]
    assert {"bert.pooler.dense.weight", "classifier.weight", "bert.embeddings.word_embeddings.weight"} <= set(others)
    assert all(zeros_of(stored["prune"][name]) == 0 for name in others)


def test_the_kept_weights_were_trained_on(stored):
    for name, pruned in stored["prune"].items():
        kept = pruned != 0
        assert not np.array_equal(pruned[kept], stored["train"][name][kept]), name


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("bert.encoder.layer.0.attention.self.query.weight", (4, 4), True),
        ("bert.encoder.layer.0.attention.self.query.bias", (4,), False),
        ("bert.encoder.layer.0.output.LayerNorm.weight", (4,), False),
        ("bert.embeddings.word_embeddings.weight", (4, 4), False),
        ("bert.pooler.dense.weight", (4, 4), False),
        ("classifier.weight", (2, 4), False),
    ],
)
def test_is_prunable(name, shape, expected):
    assert is_prunable(name, np.ones(shape)) is expected


@pytest.fixture(scope="module")
def shared_model():
    """A model for tests that change its kernels: each sets them first."""
    return new_model()


def reset(model) -> dict[str, np.ndarray]:
    import_encoder(model, tiny_weights(ARCHITECTURE.to_dict()), "the test")
    return get_weights(model)


def test_the_smallest_weights_go_and_the_others_stay(shared_model):
    before = reset(shared_model)
    masks = MagnitudeMasks(shared_model, sparsity=0.75, ramp_steps=1)
    masks.update(tf.constant(0, tf.int64))
    after = get_weights(shared_model)
    pruned = 0
    for name, old in before.items():
        new = after[name]
        if not is_prunable(name, old):
            assert np.array_equal(new, old), name
            continue
        pruned += 1
        gone = new == 0
        assert abs(gone.sum() - 0.75 * old.size) <= 1, name
        assert np.abs(old[gone]).max() <= np.abs(old[~gone]).min(), name
        assert np.array_equal(new[~gone], old[~gone]), name
    assert pruned == KERNELS_PER_LAYER


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
@pytest.mark.parametrize("ramp_steps", [1, 7, 19, 20, 21, 33])
def test_the_schedule_rises_and_ends_at_its_goal(shared_model, ramp_steps, sparsity):
    reset(shared_model)
    masks = MagnitudeMasks(shared_model, sparsity, ramp_steps)
    assert masks.end_step == ramp_steps  # no later: it may be the last step of all
    update = tf.function(masks.update)
    reached = []
    for step in range(ramp_steps + 3):
        if step >= ramp_steps:
            # Whatever training makes of the weights, after the ramp the masks stand still.
            for kernel in masks.kernels.values():
                kernel.assign(kernel + 1.0)
        update(tf.constant(step, tf.int64))
        reached.append(sparsity_of(get_weights(shared_model)))
    assert reached == sorted(reached)
    assert reached[ramp_steps - 1 :] == pytest.approx([sparsity] * 4, abs=1e-3)
    assert len(set(reached)) <= MASK_UPDATES + 1
    if ramp_steps > 1:
        assert 0.0 < reached[ramp_steps // 2] < sparsity  # on the way, not in one step


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_masks_hold_under_any_strategy_and_precision(tiny_run, tmp_path, policy, replicas):
    """A fit of six steps whose ramp ends with the last: zeros are exact, the same on every replica."""
    config, run = tiny_run
    strategy = tf.distribute.get_strategy() if replicas == 1 else choose_strategy("mirrored")[0]
    table = TokenTable.open(run / "prepare" / "validation")
    plan, _ = training_plan(config, table, table)
    steps = plan.steps_per_epoch
    with precision(policy), strategy.scope():
        model = new_model()
        masks = MagnitudeMasks(model, 0.5, ramp_steps=steps)
    fit(
        model,
        stage=StageDirectory("prune", tmp_path, {}),
        training=table,
        validation=table,
        plan=plan,
        recipe=recipe_in(policy, config.train),
        strategy=strategy,
        hooks=Hooks(after_update=masks.update, tracked=masks),
    )
    assert len(masks.kernels) == KERNELS_PER_LAYER
    for name, kernel in masks.kernels.items():
        copies = copies_of(kernel)
        assert len(copies) == replicas and copies[0].dtype == np.float32
        assert abs(zeros_of(copies[0]) - 0.5 * copies[0].size) <= 1, name
        assert all(np.array_equal(copies[0], other) for other in copies[1:]), name


class Killed(Exception):
    """Stands for whatever ends a process."""


def test_a_killed_pruning_resumes_with_its_masks(tiny_run, tmp_path, monkeypatch):
    config, run = tiny_run
    table = TokenTable.open(run / "prepare" / "validation")
    recipe = recipe_in("float32", config.train.model_copy(update={"checkpoint_every": 3}))
    plan, _ = training_plan(config, table, table)
    assert plan.steps_per_epoch > 4

    def once(name: str) -> str:
        model = new_model()
        masks = MagnitudeMasks(model, 0.5, ramp_steps=3)
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        fit(
            model,
            stage=StageDirectory("prune", path, {}),
            training=table,
            validation=table,
            plan=plan,
            recipe=recipe,
            strategy=tf.distribute.get_strategy(),
            hooks=Hooks(after_update=masks.update, tracked=masks),
        )
        weights = get_weights(model)
        assert sparsity_of(weights) == pytest.approx(0.5, abs=1e-3)
        return hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).hexdigest()

    def die(*args):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "_evaluate", die)  # at the last step, after the checkpoint of step 3
        once("killed")
    assert (tmp_path / "killed" / "checkpoints" / "step-3").is_dir()
    # The ramp is over: without its masks, a resumed fit would have none to apply.
    assert once("killed") == once("whole")


def test_a_sparsity_that_was_not_reached_is_refused(tiny_run, tmp_path, monkeypatch):
    config, run = tiny_run
    stage = StageDirectory("prune", tmp_path, {"prepare": run / "prepare", "train": run / "train"})
    monkeypatch.setattr(prune, "fit", lambda model, **kwargs: loop.Fitted([], 1.0))  # a fit of no steps
    with pytest.raises(InputError) as error:
        prune.run(config, stage)
    assert "prune: 0.0% zeros after" in str(error.value) and "50.0% expected" in str(error.value)
    assert not (tmp_path / WEIGHTS_FILE).exists()
