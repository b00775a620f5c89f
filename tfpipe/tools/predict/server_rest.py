"""TF Serving's REST interface, asked with the standard library over connections that are used again.

The protocol: https://www.tensorflow.org/tfx/serving/api_rest. Proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from typing import Any

from tfpipe.tools.predict.server_endpoint import (
    LARGEST_ANSWER_BYTES,
    Endpoint,
    Metadata,
    Signature,
    Unavailable,
    check_batch_size,
    told,
)

TRIED_AGAIN = {429, 502, 503, 504}
_CHUNK_BYTES = 1 << 16
_NO_TF_SERVING = "see that this is the REST port of TF Serving (8501 unless it was set otherwise)"
_LOOK = "see with `curl` of the URL whether the model is loaded, under this name and version"


class Rest:
    """A server, asked by REST."""

    def __init__(self, endpoint: Endpoint, timeout: float):
        self._timeout = timeout
        self._address = (endpoint.host, endpoint.port)
        self._context = ssl.create_default_context() if endpoint.scheme == "https" else None
        self._idle: list[http.client.HTTPConnection] = []

    def metadata(self, endpoint: Endpoint) -> Metadata:
        """Implements `Transport`."""
        found = self._ask(endpoint, "GET", f"{endpoint.path}/metadata", None)
        try:
            signatures = {
                str(name): Signature(_types(each["inputs"]), _types(each["outputs"]))
                for name, each in found["metadata"]["signature_def"]["signature_def"].items()
            }
            version = found["model_spec"].get("version")
            return Metadata(None if version in (None, "") else int(version), signatures)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise endpoint.error(f"{endpoint.path}/metadata tells no signatures", _NO_TF_SERVING) from error

    def predict(self, endpoint: Endpoint, signature: str, inputs: dict[str, list[str]]) -> dict[str, Any]:
        """Implements `Transport`."""
        body = json.dumps({"signature_name": signature, "inputs": inputs}, ensure_ascii=False).encode()
        found = self._ask(endpoint, "POST", f"{endpoint.path}:predict", body)
        outputs = found.get("outputs")
        if not isinstance(outputs, dict):
            raise endpoint.error(f"the answer of {signature} has no `outputs` with names", _NO_TF_SERVING)
        return outputs

    def _ask(self, endpoint: Endpoint, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        try:
            status, content = self._exchange(method, path, body)
        except ValueError as error:
            raise endpoint.error(str(error), _NO_TF_SERVING) from error
        except (TimeoutError, http.client.IncompleteRead, http.client.RemoteDisconnected, OSError) as error:
            if reason := _lasting(error):
                raise endpoint.error(reason, "see the host, the port and http or https") from error
            raise Unavailable(self._reason(error)) from error
        except http.client.HTTPException as error:
            what = f"no answer in HTTP ({type(error).__name__})"
            raise endpoint.error(what, f"{_NO_TF_SERVING}; gRPC's is 8500, for grpc://HOST:8500/NAME") from error
        if status != 200:
            self._refused(endpoint, status, content)
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            shown = told(content[:1000].decode(errors="replace"))
            raise endpoint.error(f"the answer is no JSON: {shown!r}", _NO_TF_SERVING) from error
        if not isinstance(found, dict):
            raise endpoint.error("the answer is no JSON object", _NO_TF_SERVING)
        return found

    def _refused(self, endpoint: Endpoint, status: int, content: bytes) -> None:
        text = content[:10_000].decode(errors="replace")
        try:
            message = str(json.loads(content)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            message = text
        said = f"HTTP {status}: {told(message) or http.client.responses.get(status, 'no message')}"
        if status in TRIED_AGAIN:
            raise Unavailable(said)
        check_batch_size(message)
        raise endpoint.error(said, _LOOK if status == 404 else "see the server's log")

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """Asks once; if an idle connection was closed meanwhile, opens a new one.

        Raises:
          ValueError: the answer is too large.
          OSError, http.client.HTTPException: the server could not be asked.
        """
        while True:
            try:  # another thread may take the last one
                fresh, connection = False, self._idle.pop()
            except IndexError:
                fresh, connection = True, self._connection()
            try:
                return self._once(connection, method, path, body)
            except ConnectionError:
                connection.close()
                if fresh:
                    raise
            except BaseException:
                connection.close()
                raise

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._context is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)

    def _once(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None
    ) -> tuple[int, bytes]:
        deadline = time.monotonic() + self._timeout
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body is not None else {})
        connection.request(method, path, body, headers)
        with connection.getresponse() as response:
            content = _read(response, deadline)
            status, closes = response.status, response.will_close
        if closes:
            connection.close()
        else:
            self._idle.append(connection)
        return status, content

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self._timeout:g} s"
        if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
            return "the connection was closed before the end of the answer"
        return error.strerror if isinstance(error, OSError) and error.strerror else told(str(error))


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    expected, chunks, size = response.length, [], 0  # None: in chunks, or up to the end of the connection
    while expected is None or size < expected:
        chunk = response.read1(_CHUNK_BYTES)
        size += len(chunk)
        if size > LARGEST_ANSWER_BYTES:
            raise ValueError(f"an answer of more than {LARGEST_ANSWER_BYTES >> 20} MB")
        if not chunk:
            if expected is not None:
                raise http.client.IncompleteRead(b"", expected - size)
            break
        if time.monotonic() > deadline:
            raise TimeoutError
        chunks.append(chunk)
    return b"".join(chunks)


def _lasting(error: Exception) -> str | None:
    """Describes an error that would recur; None for others."""
    if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
        return f"no such host ({error.strerror})"
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return f"no TLS ({told(str(error))})"
    return None


def _types(tensors: dict[str, Any]) -> dict[str, str]:
    return {str(name): str(tensor["dtype"]) for name, tensor in tensors.items()}
