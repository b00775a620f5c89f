"""Units of structured pruning: what they count, what is kept of each layer, and that a removed unit was not needed."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import TINY, tiny_vocabulary, tiny_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from tfpipe.compress.limits import FEWEST_COLUMNS
from tfpipe.compress.masks import UnitMasks
from tfpipe.compress.structure import Units, remove_units
from tfpipe.encoders.architecture import INFERENCE_INPUTS, Architecture
from tfpipe.model.bert import build_inference_model, build_training_model
from tfpipe.model.weights import set_weights

ARCHITECTURE = Architecture.from_dict(TINY | {"vocab_size": len(tiny_vocabulary())})
HEAD = {"classifier.weight": np.ones((2, 32), np.float32), "classifier.bias": np.zeros(2, np.float32)}


def weights_of(architecture: Architecture) -> dict[str, np.ndarray]:
    weights = {f"bert.{name}": value for name, value in tiny_weights(architecture.to_dict()).items()} | HEAD
    random = np.random.default_rng(1)
    return weights | {"classifier.weight": random.normal(size=(2, 32)).astype(np.float32)}


def kernel_parameters(weights: dict[str, np.ndarray]) -> int:
    return sum(v.size for k, v in weights.items() if k.startswith("bert.encoder.") and v.ndim == 2)


def answers(architecture: Architecture, weights: dict[str, np.ndarray]) -> np.ndarray:
    model = build_inference_model(architecture, 2)
    set_weights(model, weights)
    ids = np.random.default_rng(0).integers(5, 100, (4, 20)).astype(np.int32)
    mask = (np.arange(20) < np.array([[20], [7], [12], [1]])).astype(np.int32)
    return model(dict(zip(INFERENCE_INPUTS, (ids, mask, 0 * ids), strict=True))).numpy()


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_without_what_is_masked_a_model_answers_the_same(data):
    weights, units = weights_of(ARCHITECTURE), Units(ARCHITECTURE)
    heads = data.draw(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=2, max_size=2))
    columns = [np.random.default_rng(data.draw(st.integers(0, 99))).random(64) < 0.5 for _ in range(2)]
    mask = np.concatenate([np.concatenate([np.repeat(h, 16), c]) for h, c in zip(heads, columns, strict=True)])
    for name, rows in zip(units.readers, units.rows(tf.constant(mask, tf.float32)), strict=True):
        weights[name] = weights[name] * rows.numpy()  # [out, in]
    architecture, smaller = remove_units(ARCHITECTURE, weights)
    assert architecture.heads == tuple(max(sum(h), 1) for h in heads)
    assert architecture.widths == tuple(max(int(c.sum()), 1) for c in columns)
    assert answers(architecture, smaller) == pytest.approx(answers(ARCHITECTURE, weights), abs=1e-5)
    if all(map(any, heads)):  # a layer that lost all of its heads keeps one
        share = kernel_parameters(smaller) / kernel_parameters(weights)
        assert share == pytest.approx(mask.mean(), abs=1e-6)
    assert Architecture.from_dict(architecture.to_dict()) == architecture


def test_each_layer_keeps_its_best_units():
    units = Units(ARCHITECTURE)
    importance = np.repeat(np.arange(units.size // 16, dtype=np.float32), 16)
    importance[:128] *= 1e-3  # the first layer would be emptied
    raised = units.scores(tf.constant(importance), tf.ones(units.size)).numpy()
    high = raised > units.size
    for layer in range(2):
        heads, columns = high[layer * 128 :][:64], high[layer * 128 :][64:128]
        assert heads.sum() == 16 and heads[48:].all()  # one head, the last
        assert columns.sum() == FEWEST_COLUMNS and columns[-FEWEST_COLUMNS:].all()


def test_scores_are_ranks_in_which_a_head_stays_together():
    units, random = Units(ARCHITECTURE), np.random.default_rng(0)
    importance = np.concatenate(
        [np.concatenate([np.repeat(random.random(4), 16), random.random(64)]) for _ in range(2)]
    ).astype(np.float32)
    mask = np.ones(units.size, np.float32)
    mask[16:32] = mask[70:90] = 0.0  # a head and twenty columns are gone
    found = units.scores(tf.constant(importance), tf.constant(mask)).numpy()
    assert np.array_equal(found == 0.0, mask == 0.0)
    low = (found > 0.0) & (found <= units.size)  # without what each layer keeps
    order = np.argsort(importance[low], kind="stable")
    assert (np.diff(found[low][order]) >= 0).all()
    for layer in (0, 128):
        for head in range(4):
            assert len(set(found[layer + 16 * head :][:16])) == 1
    assert len(set(found[64:128][mask[64:128] > 0])) == 44  # columns never tie


def test_units_that_change_nothing_are_masked_one_by_one():
    """TF-MOT keeps all that ties with the last that it keeps: of dead columns that would be every one."""
    tf_keras.utils.set_random_seed(0)
    model = build_training_model(ARCHITECTURE, 2)
    masks = UnitMasks(model, ARCHITECTURE, 0.5, ramp_steps=4)
    masks.on_gradients([tf.zeros_like(variable) for variable in model.trainable_variables])
    shares = []
    for step in range(6):
        masks.update(tf.constant(step, tf.int64))
        shares.append(1.0 - float(tf.reduce_mean(masks.mask)))
    assert shares == sorted(shares) and 0.5 - 1 / 16 <= shares[-1] <= 0.5 and shares[-1] == shares[3]


def test_units_of_a_pruned_encoder_are_those_that_are_left():
    units = Units(
        Architecture.from_dict(
            ARCHITECTURE.to_dict() | {"attention_heads_per_layer": [1, 4], "intermediate_size_per_layer": [3, 64]}
        )
    )
    assert units.size == 16 + 3 + 64 + 64
    assert [len(rows) for rows in units.rows(tf.ones(units.size))] == [8, 3, 32, 64]
