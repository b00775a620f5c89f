"""The end of a command: its exception or signal becomes an exit code and one line on standard error.

Exit codes: 0 done; 1 a gate failed; 2 the user's input is wrong, explained in one line; 3 another worker of a training
is gone; 130 or 143 stopped by a signal, and the same command resumes. A traceback is a bug.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable

from tfpipe.errors import GateError, InputError, Stopped, WorkerLost
from tfpipe.escaping import printable


def end_with_exit_code(command: Callable[[], None]) -> None:
    """Runs a command and turns its exception into an exit code.

    Args:
      command: all of it; it returns, or raises `SystemExit` itself.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows its number
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # in the background it may be ignored
        signal.signal(signal.SIGINT, _stop)
    try:
        command()
    except InputError as error:
        _exit(2, str(error))
    except GateError as error:
        _exit(1, str(error))
    except Stopped as error:
        _exit(error.reason.code, f"{error}; the same command goes on")
    except WorkerLost as error:
        _exit(3, f"{error}; training goes on from its last checkpoint")
    except OSError as error:
        message = _explain_os_error(error)
        if message is None:
            raise
        _exit(2, message)
    except Exception as error:
        # TensorFlow and safetensors report a full disk in exceptions of their own.
        reason = next((os.strerror(number) for number in _NO_ROOM if os.strerror(number) in str(error)), None)
        if reason is None:
            raise
        _exit(2, f"{reason.lower()}; {_MAKE_ROOM}")


# A full disk, a quota, and a limit on the size of a file (`ulimit -f`).
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAKE_ROOM = "make room and run the same command again, nothing committed is lost"


def _explain_os_error(error: OSError) -> str | None:
    where = error.filename or "a file of the run"
    if error.errno in _NO_ROOM:
        return f"{where}: {os.strerror(error.errno).lower()}; {_MAKE_ROOM}"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{where}: {error.strerror.lower()}; choose a directory that can be written, with --run-dir"
    return None


def _exit(code: int, message: str) -> None:
    print(f"tfpipe: {printable(message)}", file=sys.stderr)
    sys.exit(code)


def _stop(number: int, frame: object) -> None:
    said = "interrupted" if number == signal.SIGINT else "terminated"
    _exit(128 + number, f"{said}; the same command goes on from what was stored last")
