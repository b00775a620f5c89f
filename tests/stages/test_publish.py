"""Publishing: versions count up, a reader sees a whole one or none."""

import json
import os
import shutil
import threading

import pytest

from tfpipe.evaluate.serving_files import SERVING_FILES
from tfpipe.files import sha256_of_directory
from tfpipe.stages.publish import publish


@pytest.fixture
def saved_model(tmp_path):
    directory = tmp_path / "saved_model"
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_text("graph")
    (directory / "variables" / "variables.index").write_text("index")
    return directory


def test_published_versions_count_up_and_are_never_overwritten(saved_model, tmp_path):
    serving = tmp_path / "serving" / "dense"
    assert publish(saved_model, serving) == (serving / "1", sha256_of_directory(saved_model))
    (saved_model / "saved_model.pb").write_text("newer")
    assert publish(saved_model, serving)[0] == serving / "2"
    assert [(serving / n / "saved_model.pb").read_text() for n in "12"] == ["graph", "newer"]
    assert (serving / "2" / "variables" / "variables.index").read_text() == "index"
    assert publish(saved_model, serving)[0] == serving / "2"  # the same files: no need for another version
    (saved_model / "saved_model.pb").write_text("newest")
    (serving / "2").rename(serving / "9")
    (serving / "notes").mkdir()
    (serving / "1").rename(serving / "old")
    assert publish(saved_model, serving)[0] == serving / "10"


def test_a_copy_that_was_cut_short_is_not_seen(saved_model, tmp_path, monkeypatch):
    serving = tmp_path / "serving"
    copy = shutil.copytree

    def cut_short(source, target):
        copy(source / "variables", target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copytree", cut_short)
        publish(saved_model, serving)
    assert [name for name in os.listdir(serving) if name.isdigit()] == []
    assert publish(saved_model, serving)[0] == serving / "1"
    assert sorted(os.listdir(serving)) == ["1"] and (serving / "1" / "saved_model.pb").exists()


def test_a_watcher_sees_whole_versions_only(saved_model, tmp_path):
    for number in range(50):
        (saved_model / f"asset-{number}").write_text("asset")
    expected, serving, done, partial = len(list(saved_model.rglob("*"))), tmp_path / "serving", threading.Event(), []
    serving.mkdir()

    def watch():
        while not done.is_set():
            for child in serving.iterdir():
                if child.name.isdigit() and len(list(child.rglob("*"))) != expected:
                    partial.append(child.name)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(20):
        (saved_model / "saved_model.pb").write_text(f"graph {number}")
        publish(saved_model, serving)
    done.set()
    watcher.join()
    assert partial == [] and len(os.listdir(serving)) == 20


def test_onnx_folders_are_published_beside_the_models_of_tf_serving(tiny_run):
    config, run = tiny_run
    serving = run / "serving"
    assert {path.name for path in serving.iterdir()} == {*config.variants, "onnx", *SERVING_FILES}
    recorded = json.loads((run / "publish" / "published.json").read_text())
    for variant in config.variants:
        version = serving / "onnx" / variant / "1"
        assert recorded[f"serving/onnx/{variant}/1"] == sha256_of_directory(version)
        assert sha256_of_directory(version) == sha256_of_directory(run / "export" / variant / "onnx")
        assert f"| `onnx/{variant}/1/` | onnx |" in (serving / "README.md").read_text()
    assert "onnx" not in (serving / "models.config").read_text()
