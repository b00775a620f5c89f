"""`tfpipe predict`: labels texts with a SavedModel, published by a run or any of the same signature.

Enters: texts, from the command line, a file or standard input. Leaves: a table on standard output, or JSON Lines. What
comes in through a pipe is answered as it comes: a batch is what has arrived while the one before was answered.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tfpipe.errors import InputError, told_by
from tfpipe.escaping import printable
from tfpipe.paths import versions
from tfpipe.rundir import RECORD, RunDirectory, sha256_of_directory

BATCH = 64
LONGEST_LINE_BYTES = 1 << 20


def run(
    model: Path,
    texts: list[str],
    variant: str,
    input_file: Path | None,
    output_file: Path | None,
    allowed: Collection[str] = (),
) -> None:
    """Answers each text with its label and that label's probability.

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
    answers = predict(directory, itertools.chain(texts, lines), allowed)
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


def find_saved_model(path: Path, variant: str) -> Path:
    """The SavedModel at a path, or the newest published one of a run."""
    if os.path.isfile(path / "saved_model.pb"):
        return path
    published = path / "serving" / variant
    numbers = versions(os.listdir(published)) if os.path.isdir(published) else []
    record = RunDirectory(path).record("verify") if numbers else None
    if numbers and record is None and os.path.exists(path / "verify" / RECORD):
        raise InputError(
            f"{path / 'verify' / RECORD}: damaged, it no longer says what was published; publish again with "
            "--redo verify, or give the directory of a version"
        )
    newest = record["choices"].get("published") if record else None
    if newest is not None and not any(each.startswith(f"serving/{variant}/") for each in newest):
        raise InputError(
            f"{path}: the last run did not publish {variant}, what is in serving/{variant}/ is older; it published "
            f"{', '.join(newest)}; give the directory of a version to use it all the same"
        )
    if numbers:
        version = published / str(numbers[-1])
        expected = newest and newest.get(f"serving/{variant}/{version.name}")
        if expected is not None and sha256_of_directory(version) != expected:
            raise InputError(f"{version}: its content is not what was published; publish it again with --redo verify")
        return version
    if os.path.isfile(path / "config.yaml"):
        others = sorted({child.parent.name for child in (path / "serving").glob("*/*") if versions([child.name])})
        found = f"published are {', '.join(others)}" if others else "nothing is published yet: finish `tfpipe run`"
        raise InputError(f"{path}: no published variant {variant}; {found}")
    raise InputError(f"{path}: neither a run nor a SavedModel (saved_model.pb); give the directory of one")


def predict(directory: Path, texts: Iterable[str], allowed: Collection[str] = ()) -> Iterator[dict]:
    """Texts -> `{"text", "label", "probability", "probabilities"}`, in order, a batch at a time.

    Args:
      directory: of a SavedModel.
      texts: read as they come.
      allowed: operators that it may have although they reach beyond the model.

    Raises:
      InputError: the model is refused, can't be loaded, has other signatures, or fails at a text.
    """
    import tensorflow as tf

    from tfpipe.export.inspection import load_saved_model

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
    for batch in _as_they_come(texts):
        try:
            answers = serve(text=tf.constant(batch))
            labels, probabilities = answers["label"].numpy(), answers["probabilities"].numpy()
            if labels.shape != (len(batch),) or probabilities.shape[:-1] != labels.shape or not probabilities.size:
                raise ValueError(f"labels {labels.shape}, probabilities {probabilities.shape} for {len(batch)} texts")
            names = [label.decode() for label in labels]
        except Exception as error:  # a model of unknown origin raises whatever it stumbles over
            raise InputError(f"{directory}: can't be asked ({told_by(error)}); export it again") from error
        for text, name, row in zip(batch, names, probabilities, strict=True):
            yield {
                "text": text,
                "label": name,
                "probability": float(row.max()),
                "probabilities": [float(value) for value in row],
            }


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
    try:
        source = sys.stdin.fileno() if str(path) == "-" else path
        file = open(source, "rb", closefd=source is path)  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"--input {path}: can't be read ({error.strerror}); give a file with one text a line"
        ) from error
    return _lines(file, path)


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    """Lines end with LF or CR LF, as other tools count them: a CR alone is a character of a text."""
    with file:
        for number in itertools.count(1):
            line = file.readline(LONGEST_LINE_BYTES + 1)
            if not line:
                return
            if len(line) > LONGEST_LINE_BYTES:
                raise InputError(f"--input {path}, line {number}: more than 1 MB; expected one text a line")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"--input {path}, line {number}: not UTF-8 ({error.reason}); convert it") from None
            yield text.removesuffix("\n").removesuffix("\r")
