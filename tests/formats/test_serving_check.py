"""What a TF Serving release can load, looked up node by node."""

from __future__ import annotations

import shutil

import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tfpipe.errors import InputError
from tfpipe.formats.saved_model.serving_check import check_saved_model, linked_operators

VERSIONS = ("2.19.1", "2.20.0")


def exported(tiny_run, variant="dense"):
    return tiny_run[1] / "export" / variant / "saved_model"


@pytest.mark.parametrize("version", VERSIONS)
def test_tables_hold_core_and_text_operators(version):
    linked = linked_operators(version)
    assert {"MatMul", "GatherV2", "PartitionedCall", "UnicodeDecodeWithOffsets", "FakeQuantWithMinMaxArgs"} <= linked
    assert {"TFText>WhitespaceTokenizeWithOffsetsV2", "FastWordpieceTokenizeWithOffsets"} <= linked
    assert len(linked) > 1700 and not any(name.startswith("#") or " " in name for name in linked)
    # The trimmers came with tensorflow-text 2.13; Serving linked 2.12.1 until 2.19.1.
    assert ("TFText>RoundRobinTrim" in linked) == (version == "2.20.0")


@pytest.mark.parametrize("variant", ["dense", "pruned", "int8"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_export_loads_in_every_known_release(tiny_run, variant, version):
    assert 50 < check_saved_model(exported(tiny_run, variant), version) < 100


def rewritten(tiny_run, tmp_path, change):
    """A copy of the dense SavedModel whose graph `change` has touched."""
    directory = shutil.copytree(exported(tiny_run), tmp_path / "saved_model")
    model = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    change(model.meta_graphs[0])
    (directory / "saved_model.pb").write_bytes(model.SerializeToString())
    return directory


def test_a_lacking_operator_is_named_with_its_place(tiny_run, tmp_path):
    def change(meta_graph):
        function = meta_graph.graph_def.library.function[0]
        function.node_def.add(name="trim", op="TFText>RoundRobinTrim")

    directory = rewritten(tiny_run, tmp_path, change)
    check_saved_model(directory, "2.20.0")
    with pytest.raises(InputError) as error:
        check_saved_model(directory, "2.19.1")
    message = str(error.value)
    assert "operator TFText>RoundRobinTrim (node trim of function " in message and "\n" not in message
    assert "not in TF Serving 2.19.1; set export.serving_version" in message


@pytest.mark.parametrize("kind", [types_pb2.DT_HALF, types_pb2.DT_BFLOAT16])
def test_half_types_are_refused_wherever_they_are(tiny_run, tmp_path, kind):
    def in_attribute(meta_graph):
        meta_graph.graph_def.node.add(name="x", op="Placeholder").attr["dtype"].type = kind

    def in_list(meta_graph):
        node = meta_graph.graph_def.library.function[0].node_def.add(name="x", op="PartitionedCall")
        node.attr["Tin"].list.type.append(kind)

    def in_constant(meta_graph):
        meta_graph.graph_def.node.add(name="x", op="Const").attr["value"].tensor.dtype = kind

    def in_variable(meta_graph):
        next(n for n in meta_graph.object_graph_def.nodes if n.HasField("variable")).variable.dtype = kind

    for number, change in enumerate((in_attribute, in_list, in_constant, in_variable)):
        directory = rewritten(tiny_run, tmp_path / str(number), change)
        with pytest.raises(InputError, match=types_pb2.DataType.Name(kind)):
            check_saved_model(directory, "2.20.0")


def test_a_model_of_another_library_is_refused(tmp_path):
    """A real one: an operator of tensorflow-text that the older release lacks."""
    import tensorflow_text

    class Trimmed(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, text):
            rows = tensorflow_text.WhitespaceTokenizer().tokenize(text)
            return tensorflow_text.RoundRobinTrimmer(3).trim([rows])[0].to_tensor()

    module = Trimmed()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__)
    check_saved_model(tmp_path, "2.20.0")
    with pytest.raises(InputError, match="RoundRobinTrim"):
        check_saved_model(tmp_path, "2.19.1")
