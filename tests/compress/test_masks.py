"""The masks of pruning: what goes and what stays, the schedule, every strategy and precision, a kill."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import TINY, tiny_vocabulary, tiny_weights

from tfpipe.compress.masks import MASK_UPDATES, SMOOTHING, UnitMasks, WeightMasks
from tfpipe.config.train import Train
from tfpipe.devices.strategy import choose_strategy, precision
from tfpipe.encoders.architecture import Architecture
from tfpipe.encoders.parameters import WORD_EMBEDDINGS, is_prunable, sparsity_of
from tfpipe.model.bert import build_training_model
from tfpipe.model.weights import get_weights, import_encoder
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.train import loop
from tfpipe.train.loop import Fit
from tfpipe.train.recipe import Recipe, training_plan
from tfpipe.train.step import Hooks, Loss

ARCHITECTURE = Architecture.from_dict(TINY | {"vocab_size": len(tiny_vocabulary()), "num_hidden_layers": 1})
KERNELS_PER_LAYER = 6  # query, key, value, attention output, intermediate, output


def new_model():
    tf_keras.utils.set_random_seed(0)
    model = build_training_model(ARCHITECTURE, 2)
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
def shared_model():
    """A model for tests that change its kernels: each sets them first."""
    return new_model()


def reset(model) -> dict[str, np.ndarray]:
    import_encoder(model, tiny_weights(ARCHITECTURE.to_dict()), "the test")
    return get_weights(model)


def test_the_smallest_weights_go_and_the_others_stay(shared_model):
    before = reset(shared_model)
    masks = WeightMasks(shared_model, sparsity=0.75, ramp_steps=1)
    masks.update(tf.constant(0, tf.int64))
    after = get_weights(shared_model)
    pruned = 0
    for name, old in before.items():
        new = after[name]
        if not is_prunable(name):
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
    masks = WeightMasks(shared_model, sparsity, ramp_steps)
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


def masks_of(kind: str, model, ramp_steps: int):
    if kind == "structured":
        return UnitMasks(model, ARCHITECTURE, 0.5, ramp_steps)
    return WeightMasks(model, 0.5, ramp_steps, two_four=kind == "two_four")


@pytest.mark.parametrize(
    ("kind", "policy", "replicas"),
    [
        ("magnitude", "mixed_bfloat16", 1),
        ("magnitude", "float32", 2),
        ("magnitude", "mixed_bfloat16", 2),
        ("two_four", "mixed_bfloat16", 2),
        ("structured", "float32", 1),
        ("structured", "mixed_bfloat16", 2),
        ("structured", "mixed_float16", 2),
    ],
)
def test_masks_hold_under_any_strategy_and_precision(tiny_run, tmp_path, kind, policy, replicas):
    """A fit of some steps whose ramp ends with the last: zeros are exact, the same on every replica."""
    config, run = tiny_run
    strategy = tf.distribute.get_strategy() if replicas == 1 else choose_strategy("mirrored")[0]
    table = TokenTable.open(run / "prepare" / "validation")
    settings = config.train.model_copy(update={"gradient_accumulation": 2})
    plan, _ = training_plan(config, table, table)
    steps = plan.steps_per_epoch
    with precision(policy), strategy.scope():
        model = new_model()
        masks = masks_of(kind, model, steps)
    Fit(
        model,
        stage=StageDirectory("prune", tmp_path, {}),
        training=table,
        validation=table,
        plan=plan,
        recipe=recipe_in(policy, settings),
        strategy=strategy,
        hooks=Hooks(masks.on_gradients, masks.update, tracked=masks),
    ).run()
    for name, kernel in masks.kernels.items():
        copies = copies_of(kernel)
        assert len(copies) == replicas and copies[0].dtype == np.float32
        assert all(np.array_equal(copies[0], other) for other in copies[1:]), name
        if kind != "structured":
            assert abs(zeros_of(copies[0]) - 0.5 * copies[0].size) <= 1, name
    if kind == "structured":
        removed = 1.0 - float(np.mean(copies_of(masks.mask)[0]))
        assert 0.5 - 1 / 4 <= removed <= 0.5  # a head of the tiny model is an eighth of it
        for rows, kernel in zip(masks.units.rows(masks.mask), masks.kernels.values(), strict=True):
            gone = ~copies_of(kernel)[0].any(axis=1)
            assert np.array_equal(gone, rows.numpy() == 0) and gone.any() and not gone.all()
    else:
        assert len(masks.kernels) == KERNELS_PER_LAYER


class Killed(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("kind", ["magnitude", "structured"])
def test_a_killed_pruning_resumes_with_its_masks(tiny_run, tmp_path, monkeypatch, kind):
    config, run = tiny_run
    table = TokenTable.open(run / "prepare" / "validation")
    recipe = recipe_in("float32", config.train.model_copy(update={"checkpoint_every": 3}))
    plan, _ = training_plan(config, table, table)
    assert plan.steps_per_epoch > 4

    def once(name: str) -> str:
        model = new_model()
        masks = masks_of(kind, model, 3)
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        Fit(
            model,
            stage=StageDirectory("prune", path, {}),
            training=table,
            validation=table,
            plan=plan,
            recipe=recipe,
            strategy=tf.distribute.get_strategy(),
            hooks=Hooks(masks.on_gradients, masks.update, tracked=masks),
        ).run()
        weights = get_weights(model)
        assert sparsity_of(weights) > 0.1
        return hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).hexdigest()

    def die(*args):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop.Fit, "_take_note", die)  # at the last step, after the checkpoint of step 3
        once("killed")
    assert (tmp_path / "killed" / "checkpoints" / "step-3").is_dir()
    # The ramp is over: without its masks, a resumed fit would have none to apply.
    assert once("killed") == once("whole")


def test_two_of_each_four_inputs_go_the_smallest(shared_model):
    before = reset(shared_model)
    masks = WeightMasks(shared_model, 0.5, ramp_steps=9, two_four=True)
    masks.update(tf.constant(0, tf.int64))
    after = get_weights(shared_model)
    for name in masks.kernels:
        old, new = (
            weights[name].reshape(weights[name].shape[0], -1, 4) for weights in (before, after)
        )  # [out, in / 4, 4]
        assert ((new == 0).sum(axis=2) == 2).all(), name
        sizes = np.sort(np.abs(old), axis=2)
        assert np.array_equal(np.sort(np.abs(new), axis=2)[..., 2:], sizes[..., 2:]), name
    for kernel in masks.kernels.values():
        kernel.assign_add(tf.ones_like(kernel))
    masks.update(tf.constant(5, tf.int64))
    again = get_weights(shared_model)
    assert all(np.array_equal(again[name] == 0, after[name] == 0) for name in masks.kernels)


def test_embeddings_are_pruned_where_asked_for(shared_model):
    reset(shared_model)
    masks = WeightMasks(shared_model, 0.75, ramp_steps=1, embeddings=True)
    masks.update(tf.constant(0, tf.int64))
    table = get_weights(shared_model)[WORD_EMBEDDINGS]
    assert abs(zeros_of(table) - 0.75 * table.size) <= 1


def test_importance_is_the_squared_derivative_by_a_gate():
    """Against gates that stand in the graph: what passes a reading kernel times one, derived by the one."""
    model = new_model()
    masks = UnitMasks(model, ARCHITECTURE, 0.5, ramp_steps=1)
    ids = np.random.default_rng(0).integers(5, 100, (3, 12)).astype(np.int32)
    inputs = {
        "input_ids": ids,
        "token_type_ids": np.zeros_like(ids),
        "segment_ids": np.ones_like(ids),
        "position_ids": np.tile(np.arange(12, dtype=np.int32), (3, 1)),
        "cls_index": np.zeros((3, 1), np.int32),
        "dropout_key": np.zeros(3, np.int32),
    }
    points = ("encoder.layer.0.attention.output.input", "encoder.layer.0.output.input")
    observed = tf_keras.Model(model.input, [model.output, *(model.get_layer(point).output for point in points)])
    with tf.GradientTape() as tape:
        logits, *passing = observed(inputs)
        loss = tf.reduce_sum(tf.square(logits - 1.0))
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [*variables, *passing])
    masks.on_gradients([tf.convert_to_tensor(each) for each in gradients[: len(variables)]])
    attention, columns = (
        tf.reduce_sum(x * gradient, axis=[0, 1]).numpy()
        for x, gradient in zip(passing, gradients[len(variables) :], strict=True)
    )
    heads = attention.reshape(ARCHITECTURE.num_attention_heads, -1).sum(axis=1) ** 2 / (2 * ARCHITECTURE.head_width)
    expected = np.concatenate([np.repeat(heads, 2 * ARCHITECTURE.head_width), columns**2]) * (1 - SMOOTHING)
    assert masks.importance.numpy() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_a_gradient_that_is_not_finite_changes_no_score():
    model = new_model()
    masks = UnitMasks(model, ARCHITECTURE, 0.5, ramp_steps=1)
    ones = [tf.ones_like(variable) for variable in model.trainable_variables]
    masks.on_gradients(ones)
    before = masks.importance.numpy()
    masks.on_gradients([each * float("inf") for each in ones])
    assert np.isfinite(masks.scores.numpy()).all()
    assert (masks.importance.numpy() == before).all()
