"""What lies among the checkpoints and is none, or is damaged, is passed over."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from tfpipe.errors import InputError
from tfpipe.rundir import StageDirectory, sha256_of_file
from tfpipe.train.checkpoints import Checkpoints, Progress


@pytest.fixture
def checkpoints(tmp_path):
    """Checkpoints of the steps 3 and 7."""
    module = tf.Module()
    module.kernel = tf.Variable(tf.zeros([2, 3]))
    found = Checkpoints(StageDirectory("train", tmp_path, {}), {"model": module})
    for step in (3, 7):
        found.save(Progress(step, [], None, None))
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
    marker.write_text(changes if isinstance(changes, str) else json.dumps(stored | changes))
    assert checkpoints.restore().step == 3
    assert "the checkpoint of step 7 is not whole" in " ".join(capsys.readouterr().err.split())


def test_a_damaged_marker_does_not_keep_the_next_checkpoint_from_being_written(checkpoints):
    (checkpoints.directory / "step-7" / "checkpoint.json").write_text("[" * 100_000)
    checkpoints.save(Progress(9, [], None, None))
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
    marker.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"state\.safetensors: .* start over with --redo train"):
        checkpoints.restore()
