"""The address of a model on a TF Serving endpoint, the facts that an endpoint tells of it, and the ways to fail."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from tfpipe.errors import InputError
from tfpipe.escaping import printable

LARGEST_ANSWER_BYTES = 256 << 20
LONGEST_TOLD = 300  # characters of a server's own message
WHAT_TO_WRITE = (
    "write http://HOST:8501/v1/models/NAME (or https://), or grpc://HOST:8500/NAME, and /versions/NUMBER or "
    "/labels/LABEL after NAME if you want one of these"
)
_VERSION = r"(?:/versions/(?P<version>[0-9]{1,18})|/labels/(?P<label>[^/:]+))?(?::predict)?/?"
_REST = re.compile(rf"(?P<prefix>.*?)/v1/models/(?P<model>[^/:]+){_VERSION}")
_GRPC = re.compile(rf"(?P<prefix>)/(?P<model>[^/:]+){_VERSION}")
_TOO_LARGE = re.compile(r"larger than maximum input batch size (?P<most>[0-9]{1,9})\b")


class Unavailable(Exception):
    """The server can't be asked at the moment; tfpipe tries again."""


class BatchTooLarge(Exception):
    """The server takes at most `most` texts a request: it was started with `--enable_batching`."""

    def __init__(self, most: int):
        super().__init__(most)
        self.most = most


class Signature(NamedTuple):
    """The tensors of a signature: name -> type, as `DT_STRING`."""

    inputs: dict[str, str]
    outputs: dict[str, str]


class Metadata(NamedTuple):
    """The facts that a server tells of a model."""

    version: int | None
    """the one that it asks now; None: it does not tell"""
    signatures: dict[str, Signature]


class Transport(Protocol):
    """A way to ask a server: REST or gRPC. Several threads may ask at once."""

    def metadata(self, endpoint: Endpoint) -> Metadata:
        """Asks for the facts about the model.

        Raises:
          Unavailable: try again.
          InputError: the server refuses, or its answer is malformed.
        """

    def predict(self, endpoint: Endpoint, signature: str, inputs: dict[str, list[str]]) -> dict[str, Any]:
        """Asks a signature: name -> texts, in columns; returns name -> values, as nested lists or an array.

        Raises:
          Unavailable: try again.
          BatchTooLarge: ask for fewer texts at once.
          InputError: the server refuses, or its answer is malformed.
        """


@dataclass(frozen=True)
class Endpoint:
    """A model on a server."""

    url: str
    """as it was given"""
    scheme: str
    """http, https or grpc"""
    host: str
    port: int
    prefix: str
    """of REST's path, where a proxy adds one"""
    model: str
    version: int | None
    label: str | None

    @property
    def path(self) -> str:
        """Gives the path of REST for this model."""
        which = f"/versions/{self.version}" if self.version is not None else f"/labels/{self.label}"
        which = "" if self.version is None and self.label is None else which
        return f"{self.prefix}/v1/models/{self.model}{which}"

    def of_version(self, version: int) -> Endpoint:
        """Returns the same model in one version, whatever the server loads meanwhile."""
        return replace(self, version=version, label=None)

    def error(self, what: str, to_do: str) -> InputError:
        """Makes an error of one line.

        Args:
          what: the event.
          to_do: advice.
        """
        return InputError(f"--server {printable(self.url)}: {what}; {to_do}")


def parse_url(url: str) -> Endpoint:
    """Reads the address of a model.

    Raises:
      InputError: it is malformed.
    """
    try:
        parts = urlsplit(url)
        scheme, port = parts.scheme.lower(), parts.port
        host = parts.hostname
    except ValueError as error:
        raise InputError(f"--server {printable(url)!r}: not a URL ({error}); {WHAT_TO_WRITE}") from error
    match = (_GRPC if scheme == "grpc" else _REST).fullmatch(parts.path)
    reason = None
    if not re.fullmatch("[!-~]+", url):
        reason = "characters that no URL has"
    elif scheme not in ("http", "https", "grpc") or not host:
        reason = "no http://, https:// or grpc:// with a host"
    elif parts.username is not None or parts.query or parts.fragment:
        reason = "a user, a query or a fragment, which TF Serving does not take"
    elif scheme == "grpc" and port is None:
        reason = "no port"
    elif match is None:
        reason = "no name of a model" if scheme == "grpc" else "no /v1/models/NAME"
    if reason is not None:
        shown = re.sub(r"//[^/@]*@", "//…@", printable(url))  # an error is no place for a password
        raise InputError(f"--server {shown[:LONGEST_TOLD]!r}: {reason}; {WHAT_TO_WRITE}")
    version = match["version"]
    port = port if port is not None else {"http": 80, "https": 443}[scheme]
    found = (match["prefix"], match["model"], None if version is None else int(version), match["label"])
    return Endpoint(url, scheme, host, port, *found)


def told(message: str) -> str:
    """Shows a server's own message on one line."""
    shown = printable(message)
    return shown if len(shown) <= LONGEST_TOLD else f"{shown[: LONGEST_TOLD - 1]}…"


def check_batch_size(message: str) -> None:
    """Checks whether a server refused a request because it has too many texts.

    Raises:
      BatchTooLarge: it did.
    """
    if match := _TOO_LARGE.search(message):
        raise BatchTooLarge(int(match["most"]))
