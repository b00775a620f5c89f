"""A format that lives in this file alone passes export, verify, budget, report, replay and sweep."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from conftest import tiny_config
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from tfpipe import artifacts, pipeline
from tfpipe.artifacts import Format
from tfpipe.config.compress import Budget
from tfpipe.config.export import Verify
from tfpipe.config.file import dump_config
from tfpipe.encoders.architecture import INFERENCE_INPUTS, Architecture
from tfpipe.encoders.parameters import is_prunable
from tfpipe.errors import GateError, InputError
from tfpipe.evaluate.parity import failed_gates
from tfpipe.formats.base import Answer, Written
from tfpipe.model.classifier import Classifier, float_model
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tools import replay


def write(source, path, settings):
    path.mkdir()
    classifier = source.classifier
    about = {each.name: getattr(classifier, each.name) for each in dataclasses.fields(classifier)}
    save_file(about.pop("weights"), path / "weights.safetensors")
    save_file(about.pop("quantization"), path / "quantization.safetensors")
    (path / "about.json").write_text(json.dumps(about | {"architecture": classifier.architecture.to_dict()}))
    return Written(len(classifier.weights), f"numbers/ ({len(classifier.weights)} arrays)")


def load(path, threads=None, allowed=()):
    about = json.loads((path / "about.json").read_text())
    about["architecture"] = Architecture(**about["architecture"])
    files = {name: load_file(path / f"{name}.safetensors") for name in ("weights", "quantization")}
    model = float_model(Classifier(**about | files))

    def ask(requests):
        return model({name: requests.tokens[name] for name in INFERENCE_INPUTS}, training=False).numpy()

    return (Answer("numbers", False, ask),)


def kernels(path):
    return {name: each for name, each in load_file(path / "weights.safetensors").items() if is_prunable(name)}


def size_bytes(path):
    return sum(file.stat().st_size for file in path.iterdir())


NUMBERS = Format("numbers", __name__, "numbers", max_logit_diff=1e-5, overhead_bytes=1000, marker="about.json")


@pytest.fixture(scope="module")
def with_numbers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "FORMATS", (*artifacts.FORMATS, NUMBERS))
        yield


@pytest.fixture(scope="module")
def run(with_numbers, tmp_path_factory, tiny_run, tiny_reviews, tiny_encoder):
    """The tiny run, taken over up to its models, with the budget held against the new format."""
    directory = tmp_path_factory.mktemp("numbers") / "run"
    config = tiny_config(tiny_reviews, tiny_encoder, budget__artifact="numbers", budget__max_size_bytes=1_000_000)
    pipeline.run(config, RunDirectory(directory), others=[RunDirectory(tiny_run[1])])
    return config, directory


def test_a_run_without_it_says_what_is_done_again(with_numbers, tiny_run, tiny_reviews, tiny_encoder):
    config, directory = tiny_config(tiny_reviews, tiny_encoder), tiny_run[1]
    status = {each.stage: each.reason for each in pipeline.status(config, RunDirectory(directory))}
    formats = "saved_model 3, onnx 2"
    assert status["quantize"] is None
    assert status["export"] == (
        f"tfpipe's formats ({formats} -> {formats}, numbers 1); "
        'export.formats: ["saved_model", "onnx"] -> ["saved_model", "onnx", "numbers"]'
    )
    assert status["verify"] == "export would be done before it"


def test_export_writes_it_with_golden_requests(run):
    config, directory = run
    record = RunDirectory(directory).record("export")
    for variant in config.variants:
        exported = directory / "export" / variant
        assert (exported / "numbers" / "golden.jsonl").is_file()
        assert record.notes[variant]["numbers_operators"] == len(
            load_file(exported / "numbers" / "weights.safetensors")
        )


def test_verify_and_report_measure_it_like_any_other(run):
    config, directory = run
    metrics = json.loads((directory / "report" / "metrics.json").read_text())
    rows = [row for row in metrics["artifacts"] if row["artifact"] == "numbers"]
    assert [row["variant"] for row in rows] == list(config.variants)
    card = (directory / "report" / "model_card.md").read_text()
    for row in rows:
        assert row["max_abs_logit_diff"] <= 1e-5 and row["agrees"] and row["latency_ms"]["b32_s64"] > 0
        assert row["path"] == f"export/{row['variant']}/numbers" and f"`{row['path']}`" in card
        assert row["size_bytes"] == size_bytes(directory / row["path"])
        assert row["sparsity"] == pytest.approx(0.0 if row["variant"] == "dense" else 0.5, abs=0.01)
    costs = json.loads((directory / "verify" / "parity.json").read_text())["costs"]
    assert [cost["size_bytes"] for cost in costs] == [row["size_bytes"] for row in rows[1:]]


def test_replay_asks_it_and_finds_out_another_model(run, tmp_path, capsys):
    exported = run[1] / "export" / "dense" / "numbers"
    replay.run(exported)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in printed if line[:1] == ["numbers"]] == [["numbers", "1"], ["numbers", "16"]]
    copy = shutil.copytree(exported, tmp_path / "copy")
    weights = load_file(copy / "weights.safetensors")
    save_file(weights | {"classifier.bias": weights["classifier.bias"] + 1e-3}, copy / "weights.safetensors")
    with pytest.raises(GateError, match=r"batches of 1: max_scaled_logit_diff is 0\.00"):
        replay.run(copy)
    with pytest.raises(InputError, match=r"neither saved_model\.pb nor onnx/model\*\.onnx nor .*about\.json there"):
        replay.run(tmp_path)


def test_its_limit_is_its_own_or_a_setting(with_numbers):
    found = {
        "variant": "dense",
        "artifact": "numbers",
        "format": "numbers",
        "rounded": False,
        "batch_size": 1,
        "max_abs_logit_diff": 1e-3,
        "max_scaled_logit_diff": 1e-3,
    }
    (failure,) = failed_gates([found], Verify())
    assert failure.endswith("logits differ by up to 0.001, verify.max_logit_diff.numbers is 1e-05")
    assert failed_gates([found], Verify(max_logit_diff={"numbers": 1e-2})) == []
    with pytest.raises(ValidationError, match=r"expected saved_model, onnx,.* or numbers"):
        Budget(artifact="letters")


def test_a_sweep_compares_by_it(run, tfpipe_command, tmp_path):
    config, directory = run
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config))
    points = tmp_path / "sweep" / "points" / "seed=0"
    points.parent.mkdir(parents=True)
    points.symlink_to(directory)
    code, out, _ = tfpipe_command("sweep", file, "--grid", "seed=0", "--run-dir", tmp_path / "sweep")
    assert code == 0 and "pruned" in out
    rows = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["rows"]
    assert len(rows) == 3 and all(row["file"].endswith("/numbers") for row in rows)
    assert all(np.isfinite(row["latency_ms"]) and row["speedup"] > 0 for row in rows)
