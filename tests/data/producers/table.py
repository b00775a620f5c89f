"""The table of producers in `docs/data.md`: written from the examples.

PYTHONPATH=tests .venv/bin/python -m data.producers.table
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from data.producers import annotation_tools, corpora, databases, frames, hugging_face, json_files, spreadsheets
from data.producers.example import Example

DOCUMENT = Path(__file__).parents[3] / "docs" / "data.md"
COMMAND = "PYTHONPATH=tests .venv/bin/python -m data.producers.table"
BEGIN, END = f"<!-- begin of the table, which `{COMMAND}` writes -->", "<!-- end of the table -->"
MODULES = (frames, databases, spreadsheets, json_files, hugging_face, annotation_tools, corpora)
EXAMPLES = [example for module in MODULES for example in module.EXAMPLES]


def table() -> str:
    """The table, in Markdown."""
    lines = ["| producer | form | how tfpipe reads it | settings |", "|---|---|---|---|"]
    for example in EXAMPLES:
        cells = (example.producer, example.form, example.read, settings_of(example))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def settings_of(example: Example) -> str:
    """The settings that an example needs, as a configuration has them; a path alone goes without saying."""
    shown = {} if example.task == "single_label" else {"task": example.task}
    if isinstance(example.source, dict) or re.search(r"\*|^hf:", example.source or ""):
        shown["source"] = example.source
    settings = {} if example.refused else shown | example.settings
    return ", ".join(f"`{name}: {_yaml(value)}`" for name, value in settings.items())


def document(text: str) -> str:
    """Puts the table between the markers of a document."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml(name)}: {_yaml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    plain = re.fullmatch(r"[\w./-]+", value) and yaml.safe_load(value) == value
    return value if plain else json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
