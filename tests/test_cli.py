import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import last_line

import tfpipe
from tfpipe.config.file import load_config
from tfpipe.config.run import Config
from tfpipe.errors import Stopped, StopReason
from tfpipe.rundir.directory import RunDirectory
from tfpipe.stages import table


@pytest.mark.parametrize(
    ("content", "overrides", "said"),
    [
        ("text,label\ngood,1\nbad,0\n", ["data.text_column=review"], r"no column 'review' \(data\.text_column\)"),
        ("text,label\ngood,1\nbad,2\n", [], r"unknown label '2' \(expected one of 0, 1\).*line 3"),
        ("", [], "the file is empty"),
        ("text,label\n", [], "a header and no row"),
        ("text,label\ngood,1\nbad,0\n", [], "none of the 2 usable rows falls into"),
        (None, [], "rows.csv: no such file"),
    ],
)
def test_bad_data_ends_in_one_line(tfpipe_command, tiny_file, tmp_path, content, overrides, said):
    source = tmp_path / "rows.csv"
    if content is not None:
        source.write_text(content)
    options = [f"--set={each}" for each in (f"data.source={source}", *overrides)]
    message = last_line(tfpipe_command("run", tiny_file, "--run-dir", "run", *options))
    assert re.search(said, message) and str(source) in message
    assert RunDirectory("run").record("prepare") is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "prune.sparsty=0.3"], "prune.sparsty: unknown setting; did you mean sparsity?"),
        (["--set", "train.epochs"], "--set train.epochs: expected a.b=VALUE"),
        (["--set", "encoder.source=nowhere"], "nowhere"),
        (["--set", "data.max_length=65"], "data.max_length is 65"),
        (["--until", "serve"], "serve: this run has no such stage; its stages are prepare, train, prune"),
        (["--redo", "serve"], "serve: this run has no such stage"),
        (["--set", "prune=null", "--until", "prune"], "prune: this run has no such stage"),
        (["--until", "distill"], "publish, report; for distill, set distill.student.layers, such as [1, 3, 5]"),
        (["--run-dir", "tiny.yaml"], "run directory tiny.yaml: can't be written (File exists)"),
        (["--run-dir", "tiny.yaml/run"], "run directory tiny.yaml/run: can't be written (Not a directory)"),
        (["--run-dir", "/proc/run"], "run directory /proc/run: can't be written"),
        (["--run-dir", "nowhere://bucket/run"], "starts with gs://"),
    ],
)
def test_wrong_arguments_end_in_one_line(tfpipe_command, tiny_file, arguments, said):
    answer = tfpipe_command("run", tiny_file, *arguments)
    assert said in last_line(answer) and answer[2].count("\n") <= 2


def test_a_stage_that_is_off_cannot_be_asked_for(tfpipe_command, tiny_file):
    message = last_line(tfpipe_command("prune", tiny_file, "--set", "prune=null"))
    assert "prune: this run has no such stage; its stages are prepare, train, quantize" in message


def test_a_missing_configuration_is_named(tfpipe_command):
    for command in (["run"], ["train"], ["config", "show"]):
        assert "absent.yaml: can't read the configuration" in last_line(tfpipe_command(*command, "absent.yaml"))


def test_wrong_weights_are_refused_before_training(tfpipe_command, tiny_file, copied_run):
    _, run = copied_run
    digest = "0" * 64
    message = last_line(
        tfpipe_command("train", tiny_file, "--run-dir", run.path, "--set", f"encoder.sha256='{digest}'")
    )
    assert "SHA-256" in message and digest in message


def test_a_run_in_use_is_refused(tfpipe_command, tiny_file, tmp_path):
    with RunDirectory(tmp_path / "run").lock():
        message = last_line(tfpipe_command("run", tiny_file, "--run-dir", tmp_path / "run"))
    assert f"in use by another run (process {os.getpid()}" in message


def test_a_changed_result_is_refused_with_the_command_that_helps(tfpipe_command, tiny_file, copied_run):
    _, run = copied_run
    path = run.path / "prune" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    message = last_line(tfpipe_command("run", tiny_file, "--run-dir", run.path, "--redo", "export"))
    assert str(path) in message and "--redo prune" in message
    assert RunDirectory(run.path).record("export") is not None  # nothing is removed before its inputs are known good


def test_a_failed_gate_is_exit_code_1(tfpipe_command, tiny_file, copied_run):
    _, run = copied_run
    gate = "verify.max_logit_diff={onnx: 1e-12}"
    code, _, error = tfpipe_command("verify", tiny_file, "--run-dir", run.path, "--set", gate)
    assert code == 1 and "Traceback" not in error
    assert re.fullmatch(r"tfpipe: nothing is published; .*verify\.max_logit_diff\.onnx.*", error.splitlines()[-1])


def test_a_run_that_holds_is_exit_code_0(tfpipe_command, tiny_file, copied_run):
    code, out, error = tfpipe_command("run", tiny_file, "--run-dir", copied_run[1].path)
    assert code == 0 and out == "" and error.count("up to date") == 8


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_answers_is_said(tfpipe_command, tiny_run):
    message = last_line(tfpipe_command("predict", tiny_run[1], "good", "--output", "/dev/full"))
    assert "no space left on device" in message


def test_predict_answers_from_a_run_a_variant_and_a_saved_model(tfpipe_command, tiny_run, tmp_path):
    _, directory = tiny_run
    texts = ["this film is good and lovely", "this film is bad and awful"]
    labels = ["positive", "negative"]
    saved_model = directory / "export" / "int8" / "saved_model"
    for where in ([directory], [directory, "--variant", "int8"], [saved_model]):
        code, out, error = tfpipe_command("predict", *where, *texts)
        assert (
            code == 0
            and error.splitlines()[-1].endswith(" answers")
            and [line.split()[0] for line in out.splitlines()] == labels
        )
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    code, out, error = tfpipe_command("predict", directory, "--input", "texts.txt", "--output", "answers.jsonl")
    assert (code, out) == (0, "") and error.endswith("answers.jsonl: 2 rows answered\n")
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in lines] == labels


def in_ascii(*arguments):
    """What a command answers a terminal that knows ASCII alone."""
    return subprocess.run(
        [sys.executable, "-m", "tfpipe.cli", *map(str, arguments)],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "200"},
        capture_output=True,
        check=True,
        timeout=120,
    ).stdout.decode("ascii")


def test_a_terminal_that_lacks_a_character_shows_its_number(tiny_file, copied_run, tmp_path):
    _, run = copied_run
    assert in_ascii("predict", run.path, "good \U0001f44d ½").endswith("  good \\U0001f44d \\xbd\n")
    json_lines = in_ascii("predict", run.path, "good ½", "--output", tmp_path / "x")
    assert json_lines == "" and "½" in (tmp_path / "x").read_text(encoding="utf-8")
    assert "| processors " in in_ascii("doctor")
    table = in_ascii("report", tiny_file, "--run-dir", run.path, "--set", "train.checkpoint_every=8")
    assert table.count("saved_model_text") == 3 and "\\u0394logit" in table
    assert "Usage" in in_ascii("--help")


def test_a_shown_configuration_is_utf8_whatever_the_terminal(tiny_file, tmp_path):
    setting = ("--set", 'data.label_names={"0": größe, "1": "a|b"}')
    shown = subprocess.run(
        [sys.executable, "-m", "tfpipe.cli", "config", "show", tiny_file, *setting],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    ).stdout
    (tmp_path / "shown.yaml").write_bytes(shown)
    assert load_config(tmp_path / "shown.yaml").data.label_names == {"0": "größe", "1": "a|b"}


def test_predict_reads_standard_input(tfpipe_command, tiny_run, tmp_path, monkeypatch):
    (tmp_path / "texts").write_text("so good and lovely\nso bad and awful\n")
    with open(tmp_path / "texts") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        code, out, _ = tfpipe_command("predict", tiny_run[1], "--input", "-")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["positive", "negative"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no texts; give them as arguments"),
        (["good", "--variant", "tiny"], "no published variant tiny; published are dense, int8, pruned"),
        (["--input", "absent.txt"], "absent.txt: no such file in "),
        (["good", "--output", "absent/answers"], "--output absent/answers: can't be written"),
        (["good \udcff"], "is not UTF-8"),
    ],
)
def test_predict_says_what_is_wrong_in_one_line(tfpipe_command, tiny_run, arguments, said):
    answer = tfpipe_command("predict", tiny_run[1], *arguments)
    assert said in last_line(answer) and answer[2].count("\n") == 1


def test_predict_from_what_is_no_model(tfpipe_command, tiny_encoder):
    for path in (tiny_encoder, tiny_encoder / "config.json"):
        assert "neither a run nor a SavedModel" in last_line(tfpipe_command("predict", path, "good"))
    assert "absent: no such directory; give that of a run" in last_line(tfpipe_command("predict", "absent", "good"))


def test_replay_answers_as_recorded(tfpipe_command, tiny_run):
    version = tiny_run[1] / "serving" / "dense" / "1"
    code, out, error = tfpipe_command("replay", version)
    assert code == 0 and "saved_model_text" in out and "answers as recorded" in out and "warning" not in error
    code, again, error = tfpipe_command("verify", "--golden", version)
    assert code == 0 and again == out and "use `tfpipe replay DIR`" in error
    assert re.search(
        r"neither saved_model\.pb nor onnx/model\*\.onnx.* there",
        last_line(tfpipe_command("replay", ".")),
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], r"give CONFIG, .* `tfpipe replay DIR`"),
        (["tiny.yaml", "--golden", "."], r"verify --golden DIR takes --allow-operator alone"),
        (["--golden", ".", "--set", "verify.rows=5"], "takes --allow-operator alone"),
        (["tiny.yaml", "--allow-operator", "PyFunc"], r"give CONFIG, .* `tfpipe replay DIR`"),
    ],
)
def test_verify_takes_a_run(tfpipe_command, arguments, said):
    assert re.search(said, last_line(tfpipe_command("verify", *arguments)))


def test_another_serving_version_exports_again(tfpipe_command, tiny_file, copied_run):
    _, run = copied_run
    command = ("export", tiny_file, "--run-dir", run.path, "--set", "prune=null", "--set", "quantize=null", "--set")
    said = last_line(tfpipe_command(*command, "export.serving_version=2.18.0"))
    assert "export.serving_version" in said and "2.19.1" in said and "2.20.0" in said
    code, _, error = tfpipe_command(*command, "export.serving_version=2.19.1")
    assert code == 0 and 'export.serving_version: "2.20.0" -> "2.19.1"' in error and "TF Serving 2.19.1" in error


def test_status_tells_what_would_be_done_and_changes_nothing(tfpipe_command, tiny_file, copied_run):
    _, run = copied_run
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    command = ("status", tiny_file, "--run-dir", run.path)
    code, out, error = tfpipe_command(*command)
    assert (code, error) == (0, "") and out.count("up to date") == 8 and re.search(r"train +\d+ s", out)
    code, out, _ = tfpipe_command(*command, "--json", "--set", "quantize.epochs=0.25")
    found = {each["stage"]: each["reason"] for each in json.loads(out)}
    assert code == 0 and [name for name, reason in found.items() if reason is None] == ["prepare", "train", "prune"]
    assert re.fullmatch(r"quantize\.epochs: [\d.]+ -> 0\.25", found["quantize"])
    assert found["export"] == "quantize would be done before it"
    code, out, _ = tfpipe_command(
        "run", tiny_file, "--run-dir", run.path, "--dry-run", "--redo", "prune", "--until", "export"
    )
    assert code == 0 and "asked for by --redo" in out and "verify" not in out and "up to date" in out
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    code, out, _ = tfpipe_command("status", tiny_file, "--run-dir", run.path.parent / "new", "--json")
    assert {(each["reason"], each["seconds"]) for each in json.loads(out)} == {("not done yet", None)}
    assert not (run.path.parent / "new").exists()


def test_config_show_prints_what_can_be_loaded(tfpipe_command, tiny_file, tmp_path):
    code, out, error = tfpipe_command("config", "show", tiny_file, "--set", "train.epochs=9", "--set", "prune=null")
    assert (code, error) == (0, "")
    (tmp_path / "shown.yaml").write_text(out)
    shown = load_config(tmp_path / "shown.yaml")
    assert shown == load_config(tiny_file, ["train.epochs=9", "prune=null"]) and shown.train.epochs == 9
    assert yaml.safe_load(out).keys() == Config.model_fields.keys()


def test_config_schema_is_json_with_descriptions(tfpipe_command):
    code, out, _ = tfpipe_command("config", "schema")
    schema = json.loads(out)
    assert code == 0 and schema["required"] == ["name", "data", "encoder"]
    assert schema["$defs"]["Train"]["properties"]["learning_rate"]["description"] == "peak learning rate"


def test_every_command_has_a_summary(tfpipe_command):
    code, out, _ = tfpipe_command("--help")
    assert code == 0
    for name in ("run", *(stage.name for stage in table.STAGES), "status", "predict", "replay", "sweep", "doctor"):
        assert re.search(rf"^ +{name} +\w+", out, re.MULTILINE), name
    assert tfpipe_command("--version") == (0, f"tfpipe {tfpipe.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["frobnicate"], ["run"], ["run", "a", "b"], ["predict"], ["run", "--nothing"]])
def test_usage_errors_are_exit_code_2(tfpipe_command, arguments):
    code, out, error = tfpipe_command(*arguments)
    assert code == 2 and out == "" and "Error: " in error and "Traceback" not in error


def test_doctor_ends_well(tfpipe_command):
    code, out, _ = tfpipe_command("doctor")
    assert code == 0 and tfpipe.__version__ in out


def test_a_bug_shows_its_traceback(tfpipe_command, tiny_file, monkeypatch):
    monkeypatch.setattr("tfpipe.pipeline.run", lambda *arguments, **named: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tfpipe_command("run", tiny_file)


@pytest.mark.parametrize(("code", "said"), [(143, "SIGTERM"), (130, "SIGINT"), (143, "a preemption notice")])
def test_a_stopped_training_is_said_in_one_line(tfpipe_command, tiny_file, monkeypatch, code, said):
    def stop(*arguments, **named):
        raise Stopped(StopReason(code, said), 120)

    monkeypatch.setattr("tfpipe.pipeline.run", stop)
    line = f"tfpipe: stopped by {said} after step 120; the same command goes on\n"
    assert tfpipe_command("run", tiny_file) == (code, "", line)


WAIT = """
import time
from tfpipe import cli
@cli.app.command()
def wait():
    print("up", flush=True)
    time.sleep(60)
cli.main()
"""


def test_an_interrupted_command_is_exit_code_130():
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT, "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background inherits that Ctrl-C is ignored, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error == "tfpipe: interrupted; the same command goes on from what was stored last\n"
