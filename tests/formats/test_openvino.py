"""OpenVINO's IR: 8 bits stay 8 bits, one text of a graph, answers in every shape, and what its README says."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import openvino
import pytest
from conftest import classifier_of

from tfpipe.artifacts import format_named
from tfpipe.errors import InputError
from tfpipe.evaluate import golden
from tfpipe.files import sha256_of_directory
from tfpipe.formats.base import Requests, Source
from tfpipe.formats.openvino import format as module
from tfpipe.formats.openvino.shapes import KEPT, Shapes
from tfpipe.formats.openvino.signal_stack import signal_stack, signal_stack_kept
from tfpipe.model.classifier import float_model
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools import replay
from tfpipe.tools.predict import command
from tfpipe.tools.predict.options import Options

OPENVINO = format_named("openvino")


def exported(run, variant):
    return run[1] / "export" / variant / "openvino"


def tokens(rows: int, length: int, vocabulary: int = 60) -> Requests:
    random = np.random.default_rng(rows * 100 + length)
    lengths = random.integers(1, length + 1, rows)
    lengths[0] = length
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    ids = random.integers(5, vocabulary, (rows, length)).astype(np.int32) * mask
    found = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return Requests(found, [""] * rows, None)


@pytest.mark.parametrize("variant", ["dense", "pruned", "int8"])
def test_it_answers_in_every_shape_as_keras_does(every_format_run, variant):
    """Lengths of the steps, between them and past them; batches that have a program of their own and others."""
    classifier = classifier_of(every_format_run[1], variant)
    model, (answer,) = float_model(classifier), module.load(exported(every_format_run, variant))
    for rows, length in ((1, 16), (1, 9), (32, 20), (7, 32), (3, 40), (1, 64)):
        requests = tokens(rows, length)
        expected = model(requests.tokens, training=False).numpy()
        found = answer.ask(requests)
        assert found.shape == expected.shape and found.dtype == np.float32
        assert np.abs(found - expected).max() <= (0.1 if variant == "int8" else 1e-5)


def test_an_answer_is_not_overwritten_by_the_next(every_format_run):
    (answer,) = module.load(exported(every_format_run, "dense"))
    first = answer.ask(tokens(1, 16))
    kept = first.copy()
    answer.ask(tokens(1, 12))
    assert np.array_equal(first, kept)


def test_of_many_shapes_the_last_are_kept(every_format_run):
    shapes = Shapes(module._read(exported(every_format_run, "dense")), 1)
    shapes._batch_sizes = list(range(1, KEPT + 3))
    first = shapes.ask(tokens(1, 16))
    for rows in range(2, KEPT + 3):
        shapes.ask(tokens(rows, 16))
    assert len(shapes._programs) == KEPT and (1, 16) not in shapes._programs
    assert np.array_equal(shapes.ask(tokens(1, 16)), first)


def test_a_batch_of_any_size_is_answered_as_one_of_a_program(every_format_run):
    """A program of an open batch rounds otherwise, and `verify` has not asked it."""
    (answer,) = module.load(exported(every_format_run, "int8"), 1)
    assert answer.batch == 32
    whole = tokens(70, 24)
    expected = np.concatenate([answer.ask(whole.part(start, start + 32)) for start in (0, 32)])
    for rows in (2, 31, 32, 33, 64):
        assert np.array_equal(answer.ask(whole.part(0, rows)), expected[:rows]), rows


def test_weights_of_8_bits_stay_so_and_are_multiplied_as_integers(every_format_run):
    run = every_format_run[1]
    path = exported(every_format_run, "int8")
    classifier = classifier_of(run, "int8")
    found = OPENVINO.code.kernels(path)
    for name, codes in found.items():
        assert codes.dtype == np.int8 and np.array_equal(codes.T, classifier.codes[name][0])
    assert len(found) == len([name for name in classifier.codes if "encoder.layer" in name])
    with signal_stack_kept():
        program = openvino.compile_model(module._read(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    products = [
        each.get_rt_info()["runtimePrecision"].astype(str)
        for each in program.get_runtime_model().get_ops()
        if each.get_rt_info()["layerType"].astype(str) == "FullyConnected"
    ]
    assert products.count("i8") + products.count("u8") == len(products) - 1  # the head alone is float


def test_the_same_classifier_gives_the_same_bytes(every_format_run, tmp_path):
    config, run = every_format_run
    classifier = classifier_of(run, "int8")
    tokenizer = Tokenizer(TokenizerSettings.read(run / "quantize"), classifier.max_length)
    source = Source(classifier, tokenizer, TokenTable.open(run / "prepare" / "test"), False, "digest")
    for name in ("a", "b"):
        module.write(source, tmp_path / name, config.export)
    assert sha256_of_directory(tmp_path / "a") == sha256_of_directory(tmp_path / "b")


def test_the_precision_is_in_the_file_and_loosens_the_gates_of_float(every_format_run, tmp_path):
    config, run = every_format_run
    classifier = classifier_of(run, "dense")
    tokenizer = Tokenizer(TokenizerSettings.read(run / "train"), classifier.max_length)
    table = TokenTable.open(run / "prepare" / "test")
    chosen = config.export.openvino.model_copy(update={"precision": "bf16"})
    settings = config.export.model_copy(update={"openvino": chosen})
    module.write(Source(classifier, tokenizer, table, False, "digest"), tmp_path / "ir", settings)
    (answer,) = module.load(tmp_path / "ir")
    assert answer.rounded and not module.load(exported(every_format_run, "dense"))[0].rounded
    golden.record(OPENVINO, tmp_path / "ir", golden.golden_requests(table, tokenizer, pairs=False), classifier, "dense")
    head, _, _ = golden.read(tmp_path / "ir" / "golden.jsonl")
    assert "label_agreement" in head["limits"]
    assert '"INFERENCE_PRECISION_HINT": "bf16"' in (tmp_path / "ir" / "README.md").read_text()
    assert json.loads((tmp_path / "ir" / "config.json").read_text())["openvino_config"]["precision"] == "bf16"


@pytest.mark.parametrize("text", ["a text", "a text " * 100], ids=["short", "cut"])
def test_its_readme_runs_as_it_stands(every_format_run, monkeypatch, text):
    folder = exported(every_format_run, "dense")
    monkeypatch.chdir(folder)
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0].replace('"a text"', repr(text))
    found: dict = {}
    exec(compile(code, "README.md", "exec"), found)
    classifier = classifier_of(every_format_run[1], "dense")
    ids = np.array([found["row"].ids])
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    logits = float_model(classifier)({k: v.astype(np.int32) for k, v in inputs.items()}).numpy()
    expected = np.exp(logits) / np.exp(logits).sum()
    assert found["program"](found["padded"])["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_openvino_leaves_the_signal_stack_alone(every_format_run):
    before = signal_stack()
    shapes = Shapes(module._read(exported(every_format_run, "dense")), 1)
    for length in (16, 32, 40):
        shapes.ask(tokens(1, length))
        assert signal_stack() == before
    while shapes._programs:
        shapes._programs.popitem(last=False)
        gc.collect()
        assert signal_stack() == before


def test_predict_uses_it_where_it_is_faster_here(every_format_run, tmp_path, capsys):
    """By the latencies of `verify` on this machine; the answers are those of the SavedModel."""
    run = shutil.copytree(every_format_run[1], tmp_path / "run")
    parity = json.loads((run / "verify" / "parity.json").read_text())
    (tmp_path / "texts.txt").write_text("a good film\n" + "a dull plot " * 40 + "\n\n")
    found = {}
    for faster in ("openvino", "saved_model", "litert"):
        for row in parity["artifacts"]:
            row["latency_ms"]["b32_s64"] = 1.0 if row["artifact"] == faster else 2.0
        (run / "verify" / "parity.json").write_text(json.dumps(parity))
        options = Options(input=(str(tmp_path / "texts.txt"),), output=tmp_path / f"{faster}.jsonl", variant="dense")
        command.run(str(run), [], options)
        said = capsys.readouterr().err
        assert f"  dense as {faster}: of 4 artifacts the fastest that verify measured here (1.00 ms)" in said
        found[faster] = [json.loads(line) for line in options.output.read_text().splitlines()]
    for one, *others in zip(*found.values(), strict=True):
        for other in others:
            assert (one["text"], one["label"]) == (other["text"], other["label"])
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    (run / "serving" / "openvino" / "dense" / "1" / "README.md").write_text("changed")
    with pytest.raises(InputError, match="its content is not what was published"):
        command.run(str(run), ["good"], Options(artifact="openvino", variant="dense"))


def test_a_damaged_file_is_refused(every_format_run, tmp_path):
    folder = shutil.copytree(exported(every_format_run, "dense"), tmp_path / "copy")
    (folder / "openvino_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"openvino_model\.xml: can't be loaded .*; export it again"):
        replay.run(folder)
    (folder / "openvino_model.xml").write_text("<net")
    with pytest.raises(InputError, match=r"openvino_model\.xml: can't be loaded .*; export it again"):
        module.load(folder)


def test_openvino_does_not_report_itself(tmp_path):
    script = (
        "import tfpipe.formats.openvino.format, openvino.tools.ovc.telemetry_utils as used; print(used.tm.__name__)"
    )
    settings = os.environ | {"HOME": str(tmp_path), "CI": "", "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", script], env=settings, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub", done.stderr
    assert not (tmp_path / "intel").exists()
