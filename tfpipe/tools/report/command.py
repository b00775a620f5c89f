"""`tfpipe report RUN RUN…`: compares finished runs by their reports.

Enters: directories of runs. Leaves: a table on standard output, and a page of HTML where one is asked for. For one run,
it shows the run's table again and the path of its page.
"""

from __future__ import annotations

from pathlib import Path

import rich.box
import rich.markup
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from tfpipe.console import say
from tfpipe.errors import InputError
from tfpipe.escaping import printable
from tfpipe.evaluate.artifact_table import print_table
from tfpipe.evaluate.page.summary import PAGE
from tfpipe.tools.report.comparison import COLUMNS, Comparison, cells, compare
from tfpipe.tools.report.runs import REPORT, NoRun, Run, open_run


def run(names: list[str], output: Path | None) -> None:
    """Shows one run, or compares several.

    Args:
      names: directories of runs, or their `gs://` addresses.
      output: page of HTML; None: none is written.

    Raises:
      InputError: no run is finished, or the page can't be written.
    """
    if output is not None:
        _check_output(output)
    once: dict[str, str] = {}
    for name in names:
        once.setdefault(_place(name), name)
    if len(once) < len(names):
        say(f"warning: {len(names)} names of {len(once)} run{'s' if len(once) > 1 else ''}; each is shown once")
    runs = _finished(list(once.values()))
    if len(runs) == 1 and output is None:
        _show(runs[0])
        return
    comparison = compare(runs)
    _print(comparison)
    for note in comparison.notes:
        say(f"  {note}")
    if output is not None:
        from tfpipe.tools.report.page import write  # matplotlib, which takes a second to import

        write(comparison, output)
        say(f"  {'report':<15} {output}")


def _check_output(output: Path) -> None:
    if output.suffix != ".html":
        raise InputError(f"report --output {output}: expected a file that ends in .html")
    if output.is_dir() or not output.absolute().parent.is_dir():
        reason = "is a directory" if output.is_dir() else "no such directory"
        raise InputError(f"report --output {output}: can't be written ({reason}); give another path")


def _place(name: str) -> str:
    """Tells names of the same run apart from those of others: `runs/a`, `runs/a/` and a link to it are one."""
    return name if "://" in name else str(Path(name).resolve())


def _finished(names: list[str]) -> list[Run]:
    """Opens the runs that are finished, and reports the problem of each other run.

    Raises:
      InputError: a name is that of no run, or fewer runs are left than there is to compare.
    """
    runs, problems = [], []
    for name in names:
        try:
            runs.append(open_run(name))
        except NoRun:
            raise
        except InputError as error:
            problems.append(str(error))
    if len(runs) < min(len(names), 2):
        raise InputError("; ".join([*problems, "nothing is left to compare"] if runs else problems))
    for problem in problems:
        say(f"warning: left out: {printable(problem)}")
    return runs


def _show(run: Run) -> None:
    print_table(run.summary["artifacts"], run.summary["measured_on"])
    say(f"  {'report':<15} {run.directory.location / REPORT / PAGE}")


def _print(comparison: Comparison) -> None:
    table = Table(
        box=rich.box.SIMPLE_HEAD,
        padding=(0, 1),
        caption="of each run, the fastest artifact within its budget; accuracy on its test rows, and its change "
        "against the first run on the same rows, with 95 % intervals; p: McNemar's exact test with Holm's correction",
    )
    for at, column in enumerate(COLUMNS):
        table.add_column(column.heading, justify="left" if at < 2 else "right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(*(rich.markup.escape(printable(cell)) for cell in cells(row)))
    unlimited = Console(width=1000)
    needed = Measurement.get(unlimited, unlimited.options, table).maximum
    Console(highlight=False, width=max(Console().width, needed)).print(table)
