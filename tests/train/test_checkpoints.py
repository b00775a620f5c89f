"""What lies among the checkpoints and is none, or is damaged, is passed over."""

from __future__ import annotations

import json
import threading

import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from tfpipe.errors import InputError
from tfpipe.files import sha256_of_file
from tfpipe.rundir.fingerprint import sealed
from tfpipe.rundir.stage import StageDirectory
from tfpipe.train.checkpoints import Checkpoints, Progress


@pytest.fixture
def checkpoints(tmp_path):
    """Checkpoints of the steps 3 and 7."""
    module = tf.Module()
    module.kernel = tf.Variable(tf.zeros([2, 3]))
    found = Checkpoints(StageDirectory("train", tmp_path, {}), {"model": module})
    for step in (3, 7):
        found.save(Progress(step))
    found.wait()
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"files": []}, {"files": {}}, {"files": None}, {"files": {"x" * 5000: "0"}}, {"step": "7"}, {"step": None},
        {"history": 3},
        {"best_step": [1]}, "[" * 100_000, "null",
    ],
    ids=lambda changes: repr(changes)[:30],
)  # fmt: skip
def test_a_damaged_marker_gives_way_to_the_checkpoint_before(checkpoints, changes, capsys):
    marker = checkpoints.directory / "step-7" / "checkpoint.json"
    stored = json.loads(marker.read_text())
    marker.write_text(changes if isinstance(changes, str) else json.dumps(sealed(stored | changes)))
    assert checkpoints.restore().step == 3
    assert "the checkpoint of step 7 is not whole" in " ".join(capsys.readouterr().err.split())


def test_a_damaged_marker_does_not_keep_the_next_checkpoint_from_being_written(checkpoints):
    (checkpoints.directory / "step-7" / "checkpoint.json").write_text("[" * 100_000)
    checkpoints.save(Progress(9))
    assert checkpoints.restore().step == 9


def test_a_directory_of_another_name_is_no_checkpoint(checkpoints):
    for name in ("step-x", "step-²", "step-"):
        (checkpoints.directory / name).mkdir()
        (checkpoints.directory / name / "checkpoint.json").write_text("{}")
    assert checkpoints.restore().step == 7


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, {"model/kernel": "int64"}], ids=["empty", "header", "type"])
def test_weights_that_are_not_what_they_should_be_are_refused_by_name(checkpoints, content):
    state = checkpoints.directory / "step-7" / "state.safetensors"
    if isinstance(content, dict):
        save_file({name: tf.zeros([2, 3], kind).numpy() for name, kind in content.items()}, state)
    else:
        state.write_bytes(content)
    marker = checkpoints.directory / "step-7" / "checkpoint.json"
    stored = json.loads(marker.read_text()) | {"files": {"step-7/state.safetensors": sha256_of_file(state)}}
    marker.write_text(json.dumps(sealed(stored)))
    with pytest.raises(InputError, match=r"state\.safetensors: .* start over with --redo train"):
        checkpoints.restore()


def test_checkpoints_by_time_and_by_steps(tmp_path, monkeypatch):
    module = tf.Module()
    module.kernel = tf.Variable(tf.zeros([2, 3]))
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stage = StageDirectory("train", tmp_path, {})
    by_steps, by_time = (Checkpoints(stage, {"model": module}, every=each) for each in (10, 60.0))
    assert [by_steps.is_due(*each) for each in ((0, 9), (9, 10), (10, 11), (18, 22))] == [False, True, False, True]
    assert not by_time.is_due(0, 1000)
    now = 160.0
    assert by_time.is_due(1000, 1001)
    by_time.save(Progress(1001))
    assert not by_time.is_due(1001, 1002)


def test_as_many_are_kept_as_were_asked_for_and_what_they_need(tmp_path):
    module = tf.Module()
    module.kernel = tf.Variable(tf.zeros([2, 3]))
    with Checkpoints(StageDirectory("train", tmp_path, {}), {"model": module}, keep_last=3) as checkpoints:
        for step in range(1, 7):
            if step in (1, 4, 6):
                checkpoints.save_best(step)
            checkpoints.save(Progress(step, best=0.5, best_step={1: 1, 2: 1, 3: 1, 4: 4, 5: 4, 6: 6}[step]))
    names = {path.name for path in checkpoints.directory.iterdir()}
    assert names == {"step-4", "step-5", "step-6", "best-4", "best-6"}


def test_what_is_stored_is_what_the_variables_held_when_it_was_saved(tmp_path):
    """The thread that writes is slower than the training that goes on."""
    module = tf.Module()
    module.kernel = tf.Variable(tf.zeros([500, 1000]))
    checkpoints = Checkpoints(StageDirectory("train", tmp_path, {}), {"model": module})
    held = threading.Event()
    checkpoints._writer.submit(held.wait)
    checkpoints.save(Progress(1))
    for _ in range(3):
        module.kernel.assign_add(tf.ones([500, 1000]))
    tf.raw_ops.ResourceApplyGradientDescent(var=module.kernel.handle, alpha=1.0, delta=tf.ones([500, 1000]))
    held.set()
    assert checkpoints.restore().step == 1 and float(tf.reduce_max(tf.abs(module.kernel))) == 0.0


def test_a_write_of_much_is_waited_for(tmp_path, monkeypatch):
    """A step after it would copy the variables."""
    module = tf.Module()
    module.kernel = tf.Variable(tf.zeros([500, 1000]))
    checkpoints = Checkpoints(StageDirectory("train", tmp_path, {}), {"model": module})
    monkeypatch.setattr("tfpipe.train.checkpoints.LARGE", 2_000_000)
    checkpoints.save(Progress(1))
    assert not checkpoints._pending and checkpoints.restore().step == 1


def test_what_a_write_failed_of_is_said_at_the_next(tmp_path, monkeypatch):
    module = tf.Module()
    module.kernel = tf.Variable(tf.zeros([2, 3]))

    def full(path, value):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("tfpipe.train.checkpoints.write_json", full)
    checkpoints = Checkpoints(StageDirectory("train", tmp_path, {}), {"model": module})
    checkpoints.save(Progress(1))
    assert checkpoints._pending[0].exception() is not None
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(Progress(2))
    with pytest.raises(OSError, match="No space left"), checkpoints:
        checkpoints.save(Progress(3))


def test_a_step_that_is_stored_again_is_never_without_a_checkpoint(tmp_path, monkeypatch):
    """A stop between a step and its evaluation, then the evaluation, then a kill while the step is stored again."""
    module = tf.Module()
    module.kernel = tf.Variable(tf.zeros([2, 3]))
    stage = StageDirectory("train", tmp_path, {})
    checkpoints = Checkpoints(stage, {"model": module}, keep_last=1)
    checkpoints.save(Progress(7))
    checkpoints.wait()

    def die(values, path):
        path.write_bytes(b"torn")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tfpipe.train.checkpoints.save_file", die)
        checkpoints.save(Progress(7, [{"step": 7, "loss": 1.0}]))
        with pytest.raises(KeyboardInterrupt):
            checkpoints.wait()
    assert Checkpoints(stage, {"model": module}).restore() == Progress(7)


def test_landmarks_are_kept_beside_the_last(tmp_path):
    module = tf.Module()
    module.kernel = tf.Variable(tf.zeros([2, 3]))
    with Checkpoints(StageDirectory("train", tmp_path, {}), {"model": module}, landmarks=2) as checkpoints:
        history = []
        for step in range(9):
            if step in (2, 5):
                history.append({"step": step, "loss": 1.0})
            checkpoints.save(Progress(step, history))
        checkpoints.wait()
        assert {path.name for path in checkpoints.directory.iterdir()} == {"step-2", "step-5", "step-7", "step-8"}
        checkpoints.go_back()
        assert checkpoints.restore().step == 5
        checkpoints.go_back(passing_over=5)
        assert checkpoints.restore().step == 2
        checkpoints.go_back(passing_over=2)  # the last there is
        assert checkpoints.restore().step == 2
