"""`tfpipe track`: logs a finished run to an MLflow server: parameters, measures, tags, files, and the model.

Enters: a run that is done up to `verify`, and the address of a server. Leaves: an entry there. Its tag `tfpipe.digest`
is written last, so an entry that has it is whole, and the same run is not logged twice.
"""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING

from tfpipe import __version__
from tfpipe.config.file import dump_config
from tfpipe.console import say
from tfpipe.errors import InputError
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tools.track.finished import Finished, finished
from tfpipe.tools.track.server import connect, files_of, shown, told

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tfpipe.tools.track.model import Chosen

DIGEST = "tfpipe.digest"
_LONGEST = 6000  # characters of a parameter or a tag
_AT_ONCE = 100  # parameters, and measures, of one request


def run(
    directory: str,
    uri: str | None,
    experiment: str | None,
    variant: str | None,
    artifact: str | None,
    *,
    again: bool,
) -> None:
    """Logs a run, and prints the number of its entry.

    Args:
      directory: of the run, or its `gs://` address.
      uri: of the server: see `server.connect`.
      experiment: name; None: the value of MLFLOW_EXPERIMENT_NAME, or `tfpipe`.
      variant: of the model that goes along: see `model.chosen`.
      artifact: its format.
      again: whether a run that was logged is logged once more.

    Raises:
      InputError: the run is not done, or the server can't be asked.
    """
    told_run = finished(RunDirectory(directory))
    client = connect(uri)
    import mlflow

    from tfpipe.tools.track.model import chosen

    address = mlflow.get_tracking_uri()
    model = chosen(told_run, variant, artifact)
    digest = told_run.digest(model.variant, model.format.name)
    with told(address):
        name = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "tfpipe"
        number = _experiment(client, name, address)
        if not again and (entry := _logged(client, number, digest)) is not None:
            say(f"{directory}: logged already in experiment {name}; --again logs it once more")
            print(entry)
            return
        started = time.monotonic()
        source = {"mlflow.source.name": f"tfpipe {__version__}"}
        with mlflow.start_run(experiment_id=number, run_name=told_run.name, tags=source) as active:
            _log(client, active.info.run_id, told_run)
            address_of_model = _log_model(told_run, model)
            client.set_tag(active.info.run_id, DIGEST, digest)
    say(f"logged to {shown(address)}, experiment {name}: {time.monotonic() - started:.0f} s")
    say(f"  {model.name}: mlflow.pyfunc.load_model({address_of_model!r})")
    print(active.info.run_id)


def _experiment(client: MlflowClient, name: str, address: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name, artifact_location=files_of(address))
    if found.lifecycle_stage != "active":
        raise InputError(f"--experiment {name}: was deleted on this server; restore it, or give another name")
    return found.experiment_id


def _logged(client: MlflowClient, experiment: str, digest: str) -> str | None:
    """Finds the entry of a run that is whole; None where there is none."""
    found = client.search_runs([experiment], f"tags.`{DIGEST}` = '{digest}'", max_results=1)
    return found[0].info.run_id if found else None


def _log(client: MlflowClient, entry: str, run: Finished) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    parameters = [Param(name, value[:_LONGEST]) for name, value in run.parameters().items()]
    measures = [Metric(name, value, now, step) for name, value, step in run.measures()]
    tags = [RunTag(name, value[:_LONGEST]) for name, value in run.tags().items()]
    for start in range(0, max(len(parameters), len(measures), len(tags)), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        client.log_batch(entry, measures[part], parameters[part], tags[part])
    for stage, files in itertools.groupby(run.files(), key=lambda path: path.parent.name):
        for file in files:
            client.log_artifact(entry, str(file), stage)
    client.log_text(entry, dump_config(run.config), "config.yaml")


def _log_model(run: Finished, chosen: Chosen) -> str:
    """Logs the model of a run; gives the address by which MLflow loads it."""
    import mlflow
    import pandas

    from tfpipe.tools.track.model import parts, signature

    takes = signature(run)
    # Made up, as no row of the data is to travel for its sake. MLflow asks the model this before it stores it.
    example = pandas.DataFrame({name: ["a text"] for name in takes.inputs.input_names()})
    with parts(chosen) as made:
        return mlflow.pyfunc.log_model(
            name=chosen.name,
            signature=takes,
            input_example=example,
            metadata={"tfpipe": {"variant": chosen.variant, "artifact": chosen.format.name, "run": run.name}},
            **made,
        ).model_uri
