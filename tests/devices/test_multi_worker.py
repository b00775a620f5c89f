"""Two real workers over loopback: they train what one device does, and none outlives the other."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tensorflow as tf
from conftest import tiny_config, write_encoder
from forked import Forked, Forks

import tfpipe
from tfpipe import pipeline
from tfpipe.config.file import dump_config
from tfpipe.config.run import Config
from tfpipe.devices import workers
from tfpipe.devices.cluster import Cluster
from tfpipe.errors import WorkerLost
from tfpipe.rundir.directory import RunDirectory

SECONDS_TO_NOTICE = 60  # stated in the README; a few, as a rule


def losses(run: Path) -> list[float]:
    """Of each step, as TensorBoard shows them; of a step that was done twice, the later."""
    found = {}
    for path in sorted((run / "train" / "logs").iterdir(), key=lambda path: path.stat().st_mtime):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == "loss":
                    found[event.step] = float(tf.make_ndarray(value.tensor))
    return [found[step] for step in sorted(found)]


def free_addresses(count: int) -> list[str]:
    """Ports that nobody listens at now."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in listening]
    for each in listening:
        each.close()
    return addresses


class Workers:
    """Two processes with one command."""

    def __init__(self, forks: Forks, directory: Path, config: Config, *, remote: bool = False):
        """Takes a configuration; `remote`: the run lies on a store, and each worker has a copy of its own."""
        self.forks, self.directory, self.run, self.remote = forks, directory, directory / "run", remote
        self.command, self.runs = "train", ["run", "run"]
        self.addresses = free_addresses(2)
        (directory / "config.yaml").write_text(dump_config(config))

    def environment(self, index: int) -> dict[str, str]:
        """What makes a process this worker."""
        config = {"cluster": {"worker": self.addresses}, "task": {"type": "worker", "index": index}}
        cache = {"XDG_CACHE_HOME": str(self.directory / f"cache-{index}")} if self.remote else {}
        return {"TF_CONFIG": json.dumps(config)} | cache

    def start_one(self, index: int, *options: str) -> Forked:
        """Starts one of the workers."""
        run = f"file://{self.run}" if self.remote else self.directory / self.runs[index]
        command = [self.command, "config.yaml", "--run-dir", run, *options]
        log = self.directory / f"worker-{index}.txt"
        return self.forks.start(command, log, self.directory, self.environment(index))

    def start(self, *options: str) -> None:
        """Starts both, at new addresses."""
        self.addresses = free_addresses(2)
        self.processes = [self.start_one(index, *options) for index in range(2)]

    def wait(self, timeout: float = 240) -> tuple[list[int], list[str]]:
        """Exit codes, and what was said."""
        codes = [process.wait(timeout) for process in self.processes]
        return codes, [process.said for process in self.processes]

    def until_stored(self, steps: int) -> None:
        """Waits for a checkpoint of so many steps, or a later one."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            stored = self.run.glob("train/checkpoints/step-*/checkpoint.json")
            if any(int(path.parent.name[5:]) >= steps for path in stored):
                return
            assert all(process.poll() is None for process in self.processes), self.wait()
            time.sleep(0.1)
        raise AssertionError("no checkpoint")


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_reviews) -> Config:
    """Of one layer: each of many processes traces it."""
    encoder = write_encoder(tmp_path_factory.mktemp("encoder"), num_hidden_layers=1)
    changes = {"train__batch_size": 24, "train__gradient_accumulation": 2, "train__epochs": 3}
    return tiny_config(tiny_reviews, encoder, prune=None, quantize=None, **changes)


@pytest.fixture(scope="module")
def undisturbed(forks, tmp_path_factory, config) -> Path:
    """What two workers make of it."""
    workers = Workers(forks, tmp_path_factory.mktemp("workers"), config)
    workers.start()
    codes, said = workers.wait()
    assert codes == [0, 0], said
    assert "worker 0 of 2" in said[0] and "train: as a worker" in said[1]
    return workers.run


def test_two_workers_train_what_one_device_does(config, undisturbed, tmp_path):
    """Packed, in micro-batches, with dropout, which goes by a row's place in the batch."""
    pipeline.run(config, RunDirectory(tmp_path / "run"), until="train")
    expected, found = losses(tmp_path / "run"), losses(undisturbed)
    assert len(found) == len(expected) > 20
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 1e-5
    histories = [json.loads((run / "train" / "history.json").read_text()) for run in (undisturbed, tmp_path / "run")]
    for entry, other in zip(*histories, strict=True):
        assert entry == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_is_killed_and_all_go_on(config, undisturbed, forks, tmp_path, fault, victim):
    workers = Workers(forks, tmp_path, config)
    shutil.copytree(undisturbed / "prepare", workers.run / "prepare")
    workers.start()
    workers.until_stored(7)
    workers.processes[victim].send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    codes, said = workers.wait(timeout=SECONDS_TO_NOTICE + 30)
    survivor = 1 - victim
    assert codes[survivor] == 3 and time.monotonic() - killed_at < SECONDS_TO_NOTICE
    last = said[survivor].splitlines()[-1]
    assert last.startswith(f"tfpipe: worker {victim} (127.0.0.1:") and "is gone; start all workers again" in last
    assert "Traceback" not in said[survivor]
    workers.start()
    codes, said = workers.wait()
    assert codes == [0, 0] and all("continuing train after step" in each for each in said)
    for name in ("model.safetensors", "history.json"):
        assert (workers.run / "train" / name).read_bytes() == (undisturbed / "train" / name).read_bytes()
    lost = "the chief" if victim == 0 else "a worker"
    fault(f"{lost} lost in training on two", "the other ends within a minute; given again, the same bytes", 3)


def test_a_worker_that_is_ending_still_answers_for_a_moment():
    """Its connections are closed before its address is: what it was is said all the same."""
    listening = socket.create_server(("127.0.0.1", 0))
    addresses = (f"127.0.0.1:{listening.getsockname()[1]}", free_addresses(1)[0])
    threading.Timer(0.5, listening.close).start()
    said = pytest.raises(WorkerLost, match=rf"^worker 0 \({addresses[0]}\) is gone")
    with said, workers.loss_of_a_worker_said(Cluster(addresses, 1)):
        raise tf.errors.UnavailableError(None, None, "Socket closed")


def test_a_worker_that_is_asked_to_stop_stops_all_and_new_machines_go_on(config, undisturbed, forks, tmp_path):
    """The run lies on a store, as it does on `gs://`; who goes on has nothing of it."""
    workers = Workers(forks, tmp_path, config, remote=True)
    workers.start()
    workers.until_stored(7)
    workers.processes[1].send_signal(signal.SIGTERM)
    codes, said = workers.wait()
    assert codes == [143, 143], said
    assert said[0].splitlines()[-1].startswith("tfpipe: stopped by another worker after step ")
    for index in range(2):
        shutil.rmtree(tmp_path / f"cache-{index}")
    workers.start()
    codes, said = workers.wait()
    assert codes == [0, 0] and "continuing train after step" in said[0]
    name = "train/model.safetensors"
    assert (workers.run / name).read_bytes() == (undisturbed / name).read_bytes()


def test_a_worker_that_never_joins(config, forks, tmp_path):
    workers = Workers(forks, tmp_path, config)
    alone = workers.start_one(0, "--set", "train.worker_timeout=3")
    assert alone.wait(60) == 2 and "did not join within 3 s" in alone.said.splitlines()[-1]
    assert not (workers.run / "train").exists()


def test_another_configuration_than_the_chiefs(config, forks, tmp_path):
    workers = Workers(forks, tmp_path, config)
    chief, other = workers.start_one(0), workers.start_one(1, "--set", "train.epochs=5")
    assert other.wait(240) == 2 and "its configuration is not the chief's" in other.said.splitlines()[-1]
    assert chief.wait(timeout=SECONDS_TO_NOTICE + 30) == 3


def test_another_version_than_the_chiefs(config, forks, tmp_path):
    """Of tfpipe here; the versions of the libraries are compared in the same line."""
    later = tmp_path / "later" / "tfpipe"
    shutil.copytree(Path(tfpipe.__file__).parent, later, ignore=shutil.ignore_patterns("__pycache__"))
    module = later / "__init__.py"
    module.write_text(module.read_text().replace(f'"{tfpipe.__version__}"', '"99.0.0"'))
    workers = Workers(forks, tmp_path, config)
    chief = workers.start_one(0)
    other = subprocess.run(
        [sys.executable, "-m", "tfpipe.cli", "train", "config.yaml", "--run-dir", workers.run],
        cwd=tmp_path, env=os.environ | workers.environment(1) | {"PYTHONPATH": str(later.parent)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    last = other.stderr.splitlines()[-1]
    assert other.returncode == 2 and "its software is not the chief's (tfpipe 99.0.0, python 3." in last
    assert chief.wait(timeout=SECONDS_TO_NOTICE + 30) == 3


def test_a_run_directory_that_only_the_chief_sees(config, forks, tmp_path):
    workers = Workers(forks, tmp_path, config)
    workers.runs = ["run", "elsewhere"]
    workers.start()
    codes, said = workers.wait()
    assert codes == [3, 2]
    assert "stage prepare is not there as the chief has it; give all workers one --run-dir" in said[1].splitlines()[-1]
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_wrong_at_the_chiefs_ends_all(config, forks, tmp_path):
    workers = Workers(forks, tmp_path, config)
    workers.start("--set", "data.text_column=nothing")
    codes, said = workers.wait()
    assert codes == [2, 2]
    last = [each.splitlines()[-1] for each in said]
    assert last[1] == last[0].replace("tfpipe: ", "tfpipe: the chief: ") and "nothing" in last[0]


def test_nothing_to_train_needs_no_one(config, forks, tmp_path):
    workers = Workers(forks, tmp_path, config)
    workers.command = "prepare"
    workers.start()
    codes, said = workers.wait()
    assert codes == [0, 0] and "nothing to train; the chief does the rest" in said[1]
