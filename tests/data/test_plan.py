import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfpipe.data.plan import Plan, bucket_lengths_for, plan_epoch, plan_evaluation

MAX_LENGTH = 96
BUCKETS = bucket_lengths_for(MAX_LENGTH)

LENGTHS = st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=700).map(lambda values: np.array(values, np.int32))
BATCH_SIZES = st.integers(1, 9)
SEEDS = st.integers(0, 2**31 - 1)
EPOCHS = st.integers(0, 1000)


def check_plan(plan, lengths, batch_size):
    steps = -(-len(lengths) // batch_size)
    assert plan.rows.shape == (steps, batch_size) and plan.rows.dtype == np.int64
    assert plan.length.shape == (steps,) and plan.length.dtype == np.int32
    filled = plan.rows[plan.rows >= 0]
    assert sorted(filled) == list(range(len(lengths)))
    assert (plan.rows[plan.rows < 0] == -1).all()
    assert ((plan.rows < 0).sum(axis=1) > 0).sum() <= 1  # at most one step has empty slots
    for rows, length in zip(plan.rows, plan.length, strict=True):
        longest = lengths[rows[rows >= 0]].max()
        assert length == min(bucket for bucket in BUCKETS if bucket >= longest)


@settings(deadline=None, max_examples=60)
@given(LENGTHS, BATCH_SIZES, SEEDS, EPOCHS)
def test_every_row_once_in_a_step_that_holds_it(lengths, batch_size, seed, epoch):
    arguments = {"batch_size": batch_size, "bucket_lengths": BUCKETS, "seed": seed, "epoch": epoch}
    plan = plan_epoch(lengths, **arguments)
    check_plan(plan, lengths, batch_size)
    again = plan_epoch(lengths.copy(), **arguments)
    assert np.array_equal(plan.rows, again.rows) and np.array_equal(plan.length, again.length)


@settings(deadline=None, max_examples=40)
@given(LENGTHS, BATCH_SIZES)
def test_evaluation_goes_from_short_to_long(lengths, batch_size):
    plan = plan_evaluation(lengths, batch_size=batch_size, bucket_lengths=BUCKETS)
    check_plan(plan, lengths, batch_size)
    in_order = lengths[plan.rows[plan.rows >= 0]]
    assert (np.diff(in_order) >= 0).all()


@settings(deadline=None, max_examples=30)
@given(LENGTHS, BATCH_SIZES, SEEDS, st.lists(st.integers(0, 2000), min_size=1, max_size=30))
def test_a_step_does_not_depend_on_the_calls_before_it(lengths, batch_size, seed, steps):
    def new_plan():
        return Plan(lengths, batch_size=batch_size, bucket_lengths=BUCKETS, seed=seed)

    one = new_plan()
    for n in steps:
        rows, length = one.step(n)
        fresh_rows, fresh_length = new_plan().step(n)
        assert np.array_equal(rows, fresh_rows) and length == fresh_length
        epoch = plan_epoch(
            lengths, batch_size=batch_size, bucket_lengths=BUCKETS, seed=seed, epoch=n // one.steps_per_epoch
        )
        assert np.array_equal(rows, epoch.rows[n % one.steps_per_epoch])


def test_epochs_and_seeds_differ():
    lengths = np.full(64, 8, np.int32)
    plans = [
        plan_epoch(lengths, batch_size=8, bucket_lengths=BUCKETS, seed=seed, epoch=epoch).rows.tobytes()
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    ]
    assert len(set(plans)) == 5


def test_batches_are_not_in_the_order_of_length():
    lengths = np.random.default_rng(0).integers(3, MAX_LENGTH, 3000).astype(np.int32)
    plan = plan_epoch(lengths, batch_size=8, bucket_lengths=BUCKETS, seed=0, epoch=0)
    correlation = np.corrcoef(np.arange(len(plan.length)), plan.length)[0, 1]
    assert abs(correlation) < 0.2
    padding = 1 - lengths.sum() / (8 * plan.length.astype(int)).sum()
    assert padding < 0.15  # unsorted, about half


def test_the_plan_stays_what_it_was():
    # Golden: a run that was begun with an earlier release must go on with the same rows.
    lengths = np.array([5, 9, 30, 12, 7, 64, 3, 40, 17, 9], np.int32)
    plan = plan_epoch(lengths, batch_size=4, bucket_lengths=BUCKETS, seed=3, epoch=1)
    assert plan.rows.tolist() == [[7, 5, -1, -1], [6, 0, 4, 9], [1, 3, 8, 2]]
    assert plan.length.tolist() == [64, 16, 32]


def test_bucket_lengths():
    assert bucket_lengths_for(4) == (4,)
    assert bucket_lengths_for(8) == (8,)
    assert bucket_lengths_for(50) == (8, 16, 24, 32, 40, 48, 50)
    assert bucket_lengths_for(64) == (8, 16, 24, 32, 40, 48, 56, 64)
    assert bucket_lengths_for(128)[7:] == (64, 80, 96, 112, 128)
    assert bucket_lengths_for(256)[11:] == (128, 160, 192, 224, 256)
    assert bucket_lengths_for(512)[15:] == (256, 320, 384, 448, 512)
    assert bucket_lengths_for(320)[-2:] == (256, 320)
    assert bucket_lengths_for(321)[-3:] == (256, 320, 321)


@given(st.integers(4, 4096))
def test_bucket_lengths_rise_to_the_longest(max_length):
    buckets = bucket_lengths_for(max_length)
    assert buckets[-1] == max_length and list(buckets) == sorted(set(buckets))


def test_plans_refuse_what_they_cannot_hold():
    with pytest.raises(ValueError, match="a row has 97 tokens and the last bucket 96; use the max_length"):
        Plan(np.array([97]), batch_size=2, bucket_lengths=BUCKETS, seed=0)
    with pytest.raises(ValueError, match="at least one row"):
        Plan(np.array([], np.int32), batch_size=2, bucket_lengths=BUCKETS, seed=0)
    with pytest.raises(ValueError, match="counted from 0"):
        Plan(np.array([5]), batch_size=2, bucket_lengths=BUCKETS, seed=0).step(-1)


def test_plans_are_read_only():
    rows, _ = Plan(np.array([5, 6]), batch_size=2, bucket_lengths=BUCKETS, seed=0).step(0)
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 1


def test_evaluation_of_nothing():
    plan = plan_evaluation(np.array([], np.int32), batch_size=4, bucket_lengths=BUCKETS)
    assert plan.rows.shape == (0, 4) and plan.length.shape == (0,)
