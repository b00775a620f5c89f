"""The files beside a graph that takes token ids, by which loaders find labels and tokens: shared by several formats.

Enters: a classifier and its tokenizer. Leaves: `config.json` and the tokenizer's files, as transformers has them, and a
README with code for each loader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfpipe import templates
from tfpipe.files import write_json, write_text
from tfpipe.formats.base import Source
from tfpipe.model.classifier import config_of
from tfpipe.tasks import task_of


def write_folder(source: Source, folder: Path, readme: Path, own: dict[str, Any], **values: Any) -> None:
    """Writes all but the graph.

    Args:
      source: gives the classifier and its tokenizer.
      folder: where the files go.
      readme: template of the README; it gets what `values` name, `labels`, `one_label`, `max_length`, `pairs` and
        `cleaned`.
      own: further keys of `config.json`.
      **values: of the template.
    """
    classifier, settings = source.classifier, source.tokenizer.settings
    write_json(folder / "config.json", config_of(classifier) | own)
    settings.write(folder, classifier.max_length)
    text = templates.render(
        readme,
        labels=classifier.labels,
        one_label=task_of(classifier.task).one_label,
        max_length=classifier.max_length,
        pairs=source.pairs,
        cleaned=settings.is_cleaning,
        **values,
    )
    write_text(folder / "README.md", text)
