"""The documents name files that exist."""

import importlib
import re
from pathlib import Path

import pytest

import tfpipe

ROOT = Path(tfpipe.__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "tpu/README.md",
    "docs/data.md",
    "docs/explaining.md",
    "docs/report.md",
    "docs/design/README.md",
)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_names_exist(document):
    """Files of Python, configuration and shell, from the top or from `tfpipe/` on."""
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./-]+\.(?:py|sh|yaml|jinja))`", text))
    beside = (ROOT, ROOT / "tfpipe", (ROOT / document).parent)
    missing = {name for name in named if not any((place / name).is_file() for place in beside)}
    assert missing == {name for name in OF_A_USER if name in missing}


OF_A_USER = {"config.yaml"}
"""files that a document talks of and that lie with users"""


def test_modules_that_a_module_names_exist():
    """Beside it, or from `tfpipe/` on, as `data/tables.py`."""
    package, missing = ROOT / "tfpipe", []
    for path in package.rglob("*.py"):
        for name in re.findall(r"`([\w/]+\.py)`", path.read_text(encoding="utf-8")):
            if not (path.parent / name).is_file() and not (package / name).is_file():
                missing.append(f"{path.relative_to(package)} names {name}")
    assert missing == []


def test_modules_that_are_imported_in_text_exist():
    """Tests and benchmarks start processes with programs that are strings, which no linter looks into."""
    missing = []
    for path in (*ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")):
        text = path.read_text(encoding="utf-8")
        for module, names in re.findall(r"^ *from (tfpipe[\w.]*) import ([\w, ]+)", text, re.MULTILINE):
            home = importlib.import_module(module)
            for name in (each.split()[0] for each in names.split(",") if each.strip()):
                try:
                    if not hasattr(home, name):
                        importlib.import_module(f"{module}.{name}")
                except ImportError:
                    missing.append(f"{path.relative_to(ROOT)}: from {module} import {name}")
    assert missing == []


def test_the_tree_of_the_readme_is_the_tree():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("## The tree", 1)[1].split("    tfpipe/\n", 1)[1].split("    tpu/", 1)[0]
    lines = re.findall(r"^      ((?:\w+\.py ?)+|\w+/)", tree, re.MULTILINE)
    named = {name.rstrip("/") for line in lines for name in line.split()}
    known = {path.name for path in (ROOT / "tfpipe").iterdir() if path.name != "__pycache__"} - {"__init__.py"}
    assert named == known
