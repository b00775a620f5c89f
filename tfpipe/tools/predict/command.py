"""`tfpipe predict`: labels texts with a SavedModel, published by a run or any of the same signature.

Enters: texts, from the command line, a file or standard input. Leaves: a table on standard output, or JSON Lines. What
comes in through a pipe is answered as it comes: a batch is what has arrived while the one before was answered.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import re
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfpipe.console import say
from tfpipe.errors import InputError, told_by
from tfpipe.escaping import printable
from tfpipe.rundir.published import find_saved_model
from tfpipe.tasks import TASKS, split_labels
from tfpipe.tools.fastest import fastest_version, open_version

BATCH = 64
LONGEST_LINE_BYTES = 1 << 20
COMPRESSED = re.compile(rb"(?P<gz>\x1f\x8b)|(?P<bz2>BZh[1-9]1AY&SY)|(?P<xz>\xfd7zXZ\0)|(?P<zst>\(\xb5/\xfd)")
"""how compressed data begins, with the end of the file name under which `--input` reads it"""


def run(
    model: str | Path,
    texts: list[str],
    variant: str,
    input_file: Path | None,
    output_file: Path | None,
    allowed: Collection[str] = (),
) -> None:
    """Answers each text with its label, or labels, and the probability of that answer as `predict` defines it.

    Raises:
      InputError: no model there, no texts, or a model with other signatures.
    """
    directory = find_saved_model(model, variant)
    if input_file is None and not texts:
        raise InputError('predict: no texts; give them as arguments ("a small gem") or with --input FILE')
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(f"predict: the text {text!a} is not UTF-8; convert it") from None
    lines = _open_input(input_file) if input_file is not None else ()
    folder = None if allowed else fastest_version(model, variant)
    every = itertools.chain(texts, lines)
    answers = predict(directory, every, allowed) if folder is None else predict_by_openvino(folder, every)
    if output_file is not None and output_file.suffix[1:] in COMPRESSED.groupindex:
        raise InputError(
            f"--output {output_file}: answers are written as plain JSON Lines; give a name without {output_file.suffix}"
        )
    if output_file is None:
        for answer in answers:
            text = printable(answer["text"])
            shown = text if len(text) <= 80 else text[:79] + "…"
            print(f"{printable(answer['label']):<12} {answer['probability']:.4f}  {shown}", flush=True)
        return
    try:
        target = sys.stdout.fileno() if str(output_file) == "-" else output_file
        file = open(target, "w", encoding="utf-8", buffering=1, closefd=target is output_file)  # noqa: SIM115
    except OSError as error:
        raise InputError(f"--output {output_file}: can't be written ({error.strerror}); give another path") from error
    with file:
        for answer in answers:
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")


def predict(directory: Path, texts: Iterable[str], allowed: Collection[str] = ()) -> Iterator[dict]:
    """Texts -> `{"text", "label", "probability", "probabilities"}`, in order, a batch at a time.

    `probability` is that of the label. For a multi-label model it is the smallest among the chosen labels. Where no
    label is chosen, it is 1 minus the largest of all: the probability that none applies. The answers of such a model
    also have `labels`, the list of the names that `label` joins.

    Args:
      directory: of a SavedModel.
      texts: read as they come.
      allowed: operators that it may have although they reach beyond the model.

    Raises:
      InputError: the model is refused, can't be loaded, has other signatures, or fails at a text.
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
    if "text_pair" in serve.structured_input_signature[1]:
        raise InputError(f"{directory}: a model of text pairs; predict takes single texts")
    given = serve.structured_outputs
    for name, kind in (("label", "string"), ("probabilities", "float32")):
        if name not in given or given[name].dtype.name != kind:
            raise InputError(f"{directory}: signature serving_default gives no {name} ({kind}); export it with tfpipe")
    try:
        one_label, names = _told(loaded)
    except Exception as error:
        raise InputError(f"{directory}: can't be asked ({told_by(error)}); export it again") from error
    for batch in _as_they_come(texts):
        try:
            answers = serve(text=tf.constant(batch))
            labels, probabilities = answers["label"].numpy(), answers["probabilities"].numpy()
            if labels.shape != (len(batch),) or probabilities.shape[:-1] != labels.shape or not probabilities.size:
                raise ValueError(f"labels {labels.shape}, probabilities {probabilities.shape} for {len(batch)} texts")
            found = [_answer(*each, one_label, names) for each in zip(batch, labels, probabilities, strict=True)]
        except Exception as error:  # a model of unknown origin raises whatever it stumbles over
            raise InputError(f"{directory}: can't be asked ({told_by(error)}); export it again") from error
        yield from found


def predict_by_openvino(folder: Path, texts: Iterable[str]) -> Iterator[dict]:
    """Answers as `predict` does, with an OpenVINO artifact.

    Args:
      folder: published by a run.
      texts: read as they come.
    """
    ask, names, one_label = open_version(folder)
    say(f"{folder} answers: `verify` found OpenVINO faster than the SavedModel here")
    for batch in _as_they_come(texts):
        labels, probabilities = ask(batch)
        for text, label, row in zip(batch, labels, probabilities, strict=True):
            yield _answer(text, label.encode(), row, one_label, list(names))


def _told(loaded: Any) -> tuple[bool, list[str] | None]:
    """Tells whether a row has one label, and the names in the order of the outputs; None where a model does not say.

    Raises:
      ValueError: a name is not UTF-8, or there is a name that two labels have.
    """
    about = loaded.about() if hasattr(loaded, "about") else {}
    task = TASKS.get(about["task"].numpy().decode()) if "task" in about else None
    if task is None:
        return True, None
    names = [name.decode() for name in about["labels"].numpy()]
    if len(set(names)) < len(names):
        raise ValueError("two labels of one name")
    return task.one_label, names


def _answer(
    text: str, label: bytes, probabilities: np.ndarray, one_label: bool, names: list[str] | None
) -> dict[str, Any]:
    """One answer of `predict`: [labels] float32, and what `_told` says.

    Raises:
      ValueError: the label is not UTF-8, or names a label that the model does not have.
    """
    answer: dict[str, Any] = {"text": text, "label": label.decode()}
    probability = float(probabilities.max())
    if not one_label:
        answer["labels"] = split_labels(answer["label"])
        chosen = [float(probabilities[names.index(name)]) for name in answer["labels"]]
        probability = min(chosen, default=1.0 - probability)
    answer["probability"] = probability
    if names is not None:
        answer["probabilities"] = dict(zip(names, probabilities.tolist(), strict=True))
    return answer


def _as_they_come(texts: Iterable[str]) -> Iterator[list[str]]:
    """Batches of what is there: a thread reads ahead, by a few batches, while the one before is answered."""
    arrived: queue.Queue[str | BaseException | None] = queue.Queue(4 * BATCH)

    def read() -> None:
        try:
            for text in texts:
                arrived.put(text)
            arrived.put(None)
        except BaseException as error:  # handed on to the one who waits
            arrived.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        batch = [arrived.get()]
        while len(batch) < BATCH and isinstance(batch[-1], str) and not arrived.empty():
            batch.append(arrived.get())
        last = batch[-1]
        if isinstance(last, str):
            yield batch
            continue
        if batch[:-1]:
            yield batch[:-1]
        if last is None:
            return
        raise last


def _open_input(path: Path) -> Iterator[str]:
    """The texts of a file, which is opened at once, before any model is loaded."""
    from tfpipe.data.files.streams import open_bytes

    try:
        if path.suffix[1:] in COMPRESSED.groupindex and os.path.isfile(path) and not path.stat().st_size:
            raise InputError(f"{path}: empty, which no compressed file is; make the file again")
        file = open(sys.stdin.fileno(), "rb", closefd=False) if str(path) == "-" else open_bytes(str(path))  # noqa: SIM115
    except (OSError, InputError) as error:
        raise InputError(f"--input {error}") from error
    return _lines(file, path)


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    """Lines end with LF or CR LF, as other tools count them: a CR alone is a character of a text."""
    from tfpipe.data.files.streams import READ_ERRORS

    with file:
        for number in itertools.count(1):
            where = f"--input {path}, line {number}"
            try:
                line = file.readline(LONGEST_LINE_BYTES + 1)
            except READ_ERRORS as error:  # a compressed file that is damaged
                raise InputError(f"{where}: can't be read on ({told_by(error)}); make the file again") from error
            if not line:
                return
            if number == 1 and (found := COMPRESSED.match(line)):
                raise InputError(f"{where}: compressed, not text; decompress it, or name it FILE.{found.lastgroup}")
            if len(line) > LONGEST_LINE_BYTES:
                raise InputError(f"{where}: more than 1 MB; expected one text a line")
            if b"\0" in line:
                raise InputError(f"{where}: a NUL character, so this is no text file; give one text a line in UTF-8")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{where}: not UTF-8 ({error.reason}); convert it") from None
            yield text.removesuffix("\n").removesuffix("\r")
