"""The MLflow server: its address, the time that tfpipe waits for it, and its errors in words.

Enters: an address. Leaves: a client of it, or one line. Nothing leaves this machine without an address. MLflow's own
telemetry, which would report each import of MLflow to its makers, is off.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tfpipe.errors import InputError, told_by

if TYPE_CHECKING:
    from mlflow import MlflowClient

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    # By itself, MLflow asks a server that is gone for four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
"""what MLflow reads of the environment; what is set there stays"""
_FIRST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""of the first question, which is whether there is a server; what is set in the environment holds here too"""


def connect(uri: str | None) -> MlflowClient:
    """Opens a client, and sets the address for all of MLflow in this process.

    Args:
      uri: `http://…`, `https://…` or `sqlite:///FILE`; None: the value of MLFLOW_TRACKING_URI.

    Raises:
      InputError: there is no address, MLflow is not installed, or no server answers.
    """
    address = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        raise InputError(
            "track: no server; give --uri http://HOST:PORT or --uri sqlite:///FILE, or set MLFLOW_TRACKING_URI"
        )
    scheme = address.partition(":")[0]
    if scheme not in ("http", "https", "sqlite"):
        raise InputError(
            f"--uri {shown(address)}: expected http://HOST:PORT, https://… or sqlite:///FILE; for any other store of "
            "MLflow, start `mlflow server` on it and give its address"
        )
    for module, extra in (("mlflow", "'tfpipe[mlflow]'"), *([("sqlalchemy", "mlflow")] if scheme == "sqlite" else [])):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"track: {scheme}:… needs the package {module}; install it with: pip install {extra}")
    first = {name: value for name, value in _FIRST.items() if name not in os.environ}
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    with told(address), _environment(first):
        mlflow.set_tracking_uri(address)
        client = mlflow.MlflowClient()
        client.search_experiments(max_results=1)
    return client


def files_of(address: str) -> str | None:
    """Gives the directory of an experiment's files: beside a local database, not in the present directory.

    Args:
      address: of the server; if a server decides, the result is None.
    """
    if not address.startswith("sqlite:///"):
        return None
    return str(Path(address.removeprefix("sqlite:///").partition("?")[0]).absolute().parent / "mlruns")


def shown(address: str) -> str:
    """Gives an address without the name and the password in it."""
    return re.sub(r"//[^/@]*@", "//", address)


@contextmanager
def told(address: str) -> Iterator[None]:
    """Turns the errors of MLflow and its libraries in the block into one line.

    Raises:
      InputError: see above.
    """
    import mlflow

    try:
        yield
    except InputError:
        raise
    except OSError as error:  # `requests` raises kinds of it, which name no file
        if error.filename is not None or error.errno == errno.ENOSPC:
            raise
        raise InputError(f"--uri {shown(address)}: {_reason(error)}") from error
    except mlflow.exceptions.MlflowException as error:
        raise InputError(f"--uri {shown(address)}: {_reason(error)}") from error
    except Exception as error:  # of sqlalchemy, which need not be installed
        if type(error).__module__.partition(".")[0] not in ("sqlalchemy", "alembic"):
            raise
        raise InputError(f"--uri {shown(address)}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error)
    cause = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)", text)
    if cause is not None or "timed out" in text:
        reason = cause[1].strip().lower() if cause is not None else "timed out"
        return f"no MLflow server answers there ({reason}); start one with `mlflow server`, or give another address"
    return f"MLflow says: {shown(told_by(error))}"


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
