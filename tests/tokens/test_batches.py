import time

import numpy as np
import pytest
import tensorflow as tf
from conftest import TokenRow, write_token_table

from tfpipe.tokens.batches import Share, batches, evaluation_batches, evaluation_steps
from tfpipe.tokens.plan import Batching, Plan, bucket_lengths_for, choose_batching
from tfpipe.tokens.table import TokenTable

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
    found = list(batches(table, plan, 0, last).take(last).as_numpy_iterator())
    assert len(found) == last
    for n, batch in enumerate(found):
        assert_equal(batch, table.batch(*plan.step(n)))


def test_a_later_start_gives_the_same_batches(table, plan):
    whole = list(batches(table, plan, 0, 16).take(16).as_numpy_iterator())
    rest = list(batches(table, plan, 11, 16).take(5).as_numpy_iterator())
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
    steps = evaluation_steps(table, batching)
    assert evaluation_batches(table, batching, steps).element_spec == training


def test_rows_are_added_until_a_batch_can_be_shared(table):
    plan = Plan(table.lengths, PACKED, 0)
    for parts, micro_batches, rows in ((1, 1, 6), (2, 1, 6), (1, 2, 6), (3, 1, 6), (4, 1, 8), (2, 2, 8), (6, 1, 6)):
        dataset = batches(table, plan, 0, 1, share=Share(parts, 0, parts), micro_batches=micro_batches)
        found = list(dataset.take(parts).as_numpy_iterator())
        assert {part["input_ids"].shape for part in found} == {(rows // parts, 64)}
        whole = {key: np.concatenate([part[key] for part in found]) for key in found[0]}
        assert_equal({key: value[:6] for key, value in whole.items()}, table.batch(*plan.step(0)))
        assert not whole["weights"][6:].any() and not whole["segment_ids"][6:].any()


def test_workers_share_the_rows_in_their_order(table, plan):
    """Three workers with two replicas each: together they have every batch."""
    steps = plan.steps_per_epoch + 2
    contexts = [tf.distribute.InputContext(3, number, 6) for number in range(3)]
    shares = [Share.of_worker(context) for context in contexts]
    assert shares == [Share(6, 0, 2), Share(6, 2, 2), Share(6, 4, 2)]
    found = [
        list(batches(table, plan, 1, steps, share=each).take(2 * steps - 2).as_numpy_iterator()) for each in shares
    ]
    for n in range(1, steps):
        parts = [part for each in found for part in each[2 * (n - 1) : 2 * n]]
        whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        expected = table.batch(*plan.step(n))
        assert_equal({key: value[: plan.batching.rows] for key, value in whole.items()}, expected)


def test_what_comes_after_the_last_step_is_empty(table, plan):
    dataset = batches(table, plan, 3, 4)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    first, *rest = dataset.take(4).as_numpy_iterator()
    assert first["weights"].any() and not any(each["weights"].any() for each in rest)


@pytest.mark.parametrize("batching", [BUCKETED, PACKED], ids=["bucketed", "packed"])
def test_evaluation_says_where_each_answer_belongs(table, batching):
    for parts in (1, 3):
        answers = np.full(table.num_rows, -1)
        steps = evaluation_steps(table, batching, parts)
        dataset, examples = evaluation_batches(table, batching, steps, share=Share(parts, 0, parts)), steps.examples
        found = list(dataset.take(2 * parts * len(examples)).as_numpy_iterator())
        for batch, again in zip(found, found[parts * len(examples) :], strict=False):
            assert_equal(batch, again)  # the next evaluation
        for n, belongs in enumerate(examples):
            together = found[n * parts : (n + 1) * parts]
            assert len({batch["input_ids"].shape for batch in together}) == 1  # as one program for all replicas needs
            batch = {key: np.concatenate([each[key] for each in together]) for key in together[0]}
            filled = belongs >= 0
            assert np.array_equal(filled, batch["weights"] == 1)
            assert batch["input_ids"].shape[1] in batching.row_lengths
            for row, slot in zip(*np.nonzero(filled), strict=True):
                answers[belongs[row, slot]] = (batch["segment_ids"][row] == slot + 1).sum()
        assert np.array_equal(answers, table.lengths)
        assert sorted(examples[examples >= 0]) == list(range(table.num_rows))


def test_two_passes_are_equal(table, plan):
    dataset = batches(table, plan, 0, 9).take(9)
    for first, second in zip(dataset.as_numpy_iterator(), dataset.as_numpy_iterator(), strict=True):
        assert_equal(first, second)


def test_inside_a_function(table, plan):
    dataset = batches(table, plan, 0, plan.steps_per_epoch).take(plan.steps_per_epoch)

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
    steps = plan.steps_per_epoch

    def seconds():
        started = time.perf_counter()
        assert sum(1 for _ in batches(table, plan, 0, steps).take(steps)) == steps
        return time.perf_counter() - started

    rate = 8000 / min(seconds() for _ in range(3))
    assert rate > 10_000, f"{rate:.0f} examples/s"
