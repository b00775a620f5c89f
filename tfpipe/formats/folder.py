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
from tfpipe.model.classifier import Classifier, config_of
from tfpipe.tasks import task_of


def write_folder(source: Source, folder: Path, readme: Path, own: dict[str, Any], **values: Any) -> None:
    """Writes all but the graph.

    Args:
      source: gives the classifier and its tokenizer.
      folder: where the files go.
      readme: template of the README; it gets `values`, and `labels`, `one_label`, `max_length`, `pairs` and
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
    write_text(folder / "README.md", f"{text.rstrip()}\n{_calibration(classifier)}")


def _calibration(classifier: Classifier) -> str:
    """Writes the steps from probabilities to labels that a program must do itself; "" where the plain rule holds."""
    decision, lines = classifier.decision, []
    if decision.thresholds is not None:
        lines.append("A label is given where its probability is above its threshold in `config.json` (`thresholds`).")
    if decision.abstain_below is not None:
        lines.append(
            f"Where the largest probability is below {decision.abstain_below:g} (`abstain_below` in `config.json`), "
            "the answer is no label."
        )
    if classifier.temperature != 1.0:
        lines.append(
            f"The logits are divided by a temperature, {classifier.temperature:g}, already: their softmax or sigmoid "
            "is calibrated."
        )
    return "\n## Calibration\n\n" + "\n\n".join(lines) + "\n" if lines else ""
