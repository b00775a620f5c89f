"""A classifier as ONNX: one clean graph, int8 where it was quantized.

Enters: a classifier and its mask form. Leaves: an ONNX model with the inputs `input_ids, attention_mask,
token_type_ids` ([batch, length] int64, as the field's tokenizers give them) and the outputs `logits, probabilities`
([batch, labels] float32).

tf2onnx converts the graph with the weights as inputs, not as constants: its optimizers copy constants at every pass
(half a minute for 90 MB), and this way each weight keeps its name. The weights are put in afterwards: float, or 8-bit
codes behind DequantizeLinear. FakeQuant on activations becomes QuantizeLinear/DequantizeLinear in tf2onnx itself.
"""

from __future__ import annotations

import json
import logging
from collections import Counter

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx.optimizer
import tf2onnx.tfonnx
import tf_keras
from onnx import TensorProto, helper, numpy_helper

import tfpipe
from tfpipe.errors import InputError
from tfpipe.model.layers import Activation, LayerNormalization
from tfpipe.model.weights import Classifier, is_kernel, variables_by_name

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = ("logits", "probabilities")


def to_onnx(model: tf_keras.Model, classifier: Classifier, opset: int) -> onnx.ModelProto:
    """Converts a mask form.

    Args:
      model: mask form, holding the classifier's weights.
      classifier: gives names, labels and the weights' scales.
      opset: ONNX operator set, 17 or later (LayerNormalization).

    Raises:
      InputError: an operator has no ONNX counterpart.
    """
    converted, weight_inputs = _convert(model, classifier.task, opset)
    graph = converted.graph
    for layer in model.layers:
        if isinstance(layer, LayerNormalization):
            _fuse_layer_normalization(graph, model, layer)
        elif isinstance(layer, Activation) and layer.function == "gelu":
            _rewrite_gelu(graph, model, layer)
    _put_weights(graph, weight_inputs, variables_by_name(model), classifier)
    _name_boundary(graph)
    _drop_unused(graph)
    _sort(graph)
    converted.producer_name, converted.producer_version = "tfpipe", tfpipe.__version__
    helper.set_model_props(
        converted,
        {
            "labels": json.dumps(list(classifier.labels), ensure_ascii=False),
            "task": classifier.task,
            "max_length": str(classifier.max_length),
            "tfpipe_version": tfpipe.__version__,
        },
    )
    try:
        onnx.checker.check_model(converted, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"export: the ONNX graph is not valid: {' '.join(str(error).split())[:300]}") from error
    return converted


def operator_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Operators of a graph, by type."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


def _convert(model: tf_keras.Model, task: str, opset: int) -> tuple[onnx.ModelProto, dict[str, str]]:
    """tf2onnx's graph, and the name of the graph input -> name of the weight that belongs there."""

    def answer(input_ids, attention_mask, token_type_ids):
        ids, mask, types = (tf.cast(x, tf.int32) for x in (input_ids, attention_mask, token_type_ids))
        logits = model({"input_ids": ids, "attention_mask": mask, "token_type_ids": types}, training=False)
        return logits, tf.sigmoid(logits) if task == "multi_label" else tf.nn.softmax(logits)

    signature = [tf.TensorSpec([None, None], tf.int64, name=name) for name in INPUTS]
    concrete = tf.function(answer, input_signature=signature).get_concrete_function()
    graph_def, weights = _weights_as_inputs(concrete, model)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        converted = tf2onnx.tfonnx.process_tf_graph(
            graph,
            opset=opset,
            input_names=[f"{name}:0" for name in (*INPUTS, *weights)],
            output_names=[output.name for output in concrete.outputs],
        )
    converted = tf2onnx.optimizer.optimize_graph(converted).make_model("classifier")
    return converted, {f"{node}:0": weight for node, weight in weights.items()}


def _weights_as_inputs(concrete, model: tf_keras.Model) -> tuple[tf.compat.v1.GraphDef, dict[str, str]]:
    """The graph of a traced function, every read of a weight made a placeholder: node name -> weight name."""
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


def _put_weights(graph, weight_inputs: dict[str, str], variables, classifier: Classifier) -> None:
    """Makes each weight an initializer under its own name; a quantized one its codes and their dequantization."""
    kept = [value for value in graph.input if value.name not in weight_inputs]
    del graph.input[:]
    graph.input.extend(kept)
    for tensor, name in weight_inputs.items():
        value = classifier.weights[name]
        kernel = is_kernel(name, variables[name])
        scale = classifier.quantization.get(f"{name}.scale")
        if scale is None:
            _add_initializer(graph, name, value.T if kernel else value)
            _reconnect(graph, tensor, name)
        elif kernel:
            _add_quantized_kernel(graph, name, tensor, value, scale)
        else:
            _gather_codes(graph, name, tensor, value, scale)


def codes_of(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """[rows, columns] float32 on its grid, [rows] float32 scales -> the int8 codes, exactly."""
    return np.round(weight / scale[:, None]).astype(np.int8)


def _add_quantized_kernel(graph, name: str, tensor: str, value: np.ndarray, scale: np.ndarray) -> None:
    _add_initializer(graph, f"{name}.codes", np.ascontiguousarray(codes_of(value, scale).T))
    _add_initializer(graph, f"{name}.scale", scale)
    _add_initializer(graph, f"{name}.zero_point", np.zeros(len(scale), np.int8))
    inputs = [f"{name}.codes", f"{name}.scale", f"{name}.zero_point"]
    graph.node.append(helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}.DequantizeLinear", axis=1))
    _reconnect(graph, tensor, name)


def _gather_codes(graph, name: str, tensor: str, value: np.ndarray, scale: np.ndarray) -> None:
    """An embedding: gathers int8 rows and their scales, then multiplies; dequantizing the table would touch it all."""
    _add_initializer(graph, f"{name}.codes", codes_of(value, scale))
    _add_initializer(graph, f"{name}.scale", scale[:, None])
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


def _fuse_layer_normalization(graph, model, layer: LayerNormalization) -> None:
    nodes, source, result = _take_scope(graph, f"{model.name}/{layer.name}/")
    gamma, beta = (
        next(name for node in nodes for name in node.input if name.endswith(suffix))
        for suffix in ("/mul_1/ReadVariableOp:0", "/add_1/ReadVariableOp:0")
    )
    graph.node.append(
        helper.make_node(
            "LayerNormalization",
            [source, gamma, beta],
            [result],
            name=f"{layer.name}/LayerNormalization",
            axis=-1,
            epsilon=layer.epsilon,
        )
    )


def _rewrite_gelu(graph, model, layer: Activation) -> None:
    """The exact GELU in the one order of operators that ONNX Runtime fuses."""
    _, x, result = _take_scope(graph, f"{model.name}/{layer.name}/")
    for name, value in (("sqrt_2", 2.0**0.5), ("one", 1.0), ("half", 0.5)):
        if not any(initializer.name == f"gelu.{name}" for initializer in graph.initializer):
            _add_initializer(graph, f"gelu.{name}", np.float32(value))
    inner = [f"{layer.name}.{step}" for step in ("scaled", "erf", "shifted", "product")]
    graph.node.extend(
        helper.make_node(operator, inputs, [output], name=f"{layer.name}/{operator}_{number}")
        for number, (operator, inputs, output) in enumerate(
            (
                ("Div", [x, "gelu.sqrt_2"], inner[0]),
                ("Erf", [inner[0]], inner[1]),
                ("Add", [inner[1], "gelu.one"], inner[2]),
                ("Mul", [x, inner[2]], inner[3]),
                ("Mul", [inner[3], "gelu.half"], result),
            )
        )
    )


def _take_scope(graph, scope: str):
    """Removes the nodes of a layer; returns them, the one tensor that entered and the one that left."""
    nodes = [node for node in graph.node if node.name.startswith(scope)]
    made = {name for node in nodes for name in node.output}
    computed = {name for node in graph.node for name in node.output} - made
    entered = {name for node in nodes for name in node.input if name in computed}
    left = {name for node in graph.node if node not in nodes for name in node.input if name in made}
    if len(entered) != 1 or len(left) != 1:
        raise InputError(
            f"export: layer {scope} converts to {len(nodes)} nodes with {len(entered)} inputs and {len(left)} outputs, "
            "one each expected; use the tf2onnx version of requirements.lock"
        )
    for node in nodes:
        graph.node.remove(node)
    return nodes, entered.pop(), left.pop()


def _name_boundary(graph) -> None:
    for value in graph.input:
        plain = value.name.removesuffix(":0")
        _reconnect(graph, value.name, plain)
        value.name = plain
        _name_dimensions(value, ("batch", "length"))
    order = {value.name: name for value, name in zip(graph.output, OUTPUTS, strict=True)}
    for value in graph.output:
        for node in graph.node:
            for index, output in enumerate(node.output):
                if output == value.name:
                    node.output[index] = order[value.name]
        _reconnect(graph, value.name, order[value.name])
        value.name = order[value.name]
        _name_dimensions(value, ("batch",))


def _name_dimensions(value, names: tuple[str, ...]) -> None:
    for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
        dimension.dim_param = name


def _add_initializer(graph, name: str, value: np.ndarray) -> None:
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))


def _reconnect(graph, old: str, new: str) -> None:
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def _drop_unused(graph) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [initializer for initializer in graph.initializer if initializer.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]


def _sort(graph) -> None:
    """Puts the nodes into an order in which each comes after what it reads, as ONNX requires."""
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
