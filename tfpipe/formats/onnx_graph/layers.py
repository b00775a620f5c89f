"""Layers of the classifier as the operators that ONNX Runtime fuses, in place of tf2onnx's.

ONNX Runtime recognizes attention, layer normalization and GELU by their operators and the order of these. tf2onnx's
own are others (a normalization is nine operators, each reshape computes its shape), so the layers whose meaning is
known are written anew, without shape arithmetic in any encoder layer:

    attention   MatMul Add Reshape Transpose, three times; Transpose MatMul Div Add Softmax MatMul Transpose Reshape
    mask        Unsqueeze Unsqueeze Cast Sub Mul, once for all layers
    GELU        Div Erf Add Mul Mul

From the embeddings on, hidden states are [batch, length, hidden], after the last layer's attention [batch, 1, hidden];
with `flat`, [batch · length, hidden] and [batch, hidden]: an integer product with its bias is a Gemm, which knows
matrices only.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tf_keras
from onnx import TensorProto, helper, numpy_helper

from tfpipe.encoders.parameters import EMBEDDINGS_OUTPUT
from tfpipe.errors import InputError
from tfpipe.model.layers import MASKED, Activation, AttentionContext, FirstToken, LayerNormalization


def rewrite_layers(graph, model: tf_keras.Model, *, flat: bool, gather_codes: bool = True) -> None:
    """Rewrites every layer that has a form of its own, and drops all that is unused afterwards.

    Args:
      graph: `onnx.GraphProto` by tf2onnx, its nodes named by the layers that they come from; inputs `input_ids:0`,
        `attention_mask:0`, `token_type_ids:0`, int64.
      model: the inference model that it was converted from.
      flat: whether hidden states are matrices.
      gather_codes: whether 8-bit codes may be gathered, or floats must be, and then rounded.

    Raises:
      InputError: a layer's nodes are not those of the locked tf2onnx.
    """
    biases = set()
    for layer in model.layers:
        if isinstance(layer, LayerNormalization):
            _layer_normalization(graph, model, layer)
        elif isinstance(layer, Activation) and layer.function == "gelu":
            _gelu(graph, model, layer)
        elif isinstance(layer, AttentionContext):
            biases.add(_attention(graph, model, layer, flat=flat))
        elif isinstance(layer, FirstToken):
            _first_token(graph, model, layer, flat=flat, gather_codes=gather_codes)
    for bias in biases:
        reconnect(graph, bias, "attention_bias")
    _attention_bias(graph)
    _positions(graph, model)
    _class_token(graph, model, flat=flat)
    if flat:
        _flatten(graph, model)
    for node in [node for node in graph.node if node.op_type == "Cast"]:  # of the ids to int32, which no one needs
        if node.input[0] in {value.name for value in graph.input}:
            reconnect(graph, node.output[0], node.input[0])
    drop_unused(graph)


def reconnect(graph, old: str, new: str) -> None:
    """Connects all readers of one tensor to another."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def add_initializer(graph, name: str, value: np.ndarray) -> str:
    """Adds a constant under a name; an existing constant is taken as it is."""
    if not any(initializer.name == name for initializer in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
    return name


def drop_unused(graph) -> None:
    """Removes nodes and constants that nothing reads."""
    while True:
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        unused = [node for node in graph.node if not used.intersection(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    remove_initializers(graph, lambda name: name not in used)
    del graph.value_info[:]


def remove_initializers(graph, is_removed: Callable[[str], bool]) -> None:
    """Removes the constants of some names; the others stay where they are, as each move would copy them."""
    for index in reversed(range(len(graph.initializer))):
        if is_removed(graph.initializer[index].name):
            del graph.initializer[index]


def _layer_normalization(graph, model, layer: LayerNormalization) -> None:
    nodes, (source,), result = _take(graph, model, layer, 1)
    gamma, beta = (
        next(name for node in nodes for name in node.input if name.endswith(suffix))
        for suffix in ("/mul/ReadVariableOp:0", "/add_1/ReadVariableOp:0")
    )
    inputs = [source, gamma, beta]
    _add(graph, layer.name, ("LayerNormalization", inputs, result, {"axis": -1, "epsilon": layer.epsilon}))


def _gelu(graph, model, layer: Activation) -> None:
    """Writes the exact GELU in the one order of operators that ONNX Runtime fuses."""
    _, (x,), result = _take(graph, model, layer, 1)
    root = add_initializer(graph, "gelu.sqrt_2", np.float32(2.0**0.5))
    one, half = (add_initializer(graph, f"gelu.{name}", np.float32(v)) for name, v in (("one", 1.0), ("half", 0.5)))
    scaled, erf, shifted, product = (f"{layer.name}.{step}" for step in ("scaled", "erf", "shifted", "product"))
    _add(
        graph,
        layer.name,
        ("Div", [x, root], scaled, {}),
        ("Erf", [scaled], erf, {}),
        ("Add", [erf, one], shifted, {}),
        ("Mul", [x, shifted], product, {}),
        ("Mul", [product, half], result, {}),
    )


def _attention(graph, model, layer: AttentionContext, *, flat: bool) -> str:
    """Writes scaled dot-product attention; returns the name of the bias that it adds."""
    _, entered, result = _take(graph, model, layer, 4)
    prefix = layer.name.removesuffix("context")
    query, key, value = (
        next((name for name in entered if f"/{prefix}{part}/" in name), None) for part in ("query", "key", "value")
    )
    (bias,) = set(entered) - {query, key, value}
    hidden = layer.output.shape[-1]
    width = hidden // layer.num_heads
    # A 0 keeps a dimension as it is.
    split = _split(layer.num_heads) if flat else _shape(graph, 0, 0, layer.num_heads, width)
    merge = _shape(graph, -1, hidden) if flat else _shape(graph, 0, 0, hidden)
    root = add_initializer(graph, "attention.sqrt_width", np.float32(math.sqrt(width)))

    def inner(step: str) -> str:
        return f"{layer.name}.{step}"

    one = layer.input[0].shape[1] == 1  # the class token alone asks
    split_query = _shape(graph, -1, 1, layer.num_heads, width) if one else split
    for name, tensor, shape in (("query", query, split_query), ("key", key, split), ("value", value, split)):
        _add(
            graph,
            f"{layer.name}/{name}",
            ("Reshape", [tensor, shape], inner(f"{name}.split"), {}),
            ("Transpose", [inner(f"{name}.split")], inner(name), {"perm": [0, 2, 1, 3]}),
        )
    _add(
        graph,
        layer.name,
        # Apart from the other, this transposition becomes a flag of the product.
        ("Transpose", [inner("key")], inner("columns"), {"perm": [0, 1, 3, 2]}),
        ("MatMul", [inner("query"), inner("columns")], inner("products"), {}),
        ("Div", [inner("products"), root], inner("scaled"), {}),
        ("Add", [inner("scaled"), bias], inner("scores"), {}),
        ("Softmax", [inner("scores")], inner("probabilities"), {"axis": -1}),
        ("MatMul", [inner("probabilities"), inner("value")], inner("mixed"), {}),
        ("Transpose", [inner("mixed")], inner("ordered"), {"perm": [0, 2, 1, 3]}),
        ("Reshape", [inner("ordered"), merge], result, {}),
    )
    return bias


def _attention_bias(graph) -> None:
    first, second = (add_initializer(graph, f"axis_{axis}", np.array([axis], np.int64)) for axis in (1, 2))
    one = add_initializer(graph, "mask.one", np.float32(1.0))
    masked = add_initializer(graph, "mask.masked", np.float32(MASKED))
    _add(
        graph,
        "attention_bias",
        ("Unsqueeze", ["attention_mask:0", first], "mask.heads", {}),
        ("Unsqueeze", ["mask.heads", second], "mask.queries", {}),
        ("Cast", ["mask.queries"], "mask.wide", {"to": TensorProto.FLOAT}),
        ("Sub", [one, "mask.wide"], "mask.inverted", {}),
        ("Mul", ["mask.inverted", masked], "attention_bias", {}),
    )


def _positions(graph, model) -> None:
    table = f"{model.name}/embeddings.position_embeddings/"
    gather = next(node for node in graph.node if node.op_type == "Gather" and node.name.startswith(table))
    zero, one = (add_initializer(graph, f"position.{name}", np.int64(v)) for name, v in (("zero", 0), ("one", 1)))
    batch_axis = add_initializer(graph, "axis_0", np.array([0], np.int64))
    _add(
        graph,
        "positions",
        ("Shape", ["input_ids:0"], "positions.shape", {}),
        ("Gather", ["positions.shape", one], "positions.length", {"axis": 0}),
        ("Range", [zero, "positions.length", one], "positions.row", {}),
        ("Unsqueeze", ["positions.row", batch_axis], "positions", {}),
    )
    gather.input[1] = "positions"


def _first_token(graph, model, layer: FirstToken, *, flat: bool, gather_codes: bool) -> None:
    """Takes the first token: [batch, length, hidden] -> [batch, 1, hidden], of 8-bit codes if these are quantized."""
    _, (states,), result = _take(graph, model, layer, 1)
    makers = {name: node for node in graph.node for name in node.output}
    dequantize = makers[states] if makers[states].op_type == "DequantizeLinear" else None
    source, taken = (states, result) if dequantize is None else (dequantize.input[0], f"{layer.name}.codes")
    if dequantize is not None and not gather_codes:
        source, rounded, taken = makers[source].input[0], taken, f"{layer.name}.float"
    if flat:
        _add(graph, f"{layer.name}/rows", ("Reshape", [source, "states.shape"], f"{layer.name}.rows", {}))
        source = f"{layer.name}.rows"
    first = np.int64(0) if flat else np.zeros(1, np.int64)  # a scalar takes the axis away
    index = add_initializer(graph, "position.zero" if flat else "axis_0", first)
    _add(graph, layer.name, ("Gather", [source, index], taken, {"axis": 1}))
    if dequantize is not None and not gather_codes:
        _add(graph, layer.name, ("QuantizeLinear", [taken, *dequantize.input[1:]], rounded, {}))
        taken = rounded
    if dequantize is not None:
        _add(graph, layer.name, ("DequantizeLinear", [taken, *dequantize.input[1:]], result, {}))


def _class_token(graph, model, *, flat: bool) -> None:
    layer = model.get_layer("cls")
    _, (states,), result = _take(graph, model, layer, 1)
    if flat:
        reconnect(graph, result, states)
    else:
        zero = add_initializer(graph, "position.zero", np.int64(0))
        _add(graph, layer.name, ("Gather", [states, zero], result, {"axis": 1}))


def _flatten(graph, model) -> None:
    """Turns hidden states into matrices, from the embeddings on."""
    hidden = model.get_layer(EMBEDDINGS_OUTPUT).output.shape[-1]
    first = next(node for node in graph.node if node.name.startswith(f"{EMBEDDINGS_OUTPUT}/"))
    reconnect(graph, first.output[0], "states.flat")
    layers = [layer for layer in model.layers if isinstance(layer, AttentionContext)]
    width = layers[0].output.shape[-1] // layers[0].num_heads
    _add(
        graph,
        "states",
        ("Reshape", [first.output[0], _shape(graph, -1, hidden)], "states.flat", {}),
        ("Concat", ["positions.shape", _shape(graph, hidden)], "states.shape", {"axis": 0}),
        *(
            ("Concat", ["positions.shape", _shape(graph, heads, width)], _split(heads), {"axis": 0})
            for heads in sorted({layer.num_heads for layer in layers})
        ),
    )


def _split(heads: int) -> str:
    """Names the shape [batch, length, heads, width]."""
    return f"attention.split_{heads}"


def _shape(graph, *dimensions: int) -> str:
    name = "shape." + "_".join("any" if d == -1 else "same" if d == 0 else str(d) for d in dimensions)
    return add_initializer(graph, name, np.array(dimensions, np.int64))


def _add(graph, scope: str, *nodes: tuple[str, list[str], str, dict]) -> None:
    for number, (operator, inputs, output, attributes) in enumerate(nodes):
        graph.node.append(
            helper.make_node(operator, inputs, [output], name=f"{scope}/{operator}_{number}", **attributes)
        )


def _take(graph, model, layer, inputs: int):
    """Removes the nodes of a layer; returns them, their input tensors and their output tensor."""
    scope = f"{model.name}/{layer.name}/"
    nodes = [node for node in graph.node if node.name.startswith(scope)]
    made = {name for node in nodes for name in node.output}
    computed = {name for node in graph.node for name in node.output} - made
    entered = sorted({name for node in nodes for name in node.input if name in computed})
    left = {name for node in graph.node if node not in nodes for name in node.input if name in made}
    if len(entered) != inputs or len(left) != 1:
        raise InputError(
            f"export: layer {scope} converts to {len(nodes)} nodes with {len(entered)} inputs and {len(left)} outputs, "
            f"{inputs} and 1 expected; use the tf2onnx version of requirements.lock"
        )
    for node in nodes:
        graph.node.remove(node)
    return nodes, entered, left.pop()
