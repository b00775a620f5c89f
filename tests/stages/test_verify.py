"""Verification: what is measured and published, and what is not."""

import json
import os
import shutil
import threading

import pytest
from safetensors.numpy import load_file

from tfpipe import metrics, pipeline
from tfpipe.config.file import parse_config
from tfpipe.errors import GateError
from tfpipe.evaluate.artifacts import KINDS
from tfpipe.files import sha256_of_directory
from tfpipe.stages.verify import publish
from tfpipe.tokens.table import TokenTable


def test_the_answers_are_kept_and_the_numbers_follow_from_them(tiny_run):
    config, run = tiny_run
    logits = load_file(run / "verify" / "logits.safetensors")
    assert set(logits) == {"rows"} | {f"{variant}.{kind}" for variant in config.variants for kind in KINDS}
    labels = TokenTable.open(run / "prepare" / "test").labels[logits["rows"]]
    rows = json.loads((run / "verify" / "parity.json").read_text())["artifacts"]
    dense = metrics.correct(logits["dense.keras"], labels, config.task)
    for row in rows:
        right = metrics.correct(logits[f"{row['variant']}.{row['artifact']}"], labels, config.task)
        assert row["accuracy"] == pytest.approx(right.mean())
        assert row["accuracy_change"] == pytest.approx(right.mean() - dense.mean())
        low, high = row["accuracy_change_95"]
        assert low <= row["accuracy_change"] <= high


def test_costs_are_those_of_the_onnx_files(tiny_run):
    config, run = tiny_run
    parity = json.loads((run / "verify" / "parity.json").read_text())
    assert [cost["variant"] for cost in parity["costs"]] == ["pruned", "int8"] == parity["within_budget"]
    for cost in parity["costs"]:
        row = next(r for r in parity["artifacts"] if (r["variant"], r["artifact"]) == (cost["variant"], "onnx"))
        assert cost["size_bytes"] == (run / "export" / cost["variant"] / "model.onnx").stat().st_size
        assert cost["latency_ms"] == row["latency_ms"][config.budget.latency_shape] > 0
        accuracies = parity["validation_accuracy"]
        assert cost["accuracy_drop"] == pytest.approx(accuracies["dense"] - accuracies[cost["variant"]])


def test_outside_the_budget_nothing_is_published(copied_run, capsys):
    config, run = copied_run
    shutil.rmtree(run.path / "serving")
    size = (run.path / "export" / "int8" / "model.onnx").stat().st_size
    for changes, told in (
        ({"max_latency_ms": 1e-3}, r"int8 is outside the budget: .* budget.max_latency_ms is 0.001.* relax budget"),
        ({"max_size_bytes": size - 1}, rf"int8 is outside the budget: {size:,} bytes.*max_size_bytes to {size}"),
    ):
        tight = parse_config(config.model_dump() | {"budget": changes}, where="the test")
        with pytest.raises(GateError, match=f"nothing is published; {told}"):
            pipeline.run(tight, run, until="verify")
        assert not (run.path / "serving").exists() and run.record("verify") is None
        assert json.loads((run.path / "verify" / "parity.json").read_text())["failures"]
    # the step on the way is outside, the last variant is not
    fits = parse_config(config.model_dump() | {"budget": {"max_size_bytes": size}}, where="the test")
    pipeline.run(fits, run, until="verify")
    assert "pruned is not published: " in capsys.readouterr().err
    assert sorted(os.listdir(run.path / "serving")) == [
        "README.md", "batching_parameters.txt", "dense", "int8", "models.config",
    ]  # fmt: skip


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
    assert publish(saved_model, serving) == (serving / "2", sha256_of_directory(saved_model))
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
    assert publish(saved_model, serving) == (serving / "1", sha256_of_directory(saved_model))
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
