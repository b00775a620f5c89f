"""The ways in which a run fails or stops, each with its exit code.

Any other exception is a bug and shows its traceback.
"""

from typing import NamedTuple

_LONGEST_MESSAGE = 2000


class InputError(ValueError):
    """The user's input is wrong: exit code 2, one line with the place, the fault, the expected value and the remedy."""

    def __init__(self, message: str):
        if len(message) > _LONGEST_MESSAGE:  # it quotes what was given, which may be anything
            message = f"{message[: _LONGEST_MESSAGE // 2]} … {message[-_LONGEST_MESSAGE // 2 :]}"
        super().__init__(message)


class GateError(RuntimeError):
    """A gate failed (parity, accuracy budget): exit code 1, nothing is published."""


class StopReason(NamedTuple):
    """The reason why a training stops.

    Attributes:
        code: The exit code: 143 for SIGTERM and for a machine that is about to go, 130 for SIGINT.
        said: Who asked, such as `SIGTERM` or `a preemption notice`.
    """

    code: int
    said: str


class Stopped(Exception):
    """A training was asked to stop and did, after the checkpoint of `step`: the reason's exit code; resumable."""

    def __init__(self, reason: StopReason, step: int):
        super().__init__(f"stopped by {reason.said} after step {step}")
        self.reason = reason


class WorkerLost(RuntimeError):
    """Another worker of a training is gone: exit code 3. All workers must be started again, and then resume."""


def told_by(error: Exception) -> str:
    """Returns one line of a library's error. For TensorFlow, it says what went wrong, not where in the graph."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith((" ", "\t", "<"))]
    said = (line for line in lines if not line.startswith(("Graph execution error", "Detected at")))
    return next(said, type(error).__name__)
