"""The OpenVINO artifact of a run, where `verify` found it faster than the SavedModel on this machine.

Enters: the directory of a run whose SavedModel `predict` would load. Leaves: the OpenVINO version that was published
with it, and a function that answers texts with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tfpipe.artifacts import format_named
from tfpipe.errors import InputError
from tfpipe.files import sha256_of_directory
from tfpipe.provenance import machine
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.record import SERVING

SHAPE = "b1_s32"
"""at which latencies are compared: a text of ordinary length, alone"""

Texts = Callable[[list[str]], tuple[list[str], np.ndarray]]


def fastest_version(model: str | Path, variant: str) -> Path | None:
    """Finds the published OpenVINO version of a variant; None where the SavedModel is to answer.

    Args:
      model: as `predict` is given it.
      variant: of a run.
    """
    try:
        return _fastest(model, variant)
    except (InputError, OSError, StopIteration, ValueError, LookupError, TypeError, AttributeError):
        return None  # no run, no OpenVINO here, or a damaged file: the SavedModel has been checked


def _fastest(model: str | Path, variant: str) -> Path | None:
    from tfpipe.formats.saved_model.format import BY_TEXT

    run = Path(model)
    if "://" in str(model) or not (run / "publish" / "published.json").is_file():
        return None
    record = RunDirectory(run).committed("verify")
    if record is None or record.machine != machine():  # its latencies are another machine's
        return None
    published = json.loads((run / "publish" / "published.json").read_text(encoding="utf-8"))
    version = next(name for name in published if name.startswith(f"{SERVING}/openvino/{variant}/"))
    rows = json.loads((run / "verify" / "parity.json").read_text(encoding="utf-8"))["artifacts"]
    latency = {row["artifact"]: row["latency_ms"][SHAPE] for row in rows if row["variant"] == variant}
    if not (latency["openvino"] or np.inf) < (latency[BY_TEXT] or 0.0):
        return None
    format_named("openvino").check_runtime()
    return run / version if sha256_of_directory(run / version) == published[version] else None


def open_version(folder: Path) -> tuple[Texts, tuple[str, ...], bool]:
    """Loads an OpenVINO folder.

    Raises:
      InputError: a model of text pairs.

    Returns:
      A function texts -> labels and probabilities [texts, labels] float64; the names in the order of the outputs; and
      whether a text has one label.
    """
    import tensorflow as tf

    from tfpipe.evaluate import golden
    from tfpipe.formats.base import Requests
    from tfpipe.tasks import task_of
    from tfpipe.tokens.tokenizer import Tokenizer
    from tfpipe.tokens.tokenizer_settings import TokenizerSettings

    if golden.read(folder / golden.FILE)[1].text_pairs is not None:
        raise InputError(f"{folder}: a model of text pairs; predict takes single texts")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = tuple(config["id2label"][str(index)] for index in range(len(config["id2label"])))
    task = task_of(config["problem_type"].removesuffix("_classification"))
    tokenizer = Tokenizer(TokenizerSettings.read(folder), config["max_length"])
    (answer,) = format_named("openvino").code.load(folder)

    def ask(texts: list[str]) -> tuple[list[str], np.ndarray]:
        tokens = {name: value.numpy() for name, value in tokenizer.dense(tf.constant(texts)).items()}
        logits = answer.ask(Requests(tokens, texts, None))
        return task.label_texts(logits, names), task.probabilities(logits)

    return ask, names, task.one_label
