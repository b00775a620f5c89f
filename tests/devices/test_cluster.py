"""What TF_CONFIG may say, and one line for each thing that it may not; how long a worker is waited for."""

from __future__ import annotations

import json
import re
import socket
import threading
import time

import pytest

from tfpipe.devices.cluster import Cluster, workers_of
from tfpipe.errors import InputError

TWO = {"worker": ["127.0.0.1:2222", "10.0.0.2:2223"]}


def set_to(monkeypatch, cluster=TWO, task=("worker", 0), text=None):
    value = json.dumps({"cluster": cluster, "task": {"type": task[0], "index": task[1]}}) if text is None else text
    monkeypatch.setenv("TF_CONFIG", value)


@pytest.mark.parametrize(
    ("cluster", "task", "index"),
    [
        (TWO, ("worker", 0), 0),
        (TWO, ("worker", 1), 1),
        (TWO, ("worker", "1"), 1),
        ({"chief": ["127.0.0.1:2222"], "worker": ["10.0.0.2:2223"]}, ("chief", 0), 0),
        ({"chief": ["127.0.0.1:2222"], "worker": ["10.0.0.2:2223"]}, ("worker", 0), 1),
        ({"worker": ["[::1]:2222", "host.example:2223"]}, ("worker", 1), 1),
    ],
)
def test_workers_and_their_order(monkeypatch, cluster, task, index):
    set_to(monkeypatch, cluster, task)
    found = Cluster.from_environment()
    assert len(found.addresses) == 2 and found.index == index and found.is_chief == (index == 0)
    assert found.addresses[index] in str(found)
    assert workers_of("auto") == workers_of("multi_worker") == found
    assert workers_of("mirrored") is None


def test_nobody_to_wait_for(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert Cluster.from_environment() is None and workers_of("auto") is None
    with pytest.raises(InputError, match=r"^train.strategy: multi_worker needs TF_CONFIG .* such as \{"):
        workers_of("multi_worker")
    for text in ("", "{}", '{"cluster": {}, "task": {}}'):  # as some launchers set it for a single machine
        set_to(monkeypatch, text=text)
        assert workers_of("auto") is None
    set_to(monkeypatch, {"worker": ["127.0.0.1:2222"]})
    assert workers_of("auto") is None and workers_of("multi_worker") is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"text": "{'cluster': 1}"}, "is not JSON"),
        ({"text": "[]"}, "is not an object"),
        ({"text": json.dumps({"cluster": TWO})}, "has no task whose type is worker"),
        ({"cluster": ["127.0.0.1:2222"]}, "has a cluster that is not an object"),
        ({"cluster": {"worker": "127.0.0.1:2222"}}, "has no list of addresses as worker"),
        ({"cluster": {"worker": [1, 2]}}, "has no list of addresses as worker"),
        ({"cluster": {**TWO, "ps": ["127.0.0.1:2224"]}}, "names tasks of type ps"),
        ({"cluster": {"worker": ["127.0.0.1", "10.0.0.2:2223"]}}, "'127.0.0.1', which is no HOST:PORT"),
        ({"cluster": {"worker": ["127.0.0.1:99999", "10.0.0.2:2223"]}}, "which is no HOST:PORT"),
        ({"cluster": {"worker": ["127.0.0.1:2222"] * 2}}, "names an address twice"),
        ({"task": ("evaluator", 0)}, "has no task whose type is worker"),
        ({"task": ("worker", 2)}, "has task index 2, but 2 address(es) of type worker"),
        ({"task": ("worker", -1)}, "has task index -1"),
        ({"task": ("worker", True)}, "has task index True"),
        ({"task": (["worker"], 0)}, "has no task whose type is worker"),
        ({"cluster": {"chief": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": ("chief", 0)}, "has more than one chief"),
        ({"task": ("worker", "one")}, "has task index 'one'"),
        ({"task": ("worker", "²")}, "has task index '²'"),
        ({"task": ("worker", "9" * 5000)}, "has task index '999"),
        ({"cluster": {"worker": ["127.0.0.1:" + "9" * 5000, "10.0.0.2:2223"]}}, "has the address '127.0.0.1:999"),
        ({"text": "[" * 100_000}, "is not JSON"),
        ({"text": "\u2028{}"}, "is not JSON"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(monkeypatch, setting, said):
    set_to(monkeypatch, **setting)
    with pytest.raises(InputError, match=rf"^TF_CONFIG: .*{re.escape(said)}.*; expected something like") as error:
        Cluster.from_environment()
    assert "\n" not in str(error.value)


def test_who_is_silent():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address, gone = f"127.0.0.1:{listening.getsockname()[1]}", "127.0.0.1:1"
        assert Cluster((gone, address, address), 1).silent() == ["worker 0 (127.0.0.1:1)"]


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


def test_a_worker_that_never_joins_is_waited_for_so_long(capsys):
    cluster, started = Cluster((free_address(), "127.0.0.1:1"), 0), time.monotonic()
    with pytest.raises(InputError, match=r"multi_worker: worker 1 \(127.0.0.1:1\) did not join within 1.5 s; start"):
        cluster.wait_for_all(1.5)
    assert 1.5 < time.monotonic() - started < 20
    assert capsys.readouterr().err == "waiting for worker 1 (127.0.0.1:1), 1.5 s at most\n"


def test_workers_wait_for_each_other():
    """The last one sees the others and goes on at once: they see what listens at its address after that."""
    addresses, servers = tuple(free_address() for _ in range(3)), []

    def work(index: int) -> None:
        Cluster(addresses, index).wait_for_all(30)
        servers.append(socket.create_server(("", int(addresses[index].rpartition(":")[2]))))  # as TensorFlow does

    waiting = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in waiting[:2]:
        thread.start()
    time.sleep(0.7)
    assert not servers
    waiting[2].start()
    for thread in waiting:
        thread.join()
    assert len(servers) == 3
    for server in servers:
        server.close()


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"^TF_CONFIG: {address}, this worker's own address: can't listen there"):
            Cluster((address, "127.0.0.1:1"), 0).wait_for_all(5)
