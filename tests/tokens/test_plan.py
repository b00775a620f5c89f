import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfpipe.tokens.plan import Batching, Plan, bucket_lengths_for, choose_batching, plan_evaluation

MAX_LENGTH = 96
BUCKETS = bucket_lengths_for(MAX_LENGTH)

LENGTHS = st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=700).map(lambda values: np.array(values, np.int32))
KINDS = st.sampled_from(["packed", "bucketed", "padded"])
BATCHINGS = st.builds(
    lambda kind, rows, slots: Batching(
        kind, rows, slots if kind == "packed" else 1, BUCKETS if kind == "bucketed" else (MAX_LENGTH,)
    ),
    KINDS,
    st.integers(1, 9),
    st.integers(1, 6),
)
SEEDS = st.integers(0, 2**31 - 1)
EPOCHS = st.integers(0, 1000)


def steps_of(plan, epoch):
    first = epoch * plan.steps_per_epoch
    return [plan.step(n) for n in range(first, first + plan.steps_per_epoch)]


def check_steps(steps, lengths, batching):
    filled = np.concatenate([examples[examples >= 0] for examples, _ in steps])
    assert sorted(filled) == list(range(len(lengths)))
    for examples, row_length in steps:
        assert examples.shape == (batching.rows, batching.slots) and examples.dtype == np.int64
        assert (examples >= -1).all()
        used = np.where(examples >= 0, lengths[examples], 0).sum(axis=1)
        assert row_length == min(length for length in batching.row_lengths if length >= used.max())
    # At most one step of the epoch has rows with no example at all.
    assert sum((examples < 0).all(axis=1).any() for examples, _ in steps) <= 1


@settings(deadline=None, max_examples=100)
@given(LENGTHS, BATCHINGS, SEEDS, EPOCHS)
def test_every_example_once_in_a_row_that_holds_it(lengths, batching, seed, epoch):
    steps = steps_of(Plan(lengths, batching, seed), epoch)
    check_steps(steps, lengths, batching)
    again = steps_of(Plan(lengths.copy(), batching, seed), epoch)
    for (examples, row_length), (others, other_length) in zip(steps, again, strict=True):
        assert np.array_equal(examples, others) and row_length == other_length


@settings(deadline=None, max_examples=60)
@given(LENGTHS, BATCHINGS)
def test_evaluation_holds_every_example_once(lengths, batching):
    plan = plan_evaluation(lengths, batching)
    check_steps(list(zip(plan.examples, plan.row_length.tolist(), strict=True)), lengths, batching)


@settings(deadline=None, max_examples=40)
@given(LENGTHS, BATCHINGS, SEEDS, st.lists(st.integers(0, 2000), min_size=1, max_size=30))
def test_a_step_does_not_depend_on_the_calls_before_it(lengths, batching, seed, steps):
    one = Plan(lengths, batching, seed)
    for n in steps:
        examples, row_length = one.step(n)
        fresh, fresh_length = Plan(lengths, batching, seed).step(n)
        assert np.array_equal(examples, fresh) and row_length == fresh_length


@settings(deadline=None, max_examples=40)
@given(LENGTHS, BATCHINGS, SEEDS)
def test_examples_are_counted_over_epochs(lengths, batching, seed):
    plan = Plan(lengths, batching, seed)
    seen = 0
    for n in range(2 * plan.steps_per_epoch + 1):
        assert plan.examples_before(n) == seen
        examples, row_length = plan.step(n)
        seen += int((examples >= 0).sum())
        assert plan.tokens(n) == (lengths[examples[examples >= 0]].sum(), batching.rows * row_length)
    assert plan.examples_before(7 * plan.steps_per_epoch) == 7 * len(lengths)


@pytest.mark.parametrize("kind", ["packed", "bucketed", "padded"])
def test_epochs_and_seeds_differ(kind):
    lengths = np.full(64, 8, np.int32)
    batching, _ = choose_batching(kind, lengths, batch_size=8, max_length=16)
    plans = [
        b"".join(examples.tobytes() for examples, _ in steps_of(Plan(lengths, batching, seed), epoch))
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    ]
    assert len(set(plans)) == 5


def test_bucketed_batches_are_not_in_the_order_of_length():
    lengths = np.random.default_rng(0).integers(3, MAX_LENGTH, 3000).astype(np.int32)
    steps = steps_of(Plan(lengths, Batching("bucketed", 8, 1, BUCKETS), 0), 0)
    row_lengths = np.array([row_length for _, row_length in steps])
    assert abs(np.corrcoef(np.arange(len(row_lengths)), row_lengths)[0, 1]) < 0.2
    assert 1 - lengths.sum() / (8 * row_lengths).sum() < 0.15  # padding; unsorted, about half


def test_packed_steps_are_alike():
    """Long and short examples meet in every step, from the first to the last."""
    lengths = np.random.default_rng(0).integers(3, 64, 6000).astype(np.int32)
    batching, _ = choose_batching("packed", lengths, batch_size=32, max_length=64)
    counts = np.array([(examples >= 0).sum() for examples, _ in steps_of(Plan(lengths, batching, 0), 0)][:-1])
    assert abs(np.corrcoef(np.arange(len(counts)), counts)[0, 1]) < 0.2
    assert counts.mean() == pytest.approx(32, rel=1 / 16) and counts.std() < 5


def test_the_plan_stays_what_it_was():
    # Golden: a run that was begun with an earlier release must go on with the same rows.
    lengths = np.array([5, 9, 30, 12, 7, 64, 3, 40, 17, 9], np.int32)
    bucketed = steps_of(Plan(lengths, Batching("bucketed", 4, 1, BUCKETS), seed=3), 1)
    assert [examples[:, 0].tolist() for examples, _ in bucketed] == [[7, 5, -1, -1], [6, 0, 4, 9], [1, 3, 8, 2]]
    assert [row_length for _, row_length in bucketed] == [64, 16, 32]
    packed = steps_of(Plan(lengths, Batching("packed", 2, 3, (64,)), seed=3), 1)
    assert [examples.tolist() for examples, _ in packed] == [
        [[7, 8, 4], [1, 0, 6]],
        [[5, -1, -1], [2, 3, 9]],
    ]


def skewed(count: int) -> np.ndarray:
    """Lengths as of sentences: many short, few long."""
    random = np.random.default_rng(0)
    return np.clip(random.lognormal(3.2, 0.5, count), 5, 64).astype(np.int32)


def test_packed_rows_are_chosen_from_the_lengths():
    lengths = skewed(5000)
    batching, words = choose_batching("packed", lengths, batch_size=32, max_length=128)
    assert batching.row_lengths == (64,) and batching.kind == "packed"
    steps = steps_of(Plan(lengths, batching, 0), 0)
    fill = lengths.sum() / (len(steps) * batching.rows * 64)
    assert fill > 0.95
    assert f"{batching.rows} rows of 64 tokens, 9" in words and " examples a step" in words
    examples = float(words.split(", ")[-1].split()[0])
    assert examples == pytest.approx(32, rel=1 / 16)


def test_long_examples_get_longer_rows_only_where_that_fills_them():
    halves = np.full(1000, 120, np.int32)  # 120 of 120: no reason for a longer row
    assert choose_batching("packed", halves, batch_size=16, max_length=128)[0].row_lengths == (120,)
    awkward = np.full(1000, 130, np.int32)
    awkward[::2] = 70  # one of each leaves the rest of a row of 136 empty; 208 holds 130 + 70
    assert choose_batching("packed", awkward, batch_size=16, max_length=256)[0].row_lengths == (208,)
    rare = choose_batching("packed", halves, batch_size=16, max_length=128, longest=125)[0]
    assert rare.row_lengths == (128,)  # where an evaluation row is longer than any other


def test_a_row_length_can_be_asked_for():
    batching, _ = choose_batching("packed", skewed(3000), batch_size=64, max_length=64, row_length=512)
    assert batching.row_lengths == (512,) and batching.rows * 512 * 0.9 < 64 * skewed(3000).mean() * 1.2
    with pytest.raises(ValueError, match="a row of 32 tokens can't hold the longest example, which has 64"):
        choose_batching("packed", skewed(3000), batch_size=64, max_length=64, row_length=32)


@pytest.mark.parametrize("batch_size", [1, 4, 32, 256, 2048])
def test_rows_of_a_batch_can_be_shared(batch_size):
    """From 16 rows on they are a multiple of a power of two, never far from the batch size asked for."""
    lengths = skewed(20_000)
    batching, _ = choose_batching("packed", lengths, batch_size=batch_size, max_length=64)
    unit = batching.rows & -batching.rows
    assert batching.rows / unit < 16 or batching.rows < 16
    exact = batch_size * lengths.mean() / 64
    assert batching.rows >= 1 and abs(batching.rows - exact) <= max(1, 0.1 * exact)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(1, 40) | st.integers(1, 520), min_size=1, max_size=300),
    st.integers(1, 40) | st.integers(1, 300),
    st.sampled_from(["auto", "packed", "bucketed", "padded"]),
    st.sampled_from([None, None, 520, 2048]),
)
def test_a_step_has_batch_size_examples(lengths, batch_size, requested, row_length):
    """Within an eighth, on average over all orders of the rows; exactly, where a row has one example."""
    lengths = np.array(lengths, np.int32)
    batching, words = choose_batching(requested, lengths, batch_size=batch_size, max_length=520, row_length=row_length)
    evaluated = plan_evaluation(lengths, batching).examples
    rows = int((evaluated >= 0).any(axis=-1).sum())
    examples = batching.rows * len(lengths) / rows
    assert abs(examples - batch_size) <= batch_size / 8 + 1e-9, words
    if batching.kind == "packed":
        said = float(re.search(r"([\d.]+) examples a step", words)[1])
        assert abs(said - examples) < 0.051 and requested in ("packed", "auto")
        assert row_length in (None, *batching.row_lengths)
    else:
        assert batching.rows == batch_size and (requested, row_length) != ("auto", 520)
    if len(lengths) >= 2 * batch_size and batching.kind != "packed":
        plan = Plan(lengths, batching, 0)
        counts = [plan.examples_before(n + 1) - plan.examples_before(n) for n in range(plan.steps_per_epoch)]
        assert sorted(counts)[1:] == [batch_size] * (len(counts) - 1)


def test_usual_batches_are_what_they_were():
    """Of short texts and of long ones, as before small batch sizes were kept."""
    long = np.clip(np.random.default_rng(1).lognormal(5.4, 0.6, 3000), 10, 512).astype(np.int32)
    for requested in ("auto", "packed"):
        for lengths, batch_size, rows, row_length in (
            *((skewed(500), *each, 64) for each in ((16, 7), (32, 14), (64, 28), (128, 56))),
            *((long, *each, 512) for each in ((16, 8), (32, 16), (64, 32))),
        ):
            batching, _ = choose_batching(requested, lengths, batch_size=batch_size, max_length=512)
            assert batching == Batching("packed", rows, 4, (row_length,))


def test_one_long_text_does_not_change_the_batch_size():
    lengths = np.append(np.full(2000, 20, np.int32), 512).astype(np.int32)
    for batch_size in (1, 4, 16, 32):
        batching, words = choose_batching("auto", lengths, batch_size=batch_size, max_length=512)
        assert batching == Batching("bucketed", batch_size, 1, bucket_lengths_for(512))
        assert words.endswith("tokens, as packed rows of 512 would make it 24.7 examples a step")
    batching, words = choose_batching("packed", lengths, batch_size=16, max_length=512)
    assert batching == Batching("packed", 1, 16, (512,)) and words.endswith("62.8% of them real, 15.9 examples a step")
    assert choose_batching("auto", lengths, batch_size=24, max_length=512)[0].kind == "packed"


def test_bucketed_and_padded_have_an_example_a_row():
    lengths = skewed(100)
    batching, words = choose_batching("bucketed", lengths, batch_size=8, max_length=64)
    assert batching == Batching("bucketed", 8, 1, bucket_lengths_for(64)) and words == "8 rows of up to 64 tokens"
    batching, words = choose_batching("padded", lengths, batch_size=8, max_length=64)
    assert batching == Batching("padded", 8, 1, (64,))
    assert words == f"8 rows of 64 tokens, {lengths.mean() / 64:.1%} of them real"


def test_steps_of_epochs():
    plan = Plan(np.full(40, 5, np.int32), Batching("padded", 16, 1, (8,)), 0)
    assert plan.steps_per_epoch == 3
    assert [plan.steps(epochs) for epochs in (1.0, 0.01, 1 / 3, 7 / 3, 2.0)] == [3, 1, 1, 7, 6]


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
    batching = Batching("bucketed", 2, 1, BUCKETS)
    with pytest.raises(ValueError, match="an example has 97 tokens and a row 96; use the max_length"):
        Plan(np.array([97]), batching, 0)
    with pytest.raises(ValueError, match="at least one example"):
        Plan(np.array([], np.int32), batching, 0)
    with pytest.raises(ValueError, match="counted from 0"):
        Plan(np.array([5]), batching, 0).step(-1)


def test_plans_are_read_only():
    examples, _ = Plan(np.array([5, 6]), Batching("bucketed", 2, 1, BUCKETS), 0).step(0)
    with pytest.raises(ValueError, match="read-only"):
        examples[0] = 1


@pytest.mark.parametrize("kind", ["packed", "bucketed", "padded"])
def test_evaluation_of_nothing(kind):
    plan = plan_evaluation(np.array([], np.int32), Batching(kind, 4, 1, (8,)))
    assert plan.examples.shape == (0, 4, 1) and plan.row_length.shape == (0,)
