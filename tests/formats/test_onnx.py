"""The ONNX files of a run: their boundary, their graph, what ONNX Runtime makes of it, and their answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from conftest import TINY, classifier_of, tiny_vocabulary, tiny_weights
from onnx import TensorProto, helper, numpy_helper

import tfpipe
from tfpipe.compress.grid import balanced, quantized
from tfpipe.encoders.architecture import Architecture
from tfpipe.encoders.parameters import is_kernel, kernels_by_point
from tfpipe.errors import InputError
from tfpipe.formats.onnx.folder import graph_file
from tfpipe.formats.onnx_graph import convert
from tfpipe.formats.onnx_graph.convert import INPUTS, OUTPUTS, operator_counts, to_onnx
from tfpipe.formats.onnx_graph.file import save_onnx, serialized
from tfpipe.formats.onnx_graph.layers import _take
from tfpipe.model.bert import build_inference_model
from tfpipe.model.classifier import QUANTIZATION_FILE, Classifier, codes_of, float_model
from tfpipe.stages.quantize import on_grid
from tfpipe.tasks import task_of
from tfpipe.tokens.table import TokenTable

LAYERS = TINY["num_hidden_layers"]
STAGES = {"dense": "train", "pruned": "prune", "int8": "quantize"}
# The same as in the README. 6 products and their biases, 2 norms, 2 residuals, 5 of the GELU, 14 of attention.
OPERATORS_PER_LAYER = 35
OPERATORS_BESIDE = 23  # embeddings, mask, positions, the class token before the last layer, head
# A bias is in its product; 4 points of 2 operators, 6 kernels and their biases dequantized.
QUANTIZED_OPERATORS_PER_LAYER = OPERATORS_PER_LAYER - 6 + 4 * 2 + 6 * 2
SHAPE_ARITHMETIC = {
    "Shape",
    "Slice",
    "Concat",
    "Unsqueeze",
    "Squeeze",
    "Range",
    "Cast",
    "Gather",
    "ReduceProd",
    "Expand",
}


def path_of(run: Path, variant: str) -> Path:
    return graph_file(run / "export" / variant / "onnx")


@pytest.fixture(scope="module")
def graphs(tiny_run) -> dict[str, onnx.ModelProto]:
    return {variant: onnx.load(str(path_of(tiny_run[1], variant))) for variant in STAGES}


@pytest.fixture(scope="module")
def keras_models(tiny_run):
    return {variant: float_model(classifier_of(tiny_run[1], variant)) for variant in STAGES}


@pytest.fixture(scope="module")
def sessions(tiny_run):
    return {variant: session_of(path_of(tiny_run[1], variant)) for variant in STAGES}


def session_of(model: Path | onnx.ModelProto, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def initializers(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


def batches(run: Path, batch_size: int, count: int):
    """Padded batches of test rows; the last rows first, so that lengths are mixed."""
    table = TokenTable.open(run / "prepare" / "test")
    for start in range(0, batch_size * count, batch_size):
        rows = np.arange(start, start + batch_size) % table.num_rows
        yield table.padded(rows)


def answers(session, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
    return session.run(list(OUTPUTS), {name: value.astype(np.int64) for name, value in batch.items()})


@pytest.mark.parametrize("variant", STAGES)
@pytest.mark.parametrize("length", [1, 2, 7])
def test_an_empty_batch_gets_an_empty_answer(sessions, variant, length):
    batch = {name: np.zeros((0, length), np.int64) for name in INPUTS}
    assert [answer.shape for answer in answers(sessions[variant], batch)] == [(0, 2), (0, 2)]


@pytest.mark.parametrize("variant", STAGES)
def test_inputs_and_outputs(graphs, variant):
    def described(values):
        return [
            (
                value.name,
                value.type.tensor_type.elem_type,
                [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
            )
            for value in values
        ]

    graph = graphs[variant].graph
    assert described(graph.input) == [(name, TensorProto.INT64, ["batch", "length"]) for name in INPUTS]
    assert described(graph.output) == [(name, TensorProto.FLOAT, ["batch", 2]) for name in OUTPUTS]
    assert INPUTS == ("input_ids", "attention_mask", "token_type_ids") and OUTPUTS == ("logits", "probabilities")


@pytest.mark.parametrize("variant", STAGES)
def test_metadata(tiny_run, graphs, variant):
    model = graphs[variant]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata.pop("labels")) == ["negative", "positive"]
    fingerprint = json.loads((tiny_run[1] / "prepare" / "stage.json").read_text(encoding="utf-8"))["output"]
    assert metadata == {
        "task": "single_label",
        "max_length": "32",
        "tfpipe_version": tfpipe.__version__,
        "data_fingerprint": fingerprint,
    }
    assert (model.producer_name, model.producer_version) == ("tfpipe", tfpipe.__version__)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 17
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("variant", STAGES)
def test_operators_are_few_and_known(graphs, variant):
    counts = operator_counts(graphs[variant])
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert set(counts) <= known
    assert {node.domain for node in graphs[variant].graph.node} <= {"", "ai.onnx"}
    assert counts["LayerNormalization"] == 2 * LAYERS + 1
    assert counts["Erf"] == LAYERS
    assert counts["Softmax"] == LAYERS + 1
    if variant == "int8":
        assert counts["MatMul"] == 2 * LAYERS + 1 and counts["Gemm"] == 6 * LAYERS + 1
        assert counts["QuantizeLinear"] == 4 * LAYERS + 1
        assert counts["DequantizeLinear"] == 4 * LAYERS + 2 + 2 * (6 * LAYERS + 1)
    else:
        assert counts["MatMul"] == 8 * LAYERS + 2
        assert "QuantizeLinear" not in counts and "DequantizeLinear" not in counts
    named = [node for node in graphs[variant].graph.node if "encoder.layer." in node.name]
    class_token = {f"encoder.layer.{LAYERS - 1}.{part}" for part in ("residual", "queries")}
    in_layers = {node.op_type for node in named if node.name.partition("/")[0] not in class_token}
    assert not in_layers & SHAPE_ARITHMETIC


def small_classifier(layers: int, task: str = "single_label", activation: str = "gelu", labels=("a", "b", "c")):
    config = TINY | {"vocab_size": len(tiny_vocabulary()), "num_hidden_layers": layers, "hidden_act": activation}
    random = np.random.default_rng(0)
    weights = {f"bert.{name}": value for name, value in tiny_weights(config).items()} | {
        "classifier.weight": random.normal(size=(len(labels), config["hidden_size"])).astype(np.float32),
        "classifier.bias": random.normal(size=len(labels)).astype(np.float32),
    }
    return Classifier(Architecture.from_dict(config), labels, task, 32, weights, {})


@pytest.fixture(scope="module")
def three_layers() -> onnx.ModelProto:
    classifier = small_classifier(3)
    return to_onnx(classifier, 17)


def test_operators_per_layer(graphs, three_layers):
    two, three = (sum(operator_counts(graph).values()) for graph in (graphs["dense"], three_layers))
    assert three - two == OPERATORS_PER_LAYER
    assert two == OPERATORS_PER_LAYER * LAYERS + OPERATORS_BESIDE
    quantized = sum(operator_counts(graphs["int8"]).values())
    # Beside the layers: the pooler's 3, three operators more per embedding, a reshape before the layers and two before
    # the last, what they reshape to (2), the class token's gather and dequantization for the queries, not for the head.
    assert quantized == QUANTIZED_OPERATORS_PER_LAYER * LAYERS + OPERATORS_BESIDE + 3 + 9 + 3 + 2 + 2 - 1


@pytest.mark.parametrize("variant", STAGES)
def test_the_same_model_is_converted_to_the_same_bytes(tiny_run, tmp_path, graphs, variant):
    """Whatever the process has converted before: tf2onnx counts its names on."""
    classifier = classifier_of(tiny_run[1], variant)
    (fingerprint,) = (prop.value for prop in graphs[variant].metadata_props if prop.key == "data_fingerprint")
    save_onnx(to_onnx(classifier, 17, fingerprint), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == path_of(tiny_run[1], variant).read_bytes()


@pytest.mark.parametrize("variant", ["dense", "int8"])
def test_what_is_written_is_what_protobuf_writes(variant, graphs):
    assert b"".join(serialized(graphs[variant])) == graphs[variant].SerializeToString()


def test_weights_of_any_size_are_written_as_protobuf_does():
    """The count of the bytes is one to four bytes long; fields that tfpipe does not write are kept."""
    tensors = [
        numpy_helper.from_array(np.arange(size, dtype=np.uint8), f"w{size}") for size in (0, 1, 127, 128, 20_000)
    ]
    tensors += [
        numpy_helper.from_array(
            np.zeros([3_000_000], np.float32),
            "large",
        )
    ]
    tensors += [helper.make_tensor("floats", TensorProto.FLOAT, [2], [1.0, 2.0]), TensorProto(doc_string="none")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "g", [], [], tensors, doc_string="about")
    model = helper.make_model(graph, producer_name="p", doc_string="about")
    assert b"".join(serialized(model)) == model.SerializeToString()


def test_a_weight_of_another_size_than_its_shape_is_refused(graphs, tmp_path):
    model = onnx.ModelProto.FromString(graphs["dense"].SerializeToString())
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.dims[0] += 1
    with pytest.raises(InputError, match="the ONNX graph is not valid"):
        save_onnx(model, tmp_path / "model.onnx")


def test_another_process_makes_the_same_bytes(tiny_run, tmp_path):
    """With points whose ranges are the same: tf2onnx makes their constants one, and keeps the name of any."""
    script = """
        import dataclasses, sys
        from pathlib import Path
        import numpy as np
        from tfpipe.formats.onnx_graph.convert import to_onnx
        from tfpipe.formats.onnx_graph.file import save_onnx
        from tfpipe.model.classifier import float_model, load_classifier
        classifier = load_classifier(Path(sys.argv[1]))
        bounds = {"minimum": np.float32(-1.0), "maximum": np.float32(1.0)}
        equal = {name: bounds.get(name.rpartition(".")[2], value) for name, value in classifier.quantization.items()}
        classifier = dataclasses.replace(classifier, quantization=equal)
        save_onnx(to_onnx(classifier, 17), Path(sys.argv[2]))
    """
    for seed in ("1", "2", "3"):
        command = [sys.executable, "-c", textwrap.dedent(script), tiny_run[1] / "quantize", tmp_path / f"{seed}.onnx"]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed}, timeout=300)
    assert len({(tmp_path / f"{seed}.onnx").read_bytes() for seed in ("1", "2", "3")}) == 1
    model = onnx.load(tmp_path / "1.onnx")
    constants = [tensor for tensor in model.graph.initializer if not tensor.name.startswith(("bert.", "classifier."))]
    contents = {(tensor.data_type, tuple(tensor.dims), tensor.raw_data) for tensor in constants}
    assert len(contents) == len(constants) == len({tensor.name for tensor in constants})


def test_the_transformer_optimizer_recognizes_every_layer(tiny_run, tmp_path):
    """ONNX Runtime's own test of a BERT: attention, embeddings, residuals and GELU all become one operator each.

    The last layer's attention does not: it asks for the class token alone, which the fused operator can't.
    """
    # onnxruntime.transformers imports its optimizer through PyTorch; the fusions themselves do without.
    root = Path(onnxruntime.__file__).parent / "transformers"
    script = """
        import json, sys
        sys.path.insert(0, sys.argv[1])
        import onnx
        from fusion_options import FusionOptions
        from onnx_model_bert import BertOnnxModel
        model = BertOnnxModel(onnx.load(sys.argv[2]), num_heads=4, hidden_size=32)
        model.optimize(FusionOptions("bert"))
        print(json.dumps(model.get_fused_operator_statistics()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(root), str(path_of(tiny_run[1], "dense"))],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    fused = json.loads(done.stdout.splitlines()[-1])
    assert fused["Attention"] == LAYERS - 1 and fused["EmbedLayerNormalization"] == 1
    assert fused["SkipLayerNormalization"] == 2 * LAYERS - 1
    assert fused["BiasGelu"] + fused["Gelu"] == LAYERS


@pytest.mark.parametrize("variant", STAGES)
def test_onnx_runtime_fuses_the_gelu(tiny_run, tmp_path, variant):
    optimized = tmp_path / "optimized.onnx"
    session_of(path_of(tiny_run[1], variant), optimized)
    counts = Counter(node.op_type for node in onnx.load(str(optimized)).graph.node)
    assert counts["BiasGelu"] + counts["Gelu"] == LAYERS and "Erf" not in counts
    if variant == "int8":
        # The projections run on 8-bit integers, bias included; none is left that was meant to.
        assert counts["QGemm"] == 6 * LAYERS + 1 and "DequantizeLinear" not in counts


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("variant", ["dense", "pruned"])
def test_float_answers_equal_those_of_keras(tiny_run, sessions, keras_models, variant, batch_size):
    for batch in batches(tiny_run[1], batch_size, 4):
        expected = keras_models[variant](batch, training=False).numpy()
        logits, probabilities = answers(sessions[variant], batch)
        assert logits.dtype == np.float32
        assert np.abs(logits - expected).max() <= 1e-4
        assert np.abs(probabilities - task_of("single_label").probabilities(expected)).max() <= 1e-5


def test_padding_changes_nothing(tiny_run, sessions):
    (batch,) = batches(tiny_run[1], 4, 1)
    longer = {name: np.pad(value, ((0, 0), (0, 7))) for name, value in batch.items()}
    first, second = (answers(sessions["dense"], each)[0] for each in (batch, longer))
    assert np.abs(first - second).max() <= 1e-5


@pytest.mark.parametrize(("task", "activation"), [("multi_label", "gelu_new"), ("single_label", "relu")])
def test_other_tasks_and_activations(task, activation):
    classifier = small_classifier(1, task, activation, labels=("ä", "b", "c|d"))
    model = float_model(classifier)
    graph = to_onnx(classifier, 18)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(metadata["labels"]) == ["ä", "b", "c|d"] and metadata["task"] == task
    assert "ä" in metadata["labels"]  # as text, not escaped
    random = np.random.default_rng(0)
    ids = random.integers(1, 100, (3, 11)).astype(np.int32)
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    expected = model(batch).numpy()
    logits, probabilities = answers(session_of(graph), batch)
    assert np.abs(logits - expected).max() <= 1e-4
    assert np.abs(probabilities - task_of(task).probabilities(expected)).max() <= 1e-5


def test_weights_keep_their_names_and_values(tiny_run, graphs):
    for variant in ("dense", "pruned"):
        classifier = classifier_of(tiny_run[1], variant)
        found = initializers(graphs[variant])
        for name, value in classifier.weights.items():
            stored = value.T if is_kernel(name) else value
            assert np.array_equal(found[name], stored), name


def test_int8_weights(tiny_run, graphs):
    """Every kernel and embedding as codes, none as floats as well; codes times scales give the weights."""
    classifier = classifier_of(tiny_run[1], "int8")
    found = initializers(graphs["int8"])
    scaled = {name.removesuffix(".scale") for name in classifier.quantization if name.endswith(".scale")}
    matrices = {name for name, value in classifier.weights.items() if value.ndim == 2}
    assert matrices - scaled == {"classifier.weight"}
    for name in scaled:
        weight = classifier.weights[name]
        codes, scale = found[f"{name}.codes"], found[f"{name}.scale"].ravel()
        assert codes.dtype == np.int8 and name not in found
        stored = codes.T if is_kernel(name) else codes
        assert np.array_equal(stored.astype(np.float32) * scale[:, None], weight), name
        assert np.array_equal(stored == 0, weight == 0), name
    large = {
        name for name, value in found.items() if value.dtype == np.float32 and value.ndim == 2 and value.size > 300
    }
    assert large == set()  # the scales of the embeddings are [rows, 1]
    for node in graphs["int8"].graph.node:
        if node.op_type == "QuantizeLinear":
            assert found[node.input[2]].dtype == np.uint8


@pytest.fixture(scope="module")
def symmetric(tiny_run) -> Classifier:
    """The pruned model with balanced ranges, as `quantize.scheme: symmetric` makes it."""
    pruned, int8 = (classifier_of(tiny_run[1], variant) for variant in ("pruned", "int8"))
    ranges = {name: balanced(*bounds) for name, bounds in int8.ranges.items()}
    kernels = [name for names in kernels_by_point(pruned.weights).values() for name in names]
    return quantized(pruned, pruned.weights, ranges, kernels)


def test_codes_of_a_symmetric_file_are_where_tensorrt_takes_them(symmetric):
    """int8 with a zero point of 0, between a constant or QuantizeLinear and DequantizeLinear; no uint8 or int32."""
    graph = to_onnx(symmetric, 17).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    rounded = {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    codes = {name for name, value in constants.items() if value.dtype == np.int8 and value.ndim == 2}
    assert len(rounded) == 4 * LAYERS + 2 and len(codes) == 6 * LAYERS + 1 + 3
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero_point = constants[node.input[2]]
            assert zero_point.dtype == np.int8 and not zero_point.any(), node.name
            assert zero_point.size == constants[node.input[1]].size
        if node.op_type == "DequantizeLinear":
            assert node.input[0] in codes | rounded, node.name
        else:
            assert not set(node.input) & (codes | rounded), node.name
    assert not {value.dtype for value in constants.values()} & {np.dtype(np.uint8), np.dtype(np.int32)}


def test_a_symmetric_file_agrees_with_keras(tiny_run, symmetric, tmp_path):
    model = float_model(symmetric)
    save_onnx(to_onnx(symmetric, 17), tmp_path / "model.onnx")
    session = session_of(tmp_path / "model.onnx", tmp_path / "optimized.onnx")
    labels, differences = [], []
    for batch in batches(tiny_run[1], 16, 5):
        expected = model(batch, training=False).numpy()
        logits, _ = answers(session, batch)
        labels.append(logits.argmax(1) == expected.argmax(1))
        first, second = (task_of("single_label").probabilities(each) for each in (logits, expected))
        differences.append(np.abs(first - second))
    assert np.mean(labels) >= 0.98
    assert np.mean(differences) <= 0.01
    counts = Counter(node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node)
    # On x86, ONNX Runtime multiplies uint8 codes, and makes them of int8 codes that one operator alone reads. So
    # queries, keys and values of one input stay float, and the pooler, which it fuses with its bias and tanh first.
    assert counts["MatMulIntegerToFloat"] == 3 * LAYERS + 1


def test_int8_agrees_with_keras(tiny_run, sessions, keras_models):
    labels, differences = [], []
    for batch in batches(tiny_run[1], 16, 5):
        expected = keras_models["int8"](batch, training=False).numpy()
        logits, _ = answers(sessions["int8"], batch)
        labels.append(logits.argmax(1) == expected.argmax(1))
        first, second = (task_of("single_label").probabilities(each) for each in (logits, expected))
        differences.append(np.abs(first - second))
    assert np.mean(labels) >= 0.98
    assert np.mean(differences) <= 0.01


def test_int8_is_smaller(tiny_run, graphs):
    """A row of 32 floats becomes 32 codes and a scale; what remains of so small a file is its graph."""

    def weight_bytes(variant: str) -> int:
        return sum(value.nbytes for name, value in initializers(graphs[variant]).items() if name.startswith("bert."))

    assert weight_bytes("int8") < 0.35 * weight_bytes("dense")
    sizes = {variant: path_of(tiny_run[1], variant).stat().st_size for variant in STAGES}
    assert sizes["int8"] < 0.65 * sizes["dense"]
    assert sizes["pruned"] == pytest.approx(sizes["dense"], rel=0.01)  # zeros take as much room


def test_codes_of_are_exact():
    random = np.random.default_rng(0)
    codes = random.integers(-127, 128, (50, 40)).astype(np.int8)
    codes[:, 0] = 127
    scale = np.exp(random.uniform(-12, 3, 50)).astype(np.float32)
    weight = codes.astype(np.float32) * scale[:, None]
    assert np.array_equal(codes_of(weight, scale), codes)
    moved, found = on_grid(random.normal(size=(50, 40)).astype(np.float32))
    again = codes_of(moved, found)
    assert again.dtype == np.int8
    assert np.array_equal(again.astype(np.float32) * found[:, None], moved)


def test_an_operator_that_onnx_lacks_is_refused(monkeypatch):
    """tf2onnx writes what it does not know into the file as it is."""

    def build(*given):
        model = build_inference_model(*given)
        layer = next(layer for layer in model.layers if layer.name.endswith("activation"))
        layer.function, layer.call = "other", tf.math.erfcinv
        return type(model)(model.inputs, model.outputs, name=model.name)

    monkeypatch.setattr(convert, "build_inference_model", build)
    convert._convert.cache_clear()
    with pytest.raises(InputError) as error:
        to_onnx(small_classifier(1), 17)
    convert._convert.cache_clear()
    message = str(error.value)
    assert "Ndtri" in message and "\n" not in message


def test_a_layer_that_converts_to_something_else_is_refused(three_layers):
    model = float_model(small_classifier(1))
    with pytest.raises(InputError, match="converts to 0 nodes with 0 inputs and 0 outputs, 4 and 1 expected"):
        _take(three_layers.graph, model, model.get_layer("encoder.layer.0.attention.self.context"), 4)


def test_weights_of_more_than_a_protobuf_holds_lie_beside(tmp_path, three_layers):
    model = onnx.ModelProto.FromString(three_layers.SerializeToString())
    (batch,) = [dict.fromkeys(INPUTS, np.ones((2, 5), np.int32))]
    expected = answers(session_of(three_layers), batch)[0]
    for _ in range(2):  # written again, the file beside is replaced, not added to
        save_onnx(onnx.ModelProto.FromString(model.SerializeToString()), tmp_path / "model.onnx", largest=10_000)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"model.onnx", "model.onnx.data"}
    kernels = sum(t.nbytes for t in initializers(model).values() if t.nbytes > 1024)
    assert kernels <= sizes["model.onnx.data"] <= 1.5 * kernels
    assert np.array_equal(answers(session_of(tmp_path / "model.onnx"), batch)[0], expected)


def test_an_empty_channel_keeps_its_bias():
    """Its weights are zero at any scale; its bias is stored in steps of that scale."""
    classifier = small_classifier(1)
    weights, name = dict(classifier.weights), "bert.encoder.layer.0.intermediate.dense.weight"
    weights[name] = weights[name].copy()
    weights[name][3] = 0.0
    weights["bert.encoder.layer.0.intermediate.dense.bias"][3] = 0.123
    moved, scale = on_grid(weights[name])
    points = {"encoder.layer.0.intermediate.input.minimum": -4.0, "encoder.layer.0.intermediate.input.maximum": 5.0}
    quantization = {key: np.float32(value) for key, value in points.items()} | {f"{name}.scale": scale}
    quantized = classifier.with_weights(weights | {name: moved}, quantization)
    graph = to_onnx(quantized, 17)
    found = initializers(graph)
    bias = "bert.encoder.layer.0.intermediate.dense.bias"
    assert found[f"{bias}.codes"][3] * np.float64(found[f"{bias}.scale"][3]) == pytest.approx(0.123, abs=1e-5)


def test_a_run_without_quantization_files_has_no_codes(tiny_run, graphs):
    assert not (tiny_run[1] / "prune" / QUANTIZATION_FILE).exists()
    assert not any(value.dtype == np.int8 for value in initializers(graphs["pruned"]).values())
