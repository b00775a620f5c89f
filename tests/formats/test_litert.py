"""LiteRT files: built-in operators alone, weights as they were, answers in any shape or in one."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import classifier_of

from tfpipe.artifacts import format_named
from tfpipe.config.export import LiteRT
from tfpipe.encoders.parameters import is_embedding
from tfpipe.errors import InputError
from tfpipe.files import sha256_of_directory
from tfpipe.formats.base import Requests, Source
from tfpipe.formats.litert import flatbuffer
from tfpipe.formats.litert import format as module
from tfpipe.model.bert import build_inference_model
from tfpipe.model.classifier import float_model
from tfpipe.model.weights import set_weights
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools import replay
from tfpipe.variants import STAGE_OF_VARIANT

LITERT = format_named("litert")


def exported(run, variant):
    return run[1] / "export" / variant / "litert"


def requests(run, rows) -> Requests:
    table = TokenTable.open(run[1] / "prepare" / "test")
    return Requests(table.padded(np.arange(rows)), table.texts(range(rows)), None)


@pytest.mark.parametrize("variant", ["dense", "pruned"])
def test_float_files_answer_as_keras_does(every_format_run, variant):
    (answer,) = module.load(exported(every_format_run, variant))
    model = float_model(classifier_of(every_format_run[1], variant))
    for rows in (1, 33, 2):
        asked = requests(every_format_run, rows)
        assert np.abs(answer.ask(asked) - model(asked.tokens, training=False).numpy()).max() <= 1e-5


def test_weights_of_8_bits_are_those_of_the_classifier(every_format_run):
    classifier = classifier_of(every_format_run[1], "int8")
    found = module.kernels(exported(every_format_run, "int8"))
    assert found.keys() == {name for name in classifier.codes if "encoder.layer" in name}
    for name, codes in found.items():
        assert codes.dtype == np.int8 and np.array_equal(codes, classifier.codes[name][0])


def test_activations_are_all_that_it_rounds_otherwise(every_format_run):
    """Against the same weights with float activations it is near; that is what its limits are for."""
    classifier = classifier_of(every_format_run[1], "int8")
    model = build_inference_model(classifier.architecture, len(classifier.labels))
    set_weights(model, classifier.weights)
    asked = requests(every_format_run, 64)
    (answer,) = module.load(exported(every_format_run, "int8"))
    expected = model(asked.tokens, training=False).numpy()
    assert np.abs(answer.ask(asked) - expected).mean() <= 0.02 * np.abs(expected).mean() + 0.02


def test_a_row_is_answered_alike_alone_and_in_a_batch(every_format_run):
    asked = requests(every_format_run, 16)
    (answer,) = module.load(exported(every_format_run, "int8"), threads=1)
    together = answer.ask(asked)
    alone = np.concatenate([answer.ask(asked.part(row, row + 1)) for row in range(16)])
    assert np.abs(together - alone).max() <= 0.05


def written(run, tmp_path, variant, name, **settings):
    classifier = classifier_of(run[1], variant)
    tokenizer = Tokenizer(TokenizerSettings.read(run[1] / STAGE_OF_VARIANT[variant]), classifier.max_length)
    source = Source(classifier, tokenizer, TokenTable.open(run[1] / "prepare" / "test"), False, "digest")
    export = run[0].export.model_copy(update={"litert": LiteRT(**settings)})
    module.write(source, tmp_path / name, export)
    return tmp_path / name


def test_the_same_classifier_gives_the_same_bytes(every_format_run, tmp_path):
    first, second = (written(every_format_run, tmp_path, "int8", name) for name in "ab")
    assert sha256_of_directory(first) == sha256_of_directory(second)


def test_a_file_of_one_shape(every_format_run, tmp_path):
    folder = written(every_format_run, tmp_path, "dense", "fixed", length=32)
    (answer,) = module.load(folder)
    asked = requests(every_format_run, 5)
    model = float_model(classifier_of(every_format_run[1], "dense"))
    assert answer.longest == 32
    assert np.abs(answer.ask(asked) - model(asked.tokens, training=False).numpy()).max() <= 1e-5
    assert "[1, 32] int32, padded with 0: a text a call" in (folder / "README.md").read_text()


@pytest.mark.parametrize("settings", [{}, {"length": 32}])
def test_its_readme_runs_as_it_stands(every_format_run, tmp_path, monkeypatch, settings):
    folder = written(every_format_run, tmp_path, "dense", "folder", **settings)
    monkeypatch.chdir(folder)
    found: dict = {}
    exec(
        compile((folder / "README.md").read_text().split("```python\n")[1].split("```")[0], "README.md", "exec"), found
    )
    length = sum(found["row"].attention_mask)
    ids = np.array([found["row"].ids[:length]], np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    logits = float_model(classifier_of(every_format_run[1], "dense"))(inputs).numpy()
    assert found["answer"]["probabilities"] == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-5)


def test_embeddings_keep_a_scale_for_each_row(every_format_run):
    """The converter's own have one scale for a table, which costs more agreement than all else."""
    classifier = classifier_of(every_format_run[1], "int8")
    model = flatbuffer._read(exported(every_format_run, "int8") / module.FILE)
    tables = {name: codes for name, (codes, _) in classifier.codes.items() if is_embedding(name)}
    held = [
        np.frombuffer(model.buffers[each.buffer].data.tobytes(), np.int8).reshape(each.shape)
        for graph in model.subgraphs
        for each in graph.tensors
        if each.type == schema.TensorType.INT8 and model.buffers[each.buffer].data is not None
    ]
    for name, codes in tables.items():
        assert any(each.shape == codes.shape and np.array_equal(each, codes) for each in held), name


def test_damaged_files_and_foreign_operators_are_refused(every_format_run, tmp_path):
    folder = shutil.copytree(exported(every_format_run, "dense"), tmp_path / "copy")
    content = (folder / module.FILE).read_bytes()
    for damaged in (b"", b"TFL3", content[:4] + b"TFL4" + content[8:]):
        (folder / module.FILE).write_bytes(damaged)
        with pytest.raises(InputError, match=r"model\.tflite: not a LiteRT file .*; export it again"):
            replay.run(folder)
    model = flatbuffer._read(exported(every_format_run, "dense") / module.FILE)
    code = model.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = schema.BuiltinOperator.CUSTOM, 32, b"Own"
    import flatbuffers

    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    (folder / module.FILE).write_bytes(bytes(builder.Output()))
    with pytest.raises(InputError, match=r"operator Own is not one of LiteRT's own"):
        module.load(folder)
