"""The published versions of a run, and the choice of the one that answers for it.

Enters: the directory of a run, of a tree `serving/` alone, or of an artifact. Leaves: the local directory of one
artifact, or the reason why the run has none. A run answers with the versions that `publish` has published for the
stages that are committed now. Older versions stay in `serving/`, and only their own directory leads to them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tfpipe.artifacts import FORMATS, format_in
from tfpipe.errors import InputError
from tfpipe.files import sha256_of_directory, versions
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.record import GOLDEN, RECORD, SAVED_MODEL, SERVING, WORK_RECORD, last_file

PUBLISHES = "publish"
SAVED_MODELS = "saved_model"
"""the format whose versions lie in `serving/<variant>/`; those of others in `serving/<format>/<variant>/`"""


class Version(NamedTuple):
    """A published version of an artifact."""

    format: str
    variant: str
    path: str
    """below the run"""
    sha256: str | None = None
    """of its directory; None: no record says"""


def find_artifact(
    model: str | Path,
    variant: str | None = None,
    format: str | None = None,
    choose: Callable[[list[Version]], Version] = lambda found: found[0],
) -> Path:
    """Finds the artifact that a path or an address stands for; brings an artifact on a store here.

    Args:
      model: directory of an artifact, of a run, or of a tree of published versions without its run.
      variant: of a run or a tree: `dense`, `distilled`, `pruned` or `int8`; None: any.
      format: as `artifacts.FORMATS` names it; None: any.
      choose: chooses among the versions that are wanted.

    Raises:
      InputError: there is none, or the run has not published it for its present stages.
    """
    run = RunDirectory(model)
    if is_artifact(run):
        return run.take()
    newest = _newest(run)
    found = _of_run(run, newest) if _is_run(run) else newest
    if not found and not _is_run(run):
        if not run.names() and not os.path.exists(run.path):
            raise InputError(f"{run.location}: no such directory; give that of a run or of an artifact")
        near = _artifacts_below(run.path)
        hint = f"did you mean {' or '.join(near)}?" if near else "give the directory of one"
        raise InputError(f"{run.location}: neither a run nor a SavedModel, nor another artifact; {hint}")
    wanted = [each for each in found if variant in (None, each.variant) and format in (None, each.format)]
    if not wanted:
        raise _not_published(run, found, newest, variant, format)
    return _taken(run, choose(wanted))


def _artifacts_below(path: Path) -> list[str]:
    """Lists the first artifacts that lie up to two levels below a directory, or the one that a file is part of."""
    if path.is_file():
        return [str(each) for each in path.parents[:2] if format_in(each) is not None][:1]
    below = sorted((*path.glob("*"), *path.glob("*/*")))
    return [str(each) for each in below if each.is_dir() and format_in(each) is not None][:3]


def find_saved_model(model: str | Path, variant: str) -> Path:
    """Finds a SavedModel: see `find_artifact`."""
    return find_artifact(model, variant, SAVED_MODELS)


def is_artifact(run: RunDirectory) -> bool:
    """Tells whether a directory, here or on a store, is that of an artifact."""
    if run.has_file(SAVED_MODEL) or run.has_file(GOLDEN):
        return True
    return os.path.isdir(run.path) and format_in(run.path) is not None


def _newest(run: RunDirectory) -> list[Version]:
    """Lists the newest version of each artifact in `serving/`."""
    found = []
    for name in run.names(SERVING):
        if numbers := versions(below := run.names(SERVING, name)):
            found.append(Version(SAVED_MODELS, name, f"{SERVING}/{name}/{numbers[-1]}"))
            continue
        for variant in below:
            if name in {each.name for each in FORMATS} and (numbers := versions(run.names(SERVING, name, variant))):
                found.append(Version(name, variant, f"{SERVING}/{name}/{variant}/{numbers[-1]}"))
    return found


def _is_run(run: RunDirectory) -> bool:
    return run.has_file("config.yaml") or any(
        run.has_file(f"{name}/{record}") for name in run.names() for record in (RECORD, WORK_RECORD)
    )


def _of_run(run: RunDirectory, newest: list[Version]) -> list[Version]:
    """Lists the versions that a run has published for its present stages.

    Raises:
      InputError: the run has published nothing for them.
    """
    held = ", ".join(each.path.removeprefix(f"{SERVING}/") for each in newest if each.format == SAVED_MODELS)
    older = f"{SERVING}/ holds older versions ({held})"
    fix = "finish `tfpipe run`, or give the directory of a version"
    record = run.committed(PUBLISHES)
    if record is None and run.has_file(f"{PUBLISHES}/{RECORD}"):
        raise InputError(
            f"{run.location}/{PUBLISHES}/{RECORD}: damaged, or of another tfpipe: it no longer says what was "
            f"published; publish again with --redo {PUBLISHES}, or give the directory of a version"
        )
    if record is None and not newest:
        return []
    if record is None:
        raise InputError(f"{run.location}: the last run published nothing; {older}; {fix}")
    now = {name: run.committed(name) for name in record.inputs}
    if changed := ", ".join(
        name for name, output in record.inputs.items() if now[name] is None or now[name].output != output
    ):
        raise InputError(f"{run.location}: {changed} changed since the last run published; {older}; {fix}")
    published = {name: entry.sha256 for name, entry in record.published.items() if entry.sha256 is not None}
    return [_version(path, sha256) for path, sha256 in published.items()]


def _version(path: str, sha256: str) -> Version:
    parts = path.split("/")
    return Version(SAVED_MODELS if last_file(path) == SAVED_MODEL else parts[1], parts[-2], path, sha256)


def _not_published(
    run: RunDirectory, found: list[Version], newest: list[Version], variant: str | None, format: str | None
) -> InputError:
    shown = " ".join(filter(None, (variant, None if format in (None, SAVED_MODELS) else format)))
    if not newest:
        return InputError(
            f"{run.location}: no published variant {shown}; nothing is published yet: finish `tfpipe run`"
        )
    same = [each for each in found if format in (None, each.format)]
    others = ", ".join(sorted({each.variant for each in same}))
    if format not in (None, SAVED_MODELS) and not same:
        formats = ", ".join(sorted({each.format for each in found}))
        return InputError(
            f"{run.location}: no artifact {format} is published, but {formats or 'none'}; add it to export.formats and "
            "run again, or give --artifact one of these"
        )
    is_older = any(variant == each.variant and format in (None, each.format) for each in newest)
    if not is_older or not _is_run(run):
        return InputError(f"{run.location}: no published variant {shown}; published are {others or 'none'}")
    return InputError(
        f"{run.location}: the last run did not publish {shown}, what is in {SERVING}/{shown}/ is older; it "
        f"published {others or 'nothing'}; give the directory of a version to use it all the same"
    )


def _taken(run: RunDirectory, version: Version) -> Path:
    """Gives the local directory of a version, with the content that was published."""
    last = SAVED_MODEL if version.format == SAVED_MODELS else GOLDEN
    if version.sha256 is not None and not run.has_file(f"{version.path}/{last}"):
        raise InputError(
            f"{run.location}/{version.path}: published, but no longer there; `tfpipe run` publishes it again"
        )
    directory = run.take(version.path)
    if version.sha256 is not None and sha256_of_directory(directory) != version.sha256:
        raise InputError(
            f"{run.location}/{version.path}: its content is not what was published; publish it again with --redo "
            f"{PUBLISHES}"
        )
    return directory
