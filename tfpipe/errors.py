"""The two ways in which a run ends other than well, each with its exit code.

Anything else that is raised is a bug and shows its traceback.
"""


class InputError(ValueError):
    """The user's input is wrong: exit code 2, one line that says what, where, what was expected and what to do."""


class GateError(RuntimeError):
    """A gate failed (parity, accuracy budget): exit code 1, nothing is published."""
