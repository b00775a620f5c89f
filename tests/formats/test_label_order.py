"""Every format names the labels, in the order of its outputs."""

from __future__ import annotations

import json
from dataclasses import replace

import onnx
import openvino
import pytest
import tensorflow as tf
from conftest import predict

from tfpipe import artifacts
from tfpipe.formats.base import Source
from tfpipe.formats.saved_model.inspection import load_saved_model
from tfpipe.model.classifier import load_classifier
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

LABELS = ("zebra | a", 'ape\\ "b"')
"""in no order, and with what formats escape"""


def names_in_onnx(path):
    properties = onnx.load(str(path), load_external_data=False).metadata_props
    return json.loads(next(each.value for each in properties if each.key == "labels"))


def names_in_saved_model(path):
    return [name.decode() for name in load_saved_model(path).about()["labels"].numpy()]


def names_in_config(path):
    config = json.loads(path.read_text(encoding="utf-8"))
    assert config["label2id"] == {name: int(index) for index, name in config["id2label"].items()}
    return [config["id2label"][str(index)] for index in range(len(config["id2label"]))]


READERS = {
    "saved_model": [names_in_saved_model],
    "saved_model_tokens": [names_in_saved_model, lambda path: names_in_config(path / "assets.extra" / "config.json")],
    "onnx": [
        lambda path: names_in_onnx(path / "onnx" / "model.onnx"),
        lambda path: names_in_config(path / "config.json"),
    ],
    "onnx_text": [lambda path: names_in_onnx(path / "model.onnx")],
    "openvino": [
        lambda path: json.loads(
            openvino.Core().read_model(str(path / "openvino_model.xml")).get_rt_info(["framework", "labels"]).value
        ),
        lambda path: names_in_config(path / "config.json"),
    ],
    "litert": [lambda path: names_in_config(path / "config.json")],
}


@pytest.fixture(scope="module")
def source(every_format_run) -> Source:
    run = every_format_run[1]
    classifier = replace(load_classifier(run / "train"), labels=LABELS)
    tokenizer = Tokenizer(TokenizerSettings.read(run / "train"), classifier.max_length)
    return Source(classifier, tokenizer, TokenTable.open(run / "prepare" / "test"), False, "digest")


@pytest.mark.parametrize("format", artifacts.FORMATS, ids=lambda each: each.name)
def test_names_are_in_the_order_of_the_outputs(every_format_run, source, tmp_path, format):
    path = tmp_path / format.path
    format.code.write(source, path, every_format_run[0].export)
    for read in READERS[format.name]:
        assert tuple(read(path)) == LABELS
    if format.name == "saved_model":
        (answer,) = predict(path, ["a good film"])
        assert tuple(answer["probabilities"]) == LABELS
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
        named = load_saved_model(path).signatures["classify"](text=tf.constant(["a good film"]))
        assert tuple(name.decode() for name in named["classes"].numpy()[0]) == LABELS
        assert named["scores"].numpy()[0] == pytest.approx([*answer["probabilities"].values()], abs=1e-7)
