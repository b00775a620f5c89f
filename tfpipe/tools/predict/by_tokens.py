"""Answers of artifacts that take token ids: ONNX, OpenVINO, LiteRT. Without TensorFlow, which takes seconds to start.

Enters: the folder of an artifact, with its tokenizer beside it. Leaves: a source of answers. Texts are sorted by their
length in tokens and cut into batches of so many tokens, so that a long text does not slow the others. Each batch runs
on one thread, and as many run at a time as there are processors. With two threads of ONNX Runtime on one batch, the
same texts take 1.2 times the processor time (benchmarks/README.md, Scoring). Neither the batches nor the answers
depend on the number of threads.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfpipe.artifacts import Format, format_in
from tfpipe.encoders.transformers import CONFIG, read_json
from tfpipe.errors import InputError, told_by
from tfpipe.formats.base import Answer, Requests
from tfpipe.rundir.record import GOLDEN
from tfpipe.tasks import TASKS, Decision, Task, task_of
from tfpipe.tokens.fast_tokenizer import FastTokenizer, TokenIds, can_repeat
from tfpipe.tokens.tokenizer_settings import TokenizerSettings
from tfpipe.tools.predict.answers import Answers

_GOLDEN_REQUESTS = 8
TOKENS_PER_BATCH = 1024
"""padding included"""


class Prepared(NamedTuple):
    """Tokenized texts, in batches."""

    texts: list[str]
    text_pairs: list[str] | None
    tokens: TokenIds
    batches: list[np.ndarray]
    """rows of each, int64"""


class TokenAnswerer:
    """A source of answers to texts by their token ids: see `answers.Answerer`."""

    def __init__(self, folder: Path, format: Format, threads: int | None = None):
        """Loads an artifact: see `open_folder`."""
        self.name = f"{folder} ({format.name})"
        self._folder, self._format = folder, format
        files = _files(folder)
        self.names, self._task, max_length, self._decision = _told(files / CONFIG)
        golden = folder / format.extras / GOLDEN
        self.one_label, self.pairs = self._task.one_label, _pairs(golden)
        self._threads = threads or len(os.sched_getaffinity(0))
        first = self._load()
        self._tokenizer = FastTokenizer(TokenizerSettings.read(files), min(max_length, first.longest or max_length))
        if first.longest is None or first.longest >= max_length:
            self._check_tokenizer(golden)
        self._batch = first.batch
        self._idle: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._idle.put(first)
        self._pool: ThreadPoolExecutor | None = None

    def _check_tokenizer(self, golden: Path) -> None:
        """Checks that the tokenizer is the model's: it must make the ids of some golden requests from their texts.

        Raises:
          InputError: it is another one, or the requests are damaged.
        """
        try:
            with open(golden, encoding="utf-8") as file:
                requests = [json.loads(line) for line in itertools.islice(file, 1, 1 + _GOLDEN_REQUESTS)]
            requests = [each for each in requests if isinstance(each["text"], str)]  # else bytes that are no UTF-8
            texts, expected = [each["text"] for each in requests], [each["input_ids"] for each in requests]
            found = self._tokenizer.encode(texts, [each["text_pair"] for each in requests] if self.pairs else None)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"{golden}: not as tfpipe wrote it ({told_by(error)}); export it again") from None
        for text, ids, own in zip(texts, expected, found.ids, strict=True):
            if ids != own.tolist():
                raise InputError(
                    f"{self._folder}: its tokenizer is not the model's: of the golden request {text[:80]!r} it makes "
                    "other token ids than were recorded; export it again"
                )

    def prepare(self, texts: list[str], text_pairs: list[str] | None) -> Prepared:
        """Tokenizes texts and cuts them into batches."""
        tokens = self._tokenizer.encode(texts, text_pairs)
        lengths = np.array([len(ids) for ids in tokens.ids], np.int64)
        return Prepared(texts, text_pairs, tokens, batches(lengths, TOKENS_PER_BATCH, self._batch))

    def answer(self, prepared: Prepared) -> Answers:
        """Implements `answers.Answerer`.

        Raises:
          InputError: the artifact can't be asked.
        """
        logits = np.zeros((len(prepared.texts), len(self.names)), np.float32)
        last_first = prepared.batches[::-1]  # the last one, of the longest texts, takes longest
        if len(last_first) > 1 and self._threads > 1:
            answers = self._workers().map(lambda rows: self._ask(prepared, rows), last_first)
        else:
            answers = (self._ask(prepared, rows) for rows in last_first)
        for rows, found in zip(last_first, answers, strict=True):
            logits[rows] = found
        labels = self._task.label_texts(logits, self.names, self._decision)
        return Answers(labels, self._task.probabilities(logits))

    def _ask(self, prepared: Prepared, rows: np.ndarray) -> np.ndarray:
        """Answers one batch on one thread: logits [rows, labels] float32."""
        requests = Requests(
            prepared.tokens.padded(rows, self._tokenizer.pad_id),
            [prepared.texts[row] for row in rows],
            None if prepared.text_pairs is None else [prepared.text_pairs[row] for row in rows],
        )
        answer = self._idle.get()
        try:
            logits = answer.ask(requests)
            if logits.shape != (len(rows), len(self.names)):
                raise ValueError(f"answers of shape {logits.shape} to {len(rows)} texts, of {len(self.names)} labels")
            return logits
        except Exception as error:  # an artifact of unknown origin raises whatever it stumbles over
            raise InputError(f"{self._folder}: can't be asked ({told_by(error)}); export it again") from error
        finally:
            self._idle.put(answer)

    def _workers(self) -> ThreadPoolExecutor:
        """Starts the threads, each with a model of its own, when there are several batches for the first time."""
        if self._pool is None:
            first = self._idle.get()
            for each in (first, *(first if first.shared else self._load() for _ in range(self._threads - 1))):
                self._idle.put(each)
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="answer")
        return self._pool

    def _load(self) -> Answer:
        return self._format.code.load(self._folder, 1)[0]


def open_folder(folder: Path, threads: int | None = None) -> TokenAnswerer:
    """Loads an artifact that takes token ids.

    Args:
      folder: as `export` wrote it, or `publish`.
      threads: batches that are answered at a time; None: as many as this process has processors.

    Raises:
      InputError: no such artifact, it would do more than compute, its runtime is not installed, or a file beside it is
        missing or damaged.
    """
    format = format_in(folder)
    if format is None or not (_files(folder) / CONFIG).is_file():
        raise InputError(f"{folder}: no artifact that takes token ids; give a folder such as export/int8/onnx")
    return TokenAnswerer(folder, format, threads)


def cannot_tokenize(folder: Path) -> str | None:
    """Tells why an artifact's texts can't be tokenized without TensorFlow; None where they can.

    If there is a reason, `open_folder` still answers, by TensorFlow's graph of the tokenizer.
    """
    return can_repeat(TokenizerSettings.read(_files(folder)))


def batches(lengths: np.ndarray, most_tokens: int, rows: int | None = None) -> list[np.ndarray]:
    """Cuts rows into batches of similar length, the shortest first.

    Args:
      lengths: [rows] int64, tokens.
      most_tokens: of a batch, padding included; a longer row is a batch by itself.
      rows: of a batch, in place of `most_tokens`.

    Returns:
      The rows of each batch, int64.
    """
    order = np.argsort(lengths, kind="stable")
    if rows is not None:
        return [order[start : start + rows] for start in range(0, len(order), rows)]
    starts = [0]
    for place, row in enumerate(order):
        if (place + 1 - starts[-1]) * lengths[row] > most_tokens and place > starts[-1]:
            starts.append(place)
    return np.split(order, starts[1:]) if len(order) else []


def _files(folder: Path) -> Path:
    """Finds the directory of `config.json` and tokenizer files: beside the graph, or a SavedModel's extra folder."""
    extra = folder / "assets.extra"
    return extra if (extra / CONFIG).is_file() else folder


def _told(path: Path) -> tuple[tuple[str, ...], Task, int, Decision]:
    """Reads `config.json`: labels in the order of the logits, the task, the cut of texts, the rule of answers."""
    config = read_json(path)
    try:
        names = tuple(config["id2label"][str(index)] for index in range(len(config["id2label"])))
        task, max_length = config["problem_type"].removesuffix("_classification"), config["max_length"]
        if len(set(names)) < 2 or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
            raise ValueError("id2label must name two labels or more, each once")
        if task not in TASKS:
            raise ValueError(f"problem_type {config['problem_type']}")
        if type(max_length) is not int or not 4 <= max_length <= config["max_position_embeddings"]:
            raise ValueError(f"max_length {max_length}")
        decision = Decision.read(config, names)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(
            f"{path}: not as tfpipe wrote it ({reason}); give the folder of an exported artifact"
        ) from None
    return names, task_of(task), max_length, decision


def _pairs(path: Path) -> bool:
    """Tells whether texts come in pairs, by the first of the golden requests."""
    try:
        with open(path, encoding="utf-8") as file:
            file.readline()
            return "text_pair" in json.loads(file.readline())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: can't be read ({error}), and tells whether texts come in pairs; give the folder of an exported "
            "artifact"
        ) from None
