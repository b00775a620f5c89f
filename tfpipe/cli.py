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

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run")]
RunDir = Annotated[
    str | None, typer.Option("--run-dir", metavar="DIR", help="directory of the run, or gs://…; default: runs/NAME")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=VALUE", help="override one setting; may be repeated")
]
Until = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="last stage to do")]
AllowOperator = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-operator", metavar="NAME", help="operator that the SavedModel may use; trust its origin; repeatable"
    ),
]
Redo = Annotated[str | None, typer.Option("--redo", metavar="STAGE", help="do this stage again even if it holds")]


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


@app.command()
def replay(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="directory of an artifact, with its golden requests")
    ],
    allow_operator: AllowOperator = None,
) -> None:
    """Replay the golden requests of an exported artifact: does it answer here as it did where it was made?"""
    from tfpipe.tools import replay as tool

    tool.run(directory, allow_operator or [])


@app.command()
def sweep(
    config: ConfigFile,
    grid: Annotated[
        list[str], typer.Option("--grid", metavar="a.b=V1,V2", help="a setting and its values; may be repeated")
    ],
    run_dir: Annotated[
        str | None, typer.Option("--run-dir", metavar="DIR", help="directory of the sweep; default: runs/NAME-sweep")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """A run for each point of a grid, shared stages done once; a table and a plot with the Pareto fronts."""
    if run_dir is not None and "://" in run_dir:
        raise InputError(f"sweep --run-dir {run_dir}: its runs share files; give a local directory and copy it later")
    from tfpipe.tools import sweep as tool

    tool.run(config, grid, None if run_dir is None else Path(run_dir), overrides or [])


@app.command()
def predict(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="directory of a run or an artifact, or its gs://…; with --server, none"),
    ] = None,
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="texts to classify")] = None,
    text_pairs: Annotated[
        list[str] | None, typer.Option("--text-pair", metavar="TEXT", help="second text of a pair; once for each TEXT")
    ] = None,
    input_files: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="FILE", help="rows to answer, as data.source names them; - is standard input"),
    ] = None,
    output_file: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help=".csv, .tsv, .jsonl or .parquet; - is standard output"),
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="column of the texts; default: as in the run")] = None,
    text_pair_column: Annotated[str | None, typer.Option(help="column of the second texts of pairs")] = None,
    probabilities: Annotated[
        bool | None, typer.Option("--probabilities/--no-probabilities", help="one of each label, by its name")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="dense, distilled, pruned or int8; default: the fastest here")
    ] = None,
    artifact: Annotated[
        str | None, typer.Option(help="saved_model, onnx, openvino, …; default: the fastest here")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="TF Serving: http://HOST:8501/v1/models/NAME, grpc://HOST:8500/NAME"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an output that exists")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="data.a=VALUE", help="how the files are read; repeatable")
    ] = None,
    runner: Annotated[
        str | None, typer.Option(help="DirectRunner, DataflowRunner, FlinkRunner or SparkRunner of Apache Beam")
    ] = None,
    runner_options: Annotated[
        list[str] | None, typer.Option("--runner-option", metavar="--a=B", help="an option of Beam; repeatable")
    ] = None,
    allow_operator: AllowOperator = None,
) -> None:
    """Label texts, or every row of a file, with an artifact of a run or by a server."""
    from tfpipe.tools.predict import command as tool
    from tfpipe.tools.predict.options import Options

    given = [*filter(None, [model]), *(texts or [])]
    if server is None and not given:
        raise typer.BadParameter("give the directory of a run or an artifact, or --server URL", param_hint="MODEL")
    options = Options(
        text_pairs=tuple(text_pairs or ()),
        variant=variant,
        artifact=artifact,
        server=server,
        input=tuple(input_files or ()),
        output=output_file,
        text_column=text_column,
        text_pair_column=text_pair_column,
        overrides=tuple(overrides or ()),
        probabilities=probabilities,
        overwrite=overwrite,
        runner=runner,
        runner_options=tuple(runner_options or ()),
        allowed=tuple(allow_operator or ()),
    )
    tool.run(None if server else given[0], given if server else given[1:], options)


@app.command()
def track(
    directory: Annotated[str, typer.Argument(metavar="RUN", help="directory of a finished run, or its gs://…")],
    uri: Annotated[
        str | None,
        typer.Option(metavar="URI", help="MLflow: http://HOST:PORT, sqlite:///FILE; default: MLFLOW_TRACKING_URI"),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="default: MLFLOW_EXPERIMENT_NAME, or tfpipe")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="whose model goes along; default: the last one within the budget")
    ] = None,
    artifact: Annotated[str | None, typer.Option(help="the format of the model; default: onnx")] = None,
    again: Annotated[bool, typer.Option("--again", help="log a run once more that was logged")] = False,
) -> None:
    """Log a finished run to MLflow: parameters, measures, tags, files, and the model with its signature."""
    from tfpipe.tools.track import command as tool

    tool.run(directory, uri, experiment, variant, artifact, again=again)


@app.command()
def explain(
    run_dir: Annotated[str, typer.Argument(metavar="RUN", help="directory of a run, or its gs://…")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="texts to explain")] = None,
    text_pairs: Annotated[
        list[str] | None, typer.Option("--text-pair", metavar="TEXT", help="second text of a pair; once for each TEXT")
    ] = None,
    input_files: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="FILE", help="rows to explain, as data.source names them; - is standard input"),
    ] = None,
    output_file: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help=".html or .jsonl; - is JSON Lines on standard output"),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="NAME", help="label to explain; default: those of each answer")
    ] = None,
    method: Annotated[
        str, typer.Option(help="integrated_gradients, or gradient_x_input: fast, a local approximation")
    ] = "integrated_gradients",
    variant: Annotated[
        str | None,
        typer.Option(help="dense, distilled, pruned or int8; default: the last whose activations are floats"),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="first rows of the files alone")] = None,
    text_column: Annotated[str | None, typer.Option(help="column of the texts; default: as in the run")] = None,
    text_pair_column: Annotated[str | None, typer.Option(help="column of the second texts of pairs")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an output that exists")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="data.a=VALUE", help="how the files are read; repeatable")
    ] = None,
) -> None:
    """Show which words of a text speak for a label, and which against it, by integrated gradients."""
    from tfpipe.tools.explain import command as tool
    from tfpipe.tools.explain.options import Options

    options = Options(
        text_pairs=tuple(text_pairs or ()),
        variant=variant,
        label=label,
        method=method,
        input=tuple(input_files or ()),
        output=output_file,
        text_column=text_column,
        text_pair_column=text_pair_column,
        overrides=tuple(overrides or ()),
        limit=limit,
        overwrite=overwrite,
    )
    tool.run(run_dir, texts or [], options)


@app.command()
def inspect(
    source: Annotated[
        list[str], typer.Argument(metavar="DATA...", help="files, folders or datasets, as data.source names them")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="data.a=VALUE", help="a setting of data, such as data.separator=';'; repeatable"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON, for scripts")] = False,
) -> None:
    """Show what `prepare` would read of data: format, columns, labels, unusable rows, and settings to start with."""
    from tfpipe.tools import inspect_data as tool

    tool.run(source, overrides or [], as_json=as_json)


@app.command()
def doctor() -> None:
    """Show versions, devices, and what training will use here and why."""
    from tfpipe.tools import doctor as tool

    tool.run()


@app.command("tpu-check")
def tpu_check(
    config: ConfigFile,
    topologies: Annotated[
        list[str], typer.Option("--topology", metavar="CHIP:SHAPE", help="such as v5e:2x4; may be repeated")
    ],
    overrides: Overrides = None,
    run_dir: RunDir = None,
    rows: Annotated[
        int | None,
        typer.Option(metavar="N", help="rows of a chip; default: a batch of the run, divided among the chips"),
    ] = None,
    row_length: Annotated[
        int | None, typer.Option(metavar="L", help="tokens of a row; with --rows, no prepared run is needed")
    ] = None,
    largest_batch: Annotated[bool, typer.Option("--largest-batch", help="find the most rows a chip that fit")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="file for the results")] = None,
) -> None:
    """Compile the training step for TPU topologies without a TPU: does it fit, how fast can it be."""
    from tfpipe.tools.tpu_check import check as tool

    tool.run(
        config,
        topologies,
        overrides=overrides or [],
        run_dir=run_dir,
        rows=rows,
        row_length=row_length,
        largest_batch=largest_batch,
        json_file=json_file,
    )


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
