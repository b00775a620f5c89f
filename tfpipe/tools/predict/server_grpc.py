"""TF Serving's gRPC interface, asked with grpcio and without TensorFlow. Proxies of the environment are not used."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from tfpipe.tools.predict.server_endpoint import (
    LARGEST_ANSWER_BYTES,
    Endpoint,
    Metadata,
    Signature,
    Unavailable,
    check_batch_size,
    told,
)
from tfpipe.tools.predict.server_messages import MESSAGES

_SERVICE = "/tensorflow.serving.PredictionService"
_TYPES = {1: "DT_FLOAT", 7: "DT_STRING"}
_FLOAT, _STRING = _TYPES
TRIED_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
_NO_TF_SERVING = "see that this is the gRPC port of TF Serving (8500 unless it was set otherwise)"
_REST = "http://HOST:8501/v1/models/NAME"
_OPTIONS = {
    "grpc.max_receive_message_length": LARGEST_ANSWER_BYTES,
    "grpc.max_send_message_length": -1,
    "grpc.enable_http_proxy": 0,
    # How long a channel waits before it connects again: no longer than a call is tried again.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 2000,
}


class Grpc:
    """A server, asked by gRPC."""

    def __init__(self, endpoint: Endpoint, timeout: float):
        self._timeout = timeout
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        self._channel = grpc.insecure_channel(f"{host}:{endpoint.port}", options=list(_OPTIONS.items()))

    def metadata(self, endpoint: Endpoint) -> Metadata:
        """Implements `Transport`."""
        request = MESSAGES["MetadataRequest"](metadata_field=["signature_def"])
        _name(request.model_spec, endpoint)
        found = self._ask(endpoint, "GetModelMetadata", request, "MetadataResponse")
        try:
            content = next(each.value.value for each in found.metadata if each.key == "signature_def")
            signatures = MESSAGES["Signatures"].FromString(content)
        except (StopIteration, DecodeError) as error:
            raise endpoint.error("GetModelMetadata tells no signatures", _NO_TF_SERVING) from error
        spec = found.model_spec
        return Metadata(
            spec.version.value if spec.HasField("version") else None,
            {
                each.key: Signature(*map(_types, (each.value.inputs, each.value.outputs)))
                for each in signatures.signature_def
            },
        )

    def predict(self, endpoint: Endpoint, signature: str, inputs: dict[str, list[str]]) -> dict[str, Any]:
        """Implements `Transport`."""
        request = MESSAGES["PredictRequest"]()
        _name(request.model_spec, endpoint)
        request.model_spec.signature_name = signature
        for name, texts in inputs.items():
            tensor = request.inputs.add(key=name).value
            tensor.dtype = _STRING
            tensor.tensor_shape.dim.add(size=len(texts))
            tensor.string_val.extend(text.encode() for text in texts)
        found = self._ask(endpoint, "Predict", request, "PredictResponse")
        try:
            return {each.key: _values(each.value) for each in found.outputs}
        except ValueError as error:
            raise endpoint.error(f"a damaged answer of {signature} ({error})", _NO_TF_SERVING) from error

    def _ask(self, endpoint: Endpoint, method: str, request: Any, response: str) -> Any:
        call = self._channel.unary_unary(
            f"{_SERVICE}/{method}", type(request).SerializeToString, MESSAGES[response].FromString
        )
        try:
            return call(request, timeout=self._timeout)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
        said = f"{code.name}: {told(details)}"
        if "Expected SETTINGS frame" in details:  # of HTTP/2
            raise endpoint.error(f"no answer in gRPC ({said})", f"{_NO_TF_SERVING}; REST's is 8501, for {_REST}")
        if code in TRIED_AGAIN and "message larger than max" not in details:
            raise Unavailable(said)
        check_batch_size(details)
        to_do = "see the name and the version of the model, and the server's log"
        raise endpoint.error(said, _NO_TF_SERVING if code == grpc.StatusCode.UNIMPLEMENTED else to_do)


def _name(spec: Any, endpoint: Endpoint) -> None:
    spec.name = endpoint.model
    if endpoint.version is not None:
        spec.version.value = endpoint.version
    elif endpoint.label is not None:
        spec.version_label = endpoint.label


def _types(tensors: Any) -> dict[str, str]:
    return {each.key: _TYPES.get(each.value.dtype, f"type {each.value.dtype}") for each in tensors}


def _values(tensor: Any) -> Any:
    """Reads a tensor: strings as a nested list, float32 as an array; of other types, None.

    Raises:
      ValueError: its values do not fit its shape.
    """
    shape = [each.size for each in tensor.tensor_shape.dim]
    if tensor.dtype == _STRING:
        values = np.array([each.decode() for each in tensor.string_val], object)
        return values.reshape(shape).tolist()
    if tensor.dtype != _FLOAT:
        return None
    content = tensor.tensor_content
    return (np.frombuffer(content, "<f4") if content else np.array(tensor.float_val, np.float32)).reshape(shape)
