"""How old an ONNX Runtime may be: releases since 1.15, each in an environment of its own, answer golden requests.

Each release is installed from PyPI, so these are among the slow tests. README.md has the table that they hold.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tfpipe import metrics
from tfpipe.config.export import Export
from tfpipe.evaluate import golden
from tfpipe.formats.base import Source
from tfpipe.formats.onnx import format as onnx_format
from tfpipe.formats.onnx.folder import graph_file
from tfpipe.model.classifier import load_classifier
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.variants import STAGE_OF_VARIANT

ROOT = Path(__file__).parents[2]
RELEASES = ("1.15.0", "1.16.3", "1.17.3", "1.18.1", "1.20.1", "1.22.1", "1.24.4", "1.32.0")
"""1.15.0 is the first on PyPI for Python 3.11; before 1.19 they want NumPy 1"""
OPSETS = (17, 18)
VARIANTS = ("dense", "pruned", "int8")
ASK = """
import json, sys
import numpy, onnxruntime

options = onnxruntime.SessionOptions()
options.log_severity_level = 3
found = {}
for name, file in json.loads(sys.argv[1]).items():
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        found[name] = []
        for row in json.load(open(sys.argv[2])):
            inputs = {key: numpy.array([value], numpy.int64) for key, value in row.items()}
            found[name].append(session.run(["logits"], inputs)[0][0].tolist())
    except Exception as error:
        found[name] = str(error)
print(json.dumps([onnxruntime.__version__, found]))
"""


@pytest.fixture(scope="module")
def files(tiny_run, tmp_path_factory) -> dict[str, Path]:
    """Variant and operator set -> an ONNX file of the tiny run."""
    run, found = tiny_run[1], {}
    for variant in VARIANTS:
        found[f"{variant} 17"] = graph_file(run / "export" / variant / "onnx")
        origin, folder = run / STAGE_OF_VARIANT[variant], tmp_path_factory.mktemp(variant) / "onnx"
        tokenizer = Tokenizer(TokenizerSettings.read(origin), 32)
        onnx_format.write(Source(load_classifier(origin), tokenizer, None, False, ""), folder, Export(onnx_opset=18))
        found[f"{variant} 18"] = graph_file(folder)
    return found


def test_the_files_ask_for_no_more_than_their_operators_do(files):
    """The lowest IR version of either operator set; LayerNormalization, which each layer has, came with 17."""
    for name, file in files.items():
        model = onnx.load(str(file), load_external_data=False)
        (opset,) = (each.version for each in model.opset_import if not each.domain)
        assert opset == int(name.split()[1])
        lowest = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
        assert model.ir_version == lowest == 8
        since = {node.op_type: onnx.defs.get_schema(node.op_type, opset).since_version for node in model.graph.node}
        assert since["LayerNormalization"] == 17 == max(since.values()) or opset == 18


def answered(release: str, files: dict[str, Path], run: Path, directory: Path) -> dict[str, str]:
    """Variant and operator set -> `yes`, or what is wrong, under one release."""
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
    numpy = "numpy<2" if tuple(map(int, release.split(".")[:2])) < (1, 19) else "numpy"
    install = [directory / "venv" / "bin" / "pip", "install", "--quiet", "--only-binary", ":all:"]
    subprocess.run([*install, f"onnxruntime=={release}", numpy], check=True)
    (directory / "ask.py").write_text(ASK, encoding="utf-8")
    found = {}
    for variant in VARIANTS:
        head, requests, expected = golden.read(run / "export" / variant / "onnx" / "golden.jsonl")
        rows = [
            {name: value[0].tolist() for name, value in requests.part(number, number + 1).tokens.items()}
            for number in range(len(requests))
        ]
        (directory / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
        named = {name: str(file) for name, file in files.items() if name.startswith(variant)}
        command = [
            directory / "venv" / "bin" / "python",
            directory / "ask.py",
            json.dumps(named),
            directory / "rows.json",
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        version, answers = json.loads(ended.stdout.splitlines()[-1])
        assert version == release
        for name, logits in answers.items():
            found[name] = logits if isinstance(logits, str) else compared(np.array(logits), expected, head)
    return found


def compared(logits: np.ndarray, expected: np.ndarray, head: dict) -> str:
    return "; ".join(golden.exceeded(metrics.differences(logits, expected, head["task"]), head)) or "yes"


def table() -> dict[str, str]:
    """Release -> the cells of its row in README.md."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| (1\.\d+\.\d+) \| (.*) \|$", text, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_a_release_answers_as_the_readme_says(tiny_run, files, release, tmp_path):
    found = answered(release, files, tiny_run[1], tmp_path)
    cells = [" and ".join(dict.fromkeys(found[f"{variant} {opset}"] for variant in VARIANTS)) for opset in OPSETS]
    assert " | ".join(cells) == table()[release]


def test_the_table_has_every_release():
    assert tuple(table()) == RELEASES
