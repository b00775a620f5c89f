"""Faults from outside: each is recovered from, or ends with one line and exit code 2, and loses nothing committed.

What the tiny run of all tests committed is what each must end with; `make chaos` prints them as a table.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import last_line
from train.metadata_server import metadata_server

from tfpipe.files import sha256_of_file
from tfpipe.rundir.directory import RunDirectory
from tfpipe.train.checkpoints import Checkpoints

WEIGHTS = ("train/model.safetensors", "train/history.json")


@pytest.fixture
def prepared(tiny_run, tmp_path) -> RunDirectory:
    """A run whose first stage is done."""
    shutil.copytree(tiny_run[1] / "prepare", tmp_path / "run" / "prepare")
    return RunDirectory(tmp_path / "run")


def assert_as_undisturbed(run: RunDirectory, tiny_run, files=WEIGHTS) -> None:
    for file in files:
        assert sha256_of_file(run.path / file) == sha256_of_file(tiny_run[1] / file), file


def flip(path: Path, at: float = 0.5) -> None:
    """Another byte somewhere in a file, which keeps its size and its time."""
    content, stat = bytearray(path.read_bytes()), path.stat()
    content[int(len(content) * at)] ^= 0x01
    path.unlink()  # it may be a link to another run's
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@contextmanager
def at_a_checkpoint(action):
    """Does something as soon as a training has a checkpoint after its first step."""
    save, done = Checkpoints.save, []

    def save_and_act(self, progress):
        save(self, progress)
        if progress.step and not done:
            done.append(progress.step)
            action()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_act)
        yield
    assert done


@pytest.fixture
def notice(monkeypatch):
    """A metadata server that can announce the end of the machine."""
    monkeypatch.setattr("tfpipe.train.stopping.POLL_SECONDS", 0.02)
    with metadata_server(monkeypatch) as server:

        def announce() -> None:
            server.answers["preempted"] = "TRUE"
            time.sleep(0.5)  # of a training that would be over before it is asked for

        yield announce


@pytest.mark.parametrize(("who", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("a preemption notice", 143)])
def test_asked_to_stop(request, tfpipe_command, tiny_file, tiny_run, prepared, fault, who, code):
    action = lambda: os.kill(os.getpid(), signal.Signals[who])  # noqa: E731
    if who == "a preemption notice":
        action = request.getfixturevalue("notice")
    command = ("train", tiny_file, "--run-dir", prepared.path)
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a background job, where it stays so
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, ignored))
    with at_a_checkpoint(action):
        found, _, error = tfpipe_command(*command)
    assert found == code and error.splitlines()[-1].startswith(f"tfpipe: stopped by {who} after step ")
    assert "Traceback" not in error and prepared.record("train") is None
    found, _, error = tfpipe_command(*command)
    assert found == 0 and "[1/8] prepare: up to date" in error and "continuing train after step " in error
    assert_as_undisturbed(prepared, tiny_run)
    fault(f"asked to stop: {who}", "a checkpoint, then the end; given again, the same bytes", code)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 600 kB: enough to prepare, too small for a checkpoint, and a function that makes it large."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk]).returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        yield disk, lambda: subprocess.run([mount, "-o", "remount,size=100m", disk], check=True)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def small_files(tmp_path):
    """A directory in which no file may pass 100 kB, and a function that lifts the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("room", "said"), [("small_disk", "no space left on device"), ("small_files", "file too large")]
)
def test_no_room(request, tfpipe_command, tiny_file, tiny_run, fault, room, said):
    directory, make_room = request.getfixturevalue(room)
    command = ("train", tiny_file, "--run-dir", directory / "run")
    message = last_line(tfpipe_command(*command))
    assert f"{said}; make room and run the same command again" in message
    run = RunDirectory(directory / "run")
    assert run.record("prepare") is not None and run.record("train") is None
    make_room()
    code, _, error = tfpipe_command(*command)
    assert code == 0 and "[1/8] prepare: up to date" in error
    expected = sha256_of_file(tiny_run[1] / "train" / "model.safetensors")
    assert sha256_of_file(run.path / "train" / "model.safetensors") == expected
    fault(f"a full disk: {said}", "one line; after room was made, the same bytes", 2)


def test_a_directory_that_can_not_be_written(tfpipe_command, tiny_file, tiny_run, small_disk, fault):
    disk, _ = small_disk
    (disk / "run").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    message = last_line(tfpipe_command("run", tiny_file, "--run-dir", disk / "run"))
    assert "read-only file system" in message.lower() and "--run-dir" in message
    fault("a read-only directory", "one line", 2)


def test_a_shard_that_was_cut_short(tfpipe_command, tiny_file, tiny_run, copied_run, fault):
    _, run = copied_run
    shard = next((run.path / "prepare" / "train").glob("*.arrow"))
    os.truncate(shard, shard.stat().st_size // 2)
    code, _, error = tfpipe_command("train", tiny_file, "--run-dir", run.path)
    assert code == 0 and f"prepare: train/{shard.name} is missing or has another size" in error
    assert "train: up to date" in error  # it was made again, with the same bytes
    assert_as_undisturbed(run, tiny_run, [f"prepare/train/{shard.name}"])
    fault("a truncated shard of a token table", "noticed by its size and made again: the same bytes", code)


@pytest.mark.parametrize(
    ("file", "stage", "until"),
    [
        ("prepare/train/*.arrow", "prepare", "train"),
        ("prune/model.safetensors", "prune", "quantize"),
        ("export/int8/saved_model/saved_model.pb", "export", "verify"),
    ],
)
def test_a_flipped_byte_in_the_output_of_a_stage(
    tfpipe_command, tiny_file, copied_run, tiny_run, fault, file, stage, until
):
    """Noticed by whoever reads it."""
    _, run = copied_run
    [path] = run.path.glob(file)
    flip(path)
    (run.path / until / "stage.json").unlink()
    message = last_line(tfpipe_command(until, tiny_file, "--run-dir", run.path))
    assert f"{path}: its content is not what stage {stage} wrote" in message and f"--redo {stage}" in message
    if stage == "prune":
        code, _, error = tfpipe_command(
            "run", tiny_file, "--run-dir", run.path, "--redo", "prune", "--until", "quantize"
        )
        assert code == 0 and "train: up to date" in error
        assert_as_undisturbed(run, tiny_run, ["prune/model.safetensors", "quantize/model.safetensors"])
    fault(
        f"a flipped byte in the output of {stage}", f"one line, by the stage that reads it; --redo {stage} mends it", 2
    )


@pytest.mark.parametrize(("which", "file"), [("the newest", "state.safetensors"), ("every", "checkpoint.json")])
def test_a_flipped_byte_in_a_checkpoint(tfpipe_command, tiny_file, tiny_run, prepared, fault, file, which):
    command = ("train", tiny_file, "--run-dir", prepared.path)
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with at_a_checkpoint(stop):
        assert tfpipe_command(*command)[0] == 143
    stored = sorted(prepared.path.glob("train/checkpoints/step-*"), key=lambda path: int(path.name[5:]))
    assert len(stored) == 2
    for checkpoint in stored if which == "every" else stored[-1:]:
        flip(checkpoint / file)
    code, _, error = tfpipe_command(*command)
    assert code == 0 and f"the checkpoint of {stored[-1].name.replace('-', ' ')} is not whole" in error
    assert error.count("is not whole") == (2 if which == "every" else 1)
    assert_as_undisturbed(prepared, tiny_run)
    goes_on = "from the beginning" if which == "every" else "from the one before it"
    fault(f"a flipped byte in {file} of {which} checkpoint", f"said, then {goes_on}: the same bytes", code)


def test_a_flipped_byte_in_a_record(tfpipe_command, tiny_file, tiny_run, copied_run, fault):
    _, run = copied_run
    flip(run.path / "prepare" / "stage.json")
    code, _, error = tfpipe_command("train", tiny_file, "--run-dir", run.path)
    assert code == 0 and "prepare: its stage.json is damaged" in error and "train: up to date" in error
    assert_as_undisturbed(run, tiny_run, ["prepare/train/table.json"])
    fault("a flipped byte in a stage.json", "said; the stage is done again", code)


def test_a_flipped_byte_in_the_weights_of_the_encoder(tfpipe_command, tiny_file, tiny_encoder, tmp_path, fault):
    encoder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    expected = sha256_of_file(encoder / "model.safetensors")
    flip(encoder / "model.safetensors")
    settings = ("--set", f"encoder.source={encoder}", "--set", f"encoder.sha256={expected}")
    message = last_line(tfpipe_command("train", tiny_file, "--run-dir", tmp_path / "run", *settings))
    assert "encoder.sha256" in message and expected[:12] in message
    fault("a flipped byte in the encoder's weights (encoder.sha256 given)", "one line", 2)


@pytest.mark.parametrize(
    ("artifact", "file"),
    [
        ("saved_model", "dense/1/saved_model.pb"),
        ("saved_model", "dense/1/variables/variables.data-00000-of-00001"),
        ("onnx", "onnx/dense/1/onnx/model.onnx"),
        ("onnx", "onnx/dense/1/vocab.txt"),
    ],
)
def test_a_flipped_byte_in_a_published_model(tfpipe_command, copied_run, fault, artifact, file):
    _, run = copied_run
    flip(run.path / "serving" / file)
    answer = tfpipe_command("predict", run.path, "so good", "--variant", "dense", "--artifact", artifact)
    message = last_line(answer)
    assert "its content is not what was published; publish it again with --redo publish" in message
    fault(f"a flipped byte in a published model: {file}", "one line", 2)


def test_a_clock_that_jumps_back(tfpipe_command, tiny_file, tiny_run, prepared, monkeypatch, fault):
    real, started = time.time, time.time()
    with at_a_checkpoint(lambda: monkeypatch.setattr(time, "time", lambda: 2 * started - real() - 86400.0)):
        code, _, _ = tfpipe_command("train", tiny_file, "--run-dir", prepared.path)
    assert code == 0 and time.time() < started - 86000.0 and prepared.record("train").seconds > 0.0
    assert_as_undisturbed(prepared, tiny_run)
    assert "train: up to date" in tfpipe_command("train", tiny_file, "--run-dir", prepared.path)[2]
    fault("a clock that jumps back by a day", "not noticed: the same bytes", code)


def test_two_runs_at_once(tfpipe_command, tiny_file, copied_run, fault):
    _, run = copied_run
    with run.lock():
        message = last_line(tfpipe_command("run", tiny_file, "--run-dir", run.path))
    assert f"in use by another run (process {os.getpid()} on " in message
    assert tfpipe_command("run", tiny_file, "--run-dir", run.path)[0] == 0
    fault("two runs at once in one directory", "the second is refused in one line, the first goes on", 2)
