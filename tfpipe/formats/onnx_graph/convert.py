"""A classifier as ONNX: one clean graph, int8 where it was quantized.

Enters: a classifier. Leaves: an ONNX model with the inputs `input_ids, attention_mask,
token_type_ids` ([batch, length] int64, as the field's tokenizers give them) and the outputs `logits, probabilities`
([batch, labels] float32).

tf2onnx converts the graph with the weights as inputs, not as constants: its optimizers copy constants at every pass
(half a minute for 90 MB), and this way each weight keeps its name. The weights are put in afterwards: float, or 8-bit
codes behind DequantizeLinear. FakeQuant on activations becomes QuantizeLinear/DequantizeLinear in tf2onnx itself, of
uint8.

Where all ranges are balanced around 0, activations are int8 with a zero point of 0. Such files are for TensorRT: codes
come from a constant or QuantizeLinear and go to DequantizeLinear alone. So floats are gathered, and biases are float.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx.optimizer
import tf2onnx.tfonnx
import tf2onnx.utils
import tf_keras
from onnx import TensorProto, helper, numpy_helper

import tfpipe
from tfpipe.encoders.architecture import INFERENCE_INPUTS, Architecture
from tfpipe.encoders.parameters import is_kernel
from tfpipe.errors import InputError
from tfpipe.formats.onnx_graph.layers import (
    add_initializer,
    drop_unused,
    reconnect,
    remove_initializers,
    rewrite_layers,
)
from tfpipe.model.bert import build_inference_model
from tfpipe.model.classifier import Classifier
from tfpipe.model.weights import variables_by_name
from tfpipe.tasks import task_of

INPUTS = INFERENCE_INPUTS
OUTPUTS = ("logits", "probabilities")


def to_onnx(classifier: Classifier, opset: int, data_fingerprint: str = "") -> onnx.ModelProto:
    """Converts a classifier.

    Args:
      classifier: any variant.
      opset: ONNX operator set, 17 or later (LayerNormalization).
      data_fingerprint: digest of the rows that it was trained on, for the metadata.

    Raises:
      InputError: an operator has no ONNX counterpart.
    """
    ranges = tuple(sorted(classifier.ranges.items()))
    found, weight_inputs = _convert(
        _Shape(classifier.architecture, len(classifier.labels), ranges, classifier.signed, classifier.task, opset)
    )
    converted = onnx.ModelProto()
    converted.CopyFrom(found)
    graph = converted.graph
    _put_weights(graph, weight_inputs, classifier)
    if classifier.signed:
        _signed_activations(graph)
    else:
        _integer_products(graph)
    _name_boundary(graph)
    drop_unused(graph)
    _sort(graph)
    _name_constants(graph, classifier.weights)
    if unknown := {node.op_type for node in graph.node if not onnx.defs.has(node.op_type, node.domain)}:
        raise InputError(f"export: ONNX has no operator {', '.join(sorted(unknown))}; tf2onnx left it as it was")
    converted.producer_name, converted.producer_version = "tfpipe", tfpipe.__version__
    helper.set_model_props(
        converted,
        {
            "labels": json.dumps(list(classifier.labels), ensure_ascii=False),
            "task": classifier.task,
            "max_length": str(classifier.max_length),
            "tfpipe_version": tfpipe.__version__,
            "data_fingerprint": data_fingerprint,
        },
    )
    return converted


def operator_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Counts the operators of a graph, by type."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


class _Shape(NamedTuple):
    """The facts that decide a graph without its weights."""

    architecture: Architecture
    labels: int
    ranges: tuple[tuple[str, tuple[float, float]], ...]
    """quantization points and their ranges"""
    signed: bool
    """see `Classifier.signed`"""
    task: str
    opset: int


@lru_cache(maxsize=2)  # of a pruned variant it is the dense one's, and of another format the same
def _convert(shape: _Shape) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Converts a model of this shape by tf2onnx.

    Returns:
      The graph, not to be changed, in which each weight is an input; and name of such an input -> name of the weight.
    """
    model = build_inference_model(shape.architecture, shape.labels, dict(shape.ranges))

    def answer(input_ids, attention_mask, token_type_ids):
        ids, mask, types = (tf.cast(x, tf.int32) for x in (input_ids, attention_mask, token_type_ids))
        logits = model({"input_ids": ids, "attention_mask": mask, "token_type_ids": types}, training=False)
        return logits, task_of(shape.task).graph_probabilities(logits)

    signature = [tf.TensorSpec([None, None], tf.int64, name=name) for name in INPUTS]
    concrete = tf.function(answer, signature, autograph=False).get_concrete_function()
    graph_def, weights = _weights_as_inputs(concrete, model)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    # It counts its names on over all graphs of a process.
    tf2onnx.utils.INTERNAL_NAME = 1
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        converted = tf2onnx.tfonnx.process_tf_graph(
            graph,
            opset=shape.opset,
            input_names=[f"{name}:0" for name in (*INPUTS, *weights)],
            output_names=[output.name for output in concrete.outputs],
        )
    converted = tf2onnx.optimizer.optimize_graph(converted).make_model("classifier")
    # Of matrices, ONNX Runtime makes a Gemm with a float bias first of all, and multiplies that in float.
    flat = bool(shape.ranges) and not shape.signed
    rewrite_layers(converted.graph, model, flat=flat, gather_codes=not shape.signed)
    return converted, {f"{node}:0": weight for node, weight in weights.items()}


def _weights_as_inputs(concrete, model: tf_keras.Model) -> tuple[tf.compat.v1.GraphDef, dict[str, str]]:
    """Copies the graph of a traced function, reads of weights made placeholders: node name -> weight name."""
    variables = variables_by_name(model)
    names = {id(variable.handle): name for name, variable in variables.items()}
    handles = {inner.op.name: names[id(outer)] for outer, inner in concrete.graph.captures}
    traced = concrete.graph.as_graph_def()
    result, reads = tf.compat.v1.GraphDef(), {}
    result.versions.CopyFrom(traced.versions)
    for node in traced.node:
        if node.name in handles:
            continue
        if node.op == "ReadVariableOp" and node.input[0] in handles:
            reads[node.name] = handles[node.input[0]]
            placeholder = result.node.add(name=node.name, op="Placeholder")
            placeholder.attr["dtype"].CopyFrom(node.attr["dtype"])
            placeholder.attr["shape"].shape.CopyFrom(variables[reads[node.name]].shape.as_proto())
        else:
            result.node.add().CopyFrom(node)
    return result, reads


def _put_weights(graph, weight_inputs: dict[str, str], classifier: Classifier) -> None:
    """Makes each weight an initializer under its own name; a quantized weight its codes and their dequantization."""
    codes = classifier.codes
    kept = [value for value in graph.input if value.name not in weight_inputs]
    del graph.input[:]
    graph.input.extend(kept)
    for tensor, name in weight_inputs.items():
        value = classifier.weights[name]
        kernel = is_kernel(name)
        if name not in codes:
            add_initializer(graph, name, value.T if kernel else value)
            reconnect(graph, tensor, name)
        elif kernel:
            _add_quantized_kernel(graph, name, tensor, *codes[name])
        elif classifier.signed:
            add_initializer(graph, f"{name}.codes", codes[name][0])
            _dequantize(graph, f"{name}.codes", codes[name][1], name, axis=0)
            reconnect(graph, tensor, name)
        else:
            _gather_codes(graph, name, tensor, *codes[name])


def _add_quantized_kernel(graph, name: str, tensor: str, codes: np.ndarray, scale: np.ndarray) -> None:
    # A channel without weights has any scale: a small one, as its bias is stored in steps of it.
    scale = np.where(codes.any(axis=1), scale, np.float32(2.0**-20))
    add_initializer(graph, f"{name}.codes", codes.T)
    _dequantize(graph, f"{name}.codes", scale, name, axis=1)
    reconnect(graph, tensor, name)


def _signed_activations(graph) -> None:
    """Turns uint8 codes with a zero point of 128 into int8 codes with one of 0: TensorRT and many NPUs need these."""
    zero_points = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
    for initializer in graph.initializer:
        if initializer.name in zero_points:
            initializer.CopyFrom(numpy_helper.from_array(np.int8(0), initializer.name))


def _integer_products(graph) -> None:
    """Replaces MatMul of 8-bit matrices and Add of a bias by Gemm with an int32 bias, one operator in ONNX Runtime."""
    constants = {initializer.name: initializer for initializer in graph.initializer}
    dequantized = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for product in [node for node in graph.node if node.op_type == "MatMul"]:
        if any(name not in dequantized for name in product.input):
            continue
        (add,) = (node for node in graph.node if product.output[0] in node.input)
        bias = next(name for name in add.input if name in constants)
        scales = [numpy_helper.to_array(constants[dequantized[name].input[1]]) for name in product.input]
        scale = (scales[0] * scales[1]).astype(np.float32)
        steps = np.round(numpy_helper.to_array(constants[bias]).astype(np.float64) / scale)
        if np.abs(steps).max() >= 2**30:  # a sum of products needs the other half of int32
            continue
        add_initializer(graph, f"{bias}.codes", steps.astype(np.int32))
        _dequantize(graph, f"{bias}.codes", scale, f"{bias}.dequantized", axis=0)
        inputs = [*product.input, f"{bias}.dequantized"]
        graph.node.append(
            helper.make_node("Gemm", inputs, [add.output[0]], name=product.name.replace("MatMul", "Gemm"))
        )
        graph.node.remove(product)
        graph.node.remove(add)


def _dequantize(graph, codes: str, scale: np.ndarray, output: str, axis: int) -> None:
    kind = next(initializer.data_type for initializer in graph.initializer if initializer.name == codes)
    root = codes.removesuffix(".codes")
    zeros = np.zeros(len(scale), helper.tensor_dtype_to_np_dtype(kind))
    inputs = [
        codes,
        add_initializer(graph, f"{root}.scale", scale),
        add_initializer(graph, f"{root}.zero_point", zeros),
    ]
    name = f"{root}.DequantizeLinear"
    graph.node.append(helper.make_node("DequantizeLinear", inputs, [output], name=name, axis=axis))


def _gather_codes(graph, name: str, tensor: str, codes: np.ndarray, scale: np.ndarray) -> None:
    """Gathers an embedding's int8 rows and scales, then multiplies: dequantizing the table would touch it all."""
    add_initializer(graph, f"{name}.codes", codes)
    add_initializer(graph, f"{name}.scale", scale[:, None])
    gather = next(node for node in graph.node if node.op_type == "Gather" and node.input[0] == tensor)
    ids, output = gather.input[1], gather.output[0]
    graph.node.remove(gather)
    graph.node.extend(
        [
            helper.make_node("Gather", [f"{name}.codes", ids], [f"{name}.rows"], name=f"{name}.Gather"),
            helper.make_node("Gather", [f"{name}.scale", ids], [f"{name}.scales"], name=f"{name}.GatherScale"),
            helper.make_node("Cast", [f"{name}.rows"], [f"{name}.wide"], name=f"{name}.Cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.wide", f"{name}.scales"], [output], name=f"{name}.Mul"),
        ]
    )


def _name_boundary(graph) -> None:
    for value in graph.input:
        plain = value.name.removesuffix(":0")
        reconnect(graph, value.name, plain)
        value.name = plain
        _name_dimensions(value, ("batch", "length"))
    order = {value.name: name for value, name in zip(graph.output, OUTPUTS, strict=True)}
    for value in graph.output:
        for node in graph.node:
            for index, output in enumerate(node.output):
                if output == value.name:
                    node.output[index] = order[value.name]
        reconnect(graph, value.name, order[value.name])
        value.name = order[value.name]
        _name_dimensions(value, ("batch",))


def _name_dimensions(value, names: tuple[str, ...]) -> None:
    for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
        dimension.dim_param = name


def _name_constants(graph, weights: Iterable[str]) -> None:
    """Names each constant by its first reader, those of weights aside, and merges equal constants.

    tf2onnx keeps one of equal constants, but not the same one in each process (`findings/`, equal constants).
    """
    prefixes = tuple(weights)
    others = {tensor.name: tensor for tensor in graph.initializer if not tensor.name.startswith(prefixes)}
    named: dict[bytes, onnx.TensorProto] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in others:
                content = onnx.TensorProto.FromString(others[name].SerializeToString())
                content.name = ""
                tensor = named.setdefault(content.SerializeToString(deterministic=True), content)
                tensor.name = tensor.name or f"{node.name}/{position}"
                node.input[position] = tensor.name
    remove_initializers(graph, others.__contains__)
    graph.initializer.extend(named.values())


def _sort(graph) -> None:
    """Sorts the nodes so that each comes after its inputs, as ONNX requires."""
    ready = {initializer.name for initializer in graph.initializer} | {value.name for value in graph.input} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        runnable = [node for node in waiting if all(name in ready for name in node.input)]
        if not runnable:
            raise InputError(f"export: nothing makes the input of {waiting[0].name}; use the locked tf2onnx")
        ordered += runnable
        ready |= {name for node in runnable for name in node.output}
        waiting = [node for node in waiting if not all(name in ready for name in node.output)]
    del graph.node[:]
    graph.node.extend(ordered)
