"""`tfpipe replay DIR`: the artifact that was exported answers as recorded, another one does not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfpipe.devices import processor
from tfpipe.errors import GateError, InputError
from tfpipe.formats.onnx.folder import graph_file
from tfpipe.formats.onnx_graph.inspection import inspect_onnx
from tfpipe.tools import replay as tool


@pytest.mark.parametrize("place", ["serving/dense/1", "serving/int8/1", "export/pruned/onnx", "export/int8/onnx"])
def test_what_was_exported_passes(tiny_run, capsys, place):
    tool.run(tiny_run[1] / place)
    printed = capsys.readouterr().out
    signatures = ("saved_model", "saved_model_text") if place.startswith("serving") else ("onnx",)
    for signature in signatures:
        assert sum(line.split()[:1] == [signature] for line in printed.splitlines()) == len(tool.BATCH_SIZES)
    assert "answers as recorded by tfpipe" in printed


@pytest.mark.parametrize("variant", ["dense", "int8"])
def test_another_model_fails_and_says_by_how_much(tiny_run, tmp_path, variant):
    copy = shutil.copytree(tiny_run[1] / "export" / variant / "onnx", tmp_path / "copy")
    head, *lines = (copy / "golden.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    moved = [json.loads(line) for line in lines]
    for line in moved:
        line["logits"] = list(np.array(line["logits"]) * [1.0, -1.0])
    content = "\n".join([head, *(json.dumps(line) for line in moved)])
    (copy / "golden.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(GateError) as error:
        tool.run(copy)
    message = str(error.value)
    assert "answers otherwise than on" in message and "\n" not in message
    assert ("mean_abs_probability_diff is" if variant == "int8" else "max_scaled_logit_diff is") in message


def test_answers_are_compared_without_tf32(tiny_run, monkeypatch):
    seen, differences = [], tool.metrics.differences

    def noted(*given):
        seen.append(tf.config.experimental.tensor_float_32_execution_enabled())
        return differences(*given)

    monkeypatch.setattr(tool.metrics, "differences", noted)
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tool.run(tiny_run[1] / "export" / "dense" / "onnx")
    assert seen and not any(seen) and tf.config.experimental.tensor_float_32_execution_enabled() == before


OLDER, NEWER = {"avx2", "fma"}, {"avx2", "avx512_vnni"}
DOUBT = processor.CLIPS


@pytest.mark.parametrize(
    ("place", "flags", "warned"),
    [
        ("export/int8/onnx", OLDER, True),
        ("export/int8/onnx", NEWER, False),
        ("serving/int8/1", OLDER, False),  # multiplies in float32
        ("export/dense/onnx", OLDER, False),
    ],
)
def test_answers_that_an_older_processor_may_give_wrongly_pass_with_a_warning(
    tiny_run, capsys, monkeypatch, place, flags, warned
):
    monkeypatch.setattr(tool, "cpu_flags", lambda: flags)
    tool.run(tiny_run[1] / place)
    said = capsys.readouterr()
    assert (DOUBT in said.err and "quantize.reduce_range: true" in said.err) == warned
    assert "answers as recorded" in said.out


def with_clipped_sums(copy):
    """What an older processor answers, in the recorded logits: they move by more than the limits of int8."""
    head, *lines = (copy / "golden.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    moved = [json.loads(line) for line in lines]
    for line in moved:
        line["logits"] = np.add(line["logits"], [0.2, -0.2]).tolist()
    (copy / "golden.jsonl").write_text("\n".join([head, *map(json.dumps, moved)]), encoding="utf-8")


@pytest.mark.parametrize(("flags", "named"), [(OLDER, True), (NEWER, False)])
def test_answers_of_an_older_processor_fail_with_the_cause(tiny_run, tmp_path, monkeypatch, flags, named):
    copy = shutil.copytree(tiny_run[1] / "export" / "int8" / "onnx", tmp_path / "copy")
    with_clipped_sums(copy)
    monkeypatch.setattr(tool, "cpu_flags", lambda: flags)
    with pytest.raises(GateError, match="mean_abs_probability_diff is") as error:
        tool.run(copy)
    assert (DOUBT in str(error.value)) == named and "\n" not in str(error.value)


def test_what_is_no_artifact_is_refused(tiny_run, tmp_path):
    with pytest.raises(InputError, match=r"neither saved_model\.pb nor onnx/model\*\.onnx"):
        tool.run(tmp_path)
    shutil.copytree(tiny_run[1] / "export" / "dense" / "onnx" / "onnx", tmp_path / "onnx")
    with pytest.raises(InputError, match="not a golden file of tfpipe"):
        tool.run(tmp_path)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def three_labels(file):
    head, *lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    wider = [json.loads(line) | {"logits": [0.0, 0.0, 0.0]} for line in lines]
    file.write_text("\n".join([head, *map(json.dumps, wider)]), encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "spoil", "said"),
    [
        ("export/dense/onnx", lambda copy: cut(copy / "onnx" / "model.onnx"), r"model\.onnx: can't be loaded or asked"),
        (
            "serving/dense/1",
            lambda copy: cut(copy / "saved_model.pb"),
            r"saved_model\.pb: the SavedModel can't be loaded",
        ),
        ("serving/dense/1", lambda copy: shutil.rmtree(copy / "variables"), "can't be loaded or asked"),
        ("export/dense/onnx", lambda copy: three_labels(copy / "golden.jsonl"), "answers of 3 labels, .* has 2"),
    ],
    ids="onnx graph variables labels".split(),
)
def test_what_is_damaged_is_refused_in_one_line(tiny_run, tmp_path, place, spoil, said):
    copy = shutil.copytree(tiny_run[1] / place, tmp_path / "copy")
    spoil(copy)
    with pytest.raises(InputError, match=said) as error:
        tool.run(copy)
    assert "\n" not in str(error.value)


def external(location):
    def change(copy):
        model = onnx.load(str(graph_file(copy)))
        tensor = max(model.graph.initializer, key=lambda each: each.ByteSize())
        onnx.external_data_helper.set_external_data(tensor, location)
        tensor.ClearField("raw_data")
        graph_file(copy).write_bytes(model.SerializeToString())

    return change


def foreign(domain, operator):
    def change(copy):
        model = onnx.load(str(graph_file(copy)))
        branch = onnx.helper.make_graph(
            [onnx.helper.make_node(operator, [], ["y"], "evil", domain=domain)], "g", [], []
        )
        model.graph.node.add(op_type="If", name="branch").attribute.append(onnx.helper.make_attribute("then", branch))
        graph_file(copy).write_bytes(model.SerializeToString())

    return change


def local_function(domain, operator):
    """It has a runtime's name: which of the two is called is the runtime's choice."""

    def change(copy):
        foreign(domain, operator)(copy)
        model = onnx.load(str(graph_file(copy)))
        same = onnx.helper.make_node("Identity", ["x"], ["y"])
        model.functions.append(onnx.helper.make_function(domain, operator, ["x"], ["y"], [same], model.opset_import))
        graph_file(copy).write_bytes(model.SerializeToString())

    return change


def calls(copy):
    """An operator of a SavedModel that reads, and whose result nobody uses."""
    model = saved_model_pb2.SavedModel.FromString((copy / "saved_model.pb").read_bytes())
    function = model.meta_graphs[0].graph_def.library.function[0]
    path = function.node_def.add(name="path", op="Const")
    path.attr["dtype"].type = tf.string.as_datatype_enum
    path.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/etc/passwd"))
    function.node_def.add(name="x", op="ReadFile", input=["path:output:0"])
    (copy / "saved_model.pb").write_bytes(model.SerializeToString())


def test_a_function_of_another_domain_is_taken(tiny_run, tmp_path):
    path = shutil.copytree(tiny_run[1] / "export" / "dense" / "onnx", tmp_path / "copy")
    count = inspect_onnx(graph_file(path))
    local_function("evil.org", "PyOp")(path)
    assert inspect_onnx(graph_file(path)) == count + 3


@pytest.mark.parametrize(
    ("place", "spoil", "said"),
    [
        ("export/dense/onnx", external("../../../etc/passwd"), "tensor .*: the path .* leads out of"),
        ("export/dense/onnx", external("/etc/passwd"), "tensor .*: the path '/etc/passwd' leads out of"),
        ("export/dense/onnx", external("linked"), "tensor .*: the path 'linked' leads out of"),
        (
            "export/dense/onnx",
            foreign("evil.org", "Run"),
            r"operator evil\.org::Run \(node evil\) is not one of ONNX's own",
        ),
        ("export/dense/onnx", foreign("com.microsoft", "PythonOp"), "PythonOp .*is not one of ONNX's own"),
        ("export/dense/onnx", local_function("com.microsoft", "EPContext"), "EPContext .*is not one of ONNX's own"),
        ("export/dense/onnx", local_function("org.pytorch.aten", "ATen"), "ATen .*is not one of ONNX's own"),
        ("export/dense/onnx", external("*/_ORT_MEM_ADDR_/*"), "tensor .*: its data would be read from memory"),
        ("export/dense/onnx", external("_ORT_MEM_ADDR_"), "tensor .*: its data would be read from memory"),
        ("serving/dense/1", calls, r"operator ReadFile \(node x of function \S+\) reads files"),
    ],
    ids="above absolute link domain python function aten memory address operator".split(),
)
def test_what_reaches_beyond_the_artifact_is_refused(tiny_run, tmp_path, place, spoil, said):
    copy = shutil.copytree(tiny_run[1] / place, tmp_path / "copy")
    if place.endswith("onnx"):
        (copy / "onnx" / "linked").symlink_to("/etc/passwd")
    spoil(copy)
    with pytest.raises(InputError, match=said) as error:
        tool.run(copy)
    assert "\n" not in str(error.value)
    if spoil is calls:
        tool.run(copy, ["ReadFile"])
