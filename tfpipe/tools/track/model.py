"""The model that goes along with an entry: an exported folder, code that answers, a signature. No pickle.

Enters: a finished run and the artifact that was chosen. Leaves: a model of the flavor `python_function`, which
`mlflow.pyfunc.load_model` opens and `mlflow models serve` serves. An ONNX folder is answered by code that needs
onnxruntime, tokenizers, numpy and pandas alone. Any other artifact, and texts that are cleaned, need tfpipe.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Map

from tfpipe import __version__
from tfpipe.artifacts import Format, format_named
from tfpipe.errors import InputError
from tfpipe.tasks import task_of
from tfpipe.tokens.fast_tokenizer import can_repeat
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools.track.finished import Finished

_OF_ONNX = ("onnxruntime", "tokenizers", "numpy", "pandas")


class Chosen(NamedTuple):
    """An artifact of a run."""

    variant: str
    format: Format
    folder: Path

    @property
    def name(self) -> str:
        """Names the model for MLflow, which allows no slash."""
        return f"{self.variant}-{self.format.name}"


def chosen(run: Finished, variant: str | None, artifact: str | None) -> Chosen:
    """Chooses the artifact that goes along: the one asked for, or the last variant within the budget, as ONNX.

    Args:
      run: done.
      variant: `dense`, `distilled`, `pruned` or `int8`; None: the last within the budget.
      artifact: a format; None: ONNX, or a SavedModel where the run has no ONNX.

    Raises:
      InputError: the run has no such artifact, or a file of it was changed.
    """
    formats = run.config.export.formats
    name = artifact or ("onnx" if "onnx" in formats else formats[0])
    if name not in formats or name == "saved_model_tokens":
        usable = [each for each in formats if each != "saved_model_tokens"]
        raise InputError(f"--artifact {name}: expected one of this run that takes texts: {', '.join(usable)}")
    named, format = run.variant(variant), format_named(name)
    format.check_runtime()
    return Chosen(named, format, run.run.verified("export") / named / format.path)


def signature(run: Finished) -> ModelSignature:
    """Gives the names and types of the inputs and outputs."""
    pairs, one_label = run.config.data.text_pair_column is not None, task_of(run.config.task).one_label
    inputs = [ColSpec(DataType.string, name) for name in ("text", *(["text_pair"] * pairs))]
    outputs = [ColSpec(DataType.string, "label")]
    if not one_label:
        outputs.append(ColSpec(Array(DataType.string), "labels"))
    outputs += [ColSpec(DataType.double, "probability"), ColSpec(Map(DataType.double), "probabilities")]
    return ModelSignature(Schema(inputs), Schema(outputs))


@contextmanager
def parts(artifact: Chosen) -> Iterator[dict[str, Any]]:
    """Gives the parts of which `mlflow.pyfunc.log_model` makes a model; the files exist as long as the block.

    Args:
      artifact: that goes along.
    """
    alone = artifact.format.name == "onnx" and _needs_no_graph(artifact.folder)
    source = Path(__file__).parent / ("answers_onnx.py" if alone else "answers_tfpipe.py")
    # Models of several builds of tfpipe can be loaded in one process: a module of another content has another name.
    module = f"{source.stem}_{hashlib.sha256(source.read_bytes()).hexdigest()[:8]}"
    with tempfile.TemporaryDirectory(prefix="tfpipe-track-") as scratch:
        code = Path(scratch) / f"{module}.py"
        shutil.copyfile(source, code)
        yield {
            "loader_module": module,
            "data_path": str(artifact.folder),
            "code_paths": [str(code)],
            "pip_requirements": _requirements(alone, artifact.format),
        }


def _requirements(alone: bool, format: Format) -> list[str]:
    if alone:
        return [f"{name}=={importlib.metadata.version(name)}" for name in _OF_ONNX]
    extra = f"[{format.extra}]" if format.extra else ""
    return [f"tfpipe{extra}=={__version__}", f"pandas=={importlib.metadata.version('pandas')}"]


def _needs_no_graph(folder: Path) -> bool:
    """Tells whether `tokenizer.json` makes the model's token ids: it cleans no texts."""
    settings = TokenizerSettings.read(folder)
    return not settings.is_cleaning and can_repeat(settings) is None
