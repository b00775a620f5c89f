"""The training loop: repeatable, resumable, exact over partial batches and replicas."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from conftest import TINY, TokenRow, tiny_vocabulary, tiny_weights, write_token_table

from tfpipe.config.train import EarlyStopping, ReduceOnPlateau, Train
from tfpipe.devices.strategy import choose_strategy, precision
from tfpipe.encoders.architecture import Architecture
from tfpipe.errors import InputError, Stopped
from tfpipe.model.bert import build_inference_model, build_training_model
from tfpipe.model.weights import get_weights, import_encoder, set_weights
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.plan import Batching, Plan, bucket_lengths_for
from tfpipe.tokens.table import TokenTable
from tfpipe.train import checkpoints, loop, nonfinite, optimizer
from tfpipe.train.evaluation import Evaluation
from tfpipe.train.loop import Fit
from tfpipe.train.recipe import Recipe
from tfpipe.train.step import Hooks, Loss, make_train_step
from tfpipe.train.vocabulary import ActiveVocabulary, whole_table

CONFIG = TINY | {"vocab_size": len(tiny_vocabulary()), "num_hidden_layers": 1}
ARCHITECTURE = Architecture.from_dict(CONFIG)
MAX_LENGTH = 16
ROWS, BATCH_SIZE, STEPS_PER_EPOCH = 40, 16, 3  # the last batch of an epoch holds 8 rows: none for a second replica
BUCKETED = Batching("bucketed", BATCH_SIZE, 1, bucket_lengths_for(MAX_LENGTH))
PACKED = Batching("packed", 7, 4, (32,))

SETTINGS = Train(
    learning_rate=1e-2, warmup_fraction=0.1, weight_decay=0.01, clip_global_norm=1.0, checkpoint_every=2, metric="loss"
)
RECIPE = Recipe(
    description="test",
    epochs=7 / 3,  # evaluations after steps 3, 6 and 7
    learning_rate=1e-2,
    keep="last",
    settings=SETTINGS,
    loss=Loss("single_label"),
    precision="float32",
    seed=11,
)


def with_settings(recipe: Recipe = RECIPE, **changes) -> Recipe:
    return replace(recipe, settings=recipe.settings.model_copy(update=changes))


GOLDEN_LOSSES = (0.66770, 0.60412, 0.47832, 0.33402, 0.26988)


class Killed(Exception):
    """Stands for whatever ends a process."""


@dataclass
class Fitted:
    """A finished fit."""

    model: tf_keras.Model
    history: list[dict[str, float]]
    stage: StageDirectory
    embedding_decay: float
    logits: np.ndarray

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


def table_rows(rows: int, seed: int, *, turned: bool = False) -> list[TokenRow]:
    """Rows of 4 to 16 tokens that a model learns in a few steps: the first one says the label, or its opposite."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(rows):
        label = number % 2
        ids = random.integers(10, CONFIG["vocab_size"], random.integers(4, MAX_LENGTH + 1)).astype(np.int32)
        ids[0], ids[-1] = 5 + label, 3
        labels = np.eye(2, dtype=np.float32)[1 - label if turned else label]
        made.append(TokenRow(ids, np.zeros_like(ids), labels, number, line=number))
    return made


def write_table(directory: Path, rows: int, seed: int, *, turned: bool = False) -> TokenTable:
    write_token_table(directory, table_rows(rows, seed, turned=turned), num_labels=2)
    return TokenTable.open(directory)


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> TokenTable:
    return write_table(tmp_path_factory.mktemp("training"), ROWS, seed=1)


@pytest.fixture(scope="module")
def validation(tmp_path_factory) -> TokenTable:
    return write_table(tmp_path_factory.mktemp("validation"), 71, seed=2)


def new_model(dropout: float | None = None, seed: int = 0) -> tf_keras.Model:
    tf_keras.utils.set_random_seed(seed)
    model = build_training_model(ARCHITECTURE.with_dropout(dropout), 2)
    import_encoder(model, tiny_weights(CONFIG), "the test")
    return model


def stage_in(path: Path) -> StageDirectory:
    path.mkdir(parents=True, exist_ok=True)
    return StageDirectory("train", path, {})


@pytest.fixture(scope="module")
def do_fit(training, validation):
    """Makes a model and fits it in a directory."""

    def fit_in(
        path: Path, recipe: Recipe = RECIPE, *, batching=BUCKETED, dropout=None, strategy=None, prepare=None, **tables
    ) -> Fitted:
        strategy = strategy or tf.distribute.get_strategy()
        with precision(recipe.precision), strategy.scope():
            model = new_model(dropout)
        if prepare is not None:
            prepare(model)
        stage = stage_in(path)
        tables = {"training": training, "validation": validation} | tables
        plan = Plan(tables["training"].lengths, batching, recipe.seed)
        fitted = Fit(model, stage=stage, plan=plan, recipe=recipe, strategy=strategy, **tables).run()
        return Fitted(model, fitted.history, stage, fitted.embedding_decay, fitted.logits)

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
    evaluation = Evaluation(fitted.model, validation, "single_label", BUCKETED)
    assert fitted.logits == pytest.approx(evaluation.logits(), abs=1e-6)
    assert evaluation.scores(fitted.logits) == pytest.approx(
        {name: value for name, value in last.items() if name not in ("step", "epoch")}, abs=1e-6
    )
    assert fitted.stage.notes["steps"] == 7
    assert logged(fitted.stage, "validation/loss") == pytest.approx(
        {entry["step"]: entry["loss"] for entry in fitted.history}, abs=1e-6
    )


def test_the_logs_hold_the_rate_of_each_step(fitted):
    rates = logged(fitted.stage, "learning_rate")
    # Of 96 examples, the warm-up takes 9.6: less than the first step's. Then down to 0 after the last.
    assert len(rates) == 7 and rates[1] == pytest.approx(RECIPE.learning_rate)
    before = {1: 0, 4: 40, 7: 80}  # examples, where an epoch begins
    for step in (4, 7):
        assert rates[step] == pytest.approx(RECIPE.learning_rate * (96 - before[step]) / (96 - 9.6), rel=1e-5)
    assert list(rates.values()) == sorted(rates.values(), reverse=True)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_a_smaller_table_gives_the_same_weights(do_fit, training, validation, tmp_path, name):
    """Word pieces that do not occur have no gradient: they decay, and nothing else is different."""
    recipe = with_settings(replace(RECIPE, learning_rate=0.05), optimizer=name, weight_decay=0.1)
    whole = do_fit(tmp_path / "whole", recipe, dropout=0.0)
    active = ActiveVocabulary([training, validation], CONFIG["vocab_size"])
    words, words_active = CONFIG["vocab_size"], active.architecture(ARCHITECTURE).vocab_size
    assert (
        words_active < words
        and str(active) == f"{words_active} of {words} word pieces occur; the others are left out and put back"
    )
    before = get_weights(new_model())
    tf_keras.utils.set_random_seed(0)
    model = build_training_model(active.architecture(ARCHITECTURE.with_dropout(0.0)), 2)
    set_weights(model, active.taken(before))
    tables = {"training": active.renumbered(training), "validation": active.renumbered(validation)}
    fitted = Fit(
        model,
        stage=stage_in(tmp_path / "active"),
        plan=Plan(training.lengths, BUCKETED, recipe.seed),
        recipe=recipe,
        strategy=tf.distribute.get_strategy(),
        **tables,
    ).run()
    found, expected = (
        active.put_back(get_weights(model), whole_table(before), fitted.embedding_decay),
        get_weights(whole.model),
    )
    assert found.keys() == expected.keys()
    for key in expected:
        # A softmax does not see the bias of the keys: its gradient is rounding alone, which Adam makes steps of.
        if not key.endswith("self.key.bias"):
            assert np.abs(found[key] - expected[key]).max() <= 2e-6, key
    key = "bert.embeddings.word_embeddings.weight"
    unused = np.setdiff1d(np.arange(words), np.union1d(training.distinct_ids(), validation.distinct_ids()))
    assert len(unused) == words - words_active
    decayed = np.abs(found[key][unused] / before[key][unused])
    assert (decayed == 1.0).all() if name == "adam" else 0.9 < decayed.min() < decayed.max() < 0.999
    for entry, other in zip(fitted.history, whole.history, strict=True):
        assert entry == pytest.approx(other, abs=1e-5)


def test_golden_losses(fitted):
    assert fitted.losses[:5] == pytest.approx(GOLDEN_LOSSES, abs=1e-4)


def test_one_seed_ends_with_the_same_weights(fitted, do_fit, tmp_path):
    assert do_fit(tmp_path).sha256 == fitted.sha256


def test_another_seed_ends_elsewhere(fitted, do_fit, tmp_path):
    """The weights start the same: the order of the rows and the dropout are what differs."""
    other = do_fit(tmp_path, replace(RECIPE, seed=12))
    assert other.sha256 != fitted.sha256


def killed_before(step):
    """In place of `make_train_step`: the process ends when this step, counted from 1, is to begin."""

    def made(strategy, replica_step):
        train_steps = make_train_step(strategy, replica_step)

        def run(iterator, first, rates):
            if int(first) == step - 1:
                raise Killed
            return train_steps(iterator, first, rates)

        return run

    return made


def test_a_killed_fit_resumes_and_ends_bit_identical(fitted, do_fit, tmp_path, monkeypatch, capsys):
    # Between two checkpoints: step 5 is done, step 4 is what is stored.
    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_train_step", killed_before(6))
        with pytest.raises(Killed):
            do_fit(tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-3", "step-4"]

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


def test_a_packed_fit_resumes_bit_identical_too(do_fit, training, tmp_path, monkeypatch):
    """Several steps a call, micro-batches, frequent evaluations: none of it may show in the result."""
    recipe = with_settings(steps_per_execution=2, gradient_accumulation=2, evaluations_per_epoch=2, checkpoint_every=4)
    small = Batching("packed", 3, 4, (32,))
    plan = Plan(training.lengths, small, recipe.seed)
    assert plan.steps_per_epoch == 5 and [recipe.steps_at_once(plan, done) for done in (0, 2, 3)] == [2, 1, 2]
    shapes, saved = [], []

    class Recorded(Evaluation):
        def __init__(self, model, table, task, batching, strategy, **options):
            shapes.append((batching.rows, batching.row_lengths))
            super().__init__(model, table, task, batching, strategy, **options)

    monkeypatch.setattr(loop, "Evaluation", Recorded)
    whole = do_fit(tmp_path / "whole", recipe, batching=small)
    assert shapes == [(2, (32,))]  # as a micro-batch

    class Stop(Exception):
        pass

    def stop_at(step):
        def save(self, progress):
            original(self, progress)
            saved.append(progress.step)
            if progress.step == step:
                raise Stop

        return save

    original = checkpoints.Checkpoints.save
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(checkpoints.Checkpoints, "save", stop_at(7))
        do_fit(tmp_path / "stopped", with_settings(recipe, checkpoint_every=6), batching=small)
    assert saved == [
        0,
        3,
        5,
        7,
    ]  # the beginning, after two evaluations, and past the sixth step, which no call ends with
    resumed = do_fit(tmp_path / "stopped", recipe, batching=small)
    assert resumed.sha256 == whole.sha256 and resumed.history == whole.history
    assert len(whole.history) > 3  # twice an epoch, and at the end
    one_by_one = do_fit(tmp_path / "one", with_settings(recipe, steps_per_execution=1), batching=small)
    assert one_by_one.sha256 == whole.sha256


@pytest.mark.parametrize("batching", [BUCKETED, PACKED], ids=["bucketed", "packed"])
def test_two_replicas_end_where_one_device_does(do_fit, tmp_path, validation, batching):
    """Packed, the seven rows of a batch get an eighth, empty, so that two can share them."""
    mirrored = choose_strategy("mirrored")[0]
    assert mirrored.num_replicas_in_sync == 2
    one = do_fit(tmp_path / "one", dropout=0.0, batching=batching)
    two = do_fit(tmp_path / "two", dropout=0.0, strategy=mirrored, batching=batching)
    assert two.losses == pytest.approx(one.losses, abs=1e-5)
    first, second = get_weights(one.model), get_weights(two.model)
    # A softmax does not see the bias of the keys: its gradient is rounding alone, which Adam makes steps of.
    compared = [name for name in first if not name.endswith("self.key.bias")]
    assert len(compared) == len(first) - 1
    differences = {name: float(np.abs(first[name] - second[name]).max()) for name in compared}
    assert max(differences.values()) <= 1e-5, differences
    logits = [Evaluation(each.model, validation, "single_label", BUCKETED).logits() for each in (one, two)]
    assert np.abs(logits[0] - logits[1]).max() <= 1e-5


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_loss_is_the_mean_over_the_examples_of_a_step(do_fit, tmp_path, training, replicas):
    """Empty slots count for nothing, even where a replica has no others."""
    strategy = None if replicas == 1 else choose_strategy("mirrored")[0]
    recipe = replace(RECIPE, epochs=1.0, learning_rate=1e-30)
    found = do_fit(tmp_path, recipe, dropout=0.0, strategy=strategy).losses
    model = build_inference_model(ARCHITECTURE, 2)
    set_weights(model, get_weights(new_model()))
    plan = Plan(training.lengths, BUCKETED, RECIPE.seed)
    expected, sizes = [], []
    for step in range(STEPS_PER_EPOCH):
        examples, _ = plan.step(step)
        rows = examples[examples >= 0]
        logits = model(training.padded(rows)).numpy().astype(np.float64)
        per_example = np.log(np.exp(logits).sum(axis=1)) - logits[training.labels[rows] == 1.0]
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
        evaluation = Evaluation(result.model, turned, "single_label", BUCKETED)
        assert result.logits == pytest.approx(evaluation.logits(), abs=1e-6)
        kept = evaluation.scores(result.logits)["loss"]
        assert kept == pytest.approx(losses[0] if keep == "best" else losses[-1], abs=1e-6)

    # The same, when the fit is asked for again after its last step.
    again = do_fit(tmp_path / "best", replace(RECIPE, keep="best", epochs=3.0), validation=turned)
    kept = Evaluation(again.model, turned, "single_label", BUCKETED).scores(again.logits)["loss"]
    assert kept == pytest.approx(again.history[0]["loss"], abs=1e-6)


def test_two_checkpoints_are_kept_and_the_best_weights_that_they_need(do_fit, tmp_path):
    result = do_fit(tmp_path, replace(RECIPE, keep="best"))
    steps, losses = zip(*((entry["step"], entry["loss"]) for entry in result.history), strict=True)
    assert steps == (3, 6, 7) and losses[1] < losses[0]  # so there was something to remove
    best = steps[int(np.argmin(losses))]
    names = {path.name for path in result.stage.checkpoints.iterdir()}
    assert names == {"step-6", "step-7", "best-6", f"best-{best}"}


TWO_EPOCHS = replace(RECIPE, keep="best", epochs=2.0)


@pytest.fixture(scope="module")
def two_epochs(do_fit, tmp_path_factory) -> Fitted:
    return do_fit(tmp_path_factory.mktemp("two epochs"), TWO_EPOCHS)


@pytest.mark.parametrize("damage", ["flipped", "torn", "missing", "best", "marker"])
def test_a_checkpoint_that_is_not_whole_is_passed_over(do_fit, two_epochs, tmp_path, damage, capsys):
    directory = shutil.copytree(two_epochs.stage.path, tmp_path / "damaged") / "checkpoints"
    newest = directory / "step-6"
    state = directory / "best-6" / "model.safetensors" if damage == "best" else newest / "state.safetensors"
    data = bytearray(state.read_bytes())
    if damage == "torn":
        state.write_bytes(data[: len(data) // 2])
    elif damage == "missing":
        state.unlink()
    elif damage == "marker":
        (newest / "checkpoint.json").write_text('{"step": 6, "history"')
    else:
        data[-100] ^= 1
        state.write_bytes(data)
    capsys.readouterr()
    again = do_fit(tmp_path / "damaged", TWO_EPOCHS)
    said = " ".join(capsys.readouterr().err.split())
    assert "the checkpoint of step 6 is not whole" in said and "continuing test after step 4 of 6" in said
    assert again.sha256 == two_epochs.sha256 and again.history == two_epochs.history


def test_a_checkpoint_of_another_shape_is_refused(do_fit, tmp_path):
    do_fit(tmp_path, replace(RECIPE, epochs=1.0))
    with pytest.raises(InputError, match=r"holds other variables than there are here, .* start over with --redo train"):
        do_fit(tmp_path, with_settings(replace(RECIPE, epochs=1.0), optimizer="sgd"))


def asked_to_stop_at(at):
    """In place of `make_train_step`: SIGTERM comes in this step, counted from 1."""

    def made(strategy, replica_step):
        train_steps = make_train_step(strategy, replica_step)

        def run(iterator, first, rates):
            if int(first) + 1 == at:
                signal.raise_signal(signal.SIGTERM)
            return train_steps(iterator, first, rates)

        return run

    return made


@pytest.mark.parametrize("at", [2, 3])
def test_a_fit_that_is_asked_to_stop_goes_on_bit_identical(fitted, do_fit, tmp_path, monkeypatch, at):
    """After step 3 comes an evaluation: a machine that is about to go leaves it to whoever goes on."""

    with monkeypatch.context() as patch, pytest.raises(Stopped) as error:
        patch.setattr(loop, "make_train_step", asked_to_stop_at(at))
        do_fit(tmp_path)
    assert error.value.reason.code == 143 and str(error.value) == f"stopped by SIGTERM after step {at}"
    assert (tmp_path / "checkpoints" / f"step-{at}" / "checkpoint.json").exists()
    resumed = do_fit(tmp_path)
    assert resumed.sha256 == fitted.sha256 and resumed.history == fitted.history


def test_an_evaluation_that_is_asked_to_stop_is_done_when_the_fit_goes_on(fitted, do_fit, tmp_path, monkeypatch):
    """Not after it: on a machine that is about to go, the steps since the last checkpoint would be lost."""

    class Asked(Evaluation):
        def logits(self, asked_to_stop):
            signal.raise_signal(signal.SIGTERM)
            return super().logits(asked_to_stop)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="stopped by SIGTERM after step 3"):
        patch.setattr(loop, "Evaluation", Asked)
        do_fit(tmp_path)
    assert (tmp_path / "checkpoints" / "step-3" / "checkpoint.json").exists()
    resumed = do_fit(tmp_path)
    assert resumed.sha256 == fitted.sha256 and resumed.history == fitted.history


def test_what_two_replicas_began_one_device_ends(do_fit, tmp_path):
    """Dropout on: it goes by a row's place in the batch, not by who holds the row."""
    mirrored, recipe = choose_strategy("mirrored")[0], with_settings(schedule="constant", warmup_fraction=0.0)
    expected = do_fit(tmp_path / "one", recipe, batching=PACKED)
    do_fit(tmp_path / "two", replace(recipe, epochs=1.0), batching=PACKED, strategy=mirrored)
    went_on = do_fit(tmp_path / "two", recipe, batching=PACKED)
    for entry, other in zip(went_on.history, expected.history, strict=True):
        assert entry == pytest.approx(other, abs=1e-4)


def test_a_learning_rate_that_diverges_stops_the_fit(do_fit, tmp_path):
    recipe = replace(RECIPE, learning_rate=1e30, epochs=1.0)
    with pytest.raises(InputError) as error:
        do_fit(tmp_path, recipe)
    message = str(error.value)
    assert "\n" not in message
    assert re.fullmatch(
        r"test: the loss is (nan|inf) at step 2 \(learning rate 6\.67e\+29\); with the weights of step 0, all of the "
        r"batch's 16 examples \(row \d+ \(.+:\d+\), .*, …\) have a finite loss: training diverged, the loss was "
        r"0\.66\d 1 step\(s\) before, then 0\.66\d; lower the stage's learning_rate, or set train\.nonfinite: "
        r"rollback; the checkpoint of step 0 is kept",
        message,
    )


def test_what_the_last_update_spoils_is_not_stored(do_fit, tmp_path):
    """No step after it has seen its weights: their evaluation does."""
    recipe = replace(RECIPE, learning_rate=1e30, epochs=1 / 3, keep="best")
    with pytest.raises(
        InputError,
        match=r"test: the validation loss is nan after step 1 \(learning rate 1e\+30\); training diverged: .*",
    ):
        do_fit(tmp_path, with_settings(recipe, metric="accuracy"))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0"]


def test_weights_that_answer_nothing_are_no_fault_of_the_data(do_fit, tmp_path):
    def spoil(model):
        model.get_layer("classifier").bias.assign([np.inf, 0.0])

    with pytest.raises(InputError, match=r"test: the loss is (nan|inf) at step 1 .* only 0 of the batch's 16 examples"):
        do_fit(tmp_path, prepare=spoil)


FAULTY = 6


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> TokenTable:
    """40 rows, of which the seventh has a label that is no number."""
    directory = tmp_path_factory.mktemp("faulty")
    rows = table_rows(ROWS, seed=1)
    rows[FAULTY] = rows[FAULTY]._replace(labels=np.full(2, np.nan, np.float32))
    write_token_table(directory, rows, num_labels=2)
    return TokenTable.open(directory)


def steps_of(table: TokenTable, row: int, epochs: int = 2) -> list[int]:
    plan = Plan(table.lengths, BUCKETED, RECIPE.seed)
    return [step for step in range(epochs * STEPS_PER_EPOCH) if row in plan.step(step)[0]]


def test_a_fault_of_the_data_is_told_from_divergence(do_fit, faulty, tmp_path):
    with pytest.raises(InputError) as error:
        do_fit(tmp_path, training=faulty)
    message = str(error.value)
    assert f"the loss is nan at step {steps_of(faulty, FAULTY)[0] + 1} (learning rate 0.0" in message
    assert re.search(
        r"with the weights of step \d, 1 of the batch's \d+ examples have no finite loss, the others have: the fault "
        rf"is in row {FAULTY} \(.+:{FAULTY}\), or in what only its tokens use; mend the data, or set train.nonfinite: "
        r"skip; the checkpoint of step \d is kept$",
        message,
    )


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_step_with_faulty_data_is_left_out(do_fit, faulty, tmp_path, capsys, policy):
    """Two epochs meet the row twice: neither weights nor moments change then, and the rest is trained."""
    recipe = with_settings(replace(RECIPE, epochs=2.0), nonfinite=policy, nonfinite_limit=2)
    result = do_fit(tmp_path / "both", recipe, training=faulty)
    assert result.stage.notes["steps_left_out"] == steps_of(faulty, FAULTY)
    assert "steps_slowed" not in result.stage.notes and result.stage.notes["nonfinite"] == policy
    assert capsys.readouterr().err.count("; the step is left out") == 2
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert all(np.isfinite(value).all() for value in get_weights(result.model).values())
    with pytest.raises(
        InputError, match=r"train\.nonfinite_limit 1 is reached: mend the data; the checkpoint of step \d"
    ):
        do_fit(tmp_path / "once", with_settings(recipe, nonfinite_limit=1), training=faulty)


def test_a_guarded_fit_without_trouble_is_the_same(fitted, do_fit, tmp_path):
    assert do_fit(tmp_path, with_settings(nonfinite="skip")).sha256 == fitted.sha256


def test_a_step_that_is_left_out_changes_nothing(do_fit, training, faulty, tmp_path):
    """Replicas leave it out together; what was done before and after it is what a fit without it does."""
    recipe = with_settings(replace(RECIPE, epochs=1.0), nonfinite="skip")
    one = do_fit(tmp_path / "one", recipe, training=faulty, dropout=0.0)
    two = do_fit(tmp_path / "two", recipe, training=faulty, dropout=0.0, strategy=choose_strategy("mirrored")[0])
    assert two.stage.notes["steps_left_out"] == one.stage.notes["steps_left_out"] == steps_of(faulty, FAULTY, 1)
    first, second = get_weights(one.model), get_weights(two.model)
    compared = [name for name in first if not name.endswith("self.key.bias")]
    assert max(float(np.abs(first[name] - second[name]).max()) for name in compared) <= 1e-5
    stopped = steps_of(faulty, FAULTY, 1)[0]
    before = do_fit(
        tmp_path / "before", replace(recipe, epochs=stopped / STEPS_PER_EPOCH), training=training, dropout=0.0
    )
    assert before.losses == pytest.approx(one.losses[:stopped], abs=1e-6)


def diverging(monkeypatch, at: int, above: float):
    """A step that fails whenever its learning rate is above something, as the edge of stability has it."""
    real = loop.make_replica_step

    def made(*args, **kwargs):
        step_of = real(*args, **kwargs)

        def replica_step(batch, step, rate):
            fails = (step == at) & (rate > above)
            return step_of(batch | {"labels": tf.where(fails, np.float32("nan"), batch["labels"])}, step, rate)

        return replica_step

    monkeypatch.setattr(loop, "make_replica_step", made)


def test_a_rollback_goes_on_at_half_the_rate(do_fit, tmp_path, monkeypatch, capsys):
    diverging(monkeypatch, at=4, above=0.3 * RECIPE.learning_rate)
    recipe = with_settings(nonfinite="rollback", nonfinite_limit=4, schedule="constant")
    result = do_fit(tmp_path / "whole", recipe)
    printed = capsys.readouterr().err
    assert "back to the checkpoint of step 3, and on at 0.5 of the learning rate" in printed  # the last evaluation
    assert "back to the checkpoint of step 0, and on at 0.25 of the learning rate" in printed  # that did not help
    assert result.stage.notes["nonfinite"] == "rollback"
    assert result.stage.notes["steps_slowed"] == [3, 0] and "steps_left_out" not in result.stage.notes
    rates = logged(result.stage, "learning_rate")
    assert [rates[step] / RECIPE.learning_rate for step in (1, 3, 4, 7)] == pytest.approx([0.5, 0.5, 0.25, 0.25])
    assert result.history[-1]["loss"] < result.history[0]["loss"]

    with pytest.raises(InputError, match=r"train\.nonfinite_limit 1 is reached: lower the stage's learning_rate"):
        do_fit(tmp_path / "bounded", with_settings(recipe, nonfinite_limit=1))

    # However often something was stored, and stopped before the trouble: it goes back to the same step.
    often = do_fit(tmp_path / "often", with_settings(recipe, checkpoint_every=1, keep_last=1))
    assert often.sha256 == result.sha256 and often.history == result.history
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "make_train_step", killed_before(5))
        do_fit(tmp_path / "early", with_settings(recipe, checkpoint_every=1))
    early = do_fit(tmp_path / "early", recipe)
    assert early.sha256 == result.sha256 and early.history == result.history

    # Killed after the first rollback, a fit does the same again.
    class Stop(Exception):
        pass

    def go_back(self, head, progress):
        if progress.slowed:
            raise Stop
        return original(self, head, progress)

    original = nonfinite.NonFinite._go_back
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(nonfinite.NonFinite, "_go_back", go_back)
        do_fit(tmp_path / "killed", recipe)
    resumed = do_fit(tmp_path / "killed", recipe)
    assert resumed.sha256 == result.sha256 and resumed.history == result.history


@pytest.mark.parametrize("policy", ["stop", "skip", "rollback"])
def test_weights_that_were_stored_before_an_evaluation_found_them_spoilt(do_fit, tmp_path, monkeypatch, policy):
    """Asked to stop between the last step and its evaluation, it had stored them; what is left is the one before."""
    recipe = with_settings(
        replace(RECIPE, learning_rate=1e30, epochs=1 / 3), nonfinite=policy, nonfinite_limit=1, keep_last=2
    )
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(loop, "make_train_step", asked_to_stop_at(1))
        do_fit(tmp_path, recipe)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step-0", "step-1"}
    with pytest.raises(InputError) as error:
        do_fit(tmp_path, recipe)
    assert str(error.value).endswith("; the checkpoint of step 0 is kept")
    way = {"stop": "or set train.nonfinite: rollback", "rollback": "train.nonfinite_limit 1 is reached"}
    assert way.get(policy, "or set train.nonfinite: rollback") in str(error.value)


def test_a_rollback_from_an_evaluation(do_fit, tmp_path, capsys):
    """A rate of 1e30 can't be halved to anything that works: the limit holds."""
    recipe = with_settings(replace(RECIPE, learning_rate=1e30, epochs=1 / 3), nonfinite="rollback", nonfinite_limit=2)
    with pytest.raises(InputError, match=r"the validation loss is nan .* train\.nonfinite_limit 2 is reached"):
        do_fit(tmp_path, recipe)
    assert capsys.readouterr().err.count("back to the checkpoint of step 0") == 2


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
        Fit(
            new_model(),
            stage=stage_in(tmp_path),
            training=training,
            validation=validation,
            plan=Plan(training.lengths, BUCKETED, recipe.seed),
            recipe=recipe,
            strategy=tf.distribute.get_strategy(),
            hooks=Hooks(after_update=counter.update, tracked=counter),
        ).run()
        assert counter.steps.numpy().tolist() == expected


def test_a_gradient_that_is_not_finite_keeps_the_last_good_checkpoint(do_fit, tmp_path, monkeypatch):
    """The loss of the step is finite still; what it would store is not."""
    real = loop.make_train_step

    def spoiled(*args, **kwargs):
        train_steps = real(*args, **kwargs)

        def run(iterator, first, rates):
            losses, norms = train_steps(iterator, first, rates)
            return losses, tf.where(first + tf.range(1, dtype=tf.int64) == 3, np.inf, norms)

        return run

    monkeypatch.setattr(loop, "make_train_step", spoiled)
    with pytest.raises(
        InputError,
        match=r"the norm of the gradient is inf at step 4 .* the checkpoint of step 3 is kept",
    ):
        do_fit(tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").glob("step-*")} == {"step-2", "step-3"}


def test_float16_scales_its_loss(do_fit, tmp_path, monkeypatch):
    """The first scale is too large for float16: steps are left out, and it is halved, until it is not."""
    monkeypatch.setattr(optimizer, "INITIAL_LOSS_SCALE", 2.0**22)
    result = do_fit(tmp_path, replace(RECIPE, precision="mixed_float16", epochs=6.0), batching=PACKED)
    norms = logged(result.stage, "gradient_norm")
    left_out = [step for step, norm in norms.items() if not np.isfinite(norm)]
    assert left_out and max(left_out) < 8 and len(norms) == 12
    assert np.isfinite(result.losses).all()
    assert result.history[-1]["loss"] < 0.8 * result.history[0]["loss"]
    assert all(np.isfinite(value).all() for value in get_weights(result.model).values())


def test_the_loss_scale_is_part_of_a_checkpoint(do_fit, tmp_path, monkeypatch):
    """Killed while it is still being halved."""
    monkeypatch.setattr(optimizer, "INITIAL_LOSS_SCALE", 2.0**26)
    recipe = replace(RECIPE, precision="mixed_float16", epochs=6.0)
    whole = do_fit(tmp_path / "whole", recipe, batching=PACKED)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "make_train_step", killed_before(4))
        do_fit(tmp_path / "killed", recipe, batching=PACKED)
    monkeypatch.setattr(optimizer, "INITIAL_LOSS_SCALE", 1.0)  # what it starts with is not what it goes on with
    resumed = do_fit(tmp_path / "killed", recipe, batching=PACKED)
    assert resumed.sha256 == whole.sha256 and resumed.history == whole.history
    norms = [logged(each.stage, "gradient_norm") for each in (whole, resumed)]
    left_out = [[step for step, norm in each.items() if not np.isfinite(norm)] for each in norms]
    assert left_out[0] == left_out[1] and max(left_out[0]) > 4


def test_early_stopping_and_plateau(do_fit, tmp_path, tmp_path_factory, capsys):
    """Validation rows of the opposite label: no evaluation after the first improves."""
    turned = write_table(tmp_path_factory.mktemp("turned"), 20, seed=3, turned=True)
    recipe = with_settings(
        replace(RECIPE, keep="best", epochs=9.0),
        early_stopping=EarlyStopping(patience=3),
        reduce_on_plateau=ReduceOnPlateau(factor=0.1, patience=2),
        schedule="constant",
    )
    result = do_fit(tmp_path, recipe, validation=turned)
    assert [entry["step"] for entry in result.history] == [3, 6, 9, 12]
    assert "stopped after step 12 of 27: loss no longer improved" in capsys.readouterr().err
    rates = logged(result.stage, "learning_rate")
    assert [rates[step] for step in (4, 9, 10, 12)] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3])
    assert result.stage.notes["steps"] == 12
    again = do_fit(tmp_path, recipe, validation=turned)  # stopped before its stage was committed: stays stopped
    assert again.sha256 == result.sha256 and again.history == result.history


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_every_optimizer_learns(do_fit, tmp_path, name):
    rate = 0.05 if name == "sgd" else 1e-2
    recipe = with_settings(replace(RECIPE, learning_rate=rate, epochs=4.0), optimizer=name)
    history = do_fit(tmp_path, recipe, batching=PACKED).history
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_an_evaluation_begins_with_the_first_row_whatever_became_of_the_last(validation):
    """Its batches go on where they were left."""
    evaluation = Evaluation(new_model(), validation, "single_label", BUCKETED)
    expected = evaluation.logits()

    def stopped_after(batches, answer):
        asked = iter([False] * batches)
        return lambda: next(asked, None) is None and answer()

    assert evaluation.logits(stopped_after(2, lambda: True)) is None
    assert np.array_equal(evaluation.logits(), expected)
    with pytest.raises(ZeroDivisionError):
        evaluation.logits(stopped_after(3, lambda: 1 / 0))
    assert np.array_equal(evaluation.logits(), expected)
    assert np.array_equal(evaluation.logits(), expected)


def test_evaluation_answers_every_row_once(validation):
    model = new_model()
    inference_model = build_inference_model(ARCHITECTURE, 2)
    set_weights(inference_model, get_weights(model))
    expected = [inference_model(validation.padded(np.array([row]))).numpy()[0] for row in range(71)]
    for batching in (BUCKETED, PACKED):
        found = Evaluation(model, validation, "single_label", batching).logits()
        assert found.shape == (71, 2) and found.dtype == np.float32
        assert np.abs(found - np.stack(expected)).max() <= 1e-5
