"""The vocabulary of an encoder: `vocab.txt`, or that inside `tokenizer.json`, which transformers 5 writes alone.

Enters: a local directory. Leaves: its word pieces, in the order of their ids. Wrong content is an `InputError` that
names the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfpipe.encoders.transformers import TOKENIZER, VOCABULARY, read_json
from tfpipe.errors import InputError

MAX_WORD_CHARS = 100  # transformers turns longer words into [UNK], counted after normalization


def read_vocabulary(directory: Path) -> tuple[Path, tuple[str, ...]]:
    """Reads the word pieces of a directory, one per id, blank lines at the end aside, and names their file.

    Raises:
      InputError: there is no vocabulary, it is malformed, or two files differ.
    """
    text, rust = directory / VOCABULARY, directory / TOKENIZER
    pieces = _pieces_of_text(text) if text.exists() else None
    if not rust.exists():
        if pieces is None:
            raise InputError(f"{text}: not found, nor {TOKENIZER}; put the encoder's vocabulary there")
        return text, pieces
    found = wordpiece_vocabulary(read_json(rust), rust)
    if pieces not in (None, found):
        raise InputError(
            f"{text}: differs from {TOKENIZER} beside it ({_difference(pieces, found)}); remove the wrong one"
        )
    return rust if pieces is None else text, found


def check_vocabulary(directory: Path, vocab_size: int) -> None:
    """Raises an `InputError` when a vocabulary has tokens that the model does not embed."""
    path, pieces = read_vocabulary(directory)
    if not 0 < len(pieces) <= vocab_size:
        raise InputError(
            f"{path}: {len(pieces)} tokens, but the model embeds {vocab_size}; the two belong to different models: get "
            "both from one place"
        )


def wordpiece_vocabulary(rust: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Takes the vocabulary from the content of a `tokenizer.json`, in the order of its ids."""
    model = rust.get("model")
    model = {"type": "WordPiece"} | (model if isinstance(model, dict) else {})  # files of 2020 do not say the type
    expected = {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": MAX_WORD_CHARS}
    for key, value in expected.items():
        if model.get(key) != value:
            raise InputError(
                f"{path}: model.{key} is {shown(model.get(key))}, not {value!r}; give a BERT WordPiece encoder"
            )
    vocabulary = model.get("vocab")
    vocabulary = vocabulary if isinstance(vocabulary, dict) else {}
    by_id = {index: piece for piece, index in vocabulary.items() if type(index) is int}
    missing = next((index for index in range(len(vocabulary)) if index not in by_id), None)
    if missing is not None or not by_id:
        raise InputError(
            f"{path}: model.vocab must map pieces to the ids 0, 1, 2, ..., and none has the id {missing or 0}; get the "
            "file again"
        )
    return _without_blank_end([by_id[index] for index in range(len(by_id))])


def _pieces_of_text(path: Path) -> tuple[str, ...]:
    try:
        content = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); one piece per line is expected") from None
    if content.startswith("\ufeff"):
        raise InputError(
            f"{path}: begins with a byte order mark, which becomes part of the first piece; save it without"
        )
    # Not splitlines(): a piece may be U+0085 or U+2028.
    return _without_blank_end([line.removesuffix("\r") for line in content.split("\n")])


def _without_blank_end(pieces: list[str]) -> tuple[str, ...]:
    """Returns the pieces without empty ones at the end, which no word can match."""
    count = len(pieces)
    while count and not pieces[count - 1]:
        count -= 1
    return tuple(pieces[:count])


def _difference(first: Sequence[str], second: Sequence[str]) -> str:
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return f"id {index} is {shown(one)} and {shown(other)}"
    return f"{len(first)} and {len(second)} pieces"


def shown(value: Any) -> str:
    """Returns a value of a file, short enough for a message."""
    return f"a {type(value).__name__}" if isinstance(value, dict | list) else repr(value)[:100]
