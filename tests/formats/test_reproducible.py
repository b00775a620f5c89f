"""Which names of a SavedModel are numbered anew: those of functions, and nothing that is called alike."""

from google.protobuf import descriptor_pool
from tensorflow.core.protobuf import meta_graph_pb2

from tfpipe.formats.saved_model import reproducible


def test_the_fields_that_name_functions_exist():
    pool = descriptor_pool.Default()
    assert all(pool.FindFieldByName(name) for name in reproducible._NAME_FUNCTIONS)


def test_functions_are_renamed_and_nodes_of_the_same_name_are_not():
    meta_graph = meta_graph_pb2.MetaGraphDef()
    library, objects = meta_graph.graph_def.library, meta_graph.object_graph_def
    function = library.function.add()
    function.signature.name = "call_12"
    function.signature.input_arg.add(name="call_13")
    function.node_def.add(name="call_12", op="call_13", input=["call_13"]).attr["f"].func.name = "call_12"
    function.node_def.add(name="b", op="Identity", input=["call_12:output:0", "^call_12"])
    function.ret["call_13"] = "call_12:output:0"
    meta_graph.graph_def.node.add(name="call_12", op="Const")
    meta_graph.graph_def.node.add(name="c", op="Identity", input=["call_12"])
    meta_graph.meta_info_def.function_aliases["call_12"] = "call_13"
    objects.concrete_functions["call_12"].bound_inputs.append(7)
    objects.concrete_functions["call_13"].bound_inputs.append(8)
    objects.nodes.add().function.concrete_functions.extend(["call_12", "other"])
    reproducible._rename(meta_graph, reproducible._numbered(["call_12", "call_13"]))
    first, second = function.node_def
    assert (function.signature.name, function.signature.input_arg[0].name) == ("call_0", "call_13")
    assert (first.name, first.op, list(first.input), first.attr["f"].func.name) == (
        *("call_12", "call_1", ["call_13"], "call_0"),
    )
    assert list(second.input) == ["call_12:output:0", "^call_12"] and function.ret["call_13"] == "call_12:output:0"
    assert meta_graph.graph_def.node[0].name == meta_graph.graph_def.node[1].input[0] == "call_12"
    assert dict(meta_graph.meta_info_def.function_aliases) == {"call_0": "call_13"}
    bound = {name: list(each.bound_inputs) for name, each in objects.concrete_functions.items()}
    assert bound == {"call_0": [7], "call_1": [8]}
    assert list(objects.nodes[0].function.concrete_functions) == ["call_0", "other"]
