"""One step: the same gradient however a batch is divided, the loss and its weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import TINY, TokenRow, tiny_vocabulary, tiny_weights, write_token_table

from tfpipe.config.train import Train
from tfpipe.devices.strategy import choose_strategy, precision
from tfpipe.encoders.architecture import Architecture
from tfpipe.model.bert import build_training_model
from tfpipe.model.weights import get_weights, import_encoder
from tfpipe.tokens.batches import Share, batches
from tfpipe.tokens.plan import Batching, Plan
from tfpipe.tokens.table import TokenTable
from tfpipe.train.feed import Feed
from tfpipe.train.optimizer import make_optimizer
from tfpipe.train.step import Hooks, Loss, make_replica_step, make_train_step, trainable_by_name

ARCHITECTURE = Architecture.from_dict(TINY | {"vocab_size": len(tiny_vocabulary()), "num_hidden_layers": 1})
PADDED = Batching("padded", 12, 1, (16,))
PACKED = Batching("packed", 6, 3, (24,))
PLAIN = Loss("single_label")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> TokenTable:
    directory, random = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    rows = []
    for number in range(12):
        ids = random.integers(5, 90, random.integers(4, 16)).astype(np.int32)
        rows.append(TokenRow(ids, np.zeros_like(ids), np.eye(2, dtype=np.float32)[int(number % 3 == 0)], number))
    write_token_table(directory, rows, num_labels=2)
    return TokenTable.open(directory)


def one_step(
    table,
    batching=PADDED,
    *,
    micro_batches=1,
    replicas=1,
    policy="float32",
    loss_scaling=False,
    loss=PLAIN,
    dropout=0.0,
    clip=None,
    compiled=False,
    from_here=False,
):
    """What one step of gradient descent at rate 1 takes off the weights, that is, the gradient; loss and norm."""
    strategy = tf.distribute.get_strategy() if replicas == 1 else choose_strategy("mirrored")[0]
    settings = Train(optimizer="sgd", momentum=0.0, weight_decay=0.0)
    with precision(policy), strategy.scope():
        tf_keras.utils.set_random_seed(0)
        model = build_training_model(ARCHITECTURE.with_dropout(dropout), 2)
        import_encoder(model, tiny_weights(ARCHITECTURE.to_dict()), "the test")
        optimizer = make_optimizer(trainable_by_name(model), settings, loss_scaling=loss_scaling)
    before = get_weights(model)
    replica_step = make_replica_step(
        model,
        optimizer,
        replicas=replicas,
        loss=loss,
        seed=3,
        micro_batches=micro_batches,
        clip_global_norm=clip,
        hooks=Hooks(),
        compiled=compiled,
    )
    step = make_train_step(strategy, replica_step)

    def own_batches(context):
        plan = Plan(table.lengths, batching, 0)
        return batches(table, plan, 0, 1, share=Share.of_worker(context), micro_batches=micro_batches)

    feed = Feed(strategy, own_batches, from_here=from_here)
    losses, norms = step(feed.next(1), tf.constant(0, tf.int64), tf.constant([1.0]))
    after = get_weights(model)
    return {name: before[name] - after[name] for name in before}, float(losses[0]), float(norms[0])


def largest(first, second) -> float:
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


@pytest.fixture(scope="module")
def whole(table):
    """All twelve examples at once, by name of the batching."""
    return {"padded": one_step(table), "packed": one_step(table, PACKED)}


def test_packed_and_padded_take_the_same_step(whole):
    """Twelve examples: in twelve rows, or in six of which some are empty."""
    (padded, loss, norm), (packed, other_loss, other_norm) = whole["padded"], whole["packed"]
    assert largest(packed, padded) <= 1e-5 and other_loss == pytest.approx(loss, abs=1e-6)
    assert other_norm == pytest.approx(norm, rel=1e-5)
    assert max(float(np.abs(each).max()) for each in padded.values()) > 0.01


EVERY_PAIR_OF_VALUES = [
    (PADDED, 1, 2, False),
    (PADDED, 2, 3, False),
    (PADDED, 2, 2, True),
    (PACKED, 2, 2, False),
    (PACKED, 1, 3, False),
    (PACKED, 1, 2, True),
    (PACKED, 2, 3, True),
]


@pytest.mark.parametrize(
    ("batching", "replicas", "micro_batches", "loss_scaling"),
    [
        pytest.param(*values, marks=() if values in EVERY_PAIR_OF_VALUES else pytest.mark.slow)
        for values in itertools.product((PADDED, PACKED), (1, 2), (2, 3), (False, True))
    ],
    ids=lambda value: getattr(value, "kind", str(value)),
)
def test_micro_batches_equal_one_batch(table, whole, batching, replicas, micro_batches, loss_scaling):
    """In float32, whose loss may be scaled too: by a power of two, which changes nothing."""
    found, loss, _ = one_step(
        table, batching, micro_batches=micro_batches, replicas=replicas, loss_scaling=loss_scaling
    )
    expected, expected_loss, _ = whole[batching.kind]
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert largest(found, expected) <= 1e-6


def test_batches_that_this_process_sends_to_all(table, whole):
    """As to the other hosts of a TPU pod, which run no Python."""
    expected, expected_loss, _ = whole["packed"]
    found, loss, _ = one_step(table, PACKED, replicas=2, micro_batches=3, from_here=True)
    assert loss == pytest.approx(expected_loss, abs=1e-6) and largest(found, expected) <= 1e-6


def test_micro_batches_in_float16(table):
    """Its own rounding is all that differs: each micro-batch sums up its rows first."""
    expected, loss, norm = one_step(table, policy="mixed_float16", loss_scaling=True)
    found, other, _ = one_step(table, policy="mixed_float16", loss_scaling=True, replicas=2, micro_batches=3)
    assert np.isfinite(norm) and other == pytest.approx(loss, abs=1e-3)
    assert largest(found, expected) <= 2e-3 * norm


def test_clipping_by_the_global_norm(table, whole):
    gradient, _, norm = whole["padded"]
    clipped, _, same = one_step(table, clip=0.25)
    assert same == pytest.approx(norm, rel=1e-6) and norm > 0.25
    assert largest(clipped, {name: each * (0.25 / norm) for name, each in gradient.items()}) <= 1e-6
    squares = sum(float(np.square(each.astype(np.float64)).sum()) for each in clipped.values())
    assert np.sqrt(squares) == pytest.approx(0.25, rel=1e-3)


def test_dropout_is_the_same_however_a_batch_is_divided(table, whole):
    expected, loss, _ = one_step(table, PACKED, dropout=0.4)
    assert abs(loss - whole["packed"][1]) > 1e-4  # it did something
    for micro_batches, replicas in ((2, 1), (1, 2), (3, 2)):
        found, other, _ = one_step(table, PACKED, dropout=0.4, micro_batches=micro_batches, replicas=replicas)
        assert other == pytest.approx(loss, abs=1e-6) and largest(found, expected) <= 1e-6


@pytest.mark.parametrize(("policy", "tolerance"), [("float32", 1e-6), ("mixed_float16", 2e-3)])
def test_a_step_that_xla_compiles_is_the_same_step(table, policy, tolerance):
    settings = {"policy": policy, "loss_scaling": policy == "mixed_float16", "dropout": 0.4}
    expected, loss, norm = one_step(table, PACKED, **settings)
    found, other, _ = one_step(table, PACKED, compiled=True, replicas=2, micro_batches=3, **settings)
    assert other == pytest.approx(loss, abs=tolerance)
    assert largest(found, expected) <= tolerance * max(norm, 1.0)


def test_class_weights_are_part_of_the_mean(table, whole):
    weighted, loss, _ = one_step(table, loss=Loss("single_label", class_weights=(1.0, 3.0)))
    assert loss != pytest.approx(whole["padded"][1], abs=1e-4)
    doubled, same, _ = one_step(table, loss=Loss("single_label", class_weights=(2.0, 6.0)))
    assert same == pytest.approx(loss, abs=1e-6) and largest(weighted, doubled) <= 1e-6
    # A part of a batch weighs as much as its examples do, not as many as it has.
    parts, again, _ = one_step(
        table, PACKED, loss=Loss("single_label", class_weights=(1.0, 3.0)), micro_batches=3, replicas=2
    )
    assert again == pytest.approx(loss, abs=1e-6) and largest(weighted, parts) <= 1e-5


def test_weights_of_examples():
    labels = tf.constant([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
    batch = {"labels": labels, "weights": tf.constant([[1.0], [1.0], [0.0]])}
    assert PLAIN.weights(batch).numpy().tolist() == [[1.0], [1.0], [0.0]]
    assert Loss("single_label", class_weights=(2.0, 3.0)).weights(batch).numpy().tolist() == [[2.0], [3.0], [0.0]]
    several = {"labels": tf.constant([[[1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]]), "weights": tf.ones([2, 1])}
    assert Loss("multi_label", class_weights=(1.0, 4.0, 9.0)).weights(several).numpy().tolist() == [[2.5], [1.0]]


def test_cross_entropy():
    logits = tf.constant([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]])
    labels = tf.constant([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    shares = np.exp([2.0, -1.0, 0.5]) / np.exp([2.0, -1.0, 0.5]).sum()
    found = PLAIN.per_example(logits, labels).numpy()
    assert found == pytest.approx([-np.log(shares[0]), np.log(3.0)], abs=1e-6)
    several = tf.constant([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    yes = 1.0 / (1.0 + np.exp([-2.0, 1.0, -0.5]))
    found = Loss("multi_label").per_example(logits, several).numpy()
    assert found == pytest.approx([-np.log([yes[0], 1 - yes[1], yes[2]]).sum(), 3 * np.log(2.0)], abs=1e-6)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_label_smoothing_equals_that_of_keras(task):
    logits, labels = tf.random.stateless_normal([5, 3], [1, 2]), tf.one_hot([0, 1, 2, 0, 1], 3)
    found = Loss(task, label_smoothing=0.2).per_example(logits, labels).numpy()
    if task == "single_label":
        expected = tf_keras.losses.categorical_crossentropy(labels, logits, from_logits=True, label_smoothing=0.2)
    else:
        expected = 3 * tf_keras.losses.binary_crossentropy(labels, logits, from_logits=True, label_smoothing=0.2)
    assert np.abs(found - expected).max() <= 1e-5
