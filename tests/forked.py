"""Commands of tfpipe in processes that are forked from one that has imported TensorFlow and done nothing with it.

An import takes longer than most of these commands. The process of the tests has used TensorFlow, and can not be forked:
it asks `Forks`, for which this module is a program too.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tfpipe.cli
from tfpipe.stages import table


def start(
    arguments: list[str], log: Path, directory: Path | None = None, environment: dict[str, str] | None = None
) -> int:
    """Starts a command: its process, whose messages are added to a file."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        with open(os.devnull) as nothing, open(log, "a", encoding="utf-8") as file:
            os.dup2(nothing.fileno(), 0)
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(directory or os.curdir)
        os.environ.update(environment or {})
        sys.argv = ["tfpipe", *arguments]
        tfpipe.cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def exit_code(pid: int, seconds: float = 0.0) -> int | None:
    """The exit code of a process that was started here; None where it still runs after so long."""
    give_up = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= give_up:
            return None
        time.sleep(0.02)


class Forked:
    """A command that was started."""

    def __init__(self, server: Forks, pid: int, log: Path):
        self.server, self.pid, self.log, self.code = server, pid, log, None

    def poll(self, seconds: float = 0.0) -> int | None:
        """The exit code; None where it still runs after so long."""
        if self.code is None:
            self.code = self.server.ask(pid=self.pid, seconds=seconds)
        return self.code

    def wait(self, timeout: float) -> int:
        """The exit code, which comes in time."""
        code = self.poll(timeout)
        assert code is not None, f"still running after {timeout} s:\n{self.said}"
        return code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8")


class Forks:
    """A process that starts commands and waits for them."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: Any) -> Any:
        """Its answer to one request."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, arguments: list, log: Path, directory: Path, environment: dict[str, str]) -> Forked:
        """Starts a command in a directory."""
        log.write_text("")
        arguments, log_name = [*map(str, arguments)], str(log)
        pid = self.ask(arguments=arguments, log=log_name, directory=str(directory), environment=environment)
        return Forked(self, pid, log)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    """Answers requests, a line each, until its input ends."""
    for stage in table.STAGES:
        importlib.import_module(stage.module)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(start(**request) if "arguments" in request else exit_code(**request)), flush=True)


if __name__ == "__main__":
    main()
