"""What is refused before any work: from shapes alone, and not a case too many."""

import importlib.util
import json

import pytest
from conftest import TINY, tiny_config, tiny_vocabulary, write_encoder
from safetensors.numpy import load_file

from tfpipe import pipeline
from tfpipe.artifacts import format_named
from tfpipe.compress.limits import largest_share, layer_pairs, least_bytes
from tfpipe.encoders.architecture import Architecture
from tfpipe.errors import InputError
from tfpipe.files import sha256_of_file
from tfpipe.formats.onnx.folder import graph_file
from tfpipe.model.classifier import WEIGHTS_FILE
from tfpipe.rundir.directory import RunDirectory
from tfpipe.stages.feasible import check_feasible


def test_least_bytes_are_those_of_the_weights(tiny_run):
    _, run = tiny_run
    weights = load_file(run / "quantize" / WEIGHTS_FILE)
    shapes = {name: value.shape for name, value in weights.items()}
    dense = least_bytes(shapes, int8=False)
    assert dense == sum(value.nbytes for value in weights.values())
    int8 = least_bytes(shapes, int8=True)
    for variant, least in (("dense", dense), ("pruned", dense), ("int8", int8)):
        size = graph_file(run / "export" / variant / "onnx").stat().st_size
        assert least < size < least + 50_000, variant
    kernel = "bert.encoder.layer.0.output.dense.weight"
    assert least_bytes(shapes, int8=True, float_kernels=[kernel]) - int8 == 3 * 32 * 64 - 4 * 32


@pytest.mark.parametrize(
    ("changes", "limit", "told"),
    [
        ({"quantize": None}, 100_000, "the weights of pruned.*use quantize: {} or prune.method: structured"),
        ({"quantize": None, "prune": None}, 100_000, "the weights of dense.*use quantize: {}"),
        ({}, 20_000, "the weights of int8.*use prune.method: structured or a smaller encoder"),
        (
            {"prune": {"method": "structured", "sparsity": 0.7}},
            12_000,
            "the weights of int8.*use a higher prune.sparsity or a smaller",
        ),
    ],
)
def test_a_size_that_no_variant_can_have_is_refused(tiny_reviews, tiny_encoder, changes, limit, told):
    config = tiny_config(tiny_reviews, tiny_encoder, **changes, budget={"max_size_bytes": limit})
    with pytest.raises(InputError, match=f"budget.max_size_bytes: {limit:,}, but {told}"):
        check_feasible(config)


def test_a_size_that_can_be_had_is_not_refused(tiny_run, tiny_reviews, tiny_encoder):
    size = graph_file(tiny_run[1] / "export" / "int8" / "onnx").stat().st_size
    check_feasible(tiny_config(tiny_reviews, tiny_encoder, budget={"max_size_bytes": size}))
    check_feasible(
        tiny_config(tiny_reviews, tiny_encoder, prune={"method": "structured"}, budget={"max_size_bytes": 40_000})
    )
    check_feasible(
        tiny_config(tiny_reviews, tiny_encoder, distill={"student": {"layers": [1]}}, budget={"max_size_bytes": 50_000})
    )


def test_a_smaller_student_makes_a_smaller_size_possible(tiny_reviews, tiny_encoder):
    vocabulary = len(tiny_vocabulary())
    shapes = Architecture.from_dict(TINY | {"vocab_size": vocabulary, "num_hidden_layers": 1}).tensor_shapes()
    least = least_bytes(shapes, int8=True)
    config = tiny_config(
        tiny_reviews, tiny_encoder, distill={"student": {"layers": [1]}}, budget={"max_size_bytes": least - 1}
    )
    with pytest.raises(InputError, match="a smaller encoder"):
        check_feasible(config)


def test_what_asks_nothing_of_the_encoder_does_not_open_it(tiny_reviews):
    check_feasible(tiny_config(tiny_reviews, "/nowhere"))
    with pytest.raises(InputError, match="/nowhere: no such directory"):
        check_feasible(tiny_config(tiny_reviews, "/nowhere", budget={"max_size_bytes": 10**9}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"distill": {"student": {"layers": [0, 2]}}}, r"distill.student.layers: 2, but .* has layers 0 to 1"),
        ({"distill": {"hidden_weight": 1.0, "layer_map": {0: 2}}}, r"distill.layer_map: 0 -> 2, .* the teacher 0 to 1"),
        ({"distill": {"student": {"encoder": "/nowhere"}}}, "distill.student.encoder: /nowhere: no such directory"),
        ({"prune": {"method": "structured", "sparsity": 0.8}}, r"prune.sparsity: 0.8, but at most 0.750 .* removed"),
        ({"budget": {"max_latency_ms": 5.0, "latency_shape": "b1_s128"}}, "b1_s128 has 128 tokens, the encoder 64"),
    ],
)
def test_what_the_encoder_can_not_do_is_refused(tiny_reviews, tiny_encoder, changes, told):
    with pytest.raises(InputError, match=told):
        check_feasible(tiny_config(tiny_reviews, tiny_encoder, **changes))


@pytest.mark.parametrize(
    ("shape", "changes", "told"),
    [
        ({"hidden_size": 16}, {"distill__hidden_weight": 1.0}, r"distill.hidden_weight: .*16 wide, the teacher's 32"),
        ({"max_position_embeddings": 16}, {}, r"data.max_length is 32, but distill.student.encoder .* 16 positions"),
        ({"type_vocab_size": 1}, {"data__text_pair_column": "text2"}, "distill.student.encoder .* has 1 token type"),
        (
            {"vocab_size": len(tiny_vocabulary()) + 8},
            {"prune": {"embeddings": True}},
            r"embeds 164 word pieces, .* 156",
        ),
    ],
)
def test_a_student_that_can_not_read_the_rows_is_refused(tmp_path, tiny_reviews, tiny_encoder, shape, changes, told):
    student = write_encoder(tmp_path / "student", **shape)
    changes = {"distill__student": {"encoder": str(student)}, **changes}
    with pytest.raises(InputError, match=told):
        check_feasible(tiny_config(tiny_reviews, tiny_encoder, **changes))


def test_a_student_with_another_vocabulary_is_refused(tmp_path, tiny_reviews, tiny_encoder):
    student = write_encoder(tmp_path / "student")
    config = tiny_config(tiny_reviews, tiny_encoder, distill__student={"encoder": str(student)})
    check_feasible(config)
    (student / "vocab.txt").write_text("\n".join([*tiny_vocabulary()[:-1], "unheard"]) + "\n")
    with pytest.raises(InputError, match=r"distill.student.encoder: .* has another vocabulary"):
        check_feasible(config)


def test_the_hash_of_a_student_is_checked_before_any_work(tmp_path, tiny_reviews, tiny_encoder):
    student = write_encoder(tmp_path / "student")
    right = sha256_of_file(student / "model.safetensors")
    for sha256 in (right, "0" * 64):
        config = tiny_config(tiny_reviews, tiny_encoder, distill__student={"encoder": str(student), "sha256": sha256})
        if sha256 == right:
            check_feasible(config)
        else:
            with pytest.raises(
                InputError, match=r"expected \(distill.student.sha256\).* correct distill.student.sha256"
            ):
                check_feasible(config)


def test_a_quantized_classifier_is_no_encoder(tiny_run, tiny_reviews):
    """Neither to train, which every stage would find, nor as a student."""
    _, run = tiny_run
    for changes in ({"budget": {"max_size_bytes": 10**9}}, {"distill__student": {"encoder": str(run / "quantize")}}):
        source = run / ("quantize" if "budget" in changes else "train")
        with pytest.raises(InputError, match=r"quantized already .* take the classifier that it was made from"):
            check_feasible(tiny_config(tiny_reviews, source, **changes))


WHOLE = Architecture.from_dict(TINY | {"vocab_size": 100})
PRUNED = Architecture.from_dict(
    TINY
    | {
        "vocab_size": 100,
        "num_hidden_layers": 3,
        "attention_heads_per_layer": [4, 2, 1],
        "intermediate_size_per_layer": [60, 30, 20],
    }
)


def test_layers_of_a_pruned_encoder_keep_their_own_counts():
    chosen = PRUNED.of_layers((0, 2))
    assert (chosen.num_hidden_layers, chosen.heads, chosen.widths) == (2, (4, 1), (60, 20))
    assert chosen.tensor_shapes()["encoder.layer.1.intermediate.dense.weight"] == (20, 32)
    assert WHOLE.of_layers((1,)).to_dict() == WHOLE.to_dict() | {"num_hidden_layers": 1}


def test_the_largest_share_is_what_stays_in_each_layer():
    assert largest_share(WHOLE) == pytest.approx(1 - (16 + 16) / (64 + 64))
    assert largest_share(PRUNED) == pytest.approx(1 - 3 * (16 + 16) / (7 * 16 + 110))


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (2, 2, ((0, 0), (1, 1))),
        (3, 6, ((0, 1), (1, 3), (2, 5))),
        (2, 5, ((0, 1), (1, 4))),
        (1, 4, ((0, 3),)),
        (6, 3, ((1, 0), (3, 1), (5, 2))),  # the deeper one learns
    ],
)
def test_layers_are_spread_evenly_and_the_last_is_with_the_last(tiny_reviews, own, other, expected):
    config = tiny_config(tiny_reviews, "x", distill={"hidden_weight": 1.0})
    assert layer_pairs(config.distill, own, other) == expected
    assert layer_pairs(tiny_config(tiny_reviews, "x").distill, own, other) == ()
    assert layer_pairs(None, own, other) == ()


def test_a_layer_map_is_taken_as_it_is(tiny_reviews):
    config = tiny_config(tiny_reviews, "x", distill={"hidden_weight": 1.0, "layer_map": {2: 3, 0: 0}})
    assert layer_pairs(config.distill, 3, 6) == ((0, 0), (2, 3))
    with pytest.raises(InputError, match="learns has layers 0 to 1 and the teacher 0 to 5"):
        layer_pairs(config.distill, 2, 6)


def test_a_pruned_encoder_is_read_with_its_counts(tmp_path, tiny_reviews):
    encoder = write_encoder(tmp_path / "pruned")
    config = json.loads((encoder / "config.json").read_text())
    for heads, message in (
        ([4], "expected num_hidden_layers whole numbers"),
        ([4, 5], "from 1 to num_attention_heads"),
    ):
        (encoder / "config.json").write_text(json.dumps(config | {"attention_heads_per_layer": heads}))
        with pytest.raises(InputError, match=message):
            check_feasible(tiny_config(tiny_reviews, encoder, budget={"max_size_bytes": 10**9}))


def test_a_file_that_a_format_can_not_hold_is_refused_before_any_work(tmp_path, tiny_reviews):
    encoder = write_encoder(tmp_path / "encoder")
    large = TINY | {"vocab_size": 30_522, "hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 6}
    (encoder / "config.json").write_text(json.dumps(large | {"num_attention_heads": 32}))
    told = r"the weights of dense take 2,[0-9,]+ bytes, and a litert file holds at most 2,147,483,647; leave litert out"
    with pytest.raises(InputError, match=rf"export\.formats: {told}"):
        check_feasible(tiny_config(tiny_reviews, encoder, export__formats=["saved_model", "onnx", "litert"]))
    check_feasible(tiny_config(tiny_reviews, encoder, export__formats=["saved_model", "onnx", "openvino"]))


@pytest.mark.parametrize(("name", "package"), [("openvino", "openvino"), ("litert", "ai_edge_litert")])
def test_a_missing_runtime_names_its_extra_before_any_work(
    tiny_reviews, tiny_encoder, monkeypatch, tmp_path, name, package
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda asked, *more: None if asked == package else find(asked, *more)
    )
    config = tiny_config(tiny_reviews, tiny_encoder, export__formats=["saved_model", "onnx", name])
    run = RunDirectory(tmp_path / "run")
    needs = rf"{name} artifacts need the package {package}; install it with: pip install 'tfpipe\[{name}\]'"
    with pytest.raises(InputError, match=rf"export\.formats: {needs}, or leave {name} out"):
        pipeline.run(config, run)
    assert run.record("prepare") is None
    pipeline.run(config, run, until="prepare")  # of which no runtime is asked
    assert run.record("prepare") is not None
    with pytest.raises(InputError, match=needs):
        format_named(name).code  # noqa: B018
