"""`tfpipe status` and `tfpipe run --dry-run`: the stages that hold, those that would be done, and the reasons.

Enters: a configuration and a run directory. Leaves: only its print on standard output.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import rich.box
from rich.console import Console
from rich.table import Table

from tfpipe import pipeline
from tfpipe.config.run import Config
from tfpipe.escaping import printable
from tfpipe.rundir.directory import RunDirectory


def run(
    config: Config,
    run: RunDirectory,
    *,
    until: str | None = None,
    redo: str | None = None,
    as_json: bool = False,
) -> None:
    """Prints the status of a run.

    Args:
      config: the configuration.
      run: its directory.
      until: last stage; None: all.
      redo: stage that would be done again even if it holds.
      as_json: a list of `{"stage", "reason", "seconds"}` instead of a table.
    """
    found = pipeline.status(config, run, until=until, redo=redo)
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=2))
        return
    title = printable(str(run.location))
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="")
    table.add_column("stage", no_wrap=True)
    table.add_column("last time", justify="right", no_wrap=True)
    table.add_column("would be done, because", overflow="fold")
    for each in found:
        seconds = "" if each.seconds is None else f"{each.seconds:.0f} s"
        table.add_row(each.stage, seconds, "- (up to date)" if each.reason is None else printable(each.reason))
    Console(highlight=False, markup=False, emoji=False).print(table)
