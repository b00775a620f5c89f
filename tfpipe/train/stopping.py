"""Requests to stop while training: a signal, or a notice that the machine is about to go, leads to a checkpoint first.

In: SIGTERM, SIGINT, SIGHUP, and notices of the metadata server of a Google Cloud VM. Out: `StopRequests.reason`, which
the training loop reads at each step. The loop then saves a checkpoint and raises `tfpipe.errors.Stopped`, which the
command line turns into exit code 143 or 130.

Google's documentation of its notices (https://cloud.google.com/compute/docs/…):

- `instances/create-use-spot`, `instances/preemptible`: `instance/preempted` becomes TRUE when a spot VM is taken away,
  about 30 s before it is off, best effort. TPU VMs are Compute Engine VMs (…/tpu/docs/maintenance-events).
- `metadata/getting-live-migration-notice`: `instance/maintenance-event` is NONE, or for 60 s the coming event, if it
  was asked for since the last event. `gpus/gpu-host-maintenance`: for an hour, on a VM with GPUs.
- `metadata/querying-metadata`: now and then the server is away for a moment (503) and is to be asked again.
"""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tfpipe.console import say
from tfpipe.errors import StopReason

# Two requests to the VM's own host every two seconds. A GET that hangs until a value changes (`wait_for_change`) would
# tell at once, but breaks in a live migration and needs a second connection and an etag; of 30 s, 2 s can be waited.
POLL_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 10.0  # between two requests to a server that fails
TIMEOUT_SECONDS = 3.0  # that of google-auth
FAILURES_BEFORE_SAID = 3  # a single 503 is normal
# Sent to a process group in which a script passes signals on, one wish to end arrives twice. By hand it takes longer.
DUPLICATE_SECONDS = 1.0

# SIGHUP, for systemd: when a machine shuts down, SIGTERM is followed at once by it in the scope of an ssh session
# (SendSIGHUP of logind's scopes), and would end the process before its checkpoint.
_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 143}

PRODUCT_NAME = Path("/sys/class/dmi/id/product_name")

# Answers that announce the end of the VM. MIGRATE_ON_HOST_MAINTENANCE is none: a live migration keeps the processes.
# VMs that can't migrate say TERMINATE (what TensorFlow's PreemptionCheckpointHandler heeds; SHUTDOWN in Google's older
# examples). An answer that is not known is said and stops nothing.
_ENDS = {
    "preempted": ("a preemption notice", ("TRUE",)),
    "maintenance-event": ("a maintenance notice", ("TERMINATE_ON_HOST_MAINTENANCE", "SHUTDOWN_ON_HOST_MAINTENANCE")),
}
_NOTHING = ("FALSE", "NONE")


class StopRequests:
    """The requests to stop a training, with their reasons. Any thread and any signal handler may ask."""

    def __init__(self) -> None:
        # Appending is atomic: there is no lock that a signal handler could find taken by the code it interrupted.
        self._reasons: list[StopReason] = []

    @property
    def reason(self) -> StopReason | None:
        """Gives the first reason to stop, or None; cheap enough for each step."""
        return self._reasons[0] if self._reasons else None

    def request(self, reason: StopReason) -> None:
        """Asks the training to stop, such as when another worker was asked; the first reason stays."""
        self._reasons.append(reason)


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Turns SIGTERM, SIGINT, SIGHUP and notices of the metadata server into requests, until the block ends.

    A second signal of the same kind has at once its effect from before the block. A signal to which the block did not
    answer by raising something, since it had no step left, has that effect at the end of the block. Signals that are
    ignored stay ignored. Outside the main thread, which alone may have handlers, all stay as they are.

    Yields:
        The requests; `reason` is None until the first one.
    """
    requests = StopRequests()
    closed = threading.Event()
    handlers: dict[int, object] = {}  # by signal: what it did before the block
    received: dict[int, float] = {}  # by signal: when it first came, seconds of the monotonic clock

    def handle(number: int, frame: object) -> None:
        now = time.monotonic()
        if number not in received:
            received[number] = now
            name = signal.Signals(number).name
            requests.request(StopReason(_CODES[number], name))
            _say_in_handler(f"{name}: stopping after this step and a checkpoint; a second {name} ends at once")
        elif now - received[number] >= DUPLICATE_SECONDS:
            signal.signal(number, handlers[number])
            signal.raise_signal(number)

    host = metadata_host()
    watchers = [
        threading.Thread(target=_watch, args=(host, key, requests, closed), name=f"metadata {key}", daemon=True)
        for key in (_ENDS if host is not None else ())
    ]
    try:
        if threading.current_thread() is threading.main_thread():
            for number in _CODES:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: not Python's, and could not be put back
                    handlers[number] = before
                    signal.signal(number, handle)
        for watcher in watchers:
            watcher.start()
        yield requests
    finally:
        for number, before in handlers.items():
            signal.signal(number, before)
        closed.set()
        for watcher in watchers:
            if watcher.ident is not None:  # started
                watcher.join(timeout=1)  # one that waits for a server says nothing more
    for number in sorted(received, reverse=True):  # SIGTERM before SIGHUP, for the better message
        signal.raise_signal(number)


def metadata_host() -> str | None:
    """Finds the metadata server's `host[:port]`, or None where there is none, without asking the network.

    The order is google-auth's (google/auth/compute_engine/_metadata.py): GCE_METADATA_HOST, else the name that firmware
    gives to a machine of Google's; NO_GCE_CHECK=true says that there is none.
    """
    given = os.environ.get("GCE_METADATA_HOST")
    if given:
        return given
    if os.environ.get("NO_GCE_CHECK") == "true":
        return None
    try:
        product = PRODUCT_NAME.read_text(errors="replace")
    except OSError:
        return None
    return "metadata.google.internal" if product.startswith("Google") else None


def _watch(host: str, key: str, requests: StopRequests, closed: threading.Event) -> None:
    """Asks the metadata server for one key until it announces the end of the VM, or `closed` is set.

    An end that the first answer already announces stops nothing: there is little to lose yet, and SIGTERM follows when
    the VM does shut down. A loop that restarts the run after 143 would else stop and start it again and again, on a VM
    that announces its end for an hour.
    """
    notice, ends = _ENDS[key]
    last, wait, failures, said = None, 0.0, 0, False
    while not closed.wait(wait):
        try:
            answer = _ask(host, key)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no name of a host
            wait = min(2 * wait or POLL_SECONDS, LONGEST_WAIT_SECONDS)
            failures += 1
            if failures >= FAILURES_BEFORE_SAID and not said and not closed.is_set():
                said = True
                why = str(error) or type(error).__name__
                say(
                    f"metadata server {host}: no answer for instance/{key} ({why}); training goes on, it is asked again"
                )
            continue
        wait, failures = POLL_SECONDS, 0
        if answer == last or closed.is_set():
            continue
        if answer in ends and last is not None:
            requests.request(StopReason(_CODES[signal.SIGTERM], notice))
            say(f"metadata server: {key} is {answer}: stopping after this step and a checkpoint")
            return
        if answer not in _NOTHING:
            say(f"metadata server: {key} is {'already ' if answer in ends else ''}{answer}; training goes on")
        last = answer


def _ask(host: str, key: str) -> str:
    """Reads one value of the metadata server. Raises OSError, HTTPException or ValueError for a bad answer."""
    # http.client knows no proxies, unlike urllib: the server is the VM's own host.
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", f"/computeMetadata/v1/instance/{key}", headers={"Metadata-Flavor": "Google"})
        response = connection.getresponse()
        answer = response.read(1000).decode("utf-8", errors="replace").strip()
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(f"HTTP {response.status}")
    if response.getheader("Metadata-Flavor") != "Google":  # whoever answers here, it is not a metadata server
        raise OSError("an answer without Metadata-Flavor: Google")
    return answer


def _say_in_handler(message: str) -> None:
    """Prints a line from a signal handler, which may have interrupted a print: past all buffers and their locks."""
    start = "\n" if os.isatty(2) else ""  # a terminal may show a progress bar
    with suppress(OSError):  # nobody reads it: the terminal is closed
        os.write(2, f"{start}{message}\n".encode())
