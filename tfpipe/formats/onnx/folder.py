"""The folder of an ONNX file, laid out as transformers, optimum and transformers.js look for its parts.

Enters: a classifier and its tokenizer. Leaves: `config.json`, the tokenizer's files and a README with code for each
loader, beside `onnx/model.onnx` or, of 8 bits, `onnx/model_quantized.onnx`.
"""

from __future__ import annotations

from pathlib import Path

from tfpipe import templates
from tfpipe.errors import InputError
from tfpipe.files import write_json, write_text
from tfpipe.formats.base import Source
from tfpipe.model.classifier import Classifier, config_of
from tfpipe.tasks import task_of

# The names by which optimum and transformers.js know a float file and one of 8 bits.
FLOAT_FILE, QUANTIZED_FILE = "onnx/model.onnx", "onnx/model_quantized.onnx"


def new_graph_file(classifier: Classifier, folder: Path) -> Path:
    """Gives the path of a classifier's ONNX file, whose directory it makes."""
    file = folder / (QUANTIZED_FILE if classifier.quantization else FLOAT_FILE)
    file.parent.mkdir(parents=True)
    return file


def graph_file(folder: Path) -> Path:
    """Finds the ONNX file of a folder.

    Raises:
      InputError: there is none.
    """
    for name in (FLOAT_FILE, QUANTIZED_FILE):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: neither {FLOAT_FILE} nor {QUANTIZED_FILE} there; export it again")


def write_folder(source: Source, folder: Path, file: Path) -> None:
    """Writes all but the ONNX file.

    Args:
      source: gives the classifier and its tokenizer.
      folder: where the files go.
      file: the ONNX file in it.
    """
    classifier, settings = source.classifier, source.tokenizer.settings
    quantized = file == folder / QUANTIZED_FILE
    # Without a type, transformers.js looks for one file or the other, by the device that it runs on.
    own = {"dtype": "q8" if quantized else "fp32"}
    write_json(folder / "config.json", config_of(classifier) | {"transformers.js_config": own})
    settings.write(folder, classifier.max_length)
    text = templates.render(
        Path(__file__).parent / "README.md.jinja",
        file=file.relative_to(folder),
        labels=classifier.labels,
        one_label=task_of(classifier.task).one_label,
        max_length=classifier.max_length,
        pairs=source.pairs,
        cleaned=settings.is_cleaning,
    )
    write_text(folder / "README.md", text)
