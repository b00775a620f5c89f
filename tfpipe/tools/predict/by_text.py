"""Answers of artifacts that take texts: SavedModels of any origin, and ONNX files with the tokenizer inside."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from tfpipe.errors import InputError, told_by
from tfpipe.tasks import TASKS, split_labels
from tfpipe.tools.predict.answers import Answers

BATCH = 64

Ask = Callable[[list[str], list[str] | None], tuple[list[str], np.ndarray]]
"""some texts -> labels, probabilities [texts, labels] float"""


class TextAnswerer:
    """A source of answers to texts, in batches of a number of them, sorted by length: see `answers.Answerer`."""

    def __init__(self, name: str, ask: Ask, names: tuple[str, ...] | None, *, one_label: bool, pairs: bool):
        self.name, self.names, self.one_label, self.pairs = name, names, one_label, pairs
        self._ask = ask

    def prepare(self, texts: list[str], text_pairs: list[str] | None) -> Any:
        """Returns batches: places of the texts, the texts, their pairs."""
        lengths = np.array([len(text) for text in texts])
        if text_pairs is not None:
            lengths = lengths + [len(text) for text in text_pairs]
        order = np.argsort(lengths, kind="stable")
        return [
            (places, [texts[at] for at in places], None if text_pairs is None else [text_pairs[at] for at in places])
            for places in (order[start : start + BATCH] for start in range(0, len(order), BATCH))
        ]

    def answer(self, prepared: Any) -> Answers:
        """Implements `answers.Answerer`."""
        count = sum(len(places) for places, *_ in prepared)
        labels, probabilities = [""] * count, np.zeros((count, len(self.names or ())), np.float32)
        for places, texts, pairs in prepared:
            found, rows = self._ask(texts, pairs)
            if not probabilities.shape[1]:
                probabilities = np.zeros((count, rows.shape[1]), np.float32)
            if probabilities.shape[1] != rows.shape[1]:
                raise InputError(
                    f"{self.name}: {probabilities.shape[1]} probabilities of one text, {rows.shape[1]} of another; "
                    "export it again"
                )
            probabilities[places] = rows
            for at, label in zip(places, found, strict=True):
                labels[at] = label
        return Answers(labels, probabilities)


def open_saved_model(directory: Path, allowed: Collection[str] = ()) -> TextAnswerer:
    """Loads a SavedModel.

    Args:
      directory: of any origin.
      allowed: operators that it may have although they reach beyond the model.

    Raises:
      InputError: it is refused, can't be loaded, or has other signatures.
    """
    import tensorflow as tf

    from tfpipe.formats.saved_model.inspection import load_saved_model

    try:
        loaded = load_saved_model(directory, allowed)
    except InputError:
        raise
    except Exception as error:  # TensorFlow raises whatever it stumbled over, an IndexError for a truncated file
        raise InputError(f"{directory}: the SavedModel can't be loaded ({told_by(error)}); export it again") from error
    serve = loaded.signatures.get("serving_default")
    if serve is None or "text" not in serve.structured_input_signature[1]:
        raise InputError(f"{directory}: no signature serving_default that takes text; export it with tfpipe")
    pairs = "text_pair" in serve.structured_input_signature[1]
    given = serve.structured_outputs
    for name, kind in (("label", "string"), ("probabilities", "float32")):
        if name not in given or given[name].dtype.name != kind:
            raise InputError(f"{directory}: signature serving_default gives no {name} ({kind}); export it with tfpipe")
    try:
        one_label, names = _told(loaded)
    except Exception as error:
        raise InputError(f"{directory}: can't be asked ({told_by(error)}); export it again") from error

    def ask(texts: list[str], text_pairs: list[str] | None) -> tuple[list[str], np.ndarray]:
        given = {"text": tf.constant(texts)} | ({"text_pair": tf.constant(text_pairs)} if pairs else {})
        try:
            answers = serve(**given)
            labels, probabilities = answers["label"].numpy(), answers["probabilities"].numpy()
            width = (len(names),) if names else probabilities.shape[-1:]
            if (
                labels.shape != (len(texts),)
                or probabilities.shape != (*labels.shape, *width)
                or not probabilities.size
            ):
                raise ValueError(f"labels {labels.shape}, probabilities {probabilities.shape} for {len(texts)} texts")
            found = [label.decode() for label in labels]
            if names is not None:
                _check(found, names, one_label)
        except Exception as error:  # a model of unknown origin raises whatever it stumbles over
            raise InputError(f"{directory}: can't be asked ({told_by(error)}); export it again") from error
        return found, probabilities

    return TextAnswerer(f"{directory} (SavedModel)", ask, names, one_label=one_label, pairs=pairs)


def _told(loaded: Any) -> tuple[bool, tuple[str, ...] | None]:
    """Tells whether a row has one label, and the names in the order of the outputs; None where a model does not tell.

    Raises:
      ValueError: a name is not UTF-8, or two labels have the same name.
    """
    about = loaded.about() if hasattr(loaded, "about") else {}
    task = TASKS.get(about["task"].numpy().decode()) if "task" in about else None
    if task is None:
        return True, None
    names = tuple(name.decode() for name in about["labels"].numpy())
    if len(set(names)) < len(names):
        raise ValueError("two labels of one name")
    return task.one_label, names


def _check(labels: list[str], names: tuple[str, ...], one_label: bool) -> None:
    """Checks that a model answers with labels that it has, or with none.

    Raises:
      ValueError: it does not.
    """
    given = {name for label in set(labels) - {""} for name in ((label,) if one_label else split_labels(label))}
    if other := given.difference(names):
        raise ValueError(f"it answers {other.pop()!r}, and its labels are {', '.join(names)}")


def open_onnx_text(directory: Path) -> TextAnswerer:
    """Loads an ONNX file with the tokenizer inside; its golden requests tell the labels.

    Raises:
      InputError: it is refused, can't be loaded, or has no golden requests.
    """
    import json

    from tfpipe.artifacts import format_named
    from tfpipe.rundir.record import GOLDEN
    from tfpipe.tasks import Decision, task_of

    try:
        head, first = [json.loads(line) for line in (directory / GOLDEN).read_bytes().split(b"\n")[:2]]
        names, task, pairs = tuple(head["labels"]), task_of(head["task"]), first.get("text_pair") is not None
        decision = Decision.read(head, names)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{directory / GOLDEN}: tells no labels ({told_by(error)}); export it again") from error
    from tfpipe.formats.base import Requests

    (answer,) = format_named("onnx_text").code.load(directory)

    def ask(texts: list[str], text_pairs: list[str] | None) -> tuple[list[str], np.ndarray]:
        logits = answer.ask(Requests({}, texts, text_pairs))
        return task.label_texts(logits, names, decision), task.probabilities(logits)

    return TextAnswerer(f"{directory} (ONNX Runtime)", ask, names, one_label=task.one_label, pairs=pairs)
