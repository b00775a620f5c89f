import time

import numpy as np
import pytest
import tensorflow as tf
from conftest import TokenRow, write_token_table

from tfpipe.data.batches import batches, evaluation_batches
from tfpipe.data.plan import Batching, Plan, bucket_lengths_for, choose_batching
from tfpipe.data.token_table import TokenTable

BUCKETED = Batching("bucketed", 8, 1, bucket_lengths_for(48))
PACKED = Batching("packed", 6, 4, (64,))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    directory = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(0)
    rows = []
    for n in range(50):
        input_ids = random.integers(1, 100, random.integers(3, 48), dtype=np.int32)
        rows.append(TokenRow(input_ids, np.zeros_like(input_ids), np.eye(3, dtype=np.float32)[n % 3], n, f"text {n}"))
    write_token_table(directory, rows, num_labels=3, shard_rows=20)
    return TokenTable.open(directory)


@pytest.fixture(scope="module", params=[BUCKETED, PACKED], ids=["bucketed", "packed"])
def plan(table, request):
    return Plan(table.lengths, request.param, seed=1)


def assert_equal(batch, expected):
    for key, value in expected.items():
        assert batch[key].dtype == value.dtype and np.array_equal(batch[key], value), key


def test_batches_follow_the_plan_over_epochs(table, plan):
    last = 2 * plan.steps_per_epoch + 1
    found = list(batches(table, plan, 0, last).as_numpy_iterator())
    assert len(found) == last
    for n, batch in enumerate(found):
        assert_equal(batch, table.batch(*plan.step(n)))


def test_a_later_start_gives_the_same_batches(table, plan):
    whole = list(batches(table, plan, 0, 16).as_numpy_iterator())
    rest = list(batches(table, plan, 11, 16).as_numpy_iterator())
    assert len(rest) == 5
    for batch, expected in zip(rest, whole[11:], strict=True):
        assert_equal(batch, expected)


@pytest.mark.parametrize(("batching", "length"), [(BUCKETED, None), (PACKED, 64)], ids=["bucketed", "packed"])
def test_element_spec(table, batching, length):
    rows, slots = batching.rows, batching.slots
    spec = batches(table, Plan(table.lengths, batching, 0), 0, 3).element_spec
    tokens = ("input_ids", "token_type_ids", "segment_ids", "position_ids")
    training = {name: tf.TensorSpec([rows, length], tf.int32) for name in tokens} | {
        "cls_index": tf.TensorSpec([rows, slots], tf.int32),
        "labels": tf.TensorSpec([rows, slots, 3], tf.float32),
        "weights": tf.TensorSpec([rows, slots], tf.float32),
    }
    assert spec == training
    evaluation = evaluation_batches(table, batching).element_spec
    assert evaluation == training | {"examples": tf.TensorSpec([rows, slots], tf.int64)}


def test_rows_are_added_until_a_batch_can_be_shared(table):
    plan = Plan(table.lengths, PACKED, 0)
    for shares, rows in ((1, 6), (2, 6), (3, 6), (4, 8), (6, 6)):
        first = next(iter(batches(table, plan, 0, 1, shares=shares).as_numpy_iterator()))
        assert first["input_ids"].shape == (rows, 64)
        assert_equal({key: value[:6] for key, value in first.items()}, table.batch(*plan.step(0)))
        assert not first["weights"][6:].any() and not first["segment_ids"][6:].any()


def test_length_is_known_and_nothing_is_empty_by_mistake(table, plan):
    assert batches(table, plan, 3, 3).cardinality() == 0
    assert batches(table, plan, 3, 10).cardinality() == 7
    assert evaluation_batches(table, BUCKETED).cardinality() == 7


@pytest.mark.parametrize("batching", [BUCKETED, PACKED], ids=["bucketed", "packed"])
def test_evaluation_says_where_each_answer_belongs(table, batching):
    answers = np.full(table.num_rows, -1)
    for batch in evaluation_batches(table, batching).as_numpy_iterator():
        filled = batch["examples"] >= 0
        assert np.array_equal(filled, batch["weights"] == 1)
        assert batch["input_ids"].shape[1] in batching.row_lengths
        for row, slot in zip(*np.nonzero(filled), strict=True):
            answers[batch["examples"][row, slot]] = (batch["segment_ids"][row] == slot + 1).sum()
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


def test_the_input_never_starves_the_device(tmp_path):
    """Shuffled, packed batches of 32 sentences; several times this on an idle machine."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(3.2, 0.5, 8000), 5, 64).astype(int)
    rows = []
    for n, length in enumerate(lengths):
        ids = random.integers(1, 30_000, length, dtype=np.int32)
        rows.append(TokenRow(ids, np.zeros_like(ids), np.eye(2, dtype=np.float32)[n % 2], n))
    write_token_table(tmp_path, rows, num_labels=2)
    table = TokenTable.open(tmp_path)
    batching, _ = choose_batching("packed", table.lengths, batch_size=32, max_length=64)
    plan = Plan(table.lengths, batching, 0)

    def seconds():
        started = time.perf_counter()
        assert sum(1 for _ in batches(table, plan, 0, plan.steps_per_epoch)) == plan.steps_per_epoch
        return time.perf_counter() - started

    rate = 8000 / min(seconds() for _ in range(3))
    assert rate > 10_000, f"{rate:.0f} examples/s"
