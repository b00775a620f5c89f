"""A path that someone else wrote stays below its folder: the helper, and each place that takes such a path."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import TokenRow, write_token_table

from tfpipe.errors import InputError
from tfpipe.files import path_inside
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.fingerprint import sealed
from tfpipe.rundir.remote import Remote
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.train.checkpoints import Checkpoints, Progress

OUTSIDE = ["../x", "a/../../x", "/etc/passwd", "..", "", ".", "a\0b", None, 3]
_numbers = itertools.count()


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_leads_out_is_refused_in_one_line(tmp_path, name):
    with pytest.raises(InputError, match=r"^list\.json: the path .* leads out of .*; expected a rel") as error:
        path_inside(tmp_path, name, "list.json")
    assert "\n" not in str(error.value)


def test_what_stays_inside_is_taken(tmp_path):
    assert path_inside(tmp_path, "a/b..c", "x") == tmp_path / "a" / "b..c"
    (tmp_path / "inside").symlink_to("a")
    (tmp_path / "outside").symlink_to("/etc")
    assert path_inside(tmp_path, "inside", "x", through_links=False) == tmp_path / "inside"
    assert path_inside(tmp_path, "outside/passwd", "x") == tmp_path / "outside" / "passwd"
    with pytest.raises(InputError, match="leads out of"):
        path_inside(tmp_path, "outside/passwd", "x", through_links=False)


EMPTY = {
    **dict.fromkeys(("stage", "fingerprint", "output", "finished", "machine"), "x"),
    **{part: {} for part in ("settings", "files", "inputs", "code", "versions", "notes", "published", "files_written")},
    "seconds": 1.0,
}


@pytest.mark.parametrize(
    "record",
    [
        {"files_written": {"../../victim": {"sha256": "00", "size_bytes": 1}}},
        {"files_written": {"/etc/passwd": {"sha256": "00", "size_bytes": 1}}},
        {"published": {"../../victim": {"sha256": "00", "size_bytes": 1}}},
    ],
)
def test_a_record_names_files_of_its_stage(tmp_path, record):
    (tmp_path / "verify").mkdir()
    (tmp_path / "verify" / "stage.json").write_text(json.dumps(sealed(EMPTY | record)))
    with pytest.raises(InputError, match=r"verify/stage\.json: the path .* leads out of"):
        RunDirectory(tmp_path).record("verify")


def test_a_record_on_a_store_writes_nothing_outside(tmp_path, monkeypatch):
    """A record of a `gs://` run that names `../../victim`, which the store has: it is not copied there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"ram://test-paths-{next(_numbers)}/run"
    run = RunDirectory(url)
    victim = run.path.parent / "victim"
    record = sealed(EMPTY | {"files_written": {"../../victim": {"sha256": "0" * 64, "size_bytes": 4}}})
    for name, content in (("run/train/stage.json", json.dumps(record)), ("victim", "evil")):
        with tf.io.gfile.GFile(f"{url.removesuffix('/run')}/{name}", "w") as file:
            file.write(content)
    with pytest.raises(InputError, match=r"train/stage\.json: the path '\.\./\.\./victim' leads out of"):
        run.record("train")
    assert not victim.exists()
    for name in ("../victim", str(tmp_path / "victim")):
        with pytest.raises(InputError, match="leads out of"):
            Remote(url).download(tmp_path / "here", {name: 4})
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("change", [{"files": {"../../secret": "00"}}, {"best_step": "../../secret"}, {"step": "7"}])
def test_a_checkpoint_that_names_other_files_does_not_count(tmp_path, capsys, change):
    module = tf.Module()
    module.kernel = tf.Variable([1.0, 2.0], name="kernel")
    stage = StageDirectory("train", tmp_path / "train", {})
    with Checkpoints(stage, {"model": module}) as checkpoints:
        checkpoints.save(Progress(7))
    marker = stage.checkpoints / "step-7" / "checkpoint.json"
    assert Checkpoints(stage, {"model": module}).restore().step == 7
    stored = json.loads(marker.read_text()) | change
    marker.write_text(json.dumps(sealed(stored)))
    assert Checkpoints(stage, {"model": module}).restore() is None
    assert "the checkpoint of step 7 is not whole" in capsys.readouterr().err


def test_a_table_is_made_of_its_own_shards(tmp_path):
    row = TokenRow(np.array([1, 2], np.int32), np.zeros(2, np.int32), np.array([1.0], np.float32), 0)
    write_token_table(tmp_path / "table", [row], num_labels=1)
    manifest = tmp_path / "table" / "table.json"
    (tmp_path / "table" / "part-00000.arrow").rename(tmp_path / "outside.arrow")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"shards": ["../outside.arrow"]}))
    with pytest.raises(InputError, match=r"table\.json: the path '\.\./outside\.arrow' leads out of"):
        TokenTable.open(tmp_path / "table")
