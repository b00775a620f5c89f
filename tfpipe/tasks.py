"""The tasks of a classifier: what tells a row of one label from a row of any number of labels, in one place.

Configurations, files and records hold the name of a task; `task_of` gives the `Task` where something is computed. Each
has its formulas in NumPy (float64), for whole splits, and in TensorFlow (float32), for training and for the exported
graphs. TensorFlow is imported where it is needed: commands start without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

_SMALLEST = 1e-12  # probability whose logarithm is taken


class Decision(NamedTuple):
    """The rule by which probabilities become an answer."""

    thresholds: tuple[float, ...] | None = None
    """of each label of a multi-label model, the probability above which it is given; None: one half"""
    abstain_below: float | None = None
    """of a model of one label: where the largest probability is lower, no label is given; None: there is always one"""

    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Writes the settings that differ from the plain rule, thresholds by label name; `read` reads them back."""
        thresholds = None if self.thresholds is None else dict(zip(names, self.thresholds, strict=True))
        found = {"thresholds": thresholds, "abstain_below": self.abstain_below}
        return {key: value for key, value in found.items() if value is not None}

    @classmethod
    def read(cls, value: Mapping[str, Any], names: Sequence[str]) -> Decision:
        """Reads what `as_json` wrote, among other keys.

        Raises:
          ValueError: the value is not in the form of `as_json`.
        """
        thresholds, below = value.get("thresholds"), value.get("abstain_below")
        given = [] if thresholds is None else [thresholds.get(name) for name in names]
        numbers = [*given, *([] if below is None else [below])]
        if not all(type(each) in (int, float) and 0.0 < each < 1.0 for each in numbers):
            raise ValueError(f"thresholds {thresholds}, abstain_below {below}: expected numbers between 0 and 1")
        return cls(None if thresholds is None else tuple(map(float, given)), None if below is None else float(below))

    def cuts(self) -> np.ndarray | float:
        """Gives the logits above which labels are given: [labels] float32, or 0 for all."""
        if self.thresholds is None:
            return 0.0
        odds = np.array(self.thresholds, np.float64)
        return np.log(odds / (1.0 - odds)).astype(np.float32)


PLAIN = Decision()


class Task(ABC):
    """One kind of classification."""

    name: str
    """as settings, files and records name it"""
    one_label: bool
    """whether a row has exactly one label; else it has any number of them"""

    @abstractmethod
    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Turns logits into probabilities: [rows, labels] float -> the same, in float64."""

    @abstractmethod
    def decisions(self, logits: np.ndarray, decision: Decision = PLAIN) -> np.ndarray:
        """Tells which labels a row has, where it must have an answer: [rows, labels] float -> [rows, labels] bool."""

    @abstractmethod
    def label_texts(self, logits: np.ndarray, names: Sequence[str], decision: Decision = PLAIN) -> list[str]:
        """Writes the answer of each row, [rows, labels] float, as a text of label names; "" where it has none."""

    @abstractmethod
    def cross_entropy(self, targets: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Computes the loss of each row in nats: [rows, labels] float, the same -> [rows] float."""

    @abstractmethod
    def divergence(self, probability: np.ndarray, reference: np.ndarray) -> float:
        """Computes the Kullback-Leibler divergence from a reference, both [rows, labels], in nats, mean over rows."""

    @abstractmethod
    def moved(self, differences: np.ndarray) -> np.ndarray:
        """Tells how much probability of each row moved: [rows, labels] absolute differences -> [rows], 0 to 1."""

    @abstractmethod
    def smoothed(self, targets: tf.Tensor, smoothing: float) -> tf.Tensor:
        """Spreads a share of the targets' probability over the labels: [..., labels] float32 -> the same."""

    @abstractmethod
    def loss(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Computes the cross-entropy of each example: [..., labels] float32, the same -> [...] float32."""

    @abstractmethod
    def graph_probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Does what `probabilities` does in a graph: [..., labels] float32 -> the same."""

    @abstractmethod
    def graph_label(self, logits: tf.Tensor, names: Sequence[str], decision: Decision = PLAIN) -> tf.Tensor:
        """Does what `label_texts` does in a graph: [batch, labels] float32 -> [batch] string."""


class SingleLabel(Task):
    """One label a row: softmax, the largest logit."""

    name = "single_label"
    one_label = True

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Implements `Task`."""
        wide = np.asarray(logits, np.float64)
        shifted = np.exp(wide - wide.max(axis=-1, keepdims=True))
        return shifted / shifted.sum(axis=-1, keepdims=True)

    def decisions(self, logits: np.ndarray, decision: Decision = PLAIN) -> np.ndarray:
        """Implements `Task`; of equal logits, the first wins."""
        return np.eye(logits.shape[-1], dtype=bool)[logits.argmax(axis=-1)]

    def label_texts(self, logits: np.ndarray, names: Sequence[str], decision: Decision = PLAIN) -> list[str]:
        """Implements `Task`: the name of the label as it is."""
        found = [names[index] for index in logits.argmax(axis=-1)]
        if decision.abstain_below is None:
            return found
        sure = self.probabilities(logits).max(axis=-1) >= decision.abstain_below
        return [name if given else "" for name, given in zip(found, sure, strict=True)]

    def cross_entropy(self, targets: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Implements `Task`."""
        return -(targets * np.log(_clipped(probability))).sum(axis=-1)

    def divergence(self, probability: np.ndarray, reference: np.ndarray) -> float:
        """Implements `Task`."""
        return float(_relative_entropy(probability, reference).sum(axis=-1).mean())

    def moved(self, differences: np.ndarray) -> np.ndarray:
        """Implements `Task`: the total variation distance."""
        return differences.sum(axis=-1) / 2.0

    def smoothed(self, targets: tf.Tensor, smoothing: float) -> tf.Tensor:
        """Implements `Task`: divides a share of one among all labels (Szegedy et al., 2016)."""
        import tensorflow as tf

        count = tf.cast(tf.shape(targets)[-1], tf.float32)
        return targets * (1.0 - smoothing) + smoothing / count

    def loss(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Implements `Task`."""
        import tensorflow as tf

        return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)

    def graph_probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Implements `Task`."""
        import tensorflow as tf

        return tf.nn.softmax(logits)

    def graph_label(self, logits: tf.Tensor, names: Sequence[str], decision: Decision = PLAIN) -> tf.Tensor:
        """Implements `Task`."""
        import tensorflow as tf

        found = tf.gather(tf.constant(names), tf.argmax(logits, axis=-1))
        if decision.abstain_below is None:
            return found
        sure = tf.reduce_max(self.graph_probabilities(logits), axis=-1) >= decision.abstain_below
        return tf.where(sure, found, "")


class MultiLabel(Task):
    """Any number of labels a row, or none: a sigmoid for each label, every logit above 0."""

    name = "multi_label"
    one_label = False

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Implements `Task`."""
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            return np.exp(-np.logaddexp(0.0, -np.asarray(logits, np.float64)))

    def decisions(self, logits: np.ndarray, decision: Decision = PLAIN) -> np.ndarray:
        """Implements `Task`."""
        return logits > decision.cuts()

    def label_texts(self, logits: np.ndarray, names: Sequence[str], decision: Decision = PLAIN) -> list[str]:
        """Implements `Task`: the chosen names, joined by `joined_labels`."""
        chosen = self.decisions(logits, decision)
        return [joined_labels(name for name, given in zip(names, row, strict=True) if given) for row in chosen]

    def cross_entropy(self, targets: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Implements `Task`: sums over the labels."""
        of_given = (targets * np.log(_clipped(probability))).sum(axis=-1)
        return -of_given - ((1.0 - targets) * np.log(_clipped(1.0 - probability))).sum(axis=-1)

    def divergence(self, probability: np.ndarray, reference: np.ndarray) -> float:
        """Implements `Task`: sums over the labels."""
        terms = _relative_entropy(probability, reference) + _relative_entropy(1.0 - probability, 1.0 - reference)
        return float(terms.sum(axis=-1).mean())

    def moved(self, differences: np.ndarray) -> np.ndarray:
        """Implements `Task`: the largest movement among the labels."""
        return differences.max(axis=-1)

    def smoothed(self, targets: tf.Tensor, smoothing: float) -> tf.Tensor:
        """Implements `Task`: half of the share for each label, as a label is given or not."""
        return targets * (1.0 - smoothing) + 0.5 * smoothing

    def loss(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Implements `Task`: sums over the labels."""
        import tensorflow as tf

        return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits), axis=-1)

    def graph_probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Implements `Task`."""
        import tensorflow as tf

        return tf.sigmoid(logits)

    def graph_label(self, logits: tf.Tensor, names: Sequence[str], decision: Decision = PLAIN) -> tf.Tensor:
        """Implements `Task`."""
        import tensorflow as tf

        escaped = tf.constant([escaped_label(name) for name in names])
        chosen = logits > decision.cuts()
        first = tf.cumsum(tf.cast(chosen, tf.int32), axis=-1) == 1  # up to the second chosen one
        return tf.strings.reduce_join(tf.where(chosen, tf.where(first, escaped, "|" + escaped), ""), -1)


TASKS = {task.name: task for task in (SingleLabel(), MultiLabel())}
"""name -> task; the first is the default of the setting `task`"""


def task_of(name: str) -> Task:
    """Gives the task of a name.

    Raises:
      KeyError: there is no such task; settings and files are checked against `TASKS` when they are read.
    """
    return TASKS[name]


def joined_labels(names: Iterable[str]) -> str:
    """Joins label names by `|`, each as `escaped_label` writes it: "" for none, `split_labels` gives them back."""
    return "|".join(map(escaped_label, names))


def escaped_label(name: str) -> str:
    """Writes a label name so that names can be joined: a backslash before each `|` and each backslash in it."""
    return name.replace("\\", "\\\\").replace("|", "\\|")


def split_labels(joined: str) -> list[str]:
    """Reads the label names from an answer of a multi-label model, in the order of the model's labels."""
    names, characters = [""] if joined else [], iter(joined)
    for character in characters:
        if character == "|":
            names.append("")
        else:
            names[-1] += next(characters, "") if character == "\\" else character
    return names


def _clipped(probability: np.ndarray) -> np.ndarray:
    return np.clip(probability, _SMALLEST, 1.0)


def _relative_entropy(probability: np.ndarray, reference: np.ndarray) -> np.ndarray:
    p, q = _clipped(reference), _clipped(probability)
    return p * np.log(p / q)
