"""What a fit does, in numbers: divisions, weights, rates, evaluations."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import TokenRow, write_token_table

from tfpipe.config.train import EarlyStopping, ReduceOnPlateau, Train
from tfpipe.errors import InputError
from tfpipe.tokens.batches import Share, batches
from tfpipe.tokens.plan import Batching, Plan, bucket_lengths_for, plan_evaluation
from tfpipe.tokens.table import TokenTable
from tfpipe.train.recipe import Recipe, check_division, class_weights, recipe_of, training_plan
from tfpipe.train.step import Loss

BUCKETED = Batching("bucketed", 16, 1, bucket_lengths_for(16))
PACKED = Batching("packed", 7, 4, (32,))
PLAN = Plan(np.full(160, 8, np.int32), BUCKETED, 0)  # ten steps an epoch


def recipe(keep: str = "best", epochs: float = 2.0, **settings) -> Recipe:
    return Recipe("test", epochs, 1.0, keep, Train(**settings), Loss("single_label"), "float32", seed=0)


def history(*losses: float, every: int = 5) -> list[dict[str, float]]:
    return [{"step": every * (n + 1), "loss": loss} for n, loss in enumerate(losses)]


def test_evaluations_are_spread_over_an_epoch():
    for per_epoch, expected in ((1, [10, 20]), (2, [5, 10, 15, 20]), (3, [4, 7, 10, 14, 17, 20])):
        each = recipe(evaluations_per_epoch=per_epoch)
        assert [n for n in range(1, 21) if each.is_evaluated(PLAN, n)] == expected
    assert [n for n in range(1, 14) if recipe(epochs=1.3).is_evaluated(PLAN, n)] == [10, 13]  # and at the end


def test_several_steps_at_once_stop_where_something_happens():
    each = recipe(steps_per_execution=4, checkpoint_every=1)  # a checkpoint waits for the end of a call
    done, counts = 0, []
    while done < 20:
        counts.append(each.steps_at_once(PLAN, done))
        done += counts[-1]
    ends = np.cumsum(counts).tolist()
    assert ends == [4, 8, 9, 10, 14, 18, 19, 20] and set(counts) == {1, 4}


def test_the_rate_of_a_step_knows_the_evaluations_before_it_alone():
    each = recipe(
        schedule="constant", warmup_fraction=0.0, metric="loss", reduce_on_plateau=ReduceOnPlateau(factor=0.1)
    )
    past = history(0.5, 0.6, 0.7)  # after steps 5, 10 and 15: the second and the third brought nothing
    rates = [each.rate(PLAN, step, past) for step in range(20)]
    assert rates == pytest.approx([1.0] * 10 + [0.1] * 5 + [0.01] * 5)
    assert [each.rate(PLAN, step, past[:1]) for step in range(10)] == rates[:10]


def test_only_a_fit_that_keeps_the_best_stops_or_slows_down():
    settings = {"metric": "loss", "early_stopping": EarlyStopping(patience=2), "reduce_on_plateau": ReduceOnPlateau()}
    past = history(0.5, 0.6, 0.7)
    best, last = recipe("best", **settings), recipe("last", **settings)
    assert best.stops_early(past) and not best.stops_early(past[:2]) and not last.stops_early(past)
    assert last.rate(PLAN, 19, past) == pytest.approx(4 * best.rate(PLAN, 19, past))


@pytest.mark.parametrize("batching", [BUCKETED, PACKED, Batching("padded", 16, 1, (16,))])
def test_rows_are_filled_up_until_replicas_can_share_them(batching, tmp_path):
    lengths = np.full(100, 8, np.int32)
    rows = [TokenRow(np.full(8, 7, np.int32), np.zeros(8, np.int32), np.eye(2)[0], n) for n in range(100)]
    write_token_table(tmp_path, rows, num_labels=2)
    table, plan = TokenTable.open(tmp_path), Plan(lengths, batching, 0)
    for micro_batches, replicas in ((1, 1), (2, 2), (7, 1), (3, 2), (1, 5)):
        check_division(plan, micro_batches, replicas)
        parts = [Share(replicas, first, 1) for first in range(replicas)]
        own = [next(iter(batches(table, plan, 0, 1, share=part, micro_batches=micro_batches))) for part in parts]
        assert all(batch["weights"].shape[0] % micro_batches == 0 for batch in own)
        assert sum(float(batch["weights"].numpy().sum()) for batch in own) == plan.examples_before(1)


def test_more_parts_than_rows_are_refused():
    lengths = np.full(100, 8, np.int32)
    for batching in (BUCKETED, PACKED):
        refused = rf"a batch has {batching.rows} {batching.kind} row\(s\), which 5 replica\(s\) x .* 4 can't share"
        with pytest.raises(InputError, match=refused):
            check_division(Plan(lengths, batching, 0), 4, 5)


def test_a_small_batch_size_is_kept_by_buckets_unless_packed_rows_are_asked_for(tiny_run):
    config, run = tiny_run
    table = TokenTable.open(run / "prepare" / "train")
    for batch_size in (1, 2, 3, 5, 7):
        for changes in ({}, {"batching": "packed"}, {"row_length": 256}):
            train = config.train.model_copy(update={"batch_size": batch_size, **changes})
            plan, words = training_plan(config.model_copy(update={"train": train}), table, table)
            rows = int((plan_evaluation(table.lengths, plan.batching).examples >= 0).any(axis=-1).sum())
            assert abs(plan.batching.rows * plan.num_examples / rows / batch_size - 1) <= 1 / 8, words
            if changes:
                assert plan.batching.kind == "packed" and "examples a step" in words
            elif plan.batching.kind == "bucketed":
                assert plan.batching.rows == batch_size and "as packed rows of 64 would make it" in words
    assert training_plan(config, table, table)[0].batching.kind == "packed"


def test_empty_rows_that_cost_more_than_a_tenth_are_said(capsys):
    plan = Plan(np.full(100, 8, np.int32), PACKED, 0)
    check_division(plan, 7, 1)
    assert capsys.readouterr().err == ""
    check_division(plan, 1, 4)
    assert (
        "7 rows do not divide among 4 replica(s) x train.gradient_accumulation 1: each batch gets 1 empty one(s)"
        in (capsys.readouterr().err)
    )


def test_a_row_holds_the_longest_validation_row_too(tiny_run, tmp_path):
    tables = []
    for length in (70, 125):
        ids = np.full(length, 7, np.int32)
        rows = [TokenRow(ids, np.zeros_like(ids), np.eye(2, dtype=np.float32)[0], 0)]
        write_token_table(tmp_path / str(length), rows, num_labels=2)
        tables.append(TokenTable.open(tmp_path / str(length)))
    config, _ = tiny_run
    config = config.model_copy(update={"data": config.data.model_copy(update={"max_length": 128})})
    plan, _ = training_plan(config, *tables)
    assert plan.batching.row_lengths[0] >= 125
    assert len(plan_evaluation(tables[1].lengths, plan.batching).examples) == 1


def test_a_row_that_cannot_hold_an_example_is_refused(tiny_run):
    config, run = tiny_run
    table = TokenTable.open(run / "prepare" / "train")
    settings = config.train.model_copy(update={"row_length": 8})
    with pytest.raises(InputError) as error:
        training_plan(config.model_copy(update={"train": settings}), table, table)
    assert str(error.value) == (
        f"train.row_length: a row of 8 tokens can't hold the longest example, which has {table.lengths.max()}; set it "
        "higher, or leave it out, or lower data.max_length"
    )


def test_class_weights():
    labels, counts = ["a", "b", "c"], np.array([10.0, 30.0, 0.0])
    assert class_weights(None, labels, counts) is None
    assert class_weights("balanced", labels, counts) == pytest.approx((40 / 30, 40 / 90, 40 / 3))
    assert class_weights({"b": 2.0}, labels, counts) == (1.0, 2.0, 1.0)
    with pytest.raises(InputError, match=r"train\.class_weights: no label 'd'; the labels are a, b, c"):
        class_weights({"d": 2.0}, labels, counts)


def test_a_recipe_takes_the_rest_from_train(tiny_run):
    config, run = tiny_run
    table = TokenTable.open(run / "prepare" / "train")
    own = {"keep": "last", "precision": "float32", "labels": ("negative", "positive"), "training": table}
    recipe = recipe_of(config, "prune", config.prune, **own)
    assert (recipe.epochs, recipe.learning_rate) == (config.prune.epochs, config.prune.learning_rate)
    assert (recipe.description, recipe.keep, recipe.precision) == ("prune", "last", "float32")
    assert recipe.settings is config.train and recipe.seed == config.seed
    assert recipe.loss == Loss(config.task, 0.0, None)
