"""README.md beside a SavedModel: its code runs as it stands, in processes that have nothing of tfpipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from evaluate.c_api import LIBRARIES

from tfpipe.formats.base import Source
from tfpipe.formats.saved_model.readme import write_readme
from tfpipe.model.classifier import load_classifier
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings


def code_below(text: str, heading: str) -> str:
    (code,) = re.findall(rf"^## {re.escape(heading)}\n.*?^```\w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return code


OURS = ("PYTHONPATH", "TF_USE_LEGACY_KERAS")
"""what a process of a user has not"""


def ran(command: list[str], directory: Path) -> subprocess.CompletedProcess:
    """Runs a program in a directory, where `python` and `saved_model_cli` are those of this environment."""
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | own
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=180)


@pytest.fixture
def saved_model(tiny_run) -> Path:
    return tiny_run[1] / "export" / "int8" / "saved_model"


@pytest.fixture
def readme(saved_model) -> str:
    return (saved_model / "assets.extra" / "README.md").read_text(encoding="utf-8")


def test_its_python_runs_and_fails_without_tensorflow_text(saved_model, readme):
    code = code_below(readme, "Python")
    done = ran([sys.executable, "-c", code], saved_model)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\[\[b'negative' b'positive'\]\] \[\[0\.\d+ +0\.\d+ *\]\]", done.stdout)
    done = ran([sys.executable, "-c", code.replace("import tensorflow_text", "#")], saved_model)
    assert done.returncode != 0 and "Op type not registered 'TFText>WhitespaceTokenizeWithOffsetsV2'" in done.stderr


def test_its_saved_model_cli_runs(saved_model, readme):
    """`show` and `run` of `tokens` need nothing; `run` of a text signature does."""
    shown = ran(["saved_model_cli", "show", "--dir", ".", "--all"], saved_model)
    assert shown.returncode == 0 and all(f"signature_def['{each}']" in shown.stdout for each in ("tokens", "classify"))
    code = code_below(readme, "saved_model_cli")
    done = ran(["bash", "-c", code], saved_model)
    assert done.returncode == 0, done.stderr
    assert re.search(r"key label:\n\[b'(negative|positive)'\]", done.stdout)
    plain = re.sub(r'python -c ".*?" ', "saved_model_cli", code)
    done = ran(["bash", "-c", plain], saved_model)
    assert done.returncode != 0 and "Op type not registered" in done.stderr
    ids = "input_ids=[[2,120,3]];attention_mask=[[1,1,1]];token_type_ids=[[0,0,0]]"
    asked = [
        "saved_model_cli",
        "run",
        "--dir",
        ".",
        "--tag_set",
        "serve",
        "--signature_def",
        "tokens",
        "--input_exprs",
        ids,
    ]
    done = ran(asked, saved_model)
    assert done.returncode == 0, done.stderr


def test_its_libraries_are_those_that_the_c_api_is_tested_with(readme):
    assert re.findall(r"^- `(\S+\.so)`$", readme, re.MULTILINE) == list(LIBRARIES)


def test_the_readme_of_serving_has_python_that_runs(tiny_run):
    serving = tiny_run[1] / "serving"
    code = code_below((serving / "README.md").read_text(encoding="utf-8"), "In a program of your own")
    done = ran([sys.executable, "-c", code], serving)
    assert done.returncode == 0 and re.search(r"\[b'\w+' b'\w+'\]", done.stdout), done.stderr


@pytest.mark.parametrize("takes_text", [True, False])
def test_a_readme_of_pairs_many_labels_and_cleaning(tiny_run, tmp_path, takes_text):
    labels = ("<b>|`\n# a", *(f"label {index}" for index in range(1, 25)))
    classifier = replace(load_classifier(tiny_run[1] / "train"), task="multi_label", labels=labels)
    settings = replace(TokenizerSettings.read(tiny_run[1] / "train"), unicode="NFKC")
    write_readme(Source(classifier, Tokenizer(settings, 32), None, True, ""), tmp_path, takes_text=takes_text)
    text = (tmp_path / "assets.extra" / "README.md").read_text(encoding="utf-8")
    assert "``<b>|` # a``, `label 1`" in text and "`label 19`, …" in text and "label 20" not in text
    assert "its pair" in text and "\n\n\n" not in text
    assert ("_normalize_ops.so" in text) == takes_text != ("cleaning.json" in text)
