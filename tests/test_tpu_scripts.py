"""The scripts for Cloud TPU VMs, without a TPU: what they would say to gcloud, and what they do with its answers.

The recorded expectations are written by `TPU_SCRIPTS_RECORD=1 python -m pytest tests/test_tpu_scripts.py`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECORDED = Path(__file__).parent / "tpu_scripts"
SCRIPTS = ("create", "setup", "run", "watch", "delete")
HERE = ["--name", "imdb", "--zone", "us-west4-a"]
RUN = ["configs/imdb.yaml", "--run-dir", "gs://bucket/runs/imdb"]
NONE = {"queued": ["NONE"], "node": ["NONE"]}
READY = {"queued": ["ACTIVE"], "node": ["READY"]}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A small git checkout with the scripts in it, so that the state of the real one does not matter."""
    root = tmp_path_factory.mktemp("tpu") / "checkout"
    shutil.copytree(ROOT / "tpu", root / "tpu")
    shutil.copytree(ROOT / "configs", root / "configs")
    shutil.copy(ROOT / "requirements.lock", root)
    git = ["git", "-C", str(root), "-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--no-verify", "-m", "all"]):
        subprocess.run([*git, *command], check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
    return root


class Cloud:
    """Runs scripts in a checkout against the stand-in for gcloud."""

    def __init__(self, checkout, place):
        self.checkout = checkout
        self.place = place
        binaries = place / "bin"
        binaries.mkdir(parents=True)
        shutil.copy(RECORDED / "gcloud.sh", binaries / "gcloud")
        self.environment = {
            "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(place),
            "STAND_IN": str(place),
            "TMPDIR": str(place),
        }
        self.scenario(**NONE)

    def scenario(self, queued, node, made=READY, **answers):
        """Sets what the stand-in answers from now on: see there."""
        answers = {"account": ["somebody@example.com"], "create": [], "setup": [], "runs": [], **answers}
        answers |= {"queued": queued, "node": node, "queued_made": made["queued"], "node_made": made["node"]}
        for name, lines in answers.items():
            (self.place / name).write_text("".join(f"{line}\n" for line in lines))

    def run(self, script, *arguments, **options):
        return subprocess.run(
            ["bash", f"tpu/{script}.sh", *arguments],
            cwd=self.checkout, env=self.environment, capture_output=True, text=True, timeout=30, check=False,
            stdin=subprocess.DEVNULL, **options,
        )  # fmt: skip

    @property
    def calls(self):
        """What was asked of gcloud: one line each, without the looks at states and accounts."""
        lines = [" ".join(words) for words in self.calls_in_words]
        return [line for line in lines if " describe " not in line and not line.startswith("auth ")]

    @property
    def calls_in_words(self):
        path = self.place / "calls"
        return [line.split("\x1f") for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def deeds(self):
        """The calls in one word each."""
        words = {
            "queued-resources create": "create",
            "queued-resources delete": "delete",
            "tpu-vm delete": "delete node",
            "setup_on_vm.sh --quiet": "setup",
            "run_on_vm.sh start": "start",
        }
        return [word for line in self.calls for part, word in words.items() if part in line]


@pytest.fixture
def cloud(checkout, tmp_path):
    return Cloud(checkout, tmp_path / "cloud")


def test_shellcheck_finds_nothing():
    scripts = sorted(str(path) for path in (ROOT / "tpu").glob("*.sh"))
    assert len(scripts) == 8
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, "--external-sources", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# --- dry runs

OPTION_SETS = {
    "v5e-on-demand": [],
    "v5e-spot": ["--spot", "--project", "my-project", "--max-run-duration", "1d", "--type=v5litepod-4"],
    "v6e": ["--type", "v6e-8", "--max-run-duration", "none"],
}


def normalized(text, cloud):
    text = text.replace(str(cloud.checkout), "CHECKOUT").replace(str(cloud.place), "TMPDIR")
    return re.sub(r"\d{8}T\d{6}-\d+", "TOKEN", text)


@pytest.mark.parametrize("options", OPTION_SETS)
def test_dry_run_prints_the_recorded_commands_and_runs_none(cloud, options):
    text = ""
    for script in SCRIPTS:
        arguments = [*HERE, *OPTION_SETS[options], "--dry-run"]
        if script in ("run", "watch"):
            arguments = [*RUN, *arguments, "--", "--set", "train.epochs=2", "--set", "name=Ann's run"]
        done = cloud.run(script, *arguments)
        assert done.returncode == 0, done.stderr
        assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False).returncode == 0
        text += f"$ tpu/{script}.sh {' '.join(arguments)}\n{done.stdout}\n"
    assert not (cloud.place / "calls").exists(), "a dry run called gcloud"
    path = RECORDED / f"{options}.txt"
    if os.environ.get("TPU_SCRIPTS_RECORD"):
        path.write_text(normalized(text, cloud))
    assert normalized(text, cloud) == path.read_text()


def test_a_dry_run_needs_no_gcloud(cloud):
    done = cloud.run("watch", *RUN, *HERE, "--dry-run")
    (cloud.place / "bin" / "gcloud").unlink()
    cloud.environment["PATH"] = path_without_gcloud(cloud)
    without = cloud.run("watch", *RUN, *HERE, "--dry-run")
    assert without.returncode == 0
    assert normalized(without.stdout, cloud) == normalized(done.stdout, cloud)


def test_what_a_dry_run_prints_can_be_pasted(cloud):
    """Each word arrives at gcloud as it would have: the printed commands, run by a shell, log the same arguments."""
    arguments = [*RUN, *HERE, "--", "--set", 'name=Ann\'s "run" $HOME `id` *']
    cloud.scenario(**READY, runs=[0])
    assert cloud.run("run", *arguments).returncode == 0
    real = [call for call in cloud.calls_in_words if "describe" not in call and "auth" not in call]
    (cloud.place / "calls").unlink()
    cloud.scenario(**READY, runs=[0])
    printed = cloud.run("run", *arguments[:-3], "--dry-run", *arguments[-3:]).stdout
    subprocess.run(["bash", "-c", printed], cwd=cloud.checkout, env=cloud.environment, check=True, capture_output=True)
    assert [[normalized(word, cloud) for word in call] for call in cloud.calls_in_words] == [
        [normalized(word, cloud) for word in call] for call in real
    ]


def test_gcloud_is_called_in_one_place():
    """In `cloud`, where a dry run ends; elsewhere the word stands in messages, comments and tests for its presence."""
    for path in (ROOT / "tpu").glob("*.sh"):
        code = re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.M)
        calls = re.findall(r"(?:^|[;&|(]|\$\(|\b(?:then|do|else|if|!|command))\s*gcloud\s.*$", code, flags=re.M)
        calls = [call for call in calls if "command -v gcloud" not in call]
        expected = ['| gcloud "$@" --quiet </dev/null'] if path.name == "common.sh" else []
        assert calls == expected, path


# --- wrong input


def path_without_gcloud(cloud):
    """A PATH with every program of the usual places but gcloud."""
    place = cloud.place / "without"
    place.mkdir()
    for directory in ("/bin", "/usr/bin"):
        for program in Path(directory).iterdir():
            if program.name != "gcloud" and not (place / program.name).is_symlink():
                (place / program.name).symlink_to(program)
    return str(place)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("create", ["--zone", "us-west4-a"], "--name is missing"),
        ("create", ["--name", "imdb"], "--zone is missing"),
        ("create", [*HERE, "--name"], "--name has no value"),
        ("create", [*HERE, "--type", "--spot"], "--type has no value"),
        ("create", [*HERE, "--zone="], "--zone has no value"),
        ("create", [*HERE, "--preemptible"], "--preemptible: no such option"),
        ("create", [*HERE, "--spot=yes"], "--spot takes no value"),
        ("create", [*HERE, "--name", "My_TPU"], "--name My_TPU: lower-case letters"),
        ("create", [*HERE, "--zone", "us-west4"], "--zone us-west4: a zone such as"),
        ("create", [*HERE, "--type", "v5e"], "--type v5e: an accelerator type such as"),
        ("create", [*HERE, "--max-run-duration", "12"], "--max-run-duration 12: a time such as"),
        ("create", [*HERE, "--timeout", "soon"], "--timeout soon: a time such as"),
        ("create", [*HERE, "--poll", "x"], "--poll x: a number of seconds"),
        ("create", [*HERE, "configs/imdb.yaml"], "configs/imdb.yaml: no such argument"),
        ("setup", [*HERE, "--run-dir", "gs://b/r"], "--run-dir: not an option of this script"),
        ("delete", [*HERE, "--", "--set"], "nothing is passed on here"),
        ("run", HERE, "no configuration"),
        ("run", ["configs/absent.yaml", *HERE], "configs/absent.yaml: no such file"),
        ("run", [RUN[0], *HERE], "--run-dir is missing"),
        ("run", [*RUN, RUN[0], *HERE], "a second configuration after"),
        ("run", [RUN[0], "--run-dir", "s3://b/r", *HERE], "--run-dir s3://b/r: gs://BUCKET/PATH"),
        ("run", [RUN[0], "--run-dir", "runs/imdb", *HERE, "--spot"], "with --spot, gs://BUCKET/PATH is needed"),
        ("watch", [RUN[0], "--run-dir", "runs/imdb", *HERE], "it would be deleted with the TPU"),
        ("watch", [RUN[0], "--run-dir", "runs/imdb", *HERE, "--keep", "--spot"], "is needed"),
        ("watch", [*RUN, *HERE, "--max-attempts", "0"], "--max-attempts 0: a number from 1 up"),
    ],
)
def test_wrong_input_is_said_in_one_line(cloud, script, arguments, message):
    done = cloud.run(script, *arguments)
    assert done.returncode == 2
    assert re.fullmatch(rf"tpu/{script}\.sh: [^\n]*{re.escape(message)}[^\n]*\n", done.stderr), done.stderr
    assert cloud.calls == []


def test_no_gcloud_no_login(cloud):
    cloud.scenario(**NONE, account=[])
    done = cloud.run("create", *HERE)
    assert (done.returncode, done.stderr) == (2, "tpu/create.sh: gcloud is not logged in: run gcloud auth login\n")
    cloud.environment["PATH"] = path_without_gcloud(cloud)
    done = cloud.run("create", *HERE)
    assert done.returncode == 2
    assert re.fullmatch(r"tpu/create\.sh: gcloud is not installed[^\n]*\n", done.stderr)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(cloud, script):
    done = cloud.run(script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: tpu/{script}.sh ")
    assert "--max-run-duration" in done.stdout


def test_image_by_type(cloud):
    for kind, image in (("v5litepod-1", "v2-alpha-tpuv5-lite"), ("v6e-1", "v2-alpha-tpuv6e"),
                        ("v4-8", "tpu-ubuntu2204-base")):  # fmt: skip
        done = cloud.run("create", *HERE, "--type", kind, "--dry-run")
        assert f" --accelerator-type={kind} --runtime-version={image} " in done.stdout
        assert ("experimental" in done.stderr) == (kind != "v5litepod-1")
    assert "more than one host" in cloud.run("create", *HERE, "--type", "v5litepod-16", "--dry-run").stderr
    assert " --runtime-version=mine " in cloud.run("create", *HERE, "--version", "mine", "--dry-run").stdout


# --- create and delete


def test_create_waits_until_ready(cloud):
    waiting = {
        "queued": ["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "UNKNOWN", "ACTIVE"],
        "node": ["NONE", "NONE", "CREATING", "CREATING", "CREATING", "READY"],
    }
    cloud.scenario(**NONE, made=waiting)
    done = cloud.run("create", *HERE, "--poll", "0")
    assert done.returncode == 0, done.stderr
    assert cloud.deeds == ["create"]
    shown = re.findall(r"^\d\d:\d\d:\d\d imdb: queued resource (\S+), TPU VM (\S+),", done.stdout, flags=re.M)
    assert shown == [
        ("ACCEPTED", "NONE"), ("WAITING_FOR_RESOURCES", "NONE"), ("PROVISIONING", "CREATING"),
        ("UNKNOWN", "CREATING"), ("ACTIVE", "CREATING"),
    ]  # fmt: skip
    assert done.stdout.endswith("imdb: ready\n")


def test_create_takes_what_is_there(cloud):
    cloud.scenario(**READY)
    assert cloud.run("create", *HERE).returncode == 0
    cloud.scenario(queued=["NONE"], node=["READY"])
    assert cloud.run("create", *HERE).returncode == 0
    assert cloud.deeds == []


def test_create_ends_where_there_is_none_to_be_had(cloud):
    cloud.scenario(**NONE, create=[1])
    done = cloud.run("create", *HERE)
    assert (done.returncode, "gcloud did not take the request" in done.stderr) == (2, True)

    cloud.scenario(**NONE, made={"queued": ["ACCEPTED", "FAILED"], "node": ["NONE"]})
    done = cloud.run("create", *HERE, "--poll", "0")
    assert (done.returncode, "ended as FAILED" in done.stderr) == (4, True)

    cloud.scenario(queued=["SUSPENDED"], node=["PREEMPTED"])
    done = cloud.run("create", *HERE)
    assert (done.returncode, "run tpu/delete.sh" in done.stderr) == (2, True)


def test_a_request_that_nobody_waits_for_is_withdrawn(cloud):
    cloud.scenario(**NONE, made={"queued": ["WAITING_FOR_RESOURCES"], "node": ["NONE"]})
    done = cloud.run("create", *HERE, "--poll", "0", "--timeout", "0s")
    assert (done.returncode, "no v5litepod-8 in us-west4-a within 0s" in done.stderr) == (4, True)
    assert cloud.deeds == ["create", "delete"]


def test_delete(cloud):
    assert cloud.run("delete", *HERE).returncode == 0
    assert cloud.deeds == [], "there is none"
    cloud.scenario(**READY)
    assert cloud.run("delete", *HERE, "--poll", "0").returncode == 0
    assert cloud.deeds == ["delete"]
    cloud.scenario(queued=["NONE"], node=["READY"])
    assert cloud.run("delete", *HERE, "--poll", "0").returncode == 0
    assert cloud.deeds == ["delete", "delete node"]
    cloud.scenario(queued=["DELETING", "DELETING", "NONE"], node=["DELETING", "NONE"])
    assert cloud.run("delete", *HERE, "--poll", "0").returncode == 0
    assert cloud.deeds == ["delete", "delete node"], "it was being deleted already"
    cloud.scenario(queued=["UNKNOWN"], node=["UNKNOWN"])
    done = cloud.run("delete", *HERE, "--poll", "0")
    assert (done.returncode, "it may still cost money" in done.stderr) == (1, True)


# --- setup, run, watch


def test_setup_copies_what_is_committed(cloud):
    cloud.scenario(**READY)
    done = cloud.run("setup", *HERE)
    assert (done.returncode, done.stderr) == (0, "")
    copied, installed = cloud.calls
    assert re.search(r"scp \S+/tfpipe-source\.tar\.gz \S+/tpu/setup_on_vm\.sh imdb: --zone=us-west4-a", copied)
    assert "--command=bash setup_on_vm.sh" in installed

    changed = cloud.checkout / "configs" / "new.yaml"
    changed.write_text("name: new\n")
    try:
        done = cloud.run("setup", *HERE)
    finally:
        changed.unlink()
    assert (done.returncode, "warning: 1 files differ from HEAD" in done.stderr) == (0, True)

    cloud.scenario(**READY, setup=[2])
    assert cloud.run("setup", *HERE).returncode == 1


@pytest.mark.parametrize("code", [0, 1, 2, 3, 137, 143])
def test_run_ends_with_the_exit_code_of_the_run(cloud, code):
    cloud.scenario(**READY, runs=[code])
    done = cloud.run("run", *RUN, *HERE)
    assert done.returncode == code
    assert "a line of the run's log\n" in done.stdout


def test_run_joins_again_when_the_connection_breaks(cloud):
    cloud.scenario(**READY, runs=["running", "running", 1])
    done = cloud.run("run", *RUN, *HERE, "--poll", "0")
    assert done.returncode == 1
    starts = [line for line in cloud.calls if "run_on_vm.sh start" in line]
    assert len(starts) == 3
    assert len(set(starts)) == 1, "the same token: none of them may start a second run"


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        ("preempted", 255, "imdb is lost: the TPU VM is PREEMPTED"),
        ("lost", 255, "was cut off"),
        ("busy", 4, "another run goes on"),
        ("unknown", 2, "run tpu/setup.sh --name imdb --zone us-west4-a first"),
    ],
)
def test_run_says_what_is_wrong_on_the_vm(cloud, outcome, code, message):
    cloud.scenario(**READY, runs=[outcome])
    done = cloud.run("run", *RUN, *HERE, "--poll", "0")
    assert (done.returncode, message in done.stderr) == (code, True)


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_watch_passes_the_exit_code_on_and_deletes_the_tpu(cloud, code):
    cloud.scenario(**NONE, runs=[code])
    done = cloud.run("watch", *RUN, *HERE, "--poll", "0")
    assert done.returncode == code
    assert cloud.deeds == ["create", "setup", "start", "delete"]


def test_watch_makes_a_preempted_tpu_anew_and_goes_on(cloud):
    cloud.scenario(**NONE, runs=["preempted", 143, 3, 0])
    done = cloud.run("watch", *RUN, *HERE, "--spot", "--poll", "0", "--", "--set", "train.epochs=2")
    assert done.returncode == 0, done.stderr
    assert cloud.deeds == ["create", "setup", "start", "delete"] * 4
    starts = [line for line in cloud.calls if "run_on_vm.sh start" in line]
    assert all("configs/imdb.yaml gs://bucket/runs/imdb --set train.epochs=2" in line for line in starts)
    assert all("--spot" in line for line in cloud.calls if "queued-resources create" in line)
    assert "preempted (queued resource SUSPENDED, TPU VM PREEMPTED; exit code 255)" in done.stdout
    assert "interrupted (exit code 143)" in done.stdout
    events = [line for line in done.stdout.splitlines() if "log" not in line]
    assert all(re.match(r"\d\d:\d\d:\d\d imdb: ", line) for line in events), events


def test_watch_makes_a_vm_that_does_not_answer_anew_at_the_second_time(cloud):
    cloud.scenario(**NONE, runs=["lost", "lost", 0])
    assert cloud.run("watch", *RUN, *HERE, "--poll", "0").returncode == 0
    assert cloud.deeds == ["create", *["setup", "start"] * 2, "delete", "create", "setup", "start", "delete"]
    (cloud.place / "calls").unlink()
    cloud.scenario(**NONE, setup=[1, 1, 0], runs=[0])
    assert cloud.run("watch", *RUN, *HERE, "--poll", "0").returncode == 0
    assert cloud.deeds == ["create", "setup", "setup", "delete", "create", "setup", "start", "delete"]


def test_watch_gives_up(cloud):
    cloud.scenario(**NONE, runs=["preempted"] * 9)
    done = cloud.run("watch", *RUN, *HERE, "--poll", "0", "--max-attempts", "2")
    assert done.returncode == 4
    assert cloud.deeds == ["create", "setup", "start", "delete"] * 2
    assert "giving up after 2 attempts" in done.stdout


def test_watch_with_a_tpu_that_is_there(cloud):
    cloud.scenario(**READY, runs=[0])
    assert cloud.run("watch", *RUN, *HERE, "--keep").returncode == 0
    assert cloud.deeds == ["setup", "start"]
    (cloud.place / "calls").unlink()
    cloud.scenario(queued=["SUSPENDED"], node=["PREEMPTED"], runs=[0])
    assert cloud.run("watch", *RUN, *HERE, "--poll", "0", "--keep").returncode == 0
    assert cloud.deeds == ["delete", "create", "setup", "start"]
    (cloud.place / "calls").unlink()
    cloud.scenario(queued=["ACTIVE"], node=["STOPPED"])
    done = cloud.run("watch", *RUN, *HERE)
    assert (done.returncode, "imdb is STOPPED, which was done by hand" in done.stderr) == (2, True)
    assert cloud.deeds == []


def test_watch_does_not_delete_the_tpu_of_another_run(cloud):
    cloud.scenario(**READY, runs=["busy"])
    assert cloud.run("watch", *RUN, *HERE).returncode == 2
    assert cloud.deeds == ["setup", "start"]


def test_watch_keeps_a_vm_that_holds_the_run(cloud):
    cloud.scenario(**READY, runs=[143, 0])
    done = cloud.run("watch", RUN[0], "--run-dir", "runs/imdb", *HERE, "--poll", "0", "--keep")
    assert done.returncode == 0
    assert cloud.deeds == ["setup", "start"] * 2


def test_watch_tries_a_setup_again(cloud):
    cloud.scenario(**NONE, setup=[1, 0], runs=[0])
    assert cloud.run("watch", *RUN, *HERE, "--poll", "0").returncode == 0
    assert cloud.deeds == ["create", "setup", "setup", "start", "delete"]


def test_watch_ends_where_nothing_can_be_had(cloud):
    cloud.scenario(**NONE, create=[1])
    assert cloud.run("watch", *RUN, *HERE, "--poll", "0").returncode == 2, "refused at first: it will be again"
    assert cloud.deeds == ["create"]
    cloud.scenario(queued=["UNKNOWN"], node=["NONE"])
    assert cloud.run("watch", *RUN, *HERE, "--poll", "0").returncode == 4
    cloud.scenario(**NONE, create=[0, 1, 0], runs=["preempted", 0])
    assert cloud.run("watch", *RUN, *HERE, "--poll", "0").returncode == 0, "refused for once, after one that was had"


def test_leaving_the_watch_leaves_the_run(cloud):
    cloud.scenario(**NONE, runs=["endless"])
    watch = subprocess.Popen(
        ["bash", "tpu/watch.sh", *RUN, *HERE], cwd=cloud.checkout, env=cloud.environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_for(lambda: "start" in cloud.deeds)
    os.killpg(watch.pid, signal.SIGINT)
    said = watch.communicate(timeout=10)[1]
    assert watch.returncode == 130
    assert "tpu/run.sh: the run goes on, and imdb costs" in said
    assert "delete" not in cloud.deeds


# --- on the VM: the real scripts, in a home of their own


@pytest.fixture
def vm(tmp_path):
    """A home with a `tfpipe` that does what its configuration says."""
    tfpipe = tmp_path / "tfpipe" / "venv" / "bin" / "tfpipe"
    tfpipe.parent.mkdir(parents=True)
    tfpipe.write_text('#!/bin/bash\necho "$@" >> calls\nsource "$2"\n')
    tfpipe.chmod(0o755)
    return tmp_path


def on_vm(vm, *arguments, **options):
    return subprocess.Popen(
        ["bash", str(ROOT / "tpu" / "run_on_vm.sh"), *arguments],
        env={"HOME": str(vm), "PATH": os.environ["PATH"]}, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip


def answer(vm, token):
    return on_vm(vm, "code", token).communicate(timeout=10)[0].strip()


def configuration(vm, text):
    path = vm / "tfpipe" / "config.yaml"
    path.write_text(text)
    return str(path)


def wait_for(what):
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_run_on_the_vm(vm):
    config = configuration(vm, 'echo "first line"; echo "$6"; echo "$8"; exit 3')
    run = on_vm(vm, "start", "token", config, "gs://bucket/run", "--set", "name=Ann's run")
    assert run.communicate(timeout=10)[0] == "first line\ntrain.strategy=tpu\nname=Ann's run\n"
    assert answer(vm, "token") == "3"
    assert answer(vm, "other") == "unknown"
    # gcloud sends a command again when its connection broke at the end: the run is not started again.
    assert "first line" in on_vm(vm, "start", "token", config, "gs://bucket/run").communicate(timeout=10)[0]
    assert len((vm / "tfpipe" / "calls").read_text().splitlines()) == 1


def test_a_run_outlives_its_connection_and_is_joined(vm):
    config = configuration(vm, 'trap "echo saved; exit 143" TERM; echo begun; while true; do sleep 0.05; done')
    first = on_vm(vm, "start", "one", config, "gs://bucket/run", start_new_session=True)
    assert first.stdout.readline() == "begun\n"
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert answer(vm, "one") == "running"
    assert answer(vm, "two") == "busy"

    other = on_vm(vm, "start", "three", config, "gs://bucket/other")
    assert "this run goes on: " in other.communicate(timeout=10)[0]
    assert (other.returncode, answer(vm, "three")) == (2, "busy")

    second = on_vm(vm, "start", "two", config, "gs://bucket/run")
    assert [second.stdout.readline() for _ in range(2)] == ["this run goes on already; its last lines:\n", "begun\n"]
    assert answer(vm, "two") == "running"
    # A VM that shuts down sends SIGTERM to all: the process that stays waits for tfpipe and notes its exit code.
    for pid in processes_of(config):
        os.kill(pid, signal.SIGTERM)
    assert "saved\n" in second.communicate(timeout=10)[0]
    assert (answer(vm, "one"), answer(vm, "two")) == ("143", "143")
    assert len((vm / "tfpipe" / "calls").read_text().splitlines()) == 1


def test_a_run_that_was_killed_is_lost_and_started_anew(vm):
    config = configuration(vm, "echo begun; sleep 5")
    first = on_vm(vm, "start", "one", config, "gs://bucket/run", start_new_session=True)
    assert first.stdout.readline() == "begun\n"
    for pid in processes_of(config):
        os.kill(pid, signal.SIGKILL)
    first.communicate(timeout=10)
    assert answer(vm, "one") == "lost"
    configuration(vm, "exit 0")
    on_vm(vm, "start", "two", config, "gs://bucket/run").communicate(timeout=10)
    assert (answer(vm, "one"), answer(vm, "two")) == ("unknown", "0")


def test_no_run_without_a_setup(vm):
    (vm / "tfpipe" / "venv" / "bin" / "tfpipe").unlink()
    run = on_vm(vm, "start", "token", "configs/imdb.yaml", "gs://bucket/run")
    run.communicate(timeout=10)
    assert run.returncode == 127


def processes_of(config):
    """The processes that stay: `run_on_vm.sh work` and tfpipe. A fork of theirs looks alike until it is `sleep`."""
    found = []

    def are_two():
        found.clear()
        for directory in Path("/proc").iterdir():
            if directory.name.isdigit():
                try:
                    words = (directory / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if config.encode() in words and (b"work" in words or b"run" in words):
                    found.append(int(directory.name))
        return len(found) == 2

    wait_for(are_two)
    return found


STAND_IN_PYTHON = """#!/bin/bash
# python3.11, and the python of the environment that it makes
echo "$(basename "$0") $*" >> ~/calls
case "$*" in
    "-m venv venv")
        mkdir -p venv/bin
        cp "$0" venv/bin/python
        printf '#!/bin/bash\\necho "tfpipe $*" >> ~/calls\\n' > venv/bin/tfpipe
        chmod +x venv/bin/tfpipe
        ;;
    *" -r "*) cp "${@: -1}" ~/installed-$(basename "${@: -1}") ;;
esac
"""


@pytest.fixture
def fresh_vm(tmp_path):
    """A home as setup.sh leaves it, with what it needs of this repository, and a Python 3.11 that only notes."""
    with tarfile.open(tmp_path / "tfpipe-source.tar.gz", "w:gz") as archive:
        archive.add(ROOT / "requirements.lock", "requirements.lock")
        archive.add(ROOT / "tpu", "tpu")
    python = tmp_path / "bin" / "python3.11"
    python.parent.mkdir()
    python.write_text(STAND_IN_PYTHON)
    python.chmod(0o755)
    return tmp_path


def setup_on_vm(home):
    done = subprocess.run(
        ["bash", str(ROOT / "tpu" / "setup_on_vm.sh")],
        env={"HOME": str(home), "PATH": f"{home / 'bin'}:/usr/bin:/bin"}, cwd=home,
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calls = (home / "calls").read_text().splitlines() if (home / "calls").exists() else []
    (home / "calls").unlink(missing_ok=True)
    return done.stdout, [call for call in calls if "-c import" not in call]


def entries(text):
    """The entries of a lock, each with its lines; some packages have one for each version of Python."""
    text = re.sub(r"^#.*\n", "", text, flags=re.M)
    return re.split(r"(?<!\\)\n", text.strip())


def names(found):
    return {re.match(r"([A-Za-z0-9._-]+)==", entry).group(1) for entry in found}


def test_setup_on_the_vm_installs_once(fresh_vm):
    said, calls = setup_on_vm(fresh_vm)
    pip = "python -m pip install --quiet --disable-pip-version-check --no-deps"
    assert calls == [
        "python3.11 -m venv venv",
        f"{pip} --require-hashes -r requirements-without-tensorflow.lock",
        f"{pip} --require-hashes -r source/tpu/requirements.txt",
        f"{pip} --no-build-isolation --force-reinstall ./source",
        "tfpipe doctor",
    ]
    said, calls = setup_on_vm(fresh_vm)
    assert calls == []
    assert "everything is installed already" in said

    (fresh_vm / "tfpipe" / "venv" / "tfpipe.stamp").unlink()  # as if it had been interrupted there
    assert setup_on_vm(fresh_vm)[1] == calls_of_tfpipe(pip)

    with tarfile.open(fresh_vm / "tfpipe-source.tar.gz", "w:gz") as archive:  # another commit, the same packages
        archive.add(ROOT / "requirements.lock", "requirements.lock")
        archive.add(ROOT / "tpu", "tpu")
        archive.add(ROOT / "README.md", "README.md")
    assert setup_on_vm(fresh_vm)[1] == calls_of_tfpipe(pip)
    assert (fresh_vm / "tfpipe" / "source" / "README.md").exists()


def calls_of_tfpipe(pip):
    return [f"{pip} --no-build-isolation --force-reinstall ./source", "tfpipe doctor"]


def test_setup_changes_nothing_under_a_run(fresh_vm):
    (fresh_vm / "tfpipe" / "run").mkdir(parents=True)
    holder = subprocess.Popen(
        ["flock", str(fresh_vm / "tfpipe" / "run" / "lock"), "sleep", "5"], start_new_session=True
    )
    try:
        time.sleep(0.2)
        said, calls = setup_on_vm(fresh_vm)
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
    assert ("a run goes on here" in said, calls) == (True, [])


def test_the_lock_for_tpus_lacks_tensorflow_and_nothing_else(fresh_vm):
    setup_on_vm(fresh_vm)
    lock = entries((ROOT / "requirements.lock").read_text())
    installed = entries((fresh_vm / "installed-requirements-without-tensorflow.lock").read_text())
    left_out = [entry for entry in lock if entry.startswith("tensorflow==")]
    assert len(left_out) == 1
    assert installed == [entry for entry in lock if entry not in left_out]
    assert names(installed) >= {"tensorflow-text", "tf-keras", "tensorboard", "numpy"}
    for_tpus = entries((fresh_vm / "installed-requirements.txt").read_text())
    assert names(for_tpus) == {"tensorflow-tpu", "libtpu"}
    # The same TensorFlow as elsewhere: the version is in both files.
    assert left_out[0].split()[0].removeprefix("tensorflow") == for_tpus[0].split()[0].removeprefix("tensorflow-tpu")
    for entry in [*installed, *for_tpus]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}$", entry)
