"""The structure of JSON, found without parsing: the places of brackets and commas outside of strings.

Enters: chunks of bytes, UTF-8 or another code that keeps ASCII. Leaves: the places of `[ ] { } ,` and how deep each is.
NumPy goes over a chunk a few times, whatever is in it. A document of any size is thus cut into records at a fraction of
the cost of parsing, which other processes do later.
"""

from __future__ import annotations

import numpy as np

COMMA = ord(",")
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_OF_INTEREST = bytes(byte in b'"[]{},' for byte in range(256))
_STEP = np.zeros(256, np.int8)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1


class Scanner:
    """A scan over the chunks of a document, in order; a chunk may end anywhere."""

    def __init__(self, depth: int = 0):
        self._depth, self._in_string, self._escaped = depth, False, False

    def feed(self, chunk: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scans the next chunk.

        Returns:
          Of each bracket and comma outside of strings: its place in the chunk, `[n] int64`; the byte, `[n] uint8`; the
          depth behind it, `[n] int64`, which a comma shares with the brackets that it stands in.
        """
        content = np.frombuffer(chunk, np.uint8)
        places = np.flatnonzero(np.frombuffer(chunk.translate(_OF_INTEREST), bool))
        characters = content[places]
        quotes = characters == _QUOTE
        escaped = self._escaped_places(content, chunk)
        if escaped is not None:
            quotes &= ~escaped[places]
        # An odd number of quotes so far: in a string. The sum may run over, since only its last bit is read.
        outside = (np.cumsum(quotes, dtype=np.uint8) + np.uint8(self._in_string)) & 1 == 0
        self._in_string = self._in_string if not len(places) else not outside[-1]
        outside &= characters != _QUOTE
        places, characters = places[outside], characters[outside]
        depths = np.cumsum(_STEP[characters], dtype=np.int64) + self._depth
        self._depth = self._depth if not len(depths) else int(depths[-1])
        return places, characters, depths

    def _escaped_places(self, content: np.ndarray, chunk: bytes) -> np.ndarray | None:
        """Marks the bytes that follow an odd run of backslashes, `[bytes] bool`; None where there are none."""
        if not chunk or not (self._escaped or b"\\" in chunk):
            return None
        escaped = np.zeros(len(content) + 1, bool)
        slashes = np.flatnonzero(content == _BACKSLASH)
        if self._escaped:  # the first byte is escaped: if it is a backslash, its run begins after it
            escaped[0] = True
            slashes = slashes[1:] if len(slashes) and slashes[0] == 0 else slashes
        begins = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)
        lengths = np.diff(np.append(begins, len(slashes)))
        odd = lengths % 2 == 1
        escaped[slashes[begins][odd] + lengths[odd]] = True
        self._escaped = bool(escaped[-1])
        return escaped[:-1]
