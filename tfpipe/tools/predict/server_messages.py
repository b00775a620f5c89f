"""The messages of TF Serving's PredictionService that a client needs, with the fields that it needs.

tensorflow-serving-api has them whole, but its modules import TensorFlow: seven seconds and 400 MB for a client that
computes nothing. Only the numbers of fields and the form of their values travel, not their names, so that these
messages are the same on the wire. A test compares them with those of tensorflow-serving-api.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "tfpipe.serving"
_KINDS = descriptor_pb2.FieldDescriptorProto
# A name ends in * where the field is repeated. A map travels as repeated messages of a key and a value.
_FIELDS = {
    "Version": {"value": (1, "INT64")},
    "ModelSpec": {
        "name": (1, "STRING"), "version": (2, "Version"), "signature_name": (3, "STRING"),
        "version_label": (4, "STRING"),
    },
    "Dimension": {"size": (1, "INT64")},
    "Shape": {"dim*": (2, "Dimension")},
    "Tensor": {
        "dtype": (1, "INT32"), "tensor_shape": (2, "Shape"), "tensor_content": (4, "BYTES"), "float_val*": (5, "FLOAT"),
        "string_val*": (8, "BYTES"),
    },
    "NamedTensor": {"key": (1, "STRING"), "value": (2, "Tensor")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs*": (2, "NamedTensor")},
    "PredictResponse": {"outputs*": (1, "NamedTensor"), "model_spec": (2, "ModelSpec")},
    "TensorInfo": {"name": (1, "STRING"), "dtype": (2, "INT32")},
    "NamedInfo": {"key": (1, "STRING"), "value": (2, "TensorInfo")},
    "Signature": {"inputs*": (1, "NamedInfo"), "outputs*": (2, "NamedInfo")},
    "NamedSignature": {"key": (1, "STRING"), "value": (2, "Signature")},
    "Signatures": {"signature_def*": (1, "NamedSignature")},
    "Any": {"type_url": (1, "STRING"), "value": (2, "BYTES")},
    "NamedAny": {"key": (1, "STRING"), "value": (2, "Any")},
    "MetadataRequest": {"model_spec": (1, "ModelSpec"), "metadata_field*": (2, "STRING")},
    "MetadataResponse": {"model_spec": (1, "ModelSpec"), "metadata*": (2, "NamedAny")},
}  # fmt: skip


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="tfpipe/serving.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            label = _KINDS.LABEL_REPEATED if field.endswith("*") else _KINDS.LABEL_OPTIONAL
            added = message.field.add(name=field.rstrip("*"), number=number, label=label)
            if kind in _FIELDS:
                added.type, added.type_name = _KINDS.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                added.type = getattr(_KINDS, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _FIELDS}


MESSAGES = _classes()
"""name -> class"""
