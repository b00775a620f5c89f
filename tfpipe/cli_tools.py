"""The commands of `tools/`: for finished runs, artifacts, data and devices; `cli.py` has those that do stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfpipe.cli_options import AllowOperator, ConfigFile, Overrides, RunDir
from tfpipe.errors import InputError


def replay(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="directory of an artifact, with its golden requests")
    ],
    allow_operator: AllowOperator = None,
) -> None:
    """Replay the golden requests of an exported artifact: does it answer here as it did where it was made?"""
    from tfpipe.tools import replay as tool

    tool.run(directory, allow_operator or [])


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


def doctor() -> None:
    """Show versions, devices, and what training will use here and why."""
    from tfpipe.tools import doctor as tool

    tool.run()


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
