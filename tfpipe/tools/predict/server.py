"""A TF Serving endpoint as a source of answers: `tfpipe predict --server URL`. Without TensorFlow.

At opening, the server is asked once about its model. Its signatures tell whether it takes texts or pairs, and the
signature `classify` the names of its labels. No signature tells whether a text has one label or any number of them.
So a few short texts are asked: the probabilities of their answers are the softmax of their logits, or the sigmoid.

From then on, only the version that answered at opening is asked. A server may load another at any time, and answers of
two models would stand in one file. If the server drops that version, the scoring ends with the server's message.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tfpipe.console import say_once
from tfpipe.errors import InputError
from tfpipe.escaping import SURROGATES, printable
from tfpipe.tasks import TASKS, joined_labels, split_labels
from tfpipe.tools.predict.answers import Answers
from tfpipe.tools.predict.server_endpoint import (
    BatchTooLarge,
    Endpoint,
    Metadata,
    Transport,
    Unavailable,
    parse_url,
    told,
)

T = TypeVar("T")

TRIES = 7
FIRST_WAIT_SECONDS = 0.5
"""between the first two tries, at most; it doubles: half a minute in all, beside what the tries themselves take"""
IN_FLIGHT = 2
"""requests at once: the server works at one while the answer to the other travels"""
PROBES = ("a", "this is good", "no, that was bad", "one day in the middle of the year they went home again")
CLOSE = 1e-3
"""how far a probability that is computed here from a logit may be from the server's"""
_OTHER_MODEL = "ask for a model that tfpipe has published"
_NOTHING_LOST = "what is written stays, and the same command goes on from there"


class Texts(NamedTuple):
    """Texts to send."""

    texts: list[str]
    pairs: list[str] | None


class ServerAnswerer:
    """A source of answers by one version of a model on a TF Serving endpoint; see `answers.Answerer`."""

    def __init__(self, endpoint: Endpoint, transport: Transport, batch: int):
        """Asks the server about its model.

        Args:
          endpoint: of the model.
          transport: a way to ask it.
          batch: texts a request at most.

        Raises:
          InputError: the server can't be asked, or its model is of another kind.
        """
        self._endpoint, self._transport, self._batch = endpoint, transport, batch
        metadata = self._patiently(lambda: transport.metadata(endpoint), threading.Event())
        self.pairs = _takes_pairs(endpoint, metadata)
        if metadata.version is not None:
            self._endpoint = endpoint.of_version(metadata.version)
        version = "" if metadata.version is None else f" version {metadata.version}"
        self.name = f"{printable(endpoint.url)}{version}"
        probes, outputs = self._probe()
        labels, probabilities = self._read(outputs, len(probes.texts))
        self._width = probabilities.shape[1]
        self.names = self._names(metadata, probes, probabilities)
        self.one_label = self._has_one_label(outputs.get("logits"), labels, probabilities)
        if not self.one_label and self.names is None:
            raise endpoint.error("a model of several labels a text that does not tell their names", _OTHER_MODEL)

    def prepare(self, texts: list[str], text_pairs: list[str] | None) -> Texts:
        """Implements `Answerer`: checks the texts, and passes them on.

        Raises:
          InputError: the model takes pairs and there are none, or the other way round, or a text is not UTF-8.
        """
        if self.pairs and text_pairs is None:
            raise self._endpoint.error("a model of text pairs", "give the second texts too: --text-pair-column")
        if not self.pairs and text_pairs is not None:
            raise self._endpoint.error("a model of single texts", "leave out --text-pair-column")
        for text in (*texts, *(text_pairs or ())):
            if not text.isascii() and SURROGATES.search(text):
                raise InputError(f"predict: the text {text[:80]!a} is not UTF-8; convert it")
        return Texts(texts, text_pairs)

    def answer(self, prepared: Texts) -> Answers:
        """Implements `Answerer`: sends the texts by length, so that the server pads little."""
        texts, pairs = prepared
        lengths = [len(text) + (len(pairs[at]) if pairs else 0) for at, text in enumerate(texts)]
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        labels = [""] * len(texts)
        probabilities = np.empty((len(texts), self._width), np.float32)
        for rows, found in self._all(prepared, _parts(order, self._batch)):
            probabilities[rows] = found.probabilities
            for at, label in zip(rows, found.labels, strict=True):
                labels[at] = label
        return Answers(labels, probabilities)

    def _all(self, texts: Texts, parts: list[list[int]]) -> Iterator[tuple[list[int], Answers]]:
        stop = threading.Event()
        if len(parts) == 1:
            yield parts[0], self._some(texts, parts[0], stop)
            return
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            asked = {pool.submit(self._some, texts, rows, stop): rows for rows in parts}
            try:
                for future in as_completed(asked):
                    yield asked[future], future.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _some(self, texts: Texts, rows: list[int], stop: threading.Event) -> Answers:
        """Answers some rows with one request, or with several where the server takes fewer texts at once."""
        some = Texts([texts.texts[at] for at in rows], texts.pairs and [texts.pairs[at] for at in rows])
        try:
            labels, probabilities = self._read(self._ask("serving_default", some, stop), len(rows))
        except BatchTooLarge as error:
            most = self._fewer(error, len(rows))
            found = [self._some(texts, part, stop) for part in _parts(rows, most)]
            labels = [label for each in found for label in each.labels]
            probabilities = np.concatenate([each.probabilities for each in found])
        if probabilities.shape[1] != self._width:
            raise self._endpoint.error(f"{probabilities.shape[1]} probabilities instead of {self._width}", _OTHER_MODEL)
        self._check_labels(labels)
        return Answers(labels, probabilities)

    def _ask(self, signature: str, texts: Texts, stop: threading.Event | None = None) -> dict[str, Any]:
        inputs = {"text": texts.texts} | ({"text_pair": texts.pairs} if texts.pairs is not None else {})
        ask = lambda: self._transport.predict(self._endpoint, signature, inputs)  # noqa: E731
        return self._patiently(ask, stop or threading.Event())

    def _patiently(self, ask: Callable[[], T], stop: threading.Event) -> T:
        """Asks up to `TRIES` times, with waits that double and differ: many clients must not come back at once."""
        url = printable(self._endpoint.url)
        for number in range(TRIES):
            try:
                return ask()
            except Unavailable as error:
                said = str(error)
            if number + 1 < TRIES:
                say_once(f"--server {url}: {said}; waits and tries again, up to {TRIES} times", kind=f"waits for {url}")
                if stop.wait(FIRST_WAIT_SECONDS * 2**number * random.uniform(0.5, 1.0)):
                    break
        raise self._endpoint.error(
            f"{said} (tried {TRIES} times)", f"see that the server runs and can be reached from here; {_NOTHING_LOST}"
        )

    def _read(self, outputs: dict[str, Any], count: int) -> tuple[list[str], np.ndarray]:
        """Checks the answers to `count` texts: labels, and probabilities [count, labels] float32."""
        labels, probabilities = outputs.get("label"), _floats(outputs.get("probabilities"))
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise self._endpoint.error("the answer has no `label` of texts", _OTHER_MODEL)
        if probabilities is None or probabilities.ndim != 2 or not probabilities.shape[1]:
            raise self._endpoint.error("the answer has no `probabilities` [texts, labels]", _OTHER_MODEL)
        if not len(labels) == len(probabilities) == count:
            what = f"{len(labels)} labels and {len(probabilities)} rows of probabilities for {count} texts"
            raise self._endpoint.error(what, "see what is between here and TF Serving")
        if (wrong := ~(np.abs(probabilities - 0.5) <= 0.5 + CLOSE)).any():  # NaN too
            shown = probabilities[wrong][0]
            raise self._endpoint.error(f"a probability of {shown}", "the model is damaged: publish it again")
        return labels, probabilities

    def _probe(self) -> tuple[Texts, dict[str, Any]]:
        """Asks a few texts, as many as the server takes at once."""
        most = len(PROBES)
        while True:
            probes = Texts(list(PROBES[:most]), list(PROBES[-most:]) if self.pairs else None)
            try:
                return probes, self._ask("serving_default", probes)
            except BatchTooLarge as error:
                most = self._fewer(error, most)

    def _fewer(self, error: BatchTooLarge, count: int) -> int:
        """Notes the number of texts that the server takes at once, when it has refused `count`."""
        if not 1 <= error.most < count:
            raise self._endpoint.error(f"{count} texts at once are too many", "see its batching") from error
        self._batch = min(self._batch, error.most)
        say_once(f"--server {self.name} takes {error.most} texts at once")
        return error.most

    def _names(self, metadata: Metadata, probes: Texts, probabilities: np.ndarray) -> tuple[str, ...] | None:
        """Asks `classify` for the names of the labels, and checks that their order is that of the probabilities."""
        signature = metadata.signatures.get("classify")
        if signature is None or not signature.outputs.keys() >= {"classes", "scores"}:
            return None
        outputs = self._ask("classify", probes)
        classes, scores = outputs.get("classes"), _floats(outputs.get("scores"))
        names = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], list) else []
        whole = len(names) == self._width == len({name for name in names if isinstance(name, str)})
        if not whole or classes != [names] * len(probes.texts):
            raise self._endpoint.error("`classify` does not name each label once", _OTHER_MODEL)
        if scores is None or scores.shape != probabilities.shape or not _close(scores, probabilities):
            raise self._endpoint.error("`classify` and `serving_default` answer differently", _OTHER_MODEL)
        return tuple(names)

    def _has_one_label(self, logits: Any, labels: list[str], probabilities: np.ndarray) -> bool:
        """Tells the task by the answers to the probes.

        Softmax and sigmoid give the same only if all logits equal minus the logarithm of the number of labels less one.
        Then the label decides. A model of other origin without logits has one label if the probabilities of each probe
        add up to 1.
        """
        logits = _floats(logits)
        if logits is None:
            return _close(probabilities.sum(axis=1), np.ones(len(probabilities)))
        fitting = [
            task
            for task in TASKS.values()
            if logits.shape == probabilities.shape and _close(task.probabilities(logits), probabilities)
        ]
        if len(fitting) > 1 and self.names is not None:
            fitting = [task for task in fitting if task.label_texts(logits, self.names) == labels]
        if len(fitting) != 1:
            raise self._endpoint.error("its logits do not tell whether a text has one label", _OTHER_MODEL)
        return fitting[0].one_label

    def _check_labels(self, labels: list[str]) -> None:
        if self.names is None:
            return
        names = set(self.names)
        for label in set(labels):
            chosen = [label] if self.one_label and label else split_labels(label)  # "": it abstains, or chooses none
            if not names.issuperset(chosen) or not (self.one_label or joined_labels(chosen) == label):
                raise self._endpoint.error(f"the label {told(label)!r}, which is none of the model's", _OTHER_MODEL)


def open_server(url: str, *, timeout: float = 30.0, batch: int = 64) -> ServerAnswerer:
    """Opens a model on a TF Serving endpoint.

    Args:
      url: `http(s)://HOST:PORT/v1/models/NAME[/versions/N|/labels/L]`, or `grpc://HOST:PORT/NAME` likewise.
      timeout: seconds for one try of one request.
      batch: texts a request at most.

    Raises:
      InputError: the URL is malformed, the server can't be asked, or its model is of another kind.
    """
    endpoint = parse_url(url)
    if endpoint.scheme == "grpc":
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # a server that goes is told of by an error
        from tfpipe.tools.predict.server_grpc import Grpc

        return ServerAnswerer(endpoint, Grpc(endpoint, timeout), batch)
    from tfpipe.tools.predict.server_rest import Rest

    return ServerAnswerer(endpoint, Rest(endpoint, timeout), batch)


def _takes_pairs(endpoint: Endpoint, metadata: Metadata) -> bool:
    signature = metadata.signatures.get("serving_default")
    inputs = {} if signature is None else signature.inputs
    if inputs not in ({"text": "DT_STRING"}, {"text": "DT_STRING", "text_pair": "DT_STRING"}):
        shown = told(", ".join(sorted(inputs))) or "none"
        raise endpoint.error(f"serving_default takes no texts (its inputs: {shown})", _OTHER_MODEL)
    for name, kind in (("label", "DT_STRING"), ("probabilities", "DT_FLOAT")):
        if signature.outputs.get(name) != kind:
            raise endpoint.error(f"serving_default gives no {name} ({kind})", _OTHER_MODEL)
    return "text_pair" in inputs


def _parts(rows: list[int], size: int) -> list[list[int]]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def _floats(values: Any) -> np.ndarray | None:
    """Turns nested lists of numbers, or an array of them, into float32; None for other values."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        return None
    with np.errstate(over="ignore"):  # infinite, and refused where it must not be
        return array.astype(np.float32) if array.dtype.kind in "fiu" else None


def _close(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.abs(first - second).max() <= CLOSE)
