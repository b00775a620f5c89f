import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from train.metadata_server import metadata_server

from tfpipe.errors import Stopped, StopReason
from tfpipe.train import stopping
from tfpipe.train.stopping import StopRequests, metadata_host, stop_requests

SIGTERM, SIGINT, SIGHUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """Not on Google's machines, whatever this one is; signals as in a fresh interpreter; nothing waits for long."""
    for name in ("GCE_METADATA_HOST", "NO_GCE_CHECK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(stopping, "PRODUCT_NAME", tmp_path / "product_name")
    monkeypatch.setattr(stopping, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(stopping, "LONGEST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(stopping, "DUPLICATE_SECONDS", 0.2)
    handlers = {number: signal.getsignal(number) for number in (SIGTERM, SIGINT, SIGHUP)}
    signal.signal(SIGTERM, signal.SIG_DFL)
    signal.signal(SIGHUP, signal.SIG_DFL)
    signal.signal(SIGINT, signal.default_int_handler)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def server(monkeypatch):
    with metadata_server(monkeypatch) as server:
        yield server


def wait_until(condition, seconds=5.0):
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def asked_again(server, times=2):
    """Waits until both keys were asked for as often from now on."""
    before = dict(server.asked)
    wait_until(lambda: all(server.asked[key] >= before[key] + times for key in before))


def watchers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("metadata ")]


@pytest.mark.parametrize(("number", "code"), [(SIGTERM, 143), (SIGINT, 130), (SIGHUP, 143)])
def test_a_signal_becomes_a_request(number, code, capfd):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped, stop_requests() as requests:
        assert requests.reason is None
        os.kill(os.getpid(), number)
        assert requests.reason == StopReason(code, number.name)
        raise Stopped(requests.reason, 120)
    assert str(stopped.value) == f"stopped by {number.name} after step 120" and stopped.value.reason.code == code
    assert signal.getsignal(number) is before
    said = f"{number.name}: stopping after this step and a checkpoint; a second {number.name} ends at once\n"
    assert capfd.readouterr().err == said


def test_the_first_reason_stays_and_another_signal_does_not_end():
    with pytest.raises(Stopped), stop_requests() as requests:
        os.kill(os.getpid(), SIGTERM)
        os.kill(os.getpid(), SIGINT)
        requests.request(StopReason(143, "another worker"))
        assert requests.reason == StopReason(143, "SIGTERM")
        raise Stopped(requests.reason, 1)


def test_a_second_signal_does_what_it_did_before():
    with pytest.raises(KeyboardInterrupt), stop_requests():
        os.kill(os.getpid(), SIGINT)
        time.sleep(0.25)
        os.kill(os.getpid(), SIGINT)
        time.sleep(5)
    assert signal.getsignal(SIGINT) is signal.default_int_handler


def test_one_signal_delivered_twice_is_one():
    with pytest.raises(Stopped), stop_requests() as requests:
        os.kill(os.getpid(), SIGTERM)
        os.kill(os.getpid(), SIGTERM)
        raise Stopped(requests.reason, 1)


def test_a_signal_that_found_no_step_is_not_lost():
    reached = []
    with pytest.raises(KeyboardInterrupt):
        with stop_requests():
            os.kill(os.getpid(), SIGINT)
            reached.append("the end of the block")
        time.sleep(5)
    assert reached and signal.getsignal(SIGTERM) is signal.SIG_DFL


def test_handlers_are_restored_after_an_error():
    before = {number: signal.getsignal(number) for number in (SIGTERM, SIGINT, SIGHUP)}
    with pytest.raises(ZeroDivisionError), stop_requests():
        assert all(signal.getsignal(number) is not handler for number, handler in before.items())
        _ = 1 / 0
    assert {number: signal.getsignal(number) for number in before} == before


def test_what_is_ignored_stays_ignored():
    signal.signal(SIGINT, signal.SIG_IGN)
    with stop_requests() as requests:
        os.kill(os.getpid(), SIGINT)
        assert requests.reason is None and signal.getsignal(SIGINT) is signal.SIG_IGN
    assert signal.getsignal(SIGINT) is signal.SIG_IGN


def test_outside_the_main_thread_signals_stay_as_they_are(server):
    before, seen = signal.getsignal(SIGTERM), []

    def train():
        with stop_requests() as requests:
            asked_again(server)
            server.answers["preempted"] = "TRUE"
            wait_until(lambda: requests.reason is not None)
            seen.append(signal.getsignal(SIGTERM))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join(10)
    assert seen == [before]


def test_requests_come_from_any_thread():
    requests = StopRequests()
    reasons = [StopReason(143, f"worker {number}") for number in range(8)]
    threads = [threading.Thread(target=requests.request, args=(reason,)) for reason in reasons]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = requests.reason
    requests.request(StopReason(130, "late"))
    assert first in reasons and requests.reason is first


@pytest.mark.parametrize(
    ("key", "answer", "said"),
    [
        ("preempted", "TRUE", "a preemption notice"),
        ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE", "a maintenance notice"),
        ("maintenance-event", "SHUTDOWN_ON_HOST_MAINTENANCE\n", "a maintenance notice"),
    ],
)
def test_a_notice_becomes_a_request(server, capsys, monkeypatch, key, answer, said):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    with stop_requests() as requests:
        asked_again(server)
        assert requests.reason is None
        server.answers[key] = answer
        wait_until(lambda: requests.reason is not None)
    assert requests.reason == StopReason(143, said) and watchers() == []
    assert f"metadata server: {key} is {answer.strip()}: stopping" in capsys.readouterr().err


@pytest.mark.parametrize("answer", ["MIGRATE_ON_HOST_MAINTENANCE", "SOMETHING_NEW"])
def test_an_event_that_ends_nothing_is_said(server, capsys, answer):
    with stop_requests() as requests:
        asked_again(server)
        server.answers["maintenance-event"] = answer
        asked_again(server, 3)
    assert requests.reason is None
    assert capsys.readouterr().err == f"metadata server: maintenance-event is {answer}; training goes on\n"


def test_a_notice_from_before_the_training_does_not_stop_it_but_a_new_one_does(server, capsys):
    server.answers["maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
    with stop_requests() as requests:
        asked_again(server, 3)
        assert requests.reason is None
        server.answers["preempted"] = "TRUE"
        wait_until(lambda: requests.reason is not None)
    error = capsys.readouterr().err
    assert "maintenance-event is already TERMINATE_ON_HOST_MAINTENANCE; training goes on" in error


@pytest.mark.parametrize(
    ("broken", "said"),
    [({"status": 500}, "HTTP 500"), ({"flavor": "Other"}, "an answer without Metadata-Flavor: Google")],
)
def test_a_server_that_fails_is_asked_again_and_said_once(server, capsys, broken, said):
    well = {name: getattr(server, name) for name in broken}
    with stop_requests() as requests:
        asked_again(server)
        for _ in range(2):
            for name, value in broken.items():
                setattr(server, name, value)
            asked_again(server, 5)
            assert requests.reason is None
            for name, value in well.items():
                setattr(server, name, value)
            asked_again(server)
        server.answers["preempted"] = "TRUE"
        wait_until(lambda: requests.reason is not None)
    lines = [line for line in capsys.readouterr().err.splitlines() if "no answer" in line]
    assert sorted(lines) == [
        f"metadata server {server.host}: no answer for instance/{key} ({said}); training goes on, it is asked again"
        for key in ("maintenance-event", "preempted")
    ]


def test_a_moment_without_the_server_is_not_said(server, capsys, monkeypatch):
    monkeypatch.setattr(stopping, "FAILURES_BEFORE_SAID", 1000)
    server.status = 503
    with stop_requests():
        asked_again(server)
        server.status = 200
        asked_again(server)
    assert capsys.readouterr().err == ""


def test_a_key_that_is_missing_leaves_the_other(server, capsys):
    del server.answers["maintenance-event"]
    with stop_requests() as requests:
        asked_again(server, 4)
        server.answers["preempted"] = "TRUE"
        wait_until(lambda: requests.reason is not None)
    assert "no answer for instance/maintenance-event (HTTP 404)" in capsys.readouterr().err


def test_nobody_listens(monkeypatch):
    said = []
    monkeypatch.setattr(stopping, "say", said.append)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{unused.getsockname()[1]}")
        with stop_requests() as requests:
            wait_until(lambda: len(said) == 2)
    assert requests.reason is None and all("Connection refused" in line for line in said)


@pytest.mark.parametrize("host", ["http://metadata", "a..b", "[::1"])
def test_no_name_of_a_host_ends_no_training(monkeypatch, host):
    said = []
    monkeypatch.setattr(stopping, "say", said.append)
    monkeypatch.setenv("GCE_METADATA_HOST", host)
    with stop_requests() as requests:
        wait_until(lambda: len(said) == 2)
    assert requests.reason is None and all("training goes on" in line for line in said)


def test_a_server_that_hangs_holds_up_nothing(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(stopping, "TIMEOUT_SECONDS", 0.3)
        started = time.monotonic()
        with stop_requests() as requests:
            assert requests.reason is None
        assert time.monotonic() - started < 2
    wait_until(lambda: watchers() == [])


def test_the_header_is_needed(server):
    """The stand-in refuses what the real server refuses."""
    connection = http.client.HTTPConnection(server.host, timeout=5)
    connection.request("GET", "/computeMetadata/v1/instance/preempted")
    assert connection.getresponse().status == 403
    connection.close()


@pytest.mark.parametrize(
    ("product", "variables", "host"),
    [
        (None, {}, None),
        ("Standard PC (Q35 + ICH9, 2009)\n", {}, None),
        ("Google Compute Engine\n", {}, "metadata.google.internal"),
        ("Google\n", {}, "metadata.google.internal"),
        ("Google Compute Engine\n", {"NO_GCE_CHECK": "true"}, None),
        ("Google Compute Engine\n", {"GCE_METADATA_HOST": "10.0.0.1:8080"}, "10.0.0.1:8080"),
        (None, {"GCE_METADATA_HOST": "10.0.0.1"}, "10.0.0.1"),
        (None, {"GCE_METADATA_HOST": ""}, None),
    ],
)
def test_where_a_metadata_server_is_expected(monkeypatch, product, variables, host):
    if product is not None:
        stopping.PRODUCT_NAME.write_text(product)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert metadata_host() == host


def test_elsewhere_nothing_is_asked():
    with stop_requests():
        assert watchers() == []


TRAINING = """
import time
from tfpipe import cli
from tfpipe.errors import Stopped
from tfpipe.train import stopping
stopping.DUPLICATE_SECONDS = 0.1
@cli.app.command()
def work():
    with stopping.stop_requests() as requests:
        print("up", flush=True)
        while requests.reason is None:
            time.sleep(0.01)
        print("asked", flush=True)
        time.sleep({seconds})  # the checkpoint
        {end}
cli.main()
"""


def start_training(seconds, end="raise Stopped(requests.reason, 7)"):
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING.format(seconds=seconds, end=end), "work"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(SIGINT, signal.SIG_DFL),  # a job in the background inherits that it is ignored
    )
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(SIGTERM, 143), (SIGINT, 130)])
def test_a_command_stops_after_its_checkpoint(number, code):
    process = start_training(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert error.splitlines()[-1] == f"tfpipe: stopped by {number.name} after step 7; the same command goes on"


def test_a_signal_in_the_last_step_still_ends_a_command():
    process = start_training(0.3, "return")
    process.send_signal(SIGTERM)
    process.send_signal(SIGHUP)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 143
    assert error.splitlines()[-1].startswith("tfpipe: terminated; the same command goes on from")


def test_a_second_signal_ends_a_command_at_once():
    process = start_training(60)
    process.send_signal(SIGTERM)
    assert process.stdout.readline() == "asked\n"
    time.sleep(0.15)
    process.send_signal(SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 143
    assert error.splitlines()[-1].startswith("tfpipe: terminated; the same command goes on from")


def test_no_tensorflow():
    script = "import sys, tfpipe.train.stopping; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
