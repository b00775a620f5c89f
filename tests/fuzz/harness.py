"""What the fuzz tests share: cases, counted and bounded; mutations of valid input; what a good answer is.

`CASES` says how many cases each target has by default. `FUZZ_CASES` asks for another total, spread in the same
proportions, and `FUZZ_SEED` for other cases than the ones of the default run, whose seed is fixed.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import resource
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tfpipe.errors import InputError

CASES = {
    "configuration, bytes": 900,
    "configuration, values": 2000,
    "--set": 700,
    "TF_CONFIG": 1000,
    "CSV": 2500,
    "CSV, dialects": 1200,
    "JSON Lines": 2200,
    "JSON documents": 2000,
    "dotted names": 1500,
    "templates": 1500,
    "Parquet": 1200,
    "TFRecord": 120,
    "Arrow": 1500,
    "Excel": 1000,
    "SQLite": 1200,
    "data.query": 1000,
    "DuckDB": 1000,
    "lines": 1500,
    "fastText": 1000,
    "data.encoding": 1200,
    "zip": 1000,
    "content": 1500,
    "labels": 2000,
    "lists of labels": 1000,
    "folders": 1000,
    "data.source, encoder.source": 1000,
    "tokenizer files": 700,
    "tokenizer folders": 1200,
    "tokenizer, vocabularies": 60,
    "tokenizer, texts": 150,
    "stage.json": 1200,
    "work.json": 400,
    "checkpoint.json": 500,
    "table.json and its shards": 800,
    "config.json": 1000,
    "safetensors, encoder": 800,
    "safetensors, classifier": 700,
    "safetensors, checkpoint": 500,
    "golden.jsonl": 900,
    "predict --input": 400,
}
SCALE = int(os.environ.get("FUZZ_CASES") or sum(CASES.values())) / sum(CASES.values())
SEED = os.environ.get("FUZZ_SEED", "")

_ROUND = 2000  # cases that hypothesis keeps account of at once
_SECONDS = 20  # of one case; a few milliseconds are usual, but the machine may be busy
_GROWTH_BYTES = 512 << 20  # of the process, in one case
_ADDRESS_SPACE_BYTES = 4 << 30  # beyond what is there before the first case
_LONGEST_MESSAGE = 2500


@dataclass
class Tally:
    """What became of a target."""

    cases: int = 0
    refused: int = 0
    seconds: float = 0.0
    faults: int = 0


TALLIES: dict[str, Tally] = {}


def fuzz(target: str, strategy: st.SearchStrategy, check: Callable[[Any], bool | None], always: Sequence = ()) -> None:
    """Checks as many cases as `CASES` says.

    Args:
      target: name in `CASES`.
      strategy: draws the cases.
      check: takes a case; fails unless the answer is right; returns whether the case was refused.
      always: cases that every run has.
    """
    tally = TALLIES.setdefault(target, Tally())
    wanted = math.ceil(CASES[target] * SCALE)
    started = time.monotonic()

    def counted(case: Any) -> None:
        tally.cases += 1
        with _bounded():
            tally.refused += bool(check(case))

    try:
        with _address_space():
            for case in always:
                counted(case)
            for first in range(0, wanted, _ROUND):
                run = given(strategy)(counted)
                run = settings(
                    max_examples=min(_ROUND, wanted - first),
                    database=None,
                    deadline=None,
                    print_blob=True,
                    phases=(Phase.generate, Phase.shrink),
                    suppress_health_check=list(HealthCheck),
                )(run)
                seed(zlib.crc32(f"{target} {SEED} {first}".encode()))(run)()
    except BaseException as error:
        tally.faults += len(getattr(error, "exceptions", (error,)))
        raise
    finally:
        tally.seconds += time.monotonic() - started


def summarize(terminalreporter: Any) -> None:
    """A line for each target: its cases, how many were refused, seconds, faults. Also as JSON to `FUZZ_SUMMARY`."""
    terminalreporter.section(f"fuzzing, seed {SEED or 'fixed'}")
    for target, tally in TALLIES.items():
        terminalreporter.write_line(
            f"{target:<30} {tally.cases:>9,} cases {tally.refused:>9,} refused {tally.seconds:>7.1f} s "
            f"{tally.faults:>3} faults"
        )
    cases, seconds = (sum(getattr(tally, name) for tally in TALLIES.values()) for name in ("cases", "seconds"))
    terminalreporter.write_line(f"{'all':<30} {cases:>9,} cases {'':>17} {seconds:>7.1f} s")
    if path := os.environ.get("FUZZ_SUMMARY"):
        Path(path).write_text(json.dumps({target: vars(tally) for target, tally in TALLIES.items()}), encoding="utf-8")


def attempt(call: Callable[[], Any], *places: str) -> tuple[Any, str | None]:
    """The result of a call, or the message of its `InputError`, which must be short and name one of the places."""
    try:
        return call(), None
    except InputError as error:
        message = " ".join(str(error).split())
    assert any(place in message for place in places), f"names none of {places}: {message}"
    assert len(message) <= _LONGEST_MESSAGE, f"{len(message)} characters: {message[:200]}…"
    return None, message


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Fails where a case takes seconds, or makes the process grow a lot."""

    class Hang(BaseException):  # which no handler of the code catches
        pass

    def ring(number: int, frame: object) -> None:
        raise Hang

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    except Hang:
        raise AssertionError(f"more than {_SECONDS} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert growth <= _GROWTH_BYTES, f"{growth >> 20} MB of memory for one case"


@contextlib.contextmanager
def _address_space() -> Iterator[None]:
    """A bound on what may be allocated at all: an enormous request raises MemoryError, and the machine lives on."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ADDRESS_SPACE_BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


# What breaks parsers, as bytes.
DIGITS = b"9" * 5000
BYTES = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xe2\x80\xa8", b"\xc2\x85", b"\r",
    b"\n",
    b"\r\n", b"\x1a", b"\x1b[2J", b" ", b"\t", b'"', b"'", b'""', b",", b";", b":", b"-", b"[", b"]", b"{", b"}",
    b"|", b"\\",
    b"\\ud800", b"\\u0000", b"null", b"true", b"NaN", b"-1", b"0", b"1e999", b"1.0e+999", b"0x10", b"010", b"1:30",
    b"1_0",
    DIGITS, b"x" * 3000, b"[" * 1200, b"{" * 1200, "½ﬁ汉é́".encode(), b"%s", b"{0}",
)  # fmt: skip


@st.composite
def mutated(draw: Callable, contents: Sequence[bytes], tokens: Sequence[bytes] = (), most: int = 4) -> bytes:
    """One of some valid contents, changed in a few places; half of the binary ones keep their length."""
    content = draw(st.sampled_from(contents))
    pieces = (*tokens, *BYTES)
    if content[:1] != b"{" and b"\0\0\0" in content and draw(st.booleans()):
        for _ in range(draw(st.integers(0, most))):
            at = draw(st.integers(0, 1 << 16)) % len(content)
            new = draw(st.binary(min_size=1, max_size=4))
            content = content[:at] + new[: len(content) - at] + content[at + len(new) :]
        return content
    for _ in range(draw(st.integers(0, most))):
        kind = draw(st.integers(0, 8))
        at = draw(st.integers(0, 1 << 16)) % (len(content) + 1)
        end = min(len(content), at + draw(st.integers(1, 40)))
        if kind == 0:
            content = content[:at] + draw(st.binary(max_size=6)) + content[at:]
        elif kind <= 3:  # a piece, more often than all else
            piece = draw(st.sampled_from(pieces))
            content = content[:at] + piece + content[at if kind < 3 else end :]
        elif kind == 4:
            content = content[:at] + content[end:]
        elif kind == 5:
            content = content[:end] + content[at:]
        elif kind == 6 and at < len(content):
            content = content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :]
        elif kind == 7:
            content = content[:at]
        elif kind == 8:
            content = draw(st.sampled_from(contents)) if not at % 50 else content[at:] + content[:at]
    return content


# What breaks readers of records, as values. `json_text` writes the marks as what they stand for.
_MARKS = {
    "@deep@": "[" * 10_000 + "]" * 10_000,
    "@nested@": '{"a":' * 990 + "1" + "}" * 990,
    "@digits@": "9" * 5000,
    "@digits400@": "9" * 400,
    "@big@": "1e999",
    "@surrogate@": '"\\ud800"',
    "@twice@": '{"a": 1, "a": 2}',
}
VALUES = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 0.5, -0.0, float("nan"), float("inf"), 1e308, "", " ", "0", "x",
    "\0", "../x",
    "/", "~nobody/x", "x" * 3000, "a\nb", "汉", "\u2028", [], {}, [None], [[]], [1, 2, 3], {"": ""}, {"x": None},
    *_MARKS,
)  # fmt: skip


@st.composite
def mutated_tree(draw: Callable, trees: Sequence[Any], values: Sequence[Any] = VALUES, most: int = 3) -> Any:
    """One of some valid trees of dictionaries and lists, changed in a few places."""
    tree = copy.deepcopy(draw(st.sampled_from(trees)))
    for _ in range(draw(st.integers(0, most))):
        places = list(_places(tree))
        if not places:
            return tree
        parent, key = draw(st.sampled_from(places))
        kind = draw(st.integers(0, 5))
        if kind <= 2:
            parent[key] = copy.deepcopy(draw(st.sampled_from(values)))
        elif kind == 3:
            del parent[key]
        elif kind == 4:  # what stands elsewhere
            other, place = draw(st.sampled_from(places))
            with contextlib.suppress(KeyError, IndexError):
                parent[key] = copy.deepcopy(other[place])
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(["", "x", "0", "../x", "\0", "x" * 300, str(key).upper()]))] = parent.pop(key)
        else:
            parent.append(copy.deepcopy(parent[key]))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key
        yield from _places(value)


def json_text(tree: Any) -> str:
    """A tree as JSON; marks become what json.dumps can't write."""
    text = json.dumps(tree)
    for mark, raw in _MARKS.items():
        text = text.replace(f'"{mark}"', raw)
    return text
