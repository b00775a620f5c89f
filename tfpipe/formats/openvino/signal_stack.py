"""The stack on which signal handlers run, kept as it is while OpenVINO compiles.

OpenVINO 2026.4 changes the signal stack of the thread that compiles a program, for as long as the program exists.
After several programs, a process could crash at the next signal that Python handles: at SIGTERM, before a checkpoint.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of sigaltstack(2), as Linux has it."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_sigaltstack = ctypes.CDLL(None).sigaltstack


def signal_stack() -> tuple[int | None, int, int]:
    """Gives the signal stack of this thread: address, flags, bytes."""
    stack = _read()
    return stack.address, stack.flags, stack.size


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Puts this thread's signal stack back after the block."""
    before = _read()
    try:
        yield
    finally:
        _sigaltstack(ctypes.byref(before), None)


def _read() -> _Stack:
    stack = _Stack()
    _sigaltstack(None, ctypes.byref(stack))
    return stack
