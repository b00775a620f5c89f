"""The workers of a training on several machines, as TF_CONFIG names them, and the wait for them.

`TF_CONFIG` is TensorFlow's own: {"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker",
"index": 0}}, the same cluster everywhere, a task of its own for each. The first worker, or a task `chief`, is the
chief: it does the stages that do not train and writes the run directory, which all must see under the same path.

The module does not import TensorFlow, so that a mistake costs no time.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from dataclasses import dataclass
from typing import Any

from tfpipe.console import say
from tfpipe.errors import InputError

EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'
SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Cluster:
    """The workers, the chief first, and the number of this process among them."""

    addresses: tuple[str, ...]
    """`host:port` of each"""
    index: int

    @classmethod
    def from_environment(cls) -> Cluster | None:
        """Reads TF_CONFIG; None where it is not set, or names no cluster.

        Raises:
          InputError: it is not JSON, or not in TensorFlow's form.
        """
        text = os.environ.get("TF_CONFIG", "").strip(" \t\r\n")  # no other white space is JSON's, or TensorFlow's
        if not text:
            return None
        try:
            config = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _wrong(f"is not JSON ({error})") from None
        if not isinstance(config, dict):
            raise _wrong("is not an object")
        jobs = config.get("cluster") or {}
        if not jobs:
            return None
        addresses = _addresses(jobs)
        task = config.get("task")
        if not isinstance(task, dict) or not isinstance(task.get("type"), str) or task["type"] not in jobs:
            raise _wrong(f"has no task whose type is {' or '.join(jobs)}")
        index = task.get("index", 0)
        if isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index):  # as some launchers write it
            index = int(index)
        count = len(jobs[task["type"]])
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise _wrong(f"has task index {index!r}, but {count} address(es) of type {task['type']}")
        before = len(jobs.get("chief", ())) if task["type"] == "worker" else 0
        return cls(addresses, before + index)

    @property
    def is_chief(self) -> bool:
        """Tells whether this process writes."""
        return self.index == 0

    def __str__(self) -> str:
        return f"worker {self.index} of {len(self.addresses)}, {self.addresses[self.index]}"

    def silent(self, timeout: float = 1.0) -> list[str]:
        """Lists the other workers at whose address nothing answers now, in words."""
        return [
            f"worker {number} ({address})"
            for number, address in enumerate(self.addresses)
            if number != self.index and not _answers(address, timeout)
        ]

    def wait_for_all(self, timeout: float) -> None:
        """Waits until every worker has been started: TensorFlow, which comes after, would wait an hour in silence.

        Until then this worker answers at its own address, as TensorFlow's server will.

        Args:
          timeout: seconds.

        Raises:
          InputError: a worker did not answer in time, or this worker's port is taken.
        """
        own = self.addresses[self.index]
        started, said = time.monotonic(), False
        try:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            listening = socket.create_server(("", _split(own)[1]), family=family, dualstack_ipv6=both)
        except OSError as error:
            raise InputError(
                f"TF_CONFIG: {own}, this worker's own address: can't listen there ({error.strerror}); end the worker "
                "that still runs, or take another port in the TF_CONFIG of all"
            ) from None
        with listening:
            missing = [number for number in range(len(self.addresses)) if number != self.index]
            while missing := [number for number in missing if not _answers(self.addresses[number], 1.0)]:
                names = ", ".join(f"worker {number} ({self.addresses[number]})" for number in missing)
                if time.monotonic() - started > timeout:
                    raise InputError(
                        f"train.strategy: multi_worker: {names} did not join within {timeout:g} s; start the same "
                        "command there, with the same cluster in TF_CONFIG and a port that can be reached, or wait "
                        "longer with train.worker_timeout"
                    )
                if not said:
                    say(f"waiting for {names}, {timeout:g} s at most")
                    said = True
                time.sleep(SECONDS_BETWEEN_LOOKS)


def workers_of(strategy: str) -> Cluster | None:
    """Finds the workers that a configuration's `train.strategy` asks for; None where this process trains alone.

    Raises:
      InputError: `multi_worker` without TF_CONFIG.
    """
    cluster = Cluster.from_environment() if strategy in ("auto", "multi_worker") else None
    if strategy == "multi_worker" and cluster is None:
        raise InputError(
            f"train.strategy: multi_worker needs TF_CONFIG in the environment of every worker, such as {EXAMPLE}"
        )
    return cluster if cluster is not None and len(cluster.addresses) > 1 else None


def _addresses(jobs: Any) -> tuple[str, ...]:
    if not isinstance(jobs, dict):
        raise _wrong("has a cluster that is not an object")
    unknown = sorted(set(jobs) - {"chief", "worker"})
    if unknown:
        raise _wrong(f"names tasks of type {unknown[0]}; tfpipe has workers, and perhaps a chief among them")
    addresses = []
    for job in ("chief", "worker"):
        entries = jobs.get(job, [])
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise _wrong(f"has no list of addresses as {job}")
        addresses += entries
    if len(jobs.get("chief", [])) > 1:
        raise _wrong("has more than one chief")
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise _wrong(f"has the address {address!r}, which is no HOST:PORT")
    if len(set(addresses)) < len(addresses):
        raise _wrong("names an address twice")
    return tuple(addresses)


def _wrong(problem: str) -> InputError:
    return InputError(f"TF_CONFIG: {problem}; expected something like {EXAMPLE}")


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _answers(address: str, timeout: float) -> bool:
    try:
        socket.create_connection(_split(address), timeout).close()
    except OSError:
        return False
    return True
