"""The artifacts of a variant, loaded one after the other: each way to ask them, with facts about their files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfpipe import artifacts
from tfpipe.artifacts import REFERENCE, Format
from tfpipe.encoders.parameters import sparsity_of
from tfpipe.evaluate.calibration import calibration_of
from tfpipe.formats import keras
from tfpipe.formats.base import Answer, Requests
from tfpipe.model.classifier import Classifier, load_classifier
from tfpipe.tokens.table import TokenTable


@dataclass(frozen=True)
class Artifact:
    """The facts about an artifact, as one way asks it."""

    variant: str
    format: str
    """name of its format"""
    kind: str
    """name of the way; the first of a format bears the format's name"""
    path: Path
    """file or directory on disk"""
    size_bytes: int
    sparsity: float
    """share of zeros in the encoder's kernels, counted in the file"""
    parameters: int
    """of the classifier, embeddings included"""
    longest: int
    """most tokens that it takes; raw text is cut there"""
    rounded: bool = False
    """whether it computes in fewer bits than float32"""


class Loaded(NamedTuple):
    """An artifact in memory, and one way to ask it."""

    artifact: Artifact
    answer: Answer


def exported_classifier(source: Path, exported: Path, variant: str) -> Classifier:
    """Loads a classifier as its artifacts hold it: calibrated.

    Args:
      source: directory of the stage that made the variant.
      exported: directory of the stage `export`.
      variant: `dense`, `distilled`, `pruned` or `int8`.
    """
    return load_classifier(source).calibrated(*calibration_of(exported, variant))


def load_artifacts(
    variant: str,
    source: Path,
    exported: Path,
    formats: Collection[str],
    threads: int | None,
) -> Iterator[list[Loaded]]:
    """Loads the reference of a variant, then its artifact of each format, each from its own files.

    The next artifact is loaded when it is asked for. The iterator keeps none of them: an artifact whose answers are no
    longer held leaves memory before the next one comes.

    Args:
      variant: `dense`, `distilled`, `pruned` or `int8`.
      source: directory of the stage that made the variant.
      exported: directory of its artifacts, in that of the stage `export`.
      formats: names of the formats that it has.
      threads: of a runtime that can be told; None: all processors.

    Yields:
      The ways to ask an artifact.
    """
    classifier = exported_classifier(source, exported.parent, variant)
    ways = partial(
        _ways,
        variant,
        sum(weight.size for weight in classifier.weights.values()),
        {True: classifier.max_length, False: classifier.architecture.max_position_embeddings},
    )
    sparsity, answers = sparsity_of(classifier.weights), [keras.answer(classifier)]
    del classifier  # its weights are in the Keras model
    yield ways(REFERENCE, source / REFERENCE.path, sparsity, [answers.pop()])
    for format in artifacts.formats_named(formats):
        path = exported / format.path
        yield ways(format, path, sparsity_of(format.code.kernels(path)), format.code.load(path, threads))


def _ways(
    variant: str,
    parameters: int,
    longest: Mapping[bool, int],
    format: Format,
    path: Path,
    sparsity: float,
    answers: Iterable[Answer],
) -> list[Loaded]:
    """Describes each way to ask an artifact; `longest`: most tokens of a text, and of token ids."""
    size_bytes = format.code.size_bytes(path)
    return [
        Loaded(
            Artifact(
                variant,
                format.name,
                each.name,
                path,
                size_bytes,
                sparsity,
                parameters,
                each.longest or longest[each.takes_text],
                each.rounded or variant == "int8",
            ),
            each,
        )
        for each in answers
    ]


def batches_of(table: TokenTable, rows: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, Requests]]:
    """Cuts rows into batches of similar length, each padded to its own longest row.

    Args:
      table: of the rows.
      rows: [n] int64, numbers of the rows.
      batch_size: rows a batch; the last may be shorter.

    Yields:
      The batch's rows, and the batch.
    """
    ordered = rows[np.argsort(table.lengths[rows], kind="stable")]
    for start in range(0, len(ordered), batch_size):
        chunk = ordered[start : start + batch_size]
        pairs = table.text_pairs(chunk)
        texts, seconds = table.texts(chunk), None if pairs[0] is None else [pair or "" for pair in pairs]
        yield chunk, Requests(table.padded(chunk), texts, seconds)
