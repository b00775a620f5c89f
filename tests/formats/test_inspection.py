"""SavedModels that do more than compute are refused before they are loaded: real ones, each shown to do it."""

from __future__ import annotations

import os
import re
import shutil

import pytest
import tensorflow as tf
import tf_keras
from conftest import predict
from tensorflow.core.framework import node_def_pb2, op_def_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from tfpipe import cli
from tfpipe.errors import InputError
from tfpipe.formats.saved_model import inspection
from tfpipe.formats.saved_model.inspection import inspect_saved_model, load_saved_model

SECRET = "the content of a file of this machine"


class Served(tf.Module):
    """Answers texts, and calls `work` while it does."""

    def __init__(self, work=lambda text: text):
        super().__init__()
        self.bias = tf.Variable([0.25, 0.75])
        self.work = work

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def serve(self, text):
        label = self.work(text)
        return {"label": label, "probabilities": tf.tile(self.bias[None], [tf.size(text), 1])}


def save(module, directory):
    tf.saved_model.save(module, str(directory), signatures={"serving_default": module.serve})
    return directory


def answer(directory):
    """What TensorFlow itself makes of it."""
    return tf.saved_model.load(str(directory)).signatures["serving_default"](text=tf.constant(["a"]))


def rewritten(directory, target, change):
    """A copy whose graph `change` has touched."""
    shutil.copytree(directory, target)
    model = saved_model_pb2.SavedModel.FromString((target / "saved_model.pb").read_bytes())
    change(model.meta_graphs[0])
    (target / "saved_model.pb").write_bytes(model.SerializeToString())
    return target


def writing(marker):
    def write(text):
        with tf.control_dependencies([tf.io.write_file(str(marker), "evil")]):
            return tf.identity(text)

    return write


def in_python(marker):
    def write(text):
        marker.write_text("evil")
        return text

    def work(text):
        made = tf.py_function(write, [text], tf.string)
        made.set_shape([None])
        return made

    return work


def nested(marker):
    inner = tf.function(writing(marker))

    @tf.function
    def outer(text):
        return tf.cond(tf.size(text) > 0, lambda: inner(text), lambda: text)

    return lambda text: tf.map_fn(lambda one: outer(one[None])[0], text)


def checkpointing(marker):
    def work(text):
        with tf.control_dependencies([tf.raw_ops.SaveV2(
            prefix=str(marker), tensor_names=["x"], shape_and_slices=[""], tensors=[text]
        )]):  # fmt: skip
            return tf.identity(text)

    return work


def printing(marker):
    def work(text):
        tf.print(text, output_stream=f"file://{marker}")
        return tf.identity(text)

    return work


WRITES = {
    "WriteFile": writing,
    "EagerPyFunc": in_python,
    "WriteFile in a branch": nested,
    "SaveV2": checkpointing,
    "PrintV2": printing,
}


@pytest.mark.parametrize("kind", WRITES)
def test_what_would_write_is_refused_and_does_not(tmp_path, kind):
    marker = tmp_path / "marker"
    model, operator = save(Served(WRITES[kind](marker)), tmp_path / "evil"), kind.split()[0]
    assert not list(tmp_path.glob("marker*"))
    with pytest.raises(InputError) as error:
        list(predict(model, ["a"]))
    message = str(error.value)
    assert re.search(rf"evil: operator {operator} \(node \S+ of function \S+\) (writes files|calls Python); ", message)
    assert message.endswith(f"--allow-operator {operator}, if you trust where it comes from") and "\n" not in message
    assert not list(tmp_path.glob("marker*"))
    (tmp_path / "evil" / "variables").stat()
    if kind == "WriteFile":
        assert len(list(predict(model, ["a"], [operator]))) == 1  # allowed by name, it is done
    else:
        answer(model)
    assert list(tmp_path.glob("marker*"))


def read_file(secret):
    return lambda text: tf.fill(tf.shape(text), tf.io.read_file(str(secret)))


def read_lines(secret):
    def work(text):
        lines = tf.data.TextLineDataset(str(secret))
        return tf.fill(tf.shape(text), lines.reduce("", lambda joined, line: joined + line))

    return work


def read_vocabulary(secret):
    """Not an asset, as its path is made in the graph."""

    def work(text):
        table = tf.raw_ops.AnonymousHashTable(key_dtype=tf.int64, value_dtype=tf.string)
        path = tf.strings.join([str(secret), ""])
        with tf.control_dependencies([tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table, filename=path, key_index=-1, value_index=-2
        )]):  # fmt: skip
            zero = tf.zeros_like(tf.strings.length(text), tf.int64)
            return tf.raw_ops.LookupTableFindV2(table_handle=table, keys=zero, default_value="")

    return work


@pytest.mark.parametrize(
    ("operator", "work"),
    [
        ("ReadFile", read_file), ("TextLineDataset", read_lines), ("InitializeTableFromTextFileV2", read_vocabulary),
    ],
)  # fmt: skip
def test_what_would_read_is_refused(tmp_path, operator, work):
    (tmp_path / "secret").write_text(SECRET)
    model = save(Served(work(tmp_path / "secret")), tmp_path / "evil")
    with pytest.raises(InputError, match=rf"operator {operator} .* reads files; .* --allow-operator {operator}"):
        list(predict(model, ["a"]))
    assert answer(model)["label"].numpy() == [SECRET.encode()]


class Resource(tf.saved_model.experimental.TrackableResource):
    """Its functions are called while the SavedModel is loaded, and by no signature."""

    def __init__(self, marker):
        super().__init__()
        self._marker = str(marker)
        self.armed = False

    def _create_resource(self):
        return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

    def _initialize(self):
        if self.armed:
            tf.io.write_file(self._marker, "evil")


def test_what_runs_while_it_is_loaded_is_found(tmp_path):
    marker, module = tmp_path / "marker", Served()
    module.resource = Resource(marker)
    assert module.resource.resource_handle is not None
    module.resource.armed = True
    model = save(module, tmp_path / "evil")
    marker.unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"operator WriteFile \(node \S+ of function __inference__initializer"):
        load_saved_model(model)
    assert not marker.exists()
    tf.saved_model.load(str(model))
    assert marker.exists()


class WithVocabulary(Served):
    """As many text classifiers are: a vocabulary that is an asset, and the console."""

    def __init__(self, path):
        super().__init__(self._look_up)
        kind = tf.lookup.TextFileIndex
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(str(path), tf.int64, kind.LINE_NUMBER, tf.string, kind.WHOLE_LINE), "none"
        )

    def _look_up(self, text):
        tf.print("looked up")
        return self.table.lookup(tf.zeros_like(tf.strings.length(text), tf.int64))


@pytest.fixture(scope="module")
def with_vocabulary(tmp_path_factory):
    directory = tmp_path_factory.mktemp("vocabulary")
    (directory / "labels.txt").write_text("good\nbad\n")
    return save(WithVocabulary(directory / "labels.txt"), directory / "model")


def test_an_ordinary_model_is_taken(with_vocabulary):
    (found,) = predict(with_vocabulary, ["a"])
    assert found["label"] == "good" and found["probability"] == 0.75
    assert 20 < inspect_saved_model(with_vocabulary) < 200


def initializer_of(meta_graph):
    (name,) = (name for name in meta_graph.object_graph_def.concrete_functions if "initializer" in name)
    return next(each for each in meta_graph.graph_def.library.function if each.signature.name == name)


def test_a_vocabulary_is_an_asset_inside_the_model(with_vocabulary, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    for number, name in enumerate(("../../secret", str(tmp_path / "secret"))):

        def elsewhere(meta_graph, name=name):
            for asset in meta_graph.asset_file_def:
                asset.filename = name

        model = rewritten(with_vocabulary, tmp_path / f"asset-{number}", elsewhere)
        with pytest.raises(InputError, match=r"saved_model\.pb: the path .*secret' leads out of .*assets"):
            inspect_saved_model(model)
        assert answer(model)["label"].numpy() == [SECRET.encode()]

    def of_an_argument(meta_graph):
        function = initializer_of(meta_graph)
        bound = meta_graph.object_graph_def.concrete_functions[function.signature.name].bound_inputs
        bound[0] = next(n for n, node in enumerate(meta_graph.object_graph_def.nodes) if not node.HasField("asset"))

    def of_a_constant(meta_graph):
        function = initializer_of(meta_graph)
        path = function.node_def.add(name="path", op="Const")
        path.attr["dtype"].type = tf.string.as_datatype_enum
        path.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(str(tmp_path / "secret")))
        next(n for n in function.node_def if n.op == "InitializeTableFromTextFileV2").input[1] = "path:output:0"

    def called_by_another(meta_graph):
        name = initializer_of(meta_graph).signature.name
        serve = next(f for f in meta_graph.graph_def.library.function if "serve" in f.signature.name)
        serve.node_def.add(name="again", op="PartitionedCall").attr["f"].func.name = name

    for change in (of_an_argument, of_a_constant, called_by_another):
        model = rewritten(with_vocabulary, tmp_path / change.__name__, change)
        with pytest.raises(InputError, match=r"operator InitializeTableFromTextFileV2 .* reads files"):
            inspect_saved_model(model)


def test_the_functions_of_the_saver_serve_nothing_else(with_vocabulary, tmp_path):
    def saver_of(meta_graph, part):
        return next(f for f in meta_graph.graph_def.library.function if part in f.signature.name)

    def called_by_a_signature(meta_graph):
        serve = saver_of(meta_graph, "serve")
        call = serve.node_def.add(name="save", op="StatefulPartitionedCall")
        call.attr["f"].func.name = saver_of(meta_graph, "traced_save").signature.name

    def called_by_an_object(meta_graph):
        node = next(n for n in meta_graph.object_graph_def.nodes if n.HasField("bare_concrete_function"))
        node.bare_concrete_function.concrete_function_name = saver_of(meta_graph, "traced_save").signature.name

    def called_by_the_graph(meta_graph):
        call = meta_graph.graph_def.node.add(name="save", op="StatefulPartitionedCall")
        call.attr["f"].func.attr["g"].func.name = saver_of(meta_graph, "traced_save").signature.name

    def loaded_as_a_graph(meta_graph):
        meta_graph.ClearField("object_graph_def")

    def named_by_a_text(meta_graph):
        serve = saver_of(meta_graph, "serve")
        serve.attr["forward_function_name"].s = saver_of(meta_graph, "traced_save").signature.name.encode()

    def named_by_a_text_of_the_graph(meta_graph):
        node = meta_graph.graph_def.node.add(name="x", op="NoOp")
        texts = node.attr["f"].func.attr["names"].list.s
        texts.extend([b"\xff", saver_of(meta_graph, "traced_restore").signature.name.encode()])

    def in_place_of_another(meta_graph):
        saver_of(meta_graph, "traced_save").attr["api_implements"].s = b"x"

    for change in (
        called_by_a_signature, called_by_an_object, called_by_the_graph, loaded_as_a_graph, named_by_a_text,
        named_by_a_text_of_the_graph, in_place_of_another,
    ):  # fmt: skip
        model = rewritten(with_vocabulary, tmp_path / change.__name__, change)
        with pytest.raises(InputError, match=r"operator \S+ \(node \S+ of function .*(SaveV2|RestoreV2)"):
            inspect_saved_model(model)


def test_what_takes_the_place_of_a_function_by_its_device_is_found(tmp_path):
    """Grappler calls the function for the CPU where the other is called, whatever the graph says."""
    marker = tmp_path / "marker"

    def of_device(device, work):
        attributes = {"api_implements": "same", "api_preferred_device": device}
        signature = [tf.TensorSpec([None], tf.string)]
        return tf.function(work, input_signature=signature, experimental_attributes=attributes)

    called, hidden = of_device("GPU", tf.identity), of_device("CPU", checkpointing(marker))

    def work(text):
        with tf.device("/device:CPU:0"):
            found = called(text)
        hidden.get_concrete_function().add_to_graph(tf.compat.v1.get_default_graph())
        return found

    def hide_in_the_saver(meta_graph):
        (name,) = (
            function.signature.name
            for function in meta_graph.graph_def.library.function
            if function.attr["api_preferred_device"].s == b"CPU"
        )
        saver = meta_graph.saver_def.save_tensor_name.partition(":")[0]
        next(node for node in meta_graph.graph_def.node if node.name == saver).attr["x"].func.name = name

    model = rewritten(save(Served(work), tmp_path / "model"), tmp_path / "evil", hide_in_the_saver)
    with pytest.raises(InputError, match=r"evil: operator SaveV2 \(node \S+ of function \S+\) writes files"):
        list(predict(model, ["a"]))
    assert not list(tmp_path.glob("marker*"))
    answer(model)
    assert list(tmp_path.glob("marker*"))


def test_a_recurrent_model_is_taken(tmp_path):
    """Keras makes functions of it that stand for one another."""
    layer = tf_keras.layers.LSTM(2)

    def work(text):
        layer(tf.zeros([tf.size(text), 3, 4]))
        return tf.identity(text)

    module = Served(work)
    module.layer = layer
    layer.build((None, 3, 4))
    model = save(module, tmp_path / "model")
    assert b"api_implements" in (model / "saved_model.pb").read_bytes()
    assert inspect_saved_model(model) > 100


def test_what_ends_the_process_is_refused(with_vocabulary, tmp_path):
    for operator, why in (("Abort", "ends the process"), ("TestStringOutput", "is for TensorFlow's own tests")):

        def add(meta_graph, operator=operator):
            meta_graph.graph_def.node.add(name="x", op=operator)

        with pytest.raises(InputError, match=rf"operator {operator} \(node x\) {why}; a model"):
            inspect_saved_model(rewritten(with_vocabulary, tmp_path / operator, add))


def test_what_is_not_known_is_refused(with_vocabulary, tmp_path):
    def of_nobody(meta_graph):
        meta_graph.graph_def.node.add(name="x", op="Exfiltrate")

    def twice(meta_graph):
        function = meta_graph.graph_def.library.function.add()
        function.CopyFrom(meta_graph.graph_def.library.function[0])

    def hidden_behind_a_function(meta_graph):
        function = meta_graph.graph_def.library.function.add()
        function.signature.name = "ReadFile"
        meta_graph.graph_def.node.add(name="x", op="ReadFile")

    for change, said in (
        (of_nobody, r"operator Exfiltrate \(node x\) is not known to TensorFlow here"),
        (twice, "two functions of one name"),
        (hidden_behind_a_function, r"operator ReadFile \(node x\) reads files"),
    ):
        with pytest.raises(InputError, match=said):
            inspect_saved_model(rewritten(with_vocabulary, tmp_path / change.__name__, change))
    with pytest.raises(InputError, match="--allow-operator ReadFlie: TensorFlow has no such operator"):
        inspect_saved_model(with_vocabulary, ["ReadFlie"])


def test_what_is_no_saved_model_is_said_in_one_line(with_vocabulary, tmp_path, monkeypatch):
    model = shutil.copytree(with_vocabulary, tmp_path / "model")
    for content in (b"", os.urandom(1000), (model / "saved_model.pb").read_bytes()[:-1]):
        (model / "saved_model.pb").write_bytes(content)
        with pytest.raises(InputError, match=r"saved_model\.pb: the SavedModel can't be loaded \(\S") as error:
            inspect_saved_model(model)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(inspection, "MOST_BYTES", 100)
    with pytest.raises(InputError, match="more than a protocol buffer may have"):
        inspect_saved_model(with_vocabulary)


def test_no_link_leads_out_of_the_model(with_vocabulary, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    model = shutil.copytree(with_vocabulary, tmp_path / "model")
    (model / "assets" / "same.txt").symlink_to("labels.txt")
    assert inspect_saved_model(model)
    (model / "assets" / "labels.txt").unlink()
    (model / "assets" / "labels.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=r"labels\.txt: .* leads out of"):
        inspect_saved_model(model)


def test_no_operator_that_names_a_file_is_taken():
    """TensorFlow's registry, searched: a release with new operators fails here before it lets one through."""
    operators = op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    known = {operator.name: operator for operator in operators.op}
    assert all(known[name].is_stateful for name in inspection._STATEFUL)
    telling = re.compile(r"file(?!d)|(?<!top_)path|dir$|urls?$|address|descriptor|graph|module|program|^token$|stream")
    taken = {name for name in known if inspection._why_refused(node_def_pb2.NodeDef(op=name), set()) is None}
    assert {"MatMul", "GatherV2", "ShardedFilename", "LookupTableFindV2", "TFText>RoundRobinTrim"} <= taken
    suspicious = {
        name for name in taken if any(telling.search(each.name) for each in (*known[name].input_arg, *known[name].attr))
    }
    assert suspicious == {"PrintV2"}


def test_the_command_line_refuses_and_allows(tmp_path, monkeypatch, capsys):
    (tmp_path / "secret").write_text(SECRET)
    model = save(Served(read_file(tmp_path / "secret")), tmp_path / "evil")

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["tfpipe", "predict", str(model), "a", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr()

    code, said = run()
    assert code == 2 and said.err.startswith(f"tfpipe: {model}: operator ReadFile (node ReadFile of function ")
    code, said = run("--allow-operator", "ReadFile", "--allow-operator", "WriteFile")
    assert not code and said.out.startswith(SECRET)
