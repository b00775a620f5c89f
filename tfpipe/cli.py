"""The commands. Thin: each loads the configuration and calls one function; TensorFlow is imported only where it works.

`ending.py` has the exit codes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

import tfpipe
from tfpipe.cli_options import ConfigFile, Overrides, Redo, RunDir, Until
from tfpipe.cli_tools import doctor, explain, inspect, predict, replay, sweep, tpu_check, track
from tfpipe.ending import end_with_exit_code
from tfpipe.errors import InputError
from tfpipe.stages import SUMMARIES

app = typer.Typer(
    help="Labeled text in, a verified and compressed classifier out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(help="Show a configuration, or what one may hold.", no_args_is_help=True)
app.add_typer(config_app, name="config")


@app.command()
def run(
    config: ConfigFile,
    run_dir: RunDir = None,
    overrides: Overrides = None,
    until: Until = None,
    redo: Redo = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what would be done and why, like status")] = False,
) -> None:
    """Bring a run up to date: skip what holds, continue what was begun, redo what a changed setting invalidates."""
    _run(config, run_dir, overrides, until, redo, dry_run=dry_run)


@app.command()
def status(
    config: Annotated[Path, typer.Argument(metavar="CONFIG|RUN", help="YAML file of the run, or its directory")],
    run_dir: RunDir = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON, for scripts")] = False,
) -> None:
    """Show which stages of a run are up to date, which would be done and why, and how long they took."""
    if config.is_dir() and (config / "config.yaml").is_file():  # the directory of a run, as other commands take it
        config, run_dir = config / "config.yaml", run_dir or str(config)
    _run(config, run_dir, overrides, None, None, dry_run=True, as_json=as_json)


def _run(
    config: Path,
    run_dir: str | None,
    overrides: list[str] | None,
    until: str | None,
    redo: str | None,
    *,
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    from tfpipe import pipeline
    from tfpipe.config.file import load_config
    from tfpipe.rundir.directory import RunDirectory
    from tfpipe.stages.table import stages_of

    settings = load_config(config, overrides)
    names = [stage.name for stage in stages_of(settings)]
    needed = {"distill": "distill.student.layers, such as [1, 3, 5]", "prune": "prune", "quantize": "quantize"}
    for name in (until, redo):
        if name is not None and name not in names:
            asked = f"; for {name}, set {needed[name]}" if name in needed else ""
            raise InputError(f"{name}: this run has no such stage; its stages are {', '.join(names)}{asked}")
    directory = RunDirectory(run_dir or Path("runs") / settings.name)
    if not dry_run:
        pipeline.run(settings, directory, until=until, redo=redo)
        return
    from tfpipe.tools import status as tool

    tool.run(settings, directory, until=until, redo=redo, as_json=as_json)


def _stage_command(name: str, summary: str) -> None:
    def command(config: ConfigFile, run_dir: RunDir = None, overrides: Overrides = None) -> None:
        _run(config, run_dir, overrides, name, None)

    command.__doc__ = f"Bring a run up to date as far as `{name}`: {summary}."
    app.command(name)(command)


def verify(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="YAML file of the run")] = None,
    run_dir: RunDir = None,
    overrides: Overrides = None,
    golden: Annotated[Path | None, typer.Option(metavar="DIR", hidden=True)] = None,
    allow_operator: Annotated[list[str] | None, typer.Option("--allow-operator", hidden=True)] = None,
) -> None:
    """Bring a run up to date as far as `verify`: every artifact against its Keras model, latencies, the budget."""
    if golden is not None:  # the spelling of before, for one release
        if config is not None or run_dir is not None or overrides:
            raise InputError("verify --golden DIR takes --allow-operator alone; use `tfpipe replay DIR`")
        typer.echo("warning: verify --golden DIR goes with the next release; use `tfpipe replay DIR`", err=True)
        replay(golden, allow_operator)
        return
    if config is None or allow_operator:
        raise InputError("verify: give CONFIG, to verify a run; to replay an artifact's requests, `tfpipe replay DIR`")
    _run(config, run_dir, overrides, "verify", None)


def report(
    given: Annotated[
        list[str], typer.Argument(metavar="CONFIG|RUN...", help="YAML file of a run, or directories of finished runs")
    ],
    run_dir: RunDir = None,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE.html", help="page that compares the RUNs")] = None,
) -> None:
    """Bring a run up to date as far as `report`, its page and model card; or compare finished RUNs."""
    if len(given) == 1 and not _is_run(given[0]):
        if not os.path.exists(given[0]):
            raise InputError(f"{given[0]}: nothing is there; give the directory of a run, or the YAML file of one")
        if output is not None:
            raise InputError("report --output is of directories of runs; the page of CONFIG is in its run, in report/")
        _run(Path(given[0]), run_dir, overrides, "report", None)
        return
    if run_dir is not None or overrides:
        raise InputError("report: --run-dir and --set are of a CONFIG; give directories of runs without them")
    from tfpipe.tools.report import command as tool

    tool.run(given, output)


def _is_run(given: str) -> bool:
    return os.path.isdir(given) or ("://" in given and not given.endswith((".yaml", ".yml")))


for _name, _summary in SUMMARIES.items():
    if _name in ("verify", "report"):
        app.command()({"verify": verify, "report": report}[_name])
    else:
        _stage_command(_name, _summary)


for _tool in (replay, sweep, predict, track, explain, inspect, doctor, tpu_check):
    app.command(_tool.__name__.replace("_", "-"))(_tool)


@config_app.command("show")
def config_show(config: ConfigFile, overrides: Overrides = None) -> None:
    """Print a configuration, defaults written out."""
    from tfpipe.config.file import dump_config, load_config

    typer.echo(dump_config(load_config(config, overrides)).encode(), nl=False)  # UTF-8 as in any YAML file


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of a configuration: every setting with its type, default and description."""
    from tfpipe.config.run import Config

    typer.echo(json.dumps(Config.model_json_schema(), indent=2))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tfpipe {tfpipe.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs a command; the process ends with its exit code."""
    end_with_exit_code(app)


if __name__ == "__main__":
    main()
