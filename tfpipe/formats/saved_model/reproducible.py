"""Reproducible SavedModels: the same bytes for the same model, whatever the process has done before.

TensorFlow names functions by a counter of the process, lists them in the order of a hash table, notes the number of
devices, and adds a random number. None of these means anything: TensorFlow's own fingerprints leave them out, and a
loader renames every function. Here functions are counted from 0, in the order in which they were made, and the random
number becomes a digest of the rest.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from tensorflow.core.protobuf import config_pb2, fingerprint_pb2, saved_model_pb2
from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting

_COUNTED = re.compile(r"(.+_)([0-9]+)")
_GRADIENT = "_gradient_op_type"
"""attribute with the name of a gradient that only the process has that traced the function"""
_UNREAD = re.compile(r"_[0-9]+(?=___redundant_placeholder[0-9]+$)")
"""the number of a function in the name of an argument that the condition of a loop does not read"""
_NAME = "_user_specified_name"
_OPTIONS = "config_proto"
"""attribute of a call; it counts the devices of the machine that traced it"""
_NAME_FUNCTIONS = frozenset(
    f"tensorflow.{field}"
    for field in (
        *("OpDef.name", "NodeDef.op", "NameAttrList.name", "GradientDef.function_name", "GradientDef.gradient_func"),
        *("RegisteredGradient.gradient_func", "MetaGraphDef.MetaInfoDef.function_aliases"),
        *("SavedObjectGraph.concrete_functions", "SavedFunction.concrete_functions"),
        *("SavedBareConcreteFunction.concrete_function_name", "CapturedTensor.concrete_function"),
    )
)
"""fields, and maps by their keys, that hold names of functions"""


def make_reproducible(directory: Path) -> None:
    """Rewrites `saved_model.pb` and `fingerprint.pb` of a SavedModel that no program reads yet."""
    path = directory / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta_graph in saved_model.meta_graphs:
        library = meta_graph.graph_def.library
        _rename(meta_graph, _numbered([function.signature.name for function in library.function]))
        functions = sorted(library.function, key=lambda function: function.signature.name)
        del library.function[:]
        library.function.extend(functions)
        for nodes in (meta_graph.graph_def.node, *(function.node_def for function in library.function)):
            for node in nodes:
                node.attr.pop(_GRADIENT, None)
                if _OPTIONS in node.attr:
                    options = config_pb2.ConfigProto.FromString(node.attr[_OPTIONS].s)
                    options.ClearField("device_count")
                    node.attr[_OPTIONS].s = options.SerializeToString(deterministic=True)
        for function in library.function:
            for argument in function.signature.input_arg:
                argument.name = _UNREAD.sub("", argument.name)
            for argument in function.arg_attr.values():
                if argument.attr[_NAME].s.isdigit():  # nobody named it: the number of a tensor
                    del argument.attr[_NAME]
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
    fingerprint = fingerprint_pb2.FingerprintDef.FromString((directory / "fingerprint.pb").read_bytes())
    again = fingerprint_pb2.FingerprintDef.FromString(fingerprinting.CreateFingerprintDef(str(directory)))
    fingerprint.saved_model_checksum = again.saved_model_checksum  # of the file; the others are of what it means
    fingerprint.uuid = ""
    fingerprint.uuid = hashlib.sha256(fingerprint.SerializeToString(deterministic=True)).hexdigest()
    (directory / "fingerprint.pb").write_bytes(fingerprint.SerializeToString(deterministic=True))


def _numbered(names: list[str]) -> dict[str, str]:
    """Renumbers names from 0, in the order of the numbers that the process gave: name -> new name."""
    alike: dict[str, list[int]] = defaultdict(list)
    for name in names:
        if match := _COUNTED.fullmatch(name):
            alike[match[1]].append(int(match[2]))
    return {
        f"{stem}{number}": f"{stem}{index}"
        for stem, numbers in alike.items()
        for index, number in enumerate(sorted(numbers))
    }


def _rename(message: Message, names: dict[str, str]) -> None:
    """Replaces names of functions in the fields for them; nodes and arguments may have the same names."""
    for field, value in message.ListFields():
        named, repeated = field.full_name in _NAME_FUNCTIONS, field.label == FieldDescriptor.LABEL_REPEATED
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_MESSAGE:
                for each in value.values():
                    _rename(each, names)
            if named:
                _rename_keys(value, names)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if repeated else (value,):
                _rename(each, names)
        elif named and repeated:
            value[:] = [names.get(each, each) for each in value]
        elif named:
            setattr(message, field.name, names.get(value, value))


def _rename_keys(value: Any, names: dict[str, str]) -> None:
    kept = {names[key]: copy.deepcopy(each) for key, each in value.items() if key in names}
    for key in [key for key in value if key in names]:
        del value[key]
    for key, each in kept.items():
        if isinstance(each, Message):
            value[key].CopyFrom(each)
        else:
            value[key] = each
