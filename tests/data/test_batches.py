import numpy as np
import pytest
import tensorflow as tf

from tfpipe.data.batches import batches, evaluation_batches
from tfpipe.data.plan import Plan, bucket_lengths_for
from tfpipe.data.token_table import TokenRow, TokenTable, TokenTableWriter

BUCKETS = bucket_lengths_for(48)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    directory = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(0)
    with TokenTableWriter(directory, num_labels=3, pad_id=0, shard_rows=20) as writer:
        for n in range(50):
            input_ids = random.integers(1, 100, random.integers(3, 48), dtype=np.int32)
            labels = np.eye(3, dtype=np.float32)[n % 3]
            writer.append(TokenRow(input_ids, np.zeros_like(input_ids), labels, n, f"text {n}", None, "s", n + 2))
    return TokenTable.open(directory)


@pytest.fixture(scope="module")
def plan(table):
    return Plan(table.lengths, batch_size=8, bucket_lengths=BUCKETS, seed=1)


def assert_equal(batch, expected):
    for key, value in expected.items():
        assert batch[key].dtype == value.dtype and np.array_equal(batch[key], value), key


def test_batches_follow_the_plan_over_epochs(table, plan):
    last = 2 * plan.steps_per_epoch + 1
    found = list(batches(table, plan, 0, last).as_numpy_iterator())
    assert len(found) == last
    for n, batch in enumerate(found):
        assert_equal(batch, table.rows(*plan.step(n)))


def test_a_later_start_gives_the_same_batches(table, plan):
    whole = list(batches(table, plan, 0, 16).as_numpy_iterator())
    rest = list(batches(table, plan, 11, 16).as_numpy_iterator())
    assert len(rest) == 5
    for batch, expected in zip(rest, whole[11:], strict=True):
        assert_equal(batch, expected)


def test_element_spec(table, plan):
    spec = batches(table, plan, 0, 3).element_spec
    sequence = tf.TensorSpec([8, None], tf.int32)
    training = {
        "input_ids": sequence,
        "token_type_ids": sequence,
        "attention_mask": sequence,
        "labels": tf.TensorSpec([8, 3], tf.float32),
        "weights": tf.TensorSpec([8], tf.float32),
    }
    assert spec == training
    evaluation = evaluation_batches(table, 8, BUCKETS).element_spec
    assert evaluation == training | {"rows": tf.TensorSpec([8], tf.int64)}


def test_length_is_known_and_nothing_is_empty_by_mistake(table, plan):
    assert batches(table, plan, 3, 3).cardinality() == 0
    assert batches(table, plan, 3, 10).cardinality() == 7
    assert evaluation_batches(table, 8, BUCKETS).cardinality() == 7


def test_evaluation_says_where_each_answer_belongs(table):
    answers = np.full(table.num_rows, -1)
    for batch in evaluation_batches(table, 8, BUCKETS).as_numpy_iterator():
        filled = batch["rows"] >= 0
        assert np.array_equal(filled, batch["weights"] == 1)
        assert batch["input_ids"].shape[1] in BUCKETS
        answers[batch["rows"][filled]] = batch["attention_mask"].sum(axis=1)[filled]
    assert np.array_equal(answers, table.lengths)


def test_two_passes_are_equal(table, plan):
    dataset = batches(table, plan, 0, 9)
    for first, second in zip(dataset.as_numpy_iterator(), dataset.as_numpy_iterator(), strict=True):
        assert_equal(first, second)


def test_inside_a_function(table, plan):
    dataset = batches(table, plan, 0, plan.steps_per_epoch)

    @tf.function
    def examples():
        return dataset.reduce(0.0, lambda total, batch: total + tf.reduce_sum(batch["weights"]))

    assert examples() == table.num_rows
