"""What `docs/data.md` generates: the settings, from their descriptions, and the table of producers, from the examples.

PYTHONPATH=tests .venv/bin/python -m data.producers.table
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import yaml
from data.producers import annotation_tools, clouds, corpora, databases, frames, hugging_face, json_files, spreadsheets
from data.producers.example import Example

from tfpipe.config.data import Data

DOCUMENT = Path(__file__).parents[3] / "docs" / "data.md"
COMMAND = "PYTHONPATH=tests .venv/bin/python -m data.producers.table"
SETTINGS = (
    *("source", "format", "encoding", "separator", "columns", "quoting", "escape", "records", "sheet", "query"),
    *("line", "file_name", "text_column", "text", "text_pair_column", "label_column", "label_names", "label_form"),
    *("label_separator", "label_spellings", "missing", "untrained_labels", "filter", "max_rejected_fraction"),
)
MODULES = (frames, databases, spreadsheets, json_files, hugging_face, annotation_tools, clouds, corpora)
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
    needed = {} if example.refused else shown | example.settings
    return ", ".join(f"`{name}: {_yaml(value)}`" for name, value in needed.items())


def settings() -> str:
    """The settings of `data` that decide how files are read, as a list in Markdown."""
    lines = []
    for name in SETTINGS:
        entry = f"- `{name}`: " + Data.model_fields[name].description.replace(chr(92), chr(92) * 2)
        lines += textwrap.wrap(entry, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def document(text: str) -> str:
    """Puts the generated parts of a document between their markers."""
    for name, content in (("settings", settings()), ("table", table())):
        begin, end = f"<!-- {name}: written by `{COMMAND}` -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"
    return text


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml(name)}: {_yaml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    plain = re.fullmatch(r"[\w./-]+", value) and yaml.safe_load(value) == value
    return value if plain else json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
