"""A finished run in MLflow: what is logged, once; a model that answers as `tfpipe predict`; servers that are gone."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_predict_by_tokens import TEXTS

from tfpipe.artifacts import format_named
from tfpipe.config.file import dump_config, flattened
from tfpipe.errors import InputError
from tfpipe.files import write_json
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tokens.fast_tokenizer import FastTokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools.predict import by_tokens
from tfpipe.tools.predict.shown import answers_of
from tfpipe.tools.track import answers_onnx, answers_tfpipe
from tfpipe.tools.track.finished import finished
from tfpipe.tools.track.server import told

needs_mlflow = pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="tfpipe[mlflow] is not installed")
needs_server = pytest.mark.skipif(
    importlib.util.find_spec("sqlalchemy") is None, reason="MLflow is not installed whole"
)
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true"}


def tfpipe(*arguments, **environment) -> tuple[int, str, str, float]:
    """Exit code, standard output, standard error, seconds. In a process of its own: MLflow keeps what it was told."""
    program = [sys.executable, "-c", "from tfpipe.cli import main; main()", *map(str, arguments)]
    # With these, MLflow would not report itself in any case.
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_CURRENT_TEST")}
    started = time.monotonic()
    done = subprocess.run(program, env=inherited | environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout.strip(), done.stderr, time.monotonic() - started


def refused(answer: tuple[int, str, str, float]) -> str:
    code, out, error, _ = answer
    assert code == 2 and out == "" and "Traceback" not in error, error
    return error.splitlines()[-1]


# What a run tells, without MLflow.


def test_a_run_tells_its_settings_measures_and_origins(tiny_run):
    config, path = tiny_run
    run = finished(RunDirectory(path))
    parameters = run.parameters()
    assert parameters.keys() == flattened(config.model_dump(mode="json")).keys() and len(parameters) > 100
    assert parameters["train.precision"] == "float32" and parameters["train.strategy"] == "auto"
    assert parameters["prune.sparsity"] == "0.5" and parameters["train.early_stopping"] == "null"
    assert json.loads(parameters["data.label_names"]) == config.data.label_names
    measures = {(each.name, each.step): each.value for each in run.measures()}
    assert len(measures) == len(run.measures()) and all(np.isfinite(list(measures.values())))
    history = json.loads((path / "train" / "history.json").read_text())
    for entry in history:
        assert measures["train/validation/accuracy", entry["step"]] == entry["accuracy"]
    for row in json.loads((path / "report" / "metrics.json").read_text())["artifacts"]:
        place = f"{row['variant']}/{row['artifact']}"
        assert measures[f"{place}/accuracy", 0] == row["accuracy"]
        assert measures[f"{place}/accuracy_95_low", 0] == row["accuracy_95"][0]
        assert measures[f"{place}/size_bytes", 0] == row["size_bytes"]
        assert measures.get((f"{place}/latency_ms/b1_s32", 0)) == row["latency_ms"]["b1_s32"]
    assert measures["train/examples_per_second", 0] > 0 and measures["seconds/verify", 0] > 0
    report = json.loads((path / "report" / "metrics.json").read_text())
    assert measures["int8/test/matthews", 0] == report["measures"]["int8"]["scores"]["matthews"]["value"]
    assert measures["dense/temperature", 0] == report["calibration"]["dense"]["temperature"]
    tags = run.tags()
    assert tags["tfpipe.output.train"] == RunDirectory(path).record("train").output
    assert "processors" in tags["tfpipe.machine"] and tags["tfpipe.versions.tensorflow"].startswith("2.20")
    assert tags["tfpipe.train.strategy"].startswith("one_device") and run.name == "tiny"
    named = {"parity.json", "metrics.json", "report.html", "model_card.md"}
    assert {file.name for file in run.files()} == named and run.variant(None) == "int8"


def test_a_point_of_a_sweep_is_a_run_without_a_report(copied_run, tmp_path):
    config, run = copied_run
    point = Path(shutil.move(run.path, tmp_path / "points" / "prune.sparsity=0.5"))
    for name in ("report", "publish", "serving"):
        shutil.rmtree(point / name)
    found = finished(RunDirectory(point))
    assert found.name == f"{config.name} prune.sparsity=0.5"
    assert {file.name for file in found.files()} == {"parity.json"}


def test_the_digest_is_that_of_all_records(copied_run, tiny_run):
    _, run = copied_run
    before = finished(run)
    assert before.digest("int8") == finished(RunDirectory(tiny_run[1])).digest("int8") != before.digest("dense")
    record = run.record("verify")
    again = record.model_copy(update={"finished": "2030-01-01T00:00:00+0000"})
    write_json(run.path / "verify" / "stage.json", again.to_json())
    assert finished(RunDirectory(run.path)).digest("int8") != before.digest("int8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("no run", "no run is there; give the directory of one"),
        ("not done", "verify is not done; finish it with `tfpipe run`"),
        ("other settings", "prune was done with another prune than config.yaml has; finish the run with `tfpipe run`"),
        ("done again", "train was done again after prune; finish the run with `tfpipe run`"),
    ],
)
def test_a_run_that_is_not_finished(copied_run, change, said):
    config, run = copied_run
    if change == "no run":
        (run.path / "config.yaml").unlink()
    elif change == "not done":
        (run.path / "verify" / "stage.json").unlink()
    elif change == "other settings":
        other = config.model_copy(update={"prune": config.prune.model_copy(update={"sparsity": 0.25})})
        (run.path / "config.yaml").write_text(dump_config(other))
    else:
        record = run.record("train").model_copy(update={"output": "0" * 64})
        write_json(run.path / "train" / "stage.json", record.to_json())
    with pytest.raises(InputError, match=said):
        finished(RunDirectory(run.path))


def test_a_variant_that_can_not_go_along(tiny_run):
    run = finished(RunDirectory(tiny_run[1]))
    with pytest.raises(InputError, match=r"--variant distilled: is no variant of this run; expected one of dense, p"):
        run.variant("distilled")
    run.parity["within_budget"].remove("int8")
    with pytest.raises(InputError, match=r"--variant int8: is outside the budget; expected one of dense, pruned"):
        run.variant("int8")


# The code in the model, without MLflow: the answers of `tfpipe predict`, bit by bit.


def assert_the_same(folder: Path, texts: list[str], pairs: list[str] | None = None) -> list[dict]:
    answerer = by_tokens.open_folder(folder)
    assert answerer.pairs == (pairs is not None)
    expected = list(answers_of(answerer, answerer.answer(answerer.prepare(texts, pairs))))
    rows = pd.DataFrame(
        {"text": texts} | ({} if pairs is None else {"text_pair": pairs}), index=range(7, 7 + len(texts))
    )
    found = answers_onnx._load_pyfunc(str(folder)).predict(rows)
    assert list(found.index) == list(rows.index) and list(found.columns) == list(expected[0])
    assert found.to_dict("records") == expected
    return expected


@pytest.mark.parametrize("variant", ["dense", "int8"])
def test_the_model_answers_as_predict_does(tiny_run, variant):
    folder = tiny_run[1] / "export" / variant / "onnx"
    expected = assert_the_same(folder, TEXTS)
    # The code for what is no plain ONNX folder can answer one too.
    assert (
        answers_tfpipe._load_pyfunc(str(folder)).predict(pd.DataFrame({"text": TEXTS})).to_dict("records") == expected
    )


@needs_mlflow
def test_the_code_that_goes_along_can_answer(tiny_run, tmp_path):
    """A tokenizer file has no place for cleaning, so the model needs tfpipe; and so does a SavedModel."""
    from tfpipe.tools.track.model import Chosen, parts

    dense = tiny_run[1] / "export" / "dense"
    cleaned = Path(shutil.copytree(dense / "onnx", tmp_path / "onnx"))
    write_json(cleaned / "cleaning.json", {"html": True, "unicode": None, "stop_words": []})
    for name, folder, stem, needed in (
        ("onnx", dense / "onnx", "answers_onnx_", "onnxruntime=="),
        ("onnx", cleaned, "answers_tfpipe_", "tfpipe=="),
        ("saved_model", dense / "saved_model", "answers_tfpipe_", "tfpipe=="),
    ):
        with parts(Chosen("dense", format_named(name), folder)) as made:
            (code,) = map(Path, made["code_paths"])
            assert code.name.startswith(stem) and code.stem == made["loader_module"] and code.is_file()
            assert made["pip_requirements"][0].startswith(needed)


@pytest.mark.parametrize(
    ("labels", "decision"),
    [("single", {"abstain_below": 0.51}), ("multi", {"thresholds": {"negative": 0.49, "positive": 0.505}})],
)
def test_the_model_decides_as_predict_does(tiny_run, tmp_path, labels, decision):
    folder = Path(shutil.copytree(tiny_run[1] / "export" / "dense" / "onnx", tmp_path / "onnx"))
    plain = json.loads((folder / "config.json").read_text()) | {"problem_type": f"{labels}_label_classification"}
    write_json(folder / "config.json", plain)
    before = [answer["label"] for answer in assert_the_same(folder, TEXTS)]
    write_json(folder / "config.json", plain | decision)
    after = [answer["label"] for answer in assert_the_same(folder, TEXTS)]
    assert after != before and (labels == "multi" or "" in after)


def test_a_model_of_several_labels_and_of_pairs(tiny_run, tmp_path):
    """The same graph under another task, and with requests that come in pairs."""
    folder = Path(shutil.copytree(tiny_run[1] / "export" / "int8" / "onnx", tmp_path / "onnx"))
    config = json.loads((folder / "config.json").read_text())
    names = {"0": "a|b", "1": "c\\"}
    write_json(folder / "config.json", config | {"problem_type": "multi_label_classification", "id2label": names})
    answers = assert_the_same(folder, TEXTS)
    assert {len(answer["labels"]) for answer in answers} >= {1} and any("\\" in answer["label"] for answer in answers)

    head, *lines = (folder / "golden.jsonl").read_text().rstrip("\n").split("\n")
    requests = [json.loads(line) for line in lines]
    tokenizer = FastTokenizer(TokenizerSettings.read(folder), config["max_length"])
    for request in (each for each in requests if isinstance(each["text"], str)):
        request["text_pair"] = "a dull plot"
        request["input_ids"] = tokenizer.encode([request["text"]], ["a dull plot"]).ids[0].tolist()
    asked = [json.dumps(request) for request in requests if isinstance(request["text"], str)]
    (folder / "golden.jsonl").write_text("\n".join([head, *asked]) + "\n")
    texts = [text for text in TEXTS if len(text) < 10_000]
    assert_the_same(folder, texts, texts[::-1])


@pytest.mark.parametrize("cell", [["a", "b"], None, 1.5])
def test_what_is_no_text_is_refused(tiny_run, cell):
    """MLflow's own check lets a list pass: findings/mlflow_takes_a_list_for_a_string.sh."""
    model = answers_onnx._load_pyfunc(str(tiny_run[1] / "export" / "int8" / "onnx"))
    with pytest.raises(ValueError, match=r"text of row 1 is \w+, expected a text; give a DataFrame"):
        model.predict(pd.DataFrame({"text": pd.Series(["fine", cell], dtype=object)}))
    assert model.predict(pd.DataFrame({"text": []})).empty


# Addresses.


def test_without_an_address_nothing_is_sent(tiny_run):
    assert "track: no server; give --uri http://HOST:PORT" in refused(tfpipe("track", tiny_run[1]))
    other = refused(tfpipe("track", tiny_run[1], "--uri", "postgresql://me:secret@host/db"))
    assert "--uri postgresql://host/db: expected http://HOST:PORT" in other


@needs_mlflow
def test_a_server_that_is_not_there_is_one_line_at_once(tiny_run):
    nobody = socket.create_server(("127.0.0.1", 0))
    address = f"http://me:secret@127.0.0.1:{nobody.getsockname()[1]}"
    nobody.close()
    answer = tfpipe("track", tiny_run[1], "--uri", address)
    assert "no MLflow server answers there (connection refused)" in refused(answer) and "secret" not in answer[2]
    assert answer[3] < 30  # most of it is the import of MLflow


@needs_mlflow
def test_what_is_no_mlflow_server_says_so(tiny_run):
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer():
            while True:
                connection, _ = other.accept()
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 404 Not Found\r\ncontent-type: text/html\r\n\r\n<html>no</html>")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        said = refused(tfpipe("track", tiny_run[1], "--uri", f"http://127.0.0.1:{other.getsockname()[1]}"))
    assert "MLflow says: " in said and "404" in said


@pytest.mark.slow
@needs_mlflow
def test_a_server_that_does_not_answer_is_given_up(tiny_run):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = tfpipe("track", tiny_run[1], "--uri", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "no MLflow server answers there (timed out)" in refused(answer) and answer[3] < 60


# Entries.


def entries(uri: str, experiment: str = "tfpipe") -> list:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


@pytest.fixture
def own_mlflow(monkeypatch):
    """MLflow in this process, quiet, its address forgotten at the end."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    mlflow = pytest.importorskip("mlflow")
    yield mlflow
    mlflow.set_tracking_uri(None)


def predicted(run: Path, texts: list[str], *options: str) -> list[dict]:
    code, out, error, _ = tfpipe("predict", run, *texts, "--output", "-", *options)
    assert code == 0, error
    return [{name: value for name, value in json.loads(line).items() if name != "text"} for line in out.splitlines()]


def assert_logged(uri: str, run: Path, entry: str, mlflow) -> None:
    """All that a run tells is there, and the model answers as `tfpipe predict`."""
    told = finished(RunDirectory(run))
    (found,) = (each for each in entries(uri) if each.info.run_id == entry)
    assert found.info.status == "FINISHED" and found.info.run_name == "tiny"
    assert found.data.params == told.parameters()
    assert found.data.tags["tfpipe.digest"] == told.digest("int8", "onnx")
    assert told.tags().items() <= found.data.tags.items()
    assert found.data.metrics.keys() == {each.name for each in told.measures()}
    client = mlflow.MlflowClient(uri)
    curve = [(each.step, each.value) for each in client.get_metric_history(entry, "train/validation/loss")]
    assert curve == [(each.step, each.value) for each in told.measures() if each.name == "train/validation/loss"]
    paths = {file.path for folder in ("report", "verify") for file in client.list_artifacts(entry, folder)}
    assert paths == {"report/metrics.json", "report/model_card.md", "report/report.html", "verify/parity.json"}

    mlflow.set_tracking_uri(uri)
    (model,) = (
        each
        for each in mlflow.search_logged_models(output_format="list", experiment_ids=[found.info.experiment_id])
        if each.source_run_id == entry
    )
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    assert loaded.metadata.signature.inputs.input_names() == ["text"]
    assert loaded.metadata.signature.outputs.input_names() == ["label", "probability", "probabilities"]
    texts = ["a small gem", "a dull plot", "ein Film 映画 \U0001f600", "good " * 200]
    answers = loaded.predict([{"text": text} for text in texts]).to_dict("records")
    assert answers == predicted(run, texts, "--variant", "int8", "--artifact", "onnx")
    kept = Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}"))
    assert not [file for file in kept.rglob("*") if file.suffix in (".pkl", ".pickle")]
    assert str(run) not in (kept / "MLmodel").read_text()


@needs_mlflow
@needs_server
def test_a_run_is_logged_once(tiny_run, tmp_path, own_mlflow):
    uri, run = f"sqlite:///{tmp_path}/entries.db", tiny_run[1]
    home = tmp_path / "home"
    home.mkdir()
    code, entry, error, _ = tfpipe("track", run, "--uri", uri, HOME=str(home))
    assert code == 0 and len(entry) == 32, error
    logged, model = error.splitlines()[-2:]
    assert logged.startswith(f"logged to {uri}, experiment tfpipe: ")
    assert re.fullmatch(r"  int8-onnx: mlflow\.pyfunc\.load_model\('models:/m-\w+'\)", model)
    assert list(home.rglob("*")) == []  # no identity of anyone's telemetry
    assert {path.name for path in tmp_path.iterdir()} == {"entries.db", "home", "mlruns"}  # files beside the database
    assert_logged(uri, run, entry, own_mlflow)
    code, same, error, _ = tfpipe("track", run, MLFLOW_TRACKING_URI=uri)
    assert (code, same) == (0, entry) and "logged already in experiment tfpipe; --again logs it once more" in error
    assert len(entries(uri)) == 1


@pytest.mark.slow
@needs_mlflow
@needs_server
def test_a_real_server(tiny_run, tmp_path, own_mlflow):
    """Over HTTP, files too; what was begun and not ended does not count; telemetry asks nobody."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri, run = f"http://127.0.0.1:{port}", tiny_run[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path / "files")),
    ]
    with open(tmp_path / "server.log", "w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, stdout=log, stderr=log, env=os.environ | QUIET, start_new_session=True
        )
    try:
        wait_for(port, server, tmp_path / "server.log")
        code, entry, error, _ = tfpipe("track", run, "--uri", uri)
        assert code == 0, error
        assert_logged(uri, run, entry, own_mlflow)
        assert tfpipe("track", run, "--uri", uri)[1] == entry
        # Without the tag that is written last, an entry is one that was killed.
        own_mlflow.MlflowClient(uri).delete_tag(entry, "tfpipe.digest")
        code, second, _, _ = tfpipe("track", run, "--uri", uri)
        assert code == 0 and second != entry
        code, third, _, _ = tfpipe("track", run, "--uri", uri, "--again", "--experiment", "other")
        assert code == 0 and [each.info.run_id for each in entries(uri, "other")] == [third]
        code, fourth, _, _ = tfpipe("track", run, "--uri", uri, "--again")
        assert code == 0 and len(entries(uri)) == 3 and fourth not in (entry, second)
        # Another model of the run is another entry.
        code, fifth, _, _ = tfpipe("track", run, "--uri", uri, "--variant", "dense", "--artifact", "saved_model")
        assert code == 0 and len(entries(uri)) == 4 and fifth not in (entry, second, fourth)
        loaded = own_mlflow.pyfunc.load_model(f"runs:/{fifth}/dense-saved_model")
        answers = loaded.predict([{"text": "a small gem"}]).to_dict("records")
        assert answers == predicted(run, ["a small gem"], "--variant", "dense", "--artifact", "saved_model")
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # asked nicely, it waits for connections that this process keeps
        server.wait(30)
    assert "no MLflow server answers there" in refused(tfpipe("track", run, "--uri", uri))


def test_a_full_disk_here_is_not_the_server_s_fault():
    pytest.importorskip("mlflow")
    full = OSError(errno.ENOSPC, "No space left on device", "/tmp/model.safetensors")
    with pytest.raises(OSError, match="No space left"), told("http://localhost:1"):
        raise full
    with (
        pytest.raises(InputError, match="--uri http://localhost:1: no MLflow server answers there"),
        told("http://name:password@localhost:1"),
    ):
        raise OSError("[Errno 111] Connection refused")


def wait_for(port: int, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        assert server.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())
