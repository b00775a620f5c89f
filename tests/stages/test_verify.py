"""Verification: what is measured and published, and what is not."""

import json
import os
import shutil

import pytest
from safetensors.numpy import load_file

from tfpipe import metrics, pipeline
from tfpipe.config.file import parse_config
from tfpipe.errors import GateError
from tfpipe.formats.onnx.folder import graph_file
from tfpipe.tokens.table import TokenTable


def test_the_answers_are_kept_and_the_numbers_follow_from_them(tiny_run):
    config, run = tiny_run
    logits = load_file(run / "verify" / "logits.safetensors")
    kinds = ("keras", "saved_model", "saved_model_text", "onnx")
    assert set(logits) == {"rows"} | {f"{variant}.{kind}" for variant in config.variants for kind in kinds}
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
        assert cost["size_bytes"] == graph_file(run / "export" / cost["variant"] / "onnx").stat().st_size
        assert cost["latency_ms"] == row["latency_ms"][config.budget.latency_shape] > 0
        accuracies = parity["validation_accuracy"]
        assert cost["drop"] == pytest.approx(accuracies["dense"] - accuracies[cost["variant"]])


def test_outside_the_budget_nothing_is_published(copied_run, capsys):
    config, run = copied_run
    shutil.rmtree(run.path / "serving")
    size = graph_file(run.path / "export" / "int8" / "onnx").stat().st_size
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
    pipeline.run(fits, run, until="publish")
    assert "pruned is not published: " in capsys.readouterr().err
    assert sorted(os.listdir(run.path / "serving")) == [
        "README.md", "batching_parameters.txt", "dense", "int8", "models.config", "onnx",
    ]  # fmt: skip
