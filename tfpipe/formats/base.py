"""The parts that all formats share: requests, the source of an artifact, the functions of a format's module.

Nothing here imports TensorFlow, nor does anything that `load` needs of a format that runs without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from tfpipe.config.export import Export
    from tfpipe.model.classifier import Classifier
    from tfpipe.tokens.table import TokenTable
    from tfpipe.tokens.tokenizer import Tokenizer

Texts = list[str] | list[bytes]


@dataclass(frozen=True)
class Requests:
    """Rows to answer, both as token ids and as texts."""

    tokens: dict[str, np.ndarray]
    """`input_ids, attention_mask, token_type_ids`, [requests, longest] int32"""
    texts: Texts
    text_pairs: Texts | None

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, start: int, stop: int) -> Requests:
        """Gives some of the requests, padded to their own longest."""
        longest = max(int(self.tokens["attention_mask"][start:stop].sum(axis=1).max()), 1)
        return Requests(
            {name: value[start:stop, :longest] for name, value in self.tokens.items()},
            self.texts[start:stop],
            None if self.text_pairs is None else self.text_pairs[start:stop],
        )


class Answer(NamedTuple):
    """One way to ask an artifact."""

    name: str
    """as tables name it; the first way of a format bears the format's name"""
    takes_text: bool
    """whether it takes texts, which it cuts at the classifier's `max_length`, or token ids"""
    ask: Callable[[Requests], np.ndarray]
    """requests -> logits [requests, labels] float32"""
    longest: int | None = None
    """most tokens of a text, where the artifact is built for fewer than the encoder has positions"""
    batch: int | None = None
    """rows of a call that the artifact is built for; None: any number"""
    rounded: bool = False
    """whether its runtime computes in fewer bits than the artifact has"""
    shared: bool = False
    """whether several threads may ask at the same time"""
    tokenize: Callable[[Requests], dict[str, np.ndarray]] | None = None
    """of a way that takes texts, where its artifact also takes token ids and has them answered by the same function:
    requests -> what its tokenizer makes of their texts, as `Requests.tokens`"""


@dataclass(frozen=True)
class Source:
    """The source of an artifact: a classifier, its tokenizer, real rows."""

    classifier: Classifier
    tokenizer: Tokenizer
    rows: TokenTable
    """real rows, such as for warm-up requests"""
    pairs: bool
    """whether texts come in pairs"""
    data_fingerprint: str
    """digest of the rows that the classifier was trained on"""


class Written(NamedTuple):
    """The answer of `write`: facts about an artifact."""

    operators: Any
    """count of its operators, or operator -> count; for the record"""
    said: str
    """a few words for the terminal"""


class FormatModule(Protocol):
    """The functions of a format's module; `path` is the artifact's directory."""

    def write(self, source: Source, path: Path, settings: Export) -> Written:
        """Writes an artifact; the same source gives the same bytes. Raises InputError where it can't be written."""

    def load(self, path: Path, threads: int | None = None, allowed: Collection[str] = ()) -> tuple[Answer, ...]:
        """Inspects an artifact of any origin and loads it.

        Args:
          path: the artifact.
          threads: of the runtime, where it can be told; None: all processors.
          allowed: operators that are taken although they reach beyond the model.

        Raises:
          InputError: it would do more than compute.
        """

    def kernels(self, path: Path) -> dict[str, np.ndarray]:
        """Reads the encoder's kernels, float or as codes: name -> [in, out] or [out, in]; their zeros are counted."""

    def size_bytes(self, path: Path) -> int:
        """Gives the bytes that an artifact takes on disk."""
