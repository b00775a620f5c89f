"""One line for each way in which a TPU can't be had; nothing here needs one."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.error

import pytest

from tfpipe.devices import tpu
from tfpipe.devices.strategy import choose_strategy, explain_strategy
from tfpipe.errors import InputError


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    monkeypatch.delenv("TF_CONFIG", raising=False)


def test_no_tpu_on_this_machine():
    """In a process of its own: what is half connected would stay so."""
    assert explain_strategy("tpu").value == "tpu"
    code = "from tfpipe.devices.strategy import choose_strategy; choose_strategy('tpu')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert "InputError: train.strategy: tpu: TensorFlow finds no TPU on this machine" in last
    assert "install tensorflow-tpu as tpu/setup.sh does" in last


def test_a_tpu_that_does_not_answer(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    monkeypatch.setenv("TPU_NAME", f"grpc://127.0.0.1:{port}")
    assert str(explain_strategy("auto")) == f"tpu (TPU_NAME=grpc://127.0.0.1:{port})"
    with pytest.raises(InputError, match=rf"^TPU_NAME: the TPU at 127.0.0.1:{port} does not answer \(.*refused"):
        choose_strategy("auto")


class DefaultCredentialsError(Exception):
    """As google.auth names it."""


class HttpError(Exception):
    """As googleapiclient names it."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DefaultCredentialsError("Your default credentials\nwere not found."), "gcloud auth application-default login"),
        (ImportError("No module named 'googleapiclient'"), "google-api-python-client, which is not installed"),
        (urllib.error.URLError("no such host"), "this is no machine of Google Cloud"),
        (HttpError("<HttpError 404 … not found>"), "no such TPU, or it is not ready; see gcloud compute tpus"),
        (RuntimeError("TPU imdb is not ready: CREATING"), "no such TPU, or it is not ready"),
    ],
)
def test_what_a_name_can_lead_to(error, said):
    message = str(tpu.explained("imdb", error))
    assert message.startswith("TPU_NAME: imdb: ") and said in message and "\n" not in message
