"""The training loop: repeatable, resumable, exact over partial batches and replicas."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import TINY, tiny_vocabulary, tiny_weights

from tfpipe.data.plan import Plan, bucket_lengths_for
from tfpipe.data.token_table import TokenRow, TokenTable, TokenTableWriter
from tfpipe.errors import InputError
from tfpipe.model.bert import Architecture, build_mask_form, build_training_form
from tfpipe.model.weights import get_weights, import_encoder, set_weights
from tfpipe.rundir import StageDirectory
from tfpipe.train import checkpoints, loop
from tfpipe.train.devices import choose_strategy
from tfpipe.train.loop import EVALUATION_BATCH, Evaluation, Hooks, Recipe, cross_entropy, fit, recipe_of

CONFIG = TINY | {"vocab_size": len(tiny_vocabulary()), "num_hidden_layers": 1}
ARCHITECTURE = Architecture.from_dict(CONFIG)
MAX_LENGTH = 16
BUCKETS = bucket_lengths_for(MAX_LENGTH)
ROWS, BATCH_SIZE, STEPS_PER_EPOCH = 40, 16, 3  # the last batch of an epoch holds 8 rows: none for a second replica

RECIPE = Recipe(
    description="test",
    epochs=7 / 3,  # evaluations after steps 3, 6 and 7
    batch_size=BATCH_SIZE,
    learning_rate=1e-2,
    warmup_fraction=0.1,
    weight_decay=0.01,
    clip_global_norm=1.0,
    checkpoint_every=2,
    seed=11,
    task="single_label",
    max_length=MAX_LENGTH,
    metric="loss",
    keep="last",
)
GOLDEN_LOSSES = (0.66712, 0.58590, 0.41275, 0.31203, 0.22919)


class Killed(Exception):
    """Stands for whatever ends a process."""


@dataclass
class Fitted:
    """A finished fit."""

    model: tf_keras.Model
    history: list[dict[str, float]]
    stage: StageDirectory

    @property
    def sha256(self) -> str:
        weights = get_weights(self.model)
        return hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).hexdigest()

    @property
    def losses(self) -> list[float]:
        return list(logged(self.stage, "loss").values())


def logged(stage: StageDirectory, tag: str) -> dict[int, float]:
    """What TensorBoard would show: step -> value."""
    found = {}
    for path in sorted(stage.logs.iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == tag:
                    found[event.step] = float(tf.make_ndarray(value.tensor))
    return found


def write_table(directory: Path, rows: int, seed: int, *, turned: bool = False) -> TokenTable:
    """Rows of 4 to 16 tokens that a model learns in a few steps: the first one says the label, or its opposite."""
    random = np.random.default_rng(seed)
    with TokenTableWriter(directory, num_labels=2, pad_id=0) as writer:
        for number in range(rows):
            label = number % 2
            ids = random.integers(10, CONFIG["vocab_size"], random.integers(4, MAX_LENGTH + 1)).astype(np.int32)
            ids[0], ids[-1] = 5 + label, 3
            labels = np.eye(2, dtype=np.float32)[1 - label if turned else label]
            writer.append(TokenRow(ids, np.zeros_like(ids), labels, number, "", None, "made up", number))
    return TokenTable.open(directory)


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> TokenTable:
    return write_table(tmp_path_factory.mktemp("training"), ROWS, seed=1)


@pytest.fixture(scope="module")
def validation(tmp_path_factory) -> TokenTable:
    return write_table(tmp_path_factory.mktemp("validation"), EVALUATION_BATCH + 7, seed=2)


def new_model(dropout: float | None = None, seed: int = 0) -> tf_keras.Model:
    tf_keras.utils.set_random_seed(seed)
    model = build_training_form(ARCHITECTURE.with_dropout(dropout), 2)
    import_encoder(model, tiny_weights(CONFIG), "the test")
    return model


def stage_in(path: Path) -> StageDirectory:
    path.mkdir(parents=True, exist_ok=True)
    return StageDirectory("train", path, {})


@pytest.fixture(scope="module")
def do_fit(training, validation):
    """Makes a model and fits it in a directory."""

    def fit_in(path: Path, recipe: Recipe = RECIPE, *, dropout=None, strategy=None, prepare=None, **tables) -> Fitted:
        strategy = strategy or tf.distribute.get_strategy()
        with strategy.scope():
            model = new_model(dropout)
        if prepare is not None:
            prepare(model)
        stage = stage_in(path)
        tables = {"training": training, "validation": validation} | tables
        history = fit(model, stage=stage, recipe=recipe, strategy=strategy, **tables)
        return Fitted(model, history, stage)

    return fit_in


@pytest.fixture(scope="module")
def fitted(do_fit, tmp_path_factory) -> Fitted:
    """The reference: one seed, dropout on, never interrupted."""
    return do_fit(tmp_path_factory.mktemp("fitted"))


def test_a_fit_learns_and_says_so(fitted, validation):
    assert [entry["step"] for entry in fitted.history] == [3, 6, 7]
    assert [entry["epoch"] for entry in fitted.history] == [1.0, 2.0, 2.333]
    first, last = fitted.history[0], fitted.history[-1]
    assert last["loss"] < first["loss"] and last["accuracy"] == 1.0
    assert Evaluation(fitted.model, validation, "single_label", BUCKETS).metrics() == pytest.approx(
        {name: last[name] for name in ("loss", "accuracy", "macro_f1", "calibration_error")}, abs=1e-6
    )
    assert fitted.stage.choices["steps"] == 7
    assert logged(fitted.stage, "validation/loss") == pytest.approx(
        {entry["step"]: entry["loss"] for entry in fitted.history}, abs=1e-6
    )


def test_the_logs_hold_the_rate_of_each_step(fitted):
    rates = logged(fitted.stage, "learning_rate")
    # One step of warm-up, then down to 0 after the seventh.
    expected = {step: RECIPE.learning_rate * min(1.0, (7 - (step - 1)) / 6) for step in range(1, 8)}
    assert rates == pytest.approx(expected, rel=1e-5)


def test_golden_losses(fitted):
    assert fitted.losses[:5] == pytest.approx(GOLDEN_LOSSES, abs=1e-4)


def test_one_seed_ends_with_the_same_weights(fitted, do_fit, tmp_path):
    assert do_fit(tmp_path).sha256 == fitted.sha256


def test_another_seed_ends_elsewhere(fitted, do_fit, tmp_path):
    """The weights start the same: the order of the rows and the dropout are what differs."""
    other = do_fit(tmp_path, replace(RECIPE, seed=12))
    assert other.sha256 != fitted.sha256


def test_a_killed_fit_resumes_and_ends_bit_identical(fitted, do_fit, tmp_path, monkeypatch, capsys):
    def killed_at(step, original):
        def maybe(*args):
            progress = next(arg for arg in args if isinstance(arg, checkpoints.Progress))
            if progress.step == step:
                raise Killed
            return original(*args)

        return maybe

    # Between two checkpoints: step 6 is done, step 4 is what is stored.
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_evaluate", killed_at(6, loop._evaluate))
        with pytest.raises(Killed):
            do_fit(tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["latest.json", "step-4"]

    # Inside a checkpoint: the variables of step 6 are written, what names them is not.
    def die(path, value):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_json", die)
        with pytest.raises(Killed):
            do_fit(tmp_path)
    assert {"step-4", "step-6"} <= {path.name for path in (tmp_path / "checkpoints").iterdir()}

    capsys.readouterr()
    resumed = do_fit(tmp_path)
    assert "continuing test after step 4 of 7" in capsys.readouterr().err
    assert resumed.sha256 == fitted.sha256
    assert resumed.history == fitted.history

    # After the last checkpoint, before the stage was committed: nothing is left to do.
    done = do_fit(tmp_path)
    assert done.sha256 == fitted.sha256 and done.history == fitted.history


def test_two_replicas_end_where_one_device_does(do_fit, tmp_path, validation):
    mirrored = choose_strategy("mirrored")[0]
    assert mirrored.num_replicas_in_sync == 2
    one = do_fit(tmp_path / "one", dropout=0.0)
    two = do_fit(tmp_path / "two", dropout=0.0, strategy=mirrored)
    assert two.losses == pytest.approx(one.losses, abs=1e-5)
    first, second = get_weights(one.model), get_weights(two.model)
    # A softmax does not see the bias of the keys: its gradient is rounding alone, which Adam makes steps of.
    compared = [name for name in first if not name.endswith("self.key.bias")]
    assert len(compared) == len(first) - 1
    differences = {name: float(np.abs(first[name] - second[name]).max()) for name in compared}
    assert max(differences.values()) <= 1e-5, differences
    logits = [Evaluation(each.model, validation, "single_label", BUCKETS).logits() for each in (one, two)]
    assert np.abs(logits[0] - logits[1]).max() <= 1e-5


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_loss_is_the_mean_over_the_examples_of_a_step(do_fit, tmp_path, training, replicas):
    """Empty slots count for nothing, even where a replica has no others."""
    strategy = None if replicas == 1 else choose_strategy("mirrored")[0]
    recipe = replace(RECIPE, epochs=1.0, learning_rate=1e-30)
    found = do_fit(tmp_path, recipe, dropout=0.0, strategy=strategy).losses
    model = build_mask_form(ARCHITECTURE, 2)
    set_weights(model, get_weights(new_model()))
    plan = Plan(training.lengths, batch_size=BATCH_SIZE, bucket_lengths=BUCKETS, seed=RECIPE.seed)
    expected, sizes = [], []
    for step in range(STEPS_PER_EPOCH):
        rows, length = plan.step(step)
        rows = rows[rows >= 0]
        batch = training.rows(rows, length)
        logits = model({name: batch[name] for name in loop.MODEL_INPUTS}).numpy().astype(np.float64)
        per_example = np.log(np.exp(logits).sum(axis=1)) - logits[batch["labels"] == 1.0]
        expected.append(per_example.mean())
        sizes.append(len(rows))
    assert sorted(sizes) == [8, 16, 16]
    assert found == pytest.approx(expected, abs=1e-5)


def test_best_keeps_the_best_weights_and_last_the_last(do_fit, tmp_path, tmp_path_factory):
    """Validation rows of the opposite label: the better the fit, the worse they score."""
    turned = write_table(tmp_path_factory.mktemp("turned"), 20, seed=3, turned=True)
    for keep in ("best", "last"):
        result = do_fit(tmp_path / keep, replace(RECIPE, keep=keep, epochs=3.0), validation=turned)
        losses = [entry["loss"] for entry in result.history]
        assert losses == sorted(losses) and losses[-1] > losses[0] + 0.1
        kept = Evaluation(result.model, turned, "single_label", BUCKETS).metrics()["loss"]
        assert kept == pytest.approx(losses[0] if keep == "best" else losses[-1], abs=1e-6)

    # The same, when the fit is asked for again after its last step.
    again = do_fit(tmp_path / "best", replace(RECIPE, keep="best", epochs=3.0), validation=turned)
    kept = Evaluation(again.model, turned, "single_label", BUCKETS).metrics()["loss"]
    assert kept == pytest.approx(again.history[0]["loss"], abs=1e-6)


def test_a_learning_rate_that_diverges_stops_the_fit(do_fit, tmp_path):
    recipe = replace(RECIPE, learning_rate=1e30, epochs=1.0)
    with pytest.raises(InputError) as error:
        do_fit(tmp_path, recipe)
    message = str(error.value)
    assert "\n" not in message
    assert "at step 2 " in message and "(learning rate 6.67e+29, rows " in message


def test_a_loss_that_is_not_finite_is_refused_at_once(do_fit, tmp_path):
    def spoil(model):
        model.get_layer("classifier").bias.assign([np.inf, 0.0])

    with pytest.raises(InputError, match=r"test: the loss is (nan|inf) at step 1 \(learning rate 0\.01, rows \d+, "):
        do_fit(tmp_path, prepare=spoil)
    assert not (tmp_path / "checkpoints").exists()


def test_hooks_run_after_each_update_and_are_stored(training, validation, tmp_path):
    class Counter(tf.Module):
        def __init__(self):
            super().__init__()
            self.steps = tf.Variable(tf.zeros([7], tf.int64))

        def update(self, step):
            self.steps.scatter_nd_add([[step]], [step + 1])

    for expected in ([1, 2, 3, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7]):
        counter = Counter()
        recipe = replace(RECIPE, epochs=1.0 if expected[-1] == 0 else 7 / 3)
        fit(
            new_model(),
            stage=stage_in(tmp_path),
            training=training,
            validation=validation,
            recipe=recipe,
            strategy=tf.distribute.get_strategy(),
            hooks=Hooks(after_update=counter.update, tracked=counter),
        )
        assert counter.steps.numpy().tolist() == expected


def test_evaluation_answers_every_row_once(validation):
    """71 rows in batches of 64: the second has empty slots."""
    model = new_model()
    found = Evaluation(model, validation, "single_label", BUCKETS).logits()
    mask_form = build_mask_form(ARCHITECTURE, 2)
    set_weights(mask_form, get_weights(model))
    expected = []
    for row in range(validation.num_rows):
        batch = validation.rows(np.array([row]), int(validation.lengths[row]))
        expected.append(mask_form({name: batch[name] for name in loop.MODEL_INPUTS}).numpy()[0])
    assert found.shape == (EVALUATION_BATCH + 7, 2) and found.dtype == np.float32
    assert np.abs(found - np.stack(expected)).max() <= 1e-5


def test_cross_entropy():
    logits = tf.constant([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]])
    labels = tf.constant([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    shares = np.exp([2.0, -1.0, 0.5]) / np.exp([2.0, -1.0, 0.5]).sum()
    found = cross_entropy(logits, labels, "single_label").numpy()
    assert found == pytest.approx([-np.log(shares[0]), np.log(3.0)], abs=1e-6)
    several = tf.constant([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    yes = 1.0 / (1.0 + np.exp([-2.0, 1.0, -0.5]))
    found = cross_entropy(logits, several, "multi_label").numpy()
    assert found == pytest.approx([-np.log([yes[0], 1 - yes[1], yes[2]]).sum(), 3 * np.log(2.0)], abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "epochs", "expected"), [(40, 1.0, 3), (40, 0.01, 1), (48, 0.5, 2), (48, 1 / 3, 1), (49, 2.0, 8)]
)
def test_total_steps(rows, epochs, expected):
    assert replace(RECIPE, epochs=epochs).total_steps(rows) == expected


def test_a_recipe_takes_the_rest_from_train(tiny_run):
    config, _ = tiny_run
    recipe = recipe_of(config, "prune", epochs=0.5, learning_rate=1e-4, keep="last")
    assert (recipe.epochs, recipe.learning_rate, recipe.keep) == (0.5, 1e-4, "last")
    for name in ("batch_size", "warmup_fraction", "weight_decay", "clip_global_norm", "checkpoint_every", "metric"):
        assert getattr(recipe, name) == getattr(config.train, name)
    assert (recipe.seed, recipe.task, recipe.max_length) == (config.seed, config.task, config.data.max_length)
