"""A stand-in for TF Serving: its REST and gRPC protocols over a real SavedModel, loaded with TensorFlow.

    python tests/tf_serving_stand_in.py DIRECTORY PORT [NAME]

serves REST at http://127.0.0.1:PORT/v1/models/NAME (`model` without NAME) until it is interrupted. DIRECTORY is a
SavedModel, or has one in each of its numbered directories, as TF Serving's --model_base_path.

What it does as TF Serving: model status, metadata, `:predict` in rows and in columns, versions, errors as
`{"error": …}` with the status of their kind, a limit of texts a request (`most`), floats in their shortest form.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  (operators of the tokenizer)

DTYPES = {tf.string: "DT_STRING", tf.float32: "DT_FLOAT", tf.int32: "DT_INT32"}
_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?(/metadata|:predict)?")


class Refused(Exception):
    """A request is refused, with an HTTP status and a message."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


class Served:
    """The versions of a model; `most` is the largest request that its batching takes."""

    def __init__(self, directory: Path, name: str = "model", most: int | None = None):
        versions = {int(path.name): path for path in directory.iterdir() if path.name.isdigit()} or {1: directory}
        self.loaded = {version: tf.saved_model.load(str(path)) for version, path in versions.items()}
        self.name, self.most = name, most
        self.labels: dict[str, int] = {}

    def find(self, name: str, version: int | None, label: str | None) -> tuple[int, Any]:
        """Returns the version that a request names, and its model."""
        if label is not None:
            if name == self.name and label not in self.labels:
                raise Refused(400, f"Unrecognized servable version label: {label}")
            version = self.labels.get(label)
        which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        if name != self.name or (version is not None and version not in self.loaded):
            raise Refused(404, f"Servable not found for request: {which}")
        version = max(self.loaded) if version is None else version
        return version, self.loaded[version]

    def predict(self, model: Any, signature: str, inputs: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Runs a signature; name -> values of each input."""
        if signature not in model.signatures:
            raise Refused(400, f'Serving signature key "{signature}" not found.')
        function = model.signatures[signature]
        specs = function.structured_input_signature[1]
        if inputs.keys() != specs.keys():
            raise Refused(400, f"inputs: {sorted(inputs)}; expected {sorted(specs)}")
        try:
            tensors = {name: tf.constant(values, specs[name].dtype) for name, values in inputs.items()}
        except (TypeError, ValueError) as error:
            raise Refused(400, f"JSON Value: {error} is not of expected type") from error
        size = max(int(tensor.shape[0]) for tensor in tensors.values())
        if self.most is not None and size > self.most:
            raise Refused(400, f"Task size {size} is larger than maximum input batch size {self.most}")
        try:
            return function(**tensors)
        except tf.errors.OpError as error:
            raise Refused(400, str(error)) from error

    def rest(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        """Answers a request of REST, as a JSON object."""
        match = _PATH.fullmatch(path)
        if match is None or (method == "POST") != (match[4] == ":predict"):
            raise Refused(404 if match is None else 405, f"Malformed request: {method} {path}")
        version, model = self.find(match[1], match[2] and int(match[2]), match[3])
        if match[4] is None:
            status = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            return {"model_version_status": [{"version": str(each)} | status for each in sorted(self.loaded)]}
        if match[4] == "/metadata":
            spec = {"name": self.name, "signature_name": "", "version": str(version)}
            return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": _signatures(model)}}}
        try:
            request = json.loads(body)
            rows, columns = request.get("instances"), request.get("inputs")
        except (ValueError, AttributeError) as error:
            raise Refused(400, f"JSON Parse error: {error}") from error
        if (rows is None) == (columns is None):
            raise Refused(400, "Missing 'inputs' or 'instances' key")
        only = _only(model, request.get("signature_name", "serving_default"))
        inputs = columns if isinstance(columns, dict) else {only: columns}
        if rows is not None:
            rows = [row if isinstance(row, dict) else {only: row} for row in rows]
            inputs = {name: [row[name] for row in rows] for name in rows[0]}
        found = self.predict(model, request.get("signature_name", "serving_default"), inputs)
        outputs = {name: _plain(tensor) for name, tensor in found.items()}
        if rows is None:
            return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}
        each = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
        return {"predictions": each if len(outputs) > 1 else [next(iter(row.values())) for row in each]}


def _only(model: Any, signature: str) -> str:
    if signature not in model.signatures:
        return ""
    return next(iter(model.signatures[signature].structured_input_signature[1]))


def _signatures(model: Any) -> dict[str, Any]:
    def described(tensors):
        return {
            name: {
                "dtype": DTYPES[tensor.dtype],
                "tensor_shape": {
                    "dim": [{"size": str(size or -1), "name": ""} for size in tensor.shape],
                    "unknown_rank": False,
                },
                "name": f"{name}:0",
            }
            for name, tensor in tensors.items()
        }

    return {
        name: {
            "inputs": described(function.structured_input_signature[1]),
            "outputs": described(function.structured_outputs),
            "method_name": "tensorflow/serving/predict",
        }
        for name, function in model.signatures.items()
    }


def _plain(tensor: tf.Tensor) -> list:
    values = tensor.numpy()
    if values.dtype == object:
        return np.vectorize(bytes.decode, otypes=[object])(values).tolist() if values.size else values.tolist()
    return values.astype(str).astype(np.float64).tolist() if values.dtype == np.float32 else values.tolist()


class RestServer(ThreadingHTTPServer):
    """REST on the loopback. The next request is first given to the first of `faults`, which may answer otherwise.

    A fault takes the handler of the request, and tells whether it has dealt with it. `asked` lists what was asked, as
    method and path, and `connections` counts those that were opened.
    """

    daemon_threads = True

    def __init__(self, served: Served, port: int = 0):
        super().__init__(("127.0.0.1", port), RestHandler)
        self.served = served
        self.faults: list[Callable[[RestHandler], bool]] = []
        self.asked: list[tuple[str, str]] = []
        self.connections = 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1/models/{served.name}"

    def handle_error(self, request, client_address):
        """Says nothing of connections that a test has cut."""


class RestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        self.server.connections += 1
        super().setup()

    def do_GET(self):
        self.do("GET")

    def do_POST(self):
        self.do("POST")

    def do(self, method):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((method, self.path))
        if self.server.faults and self.server.faults.pop(0)(self):
            return
        try:
            self.give(200, json.dumps(self.server.served.rest(method, self.path, self.body), indent=1).encode())
        except Refused as refused:
            self.give(refused.status, json.dumps({"error": refused.message}).encode())

    def give(self, status, content, **headers):
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": len(content)} | headers).items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def rest_server(served: Served, port: int = 0) -> Iterator[RestServer]:
    """A server in a thread."""
    with RestServer(served, port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def grpc_server(served: Served, port: int = 0) -> Iterator[Any]:
    """The same by gRPC: gives the servicer, which has `url`, `asked` (the requests) and `faults`.

    A fault takes the context of a call; it ends the call, or returns.
    """
    import grpc
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

    codes = {400: grpc.StatusCode.INVALID_ARGUMENT, 404: grpc.StatusCode.NOT_FOUND}

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def __init__(self):
            self.asked: list[Any] = []
            self.faults: list[Callable[[Any], None]] = []

        def _begin(self, request, context):
            self.asked.append(request)
            if self.faults:
                self.faults.pop(0)(context)
            spec = request.model_spec
            version = spec.version.value if spec.HasField("version") else None
            try:
                return served.find(spec.name, version, spec.version_label or None)
            except Refused as refused:
                context.abort(codes[refused.status], refused.message)

        def Predict(self, request, context):
            version, model = self._begin(request, context)
            inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            signature = request.model_spec.signature_name or "serving_default"
            try:
                found = served.predict(model, signature, inputs)
            except Refused as refused:
                context.abort(codes[refused.status], refused.message)
            response = predict_pb2.PredictResponse()
            for name, tensor in found.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
            response.model_spec.name = served.name
            response.model_spec.version.value = version
            return response

        def GetModelMetadata(self, request, context):
            version, model = self._begin(request, context)
            types = {"DT_STRING": 7, "DT_FLOAT": 1, "DT_INT32": 3}
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, tensors in _signatures(model).items():
                for kind in ("inputs", "outputs"):
                    for key, tensor in tensors[kind].items():
                        info = getattr(signatures.signature_def[name], kind)[key]
                        info.name, info.dtype = tensor["name"], types[tensor["dtype"]]
                        for dimension in tensor["tensor_shape"]["dim"]:
                            info.tensor_shape.dim.add(size=int(dimension["size"]))
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.name = served.name
            response.model_spec.version.value = version
            response.metadata["signature_def"].Pack(signatures)
            return response

    server = grpc.server(ThreadPoolExecutor(4))
    servicer = Servicer()
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    servicer.url = f"grpc://127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}/{served.name}"
    server.start()
    try:
        yield servicer
    finally:
        server.stop(None).wait()


def main() -> None:
    """Serves a directory by REST until it is interrupted."""
    directory, port, *name = sys.argv[1:]
    with RestServer(Served(Path(directory), *name), int(port)) as server:
        print(f"serves {directory} at {server.url}", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
