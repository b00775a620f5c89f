"""`predict`: as many answers as lines, in order, each with its text; or a line that names the line."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import TINY, tiny_vocabulary, tiny_weights
from fuzz.harness import VALUES, attempt, fuzz, json_text, mutated, mutated_tree
from hypothesis import strategies as st

from tfpipe.encoders.architecture import Architecture
from tfpipe.evaluate import golden
from tfpipe.formats.saved_model import inspection
from tfpipe.formats.saved_model.served import ServedClassifier, save_saved_model
from tfpipe.model.classifier import Classifier, float_model
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools.predict import command
from tfpipe.tools.predict.options import Options


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Path:
    """A SavedModel of random weights."""
    config = TINY | {"vocab_size": len(tiny_vocabulary())}
    weights = {f"bert.{name}": value for name, value in tiny_weights(config).items()}
    random = np.random.default_rng(1)
    weights["classifier.weight"] = random.normal(size=(2, config["hidden_size"])).astype(np.float32)
    weights["classifier.bias"] = np.zeros(2, np.float32)
    classifier = Classifier(Architecture.from_dict(config), ("negative", "positive"), "single_label", 32, weights, {})
    tokenizer = Tokenizer(TokenizerSettings(tuple(tiny_vocabulary())), 32)
    directory = tmp_path_factory.mktemp("served")
    save_saved_model(ServedClassifier(float_model(classifier), classifier, tokenizer, pairs=False), directory)
    return directory


def test_input(served, tmp_path, monkeypatch):
    """A file of lines: every line is answered, or listed with a reason; a pipe is answered up to the first bad line."""
    monkeypatch.setattr(inspection, "load_saved_model", functools.cache(inspection.load_saved_model))
    source, target = tmp_path / "texts.txt", tmp_path / "answers.jsonl"
    contents = [
        b"this film is good\nthat story is bad\n" * 3, "naïve\r\n汉字 [MASK]\r\n\r\n½ ﬁ".encode(),
        b"\xef\xbb\xbfgood\n\n\nbad",
        "a\u2028b\x85c\x0bd\x1ce\n" .encode() * 70, b"a\rb\nc",
    ]  # fmt: skip
    cases = st.tuples(
        mutated(contents, (b"\n", b"\n\n", b"\r", b"\r\n", b"x" * 5000, b"good " * 300)), st.sampled_from("fpt")
    )

    def through_a_pipe(content: bytes) -> None:
        reading, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)
        with open(reading, "rb") as pipe, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", SimpleNamespace(fileno=pipe.fileno))
            command.run(str(served), [], Options(input=("-",), output=target))

    def check(case) -> bool:
        content, way = case
        target.unlink(missing_ok=True)
        table = io.StringIO()
        if way == "p":
            content = content[:60_000]
            _, refused = attempt(lambda: through_a_pipe(content), "--input -, line")
        else:
            source.write_bytes(content)
            options = Options(input=(str(source),), output=target if way == "f" else None, overwrite=way == "f")
            with contextlib.redirect_stdout(table):
                _, refused = attempt(lambda: command.run(str(served), [], options), "--input", str(source))
        lines = content.split(b"\n")
        lines = [line.removesuffix(b"\r") for line in (lines if lines[-1] else lines[:-1])]
        texts = [
            line.decode("utf-8-sig" if not number else "utf-8", "surrogateescape") for number, line in enumerate(lines)
        ]
        answered = [text for text in texts if not any("\udc80" <= c <= "\udcff" for c in text)]
        if way == "p":
            bad = (n for n, text in enumerate(texts) if "\0" in text or any("\udc80" <= c <= "\udcff" for c in text))
            good = next(bad, len(texts))
            assert (refused is None) == (good == len(texts)), refused
            answered = texts[:good]
            if refused is not None:
                assert f"line {good + 1}: " + ("a NUL character" if "\0" in texts[good] else "not UTF-8") in refused
        elif refused is not None:  # no text file, an empty one, or no line of it can be answered
            assert b"\0" in content or not content.removeprefix(b"\xef\xbb\xbf") or not answered, refused
            return True
        if way == "t":
            assert len(table.getvalue().splitlines()) == len(answered)
            return refused is not None
        answers = [json.loads(line) for line in target.read_text(encoding="utf-8").split("\n")[:-1]]
        assert [answer["text"] for answer in answers] == answered
        for answer in answers:
            assert abs(sum(answer["probabilities"].values()) - 1.0) < 1e-5 and answer["label"] in (
                "negative",
                "positive",
            )
            assert answer["probability"] == max(answer["probabilities"].values())
        return refused is not None

    always = [
        (b"", "f"),
        (b"\n", "f"),
        (b"good\n" * 1000, "f"),
        (b"a " * 400_000, "f"),
        (b"a" * 900_000, "f"),
        ("汉".encode() * 300_000, "f"),
    ]
    fuzz("predict --input", cases, check, always)


def test_a_line_that_never_ends(served, tmp_path):
    options = Options(input=("/dev/zero",), output=tmp_path / "x")
    _, refused = attempt(lambda: command.run(str(served), [], options), "--input /dev/zero, line 1")
    assert "more than 1 MB" in refused


def test_golden_files(tmp_path):
    path = tmp_path / golden.FILE
    limits = {"label_agreement": 0.9, "mean_abs_probability_diff": 0.01}
    head = {"format": 1, "task": "single_label", "limits": limits, "recorded_on": "x", "tfpipe": "0"}
    tokens = {"input_ids": [2, 7, 3], "token_type_ids": [0, 0, 0], "logits": [0.5, -1.0], "label": "a"}
    lines = [{"text": "a"} | tokens, {"text": {"base64": "/w=="}} | tokens, {"text": "ü"} | tokens]
    contents = ["\n".join(map(json.dumps, [head, *lines])).encode()]
    trees = mutated_tree(
        [[head, *lines]], (*VALUES, [2**40], [-1], [0.5], [[0.5]], {"base64": "x"}, {"label_agreement": 1e999})
    )

    def written(tree) -> bytes:
        return "\n".join(map(json_text, tree)).encode() if isinstance(tree, list) else b""

    def check(content: bytes) -> bool:
        path.write_bytes(content)
        found, refused = attempt(lambda: golden.read(path), path.name)
        if refused is None:
            head, requests, logits = found
            given = [json.loads(line) for line in content.decode().rstrip("\n").split("\n")]
            assert logits.shape == (len(given) - 1, len(given[1]["logits"])) and len(requests) == len(logits)
            for row, line in enumerate(given[1:]):
                length = len(line["input_ids"])
                assert requests.tokens["input_ids"][row, :length].tolist() == line["input_ids"]
            differences = dict.fromkeys(golden.LIMITS, float("nan"))
            assert golden.exceeded(differences, head)  # NaN keeps no limit, and there is one
        return refused is not None

    fuzz("golden.jsonl", trees.map(written) | mutated(contents), check, [b"[" * 100_000, b""])
