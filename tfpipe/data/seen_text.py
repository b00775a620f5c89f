"""The text that the model sees of a row: its word pieces, put together again.

Enters: token ids. Leaves: bytes, lower-cased, one space between two words, without special tokens. They lack all that
cleaning, the vocabulary and the cut take away, so that texts are compared as the model would compare them.
"""

from __future__ import annotations

import numpy as np

from tfpipe.tokens.tokenizer_settings import TokenizerSettings


class SeenText:
    """A table of the vocabulary's pieces, as bytes."""

    def __init__(self, settings: TokenizerSettings):
        silent = {settings.cls_token, settings.sep_token, settings.pad_token}
        pieces = [
            b"" if piece in silent else (piece[2:] if piece.startswith("##") else f" {piece}").lower().encode()
            for piece in settings.vocabulary
        ]
        self._lengths = np.array([len(piece) for piece in pieces], np.int64)
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._bytes = np.frombuffer(b"".join(pieces), np.uint8)

    def __call__(self, input_ids: np.ndarray, row_splits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turns rows of token ids into text.

        Args:
          input_ids: `[tokens] int32`, of all rows one after the other.
          row_splits: `[rows + 1] int64`, where each row begins in them.

        Returns:
          The bytes of all rows one after the other, `[bytes] uint8`; the number of each row's, `[rows] int64`.
        """
        lengths = self._lengths[input_ids]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(ends[-1]) - np.repeat(ends[:-1], lengths)
        content = self._bytes[np.repeat(self._starts[input_ids], lengths) + within]
        starts = ends[row_splits]
        of_row = np.diff(starts)
        spaces = starts[:-1][(of_row > 0)]  # the one before a row's first word
        spaces = spaces[content[spaces] == ord(" ")]
        of_row[np.searchsorted(starts, spaces, side="right") - 1] -= 1
        return np.delete(content, spaces), of_row
