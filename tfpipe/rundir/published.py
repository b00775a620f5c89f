"""The published versions of a run: which of them answers for it.

Enters: the directory of a run, of a tree `serving/<variant>/<integer>/` alone, or of a SavedModel. Leaves: the local
directory of one SavedModel, or the reason why the run has none. A run answers with what `publish` has published for the
stages that are committed now: older versions stay in `serving/`, and only their own directory leads to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tfpipe.errors import InputError
from tfpipe.files import sha256_of_directory, versions
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.record import RECORD, SAVED_MODEL, SERVING, WORK_RECORD, last_file

PUBLISHES = "publish"


def find_saved_model(model: str | Path, variant: str) -> Path:
    """Finds the SavedModel that a path or an address stands for; one on a store is brought here.

    Args:
      model: directory of a SavedModel, of a run, or of a tree of published versions without its run.
      variant: of a run or a tree: `dense`, `distilled`, `pruned` or `int8`.

    Raises:
      InputError: there is none, or the run has not published this variant for its present stages.
    """
    run = RunDirectory(model)
    if run.has_file(SAVED_MODEL):
        return run.take()
    numbers = {name: versions(run.names(SERVING, name)) for name in run.names(SERVING)}
    newest = {name: each[-1] for name, each in numbers.items() if each}
    if _is_run(run):
        return _of_run(run, variant, newest)
    if variant in newest:
        return run.take(f"{SERVING}/{variant}/{newest[variant]}")
    raise InputError(f"{run.location}: neither a run nor a SavedModel ({SAVED_MODEL}); give the directory of one")


def _is_run(run: RunDirectory) -> bool:
    return run.has_file("config.yaml") or any(
        run.has_file(f"{name}/{record}") for name in run.names() for record in (RECORD, WORK_RECORD)
    )


def _of_run(run: RunDirectory, variant: str, newest: Mapping[str, int]) -> Path:
    older = f"{SERVING}/ holds older versions ({', '.join(f'{name}/{number}' for name, number in newest.items())})"
    fix = "finish `tfpipe run`, or give the directory of a version"
    record = run.committed(PUBLISHES)
    if record is None and run.has_file(f"{PUBLISHES}/{RECORD}"):
        raise InputError(
            f"{run.location}/{PUBLISHES}/{RECORD}: damaged, or of another tfpipe: it no longer says what was "
            f"published; publish again with --redo {PUBLISHES}, or give the directory of a version"
        )
    if record is None and not newest:
        raise InputError(
            f"{run.location}: no published variant {variant}; nothing is published yet: finish `tfpipe run`"
        )
    if record is None:
        raise InputError(f"{run.location}: the last run published nothing; {older}; {fix}")
    now = {name: run.committed(name) for name in record.inputs}
    if changed := ", ".join(
        name for name, output in record.inputs.items() if now[name] is None or now[name].output != output
    ):
        raise InputError(f"{run.location}: {changed} changed since the last run published; {older}; {fix}")
    published = {name: entry.sha256 for name, entry in record.published.items() if entry.sha256 is not None}
    version = next((each for each in published if each.startswith(f"{SERVING}/{variant}/")), None)
    if version is None:
        others = ", ".join(sorted(each.split("/")[1] for each in published if last_file(each) == SAVED_MODEL))
        if variant not in newest:
            raise InputError(f"{run.location}: no published variant {variant}; published are {others or 'none'}")
        raise InputError(
            f"{run.location}: the last run did not publish {variant}, what is in {SERVING}/{variant}/ is older; it "
            f"published {others or 'nothing'}; give the directory of a version to use it all the same"
        )
    if not run.has_file(f"{version}/{SAVED_MODEL}"):
        raise InputError(f"{run.location}/{version}: published, but no longer there; `tfpipe run` publishes it again")
    directory = run.take(version)
    if sha256_of_directory(directory) != published[version]:
        raise InputError(
            f"{run.location}/{version}: its content is not what was published; publish it again with --redo {PUBLISHES}"
        )
    return directory
