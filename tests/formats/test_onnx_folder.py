"""The folder of an ONNX artifact, opened by the libraries that it is laid out for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tokenizers
from transformers import AutoConfig, AutoTokenizer

from tfpipe.evaluate.golden import HARD_TEXTS
from tfpipe.formats import onnx as onnx_format
from tfpipe.formats.base import Source
from tfpipe.formats.folder import write_folder
from tfpipe.formats.onnx.folder import FLOAT_FILE, QUANTIZED_FILE, graph_file
from tfpipe.formats.saved_model.inspection import load_saved_model
from tfpipe.model.classifier import load_classifier
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.variants import STAGE_OF_VARIANT

TEXTS = ["a fine film", "a poor film " * 100, "ünïcödé 字字 fine", *(text for text in HARD_TEXTS.values())]
TEXTS = [text if isinstance(text, str) else text.decode("utf-8", "replace") for text in TEXTS]


def run_readme(folder, monkeypatch, heading: str) -> dict:
    """Runs the code below a heading of the README as it stands, in the folder; its variables."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"## {heading}\n\n```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(folder)
    found = {}
    exec(compile(code, "README.md", "exec"), found)
    return found


@pytest.mark.parametrize("variant", ["dense", "pruned", "int8"])
def test_what_loaders_look_for_is_there(tiny_run, variant):
    folder = tiny_run[1] / "export" / variant / "onnx"
    file = QUANTIZED_FILE if variant == "int8" else FLOAT_FILE
    assert graph_file(folder) == folder / file
    expected = {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == expected | {"README.md", "golden.jsonl", file}
    config = AutoConfig.from_pretrained(folder)
    assert config.id2label == {0: "negative", 1: "positive"} and config.label2id == {"negative": 0, "positive": 1}
    assert config.problem_type == "single_label_classification"
    own = json.loads((folder / "config.json").read_text())
    assert own["max_length"] == 32
    assert own["transformers.js_config"] == {"dtype": "q8" if variant == "int8" else "fp32"}
    metadata = onnxruntime.InferenceSession(str(graph_file(folder))).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == list(config.id2label.values())


@pytest.mark.parametrize("variant", ["dense", "int8"])
@pytest.mark.parametrize("loader", ["transformers", "tokenizers"])
def test_texts_get_the_answers_of_the_saved_model(tiny_run, variant, loader):
    """On texts that are cut and on odd ones, from nothing but the folder."""
    run = tiny_run[1]
    folder = run / "export" / variant / "onnx"
    session = onnxruntime.InferenceSession(str(graph_file(folder)))
    if loader == "transformers":
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = [dict(tokenizer(text, truncation=True)) for text in TEXTS]
    else:
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        rows = [
            {"input_ids": each.ids, "attention_mask": each.attention_mask, "token_type_ids": each.type_ids}
            for each in tokenizer.encode_batch(TEXTS)
        ]
    answers = [session.run(["logits"], {name: np.array([row[name]]) for name in row})[0][0] for row in rows]
    served = load_saved_model(run / "export" / variant / "saved_model").signatures["serving_default"]
    expected = served(text=TEXTS)["logits"].numpy()
    assert max(len(row["input_ids"]) for row in rows) == 32
    if variant == "dense":
        assert np.abs(np.array(answers) - expected).max() <= 1e-4
    margins = np.abs(expected[:, 0] - expected[:, 1])
    clear = margins > 0.1
    assert np.array_equal(np.argmax(answers, axis=1)[clear], np.argmax(expected, axis=1)[clear])


@pytest.mark.parametrize("variant", ["dense", "int8"])
def test_the_readme_runs(tiny_run, variant, monkeypatch):
    folder = tiny_run[1] / "export" / variant / "onnx"
    found = run_readme(folder, monkeypatch, "ONNX Runtime")
    assert found["probabilities"].shape == (1, 2) and found["probabilities"].sum() == pytest.approx(1.0, abs=1e-5)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "in the order of `id2label` in\n`config.json`: `negative`, `positive`." in text
    assert "Clean the texts first" not in text and "Each label has" not in text


def test_a_readme_of_pairs_several_labels_and_cleaning(tiny_run, tmp_path):
    from dataclasses import replace

    classifier = load_classifier(tiny_run[1] / STAGE_OF_VARIANT["dense"])
    labels = ("<b>|`\n# a", *(f"label {index}" for index in range(1, 25)))
    classifier = replace(classifier, task="multi_label", labels=labels)
    settings = replace(TokenizerSettings.read(tiny_run[1] / "train"), html=True)
    source = Source(classifier, Tokenizer(settings, 32), None, True, "")
    (tmp_path / "onnx").mkdir()
    readme = Path(onnx_format.__file__).parent / "README.md.jinja"
    write_folder(source, tmp_path / "onnx", readme, {}, file=FLOAT_FILE)
    text = (tmp_path / "onnx" / "README.md").read_text(encoding="utf-8")
    for part in ("`label 19`, …", "Clean the texts first", "Each label has", "its pair"):
        assert part in text
    assert (
        "json`: ``<b>|` # a``, `label 1`" in text
        and "label 20" not in text
        and (tmp_path / "onnx" / "cleaning.json").is_file()
    )
    assert "\n\n\n" not in text
