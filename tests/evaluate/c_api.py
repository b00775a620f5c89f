"""Runs a SavedModel through TensorFlow's C API by ctypes: no Keras, no TensorFlow Python, as a server does.

    python c_api.py SITE_PACKAGES SAVED_MODEL < requests.json > answers.json

Loads tensorflow-text's kernels (TF_LoadLibrary), then the SavedModel (TF_LoadSessionFromSavedModel), from the libraries
of the installed wheels. Requests: [{"signature", "inputs": {name: nested list of int, or list of base64}}]; a tensor
without elements is {"type": "int32" or "string", "shape"}. Where the runtime fails, the answer is {"error"}.
"""

from __future__ import annotations

import base64
import ctypes
import json
import math
import sys
from pathlib import Path

FLOAT, INT32, STRING = 1, 3, 7  # TF_DataType
LIBRARIES = ("_whitespace_tokenizer_v2.so", "_fast_wordpiece_tokenizer.so")  # as README.md of a SavedModel has them


class Failed(Exception):
    """What the runtime said."""


class Output(ctypes.Structure):  # TF_Output
    _fields_ = (("oper", ctypes.c_void_p), ("index", ctypes.c_int))


class Buffer(ctypes.Structure):  # TF_Buffer
    _fields_ = (("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p))


class TString(ctypes.Structure):  # TF_TString: 24 bytes, opaque here
    _fields_ = (("bytes", ctypes.c_byte * 24),)


def load(site: Path) -> ctypes.CDLL:
    ctypes.CDLL(str(site / "tensorflow" / "libtensorflow_framework.so.2"), ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(site / "tensorflow" / "libtensorflow_cc.so.2"), ctypes.RTLD_GLOBAL)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name, result, arguments in (
        ("TF_NewStatus", pointer, []),
        ("TF_GetCode", ctypes.c_int, [pointer]),
        ("TF_Message", ctypes.c_char_p, [pointer]),
        ("TF_LoadLibrary", pointer, [ctypes.c_char_p, pointer]),
        ("TF_NewGraph", pointer, []),
        ("TF_NewSessionOptions", pointer, []),
        (
            "TF_LoadSessionFromSavedModel",
            pointer,
            [pointer, pointer, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, *[pointer] * 3],
        ),
        ("TF_GraphOperationByName", pointer, [pointer, ctypes.c_char_p]),
        ("TF_AllocateTensor", pointer, [ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.c_int, size]),
        ("TF_TensorData", pointer, [pointer]),
        ("TF_NumDims", ctypes.c_int, [pointer]),
        ("TF_Dim", ctypes.c_int64, [pointer, ctypes.c_int]),
        ("TF_TensorType", ctypes.c_int, [pointer]),
        ("TF_StringInit", None, [pointer]),
        ("TF_StringCopy", None, [pointer, ctypes.c_char_p, size]),
        ("TF_StringGetDataPointer", pointer, [pointer]),
        ("TF_StringGetSize", size, [pointer]),
        (
            "TF_SessionRun",
            None,
            [pointer, pointer, ctypes.POINTER(Output), ctypes.POINTER(pointer), ctypes.c_int, ctypes.POINTER(Output),
             ctypes.POINTER(pointer), ctypes.c_int, pointer, ctypes.c_int, pointer, pointer],
        ),
    ):  # fmt: skip
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Model:
    """A loaded SavedModel."""

    def __init__(self, site: Path, directory: str):
        self.tf = load(site)
        self.status = self.tf.TF_NewStatus()
        for name in LIBRARIES:
            self.tf.TF_LoadLibrary(str(site / "tensorflow_text" / "python" / "ops" / name).encode(), self.status)
            self.check()
        self.graph = self.tf.TF_NewGraph()
        tags = (ctypes.c_char_p * 1)(b"serve")
        options, meta_graph = self.tf.TF_NewSessionOptions(), Buffer()
        self.session = self.tf.TF_LoadSessionFromSavedModel(
            options, None, directory.encode(), tags, 1, self.graph, ctypes.byref(meta_graph), self.status
        )
        self.check()
        self.signatures = signatures(ctypes.string_at(meta_graph.data, meta_graph.length))

    def check(self) -> None:
        if self.tf.TF_GetCode(self.status) != 0:
            raise Failed(self.tf.TF_Message(self.status).decode())

    def output(self, name: str) -> Output:
        operation, _, index = name.partition(":")
        found = self.tf.TF_GraphOperationByName(self.graph, operation.encode())
        assert found, f"{operation} is not in the graph"
        return Output(found, int(index))

    def tensor(self, value: list | dict) -> int:
        if isinstance(value, dict):
            kind, shape = {"int32": INT32, "string": STRING}[value["type"]], value["shape"]
            return self.tf.TF_AllocateTensor(kind, (ctypes.c_int64 * len(shape))(*shape), len(shape), 0)
        if isinstance(value[0], str):
            shape = (ctypes.c_int64 * 1)(len(value))
            tensor = self.tf.TF_AllocateTensor(STRING, shape, 1, ctypes.sizeof(TString) * len(value))
            start = self.tf.TF_TensorData(tensor)
            for index, text in enumerate(base64.b64decode(each) for each in value):
                place = start + index * ctypes.sizeof(TString)
                self.tf.TF_StringInit(place)
                self.tf.TF_StringCopy(place, text, len(text))
            return tensor
        rows, columns = len(value), len(value[0])
        tensor = self.tf.TF_AllocateTensor(INT32, (ctypes.c_int64 * 2)(rows, columns), 2, 4 * rows * columns)
        flat = (ctypes.c_int32 * (rows * columns))(*(number for row in value for number in row))
        ctypes.memmove(self.tf.TF_TensorData(tensor), flat, 4 * rows * columns)
        return tensor

    def value(self, tensor: int) -> dict:
        shape = [self.tf.TF_Dim(tensor, axis) for axis in range(self.tf.TF_NumDims(tensor))]
        start, count = self.tf.TF_TensorData(tensor), math.prod(shape)
        if self.tf.TF_TensorType(tensor) == FLOAT:
            return {"shape": shape, "values": list((ctypes.c_float * count).from_address(start))}
        assert self.tf.TF_TensorType(tensor) == STRING
        places = [start + index * ctypes.sizeof(TString) for index in range(count)]
        values = [
            ctypes.string_at(self.tf.TF_StringGetDataPointer(p), self.tf.TF_StringGetSize(p)).decode() for p in places
        ]
        return {"shape": shape, "values": values}

    def answered(self, signature: str, inputs: dict[str, list | dict]) -> dict:
        try:
            return self.run(signature, inputs)
        except Failed as failure:
            return {"error": str(failure)}

    def run(self, signature: str, inputs: dict[str, list | dict]) -> dict:
        known_inputs, known_outputs = self.signatures[signature]
        fed = (Output * len(inputs))(*(self.output(known_inputs[name]) for name in inputs))
        values = (ctypes.c_void_p * len(inputs))(*(self.tensor(value) for value in inputs.values()))
        fetched = (Output * len(known_outputs))(*(self.output(name) for name in known_outputs.values()))
        results = (ctypes.c_void_p * len(known_outputs))()
        self.tf.TF_SessionRun(
            self.session,
            None,
            fed,
            values,
            len(inputs),
            fetched,
            results,
            len(known_outputs),
            None,
            0,
            None,
            self.status,
        )
        self.check()
        return {name: self.value(tensor) for name, tensor in zip(known_outputs, results, strict=True)}


def signatures(meta_graph: bytes) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """Name -> tensors of the inputs and outputs, read from a MetaGraphDef without any generated code."""
    found = {}
    for entry in fields(meta_graph, 5):  # map<string, SignatureDef> signature_def
        (name,), (definition,) = fields(entry, 1), fields(entry, 2)
        found[name.decode()] = tuple(
            {
                key.decode(): tensor.decode()
                for each in fields(definition, number)  # map<string, TensorInfo> inputs, outputs
                for key, info in [(fields(each, 1)[0], fields(each, 2)[0])]
                for tensor in fields(info, 1)  # string name
            }
            for number in (1, 2)
        )
    return found


def fields(message: bytes, wanted: int) -> list[bytes]:
    """The length-delimited fields of a protobuf message that have a number."""
    found, place = [], 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(message):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            varint()
        elif kind == 2:
            length = varint()
            if number == wanted:
                found.append(message[place : place + length])
            place += length
        else:
            place += {1: 8, 5: 4}[kind]
    return found


if __name__ == "__main__":
    model = Model(Path(sys.argv[1]), sys.argv[2])
    answers = [model.answered(request["signature"], request["inputs"]) for request in json.load(sys.stdin)]
    assert not any(name.split(".")[0] in ("tensorflow", "tf_keras", "keras") for name in sys.modules)
    json.dump(answers, sys.stdout)
