"""The engine: brings a run up to date, stage by stage.

Enters: a configuration and a run directory. Leaves: every stage of `stages/table.py` that the configuration asks for,
committed. The stages know nothing of each other: each reads the output of earlier ones. This module decides when a
result still holds, takes it over from another run, or does the stage, with the other workers where it trains.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from tfpipe.config.file import dump_config, setting
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.devices.cluster import workers_of
from tfpipe.devices.memory import give_back, return_freed
from tfpipe.encoders.source import shape_of
from tfpipe.errors import InputError
from tfpipe.escaping import printable
from tfpipe.files import write_text
from tfpipe.provenance import RELEASE, other_versions
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.fingerprint import Fingerprint
from tfpipe.rundir.stage import StageDirectory
from tfpipe.stages.feasible import check_feasible, check_runtimes
from tfpipe.stages.table import Stage, stages_of

ASKED = "asked for by --redo"


def run(
    config: Config,
    run: RunDirectory,
    *,
    until: str | None = None,
    redo: str | None = None,
    others: Sequence[RunDirectory] = (),
) -> None:
    """Brings a run up to date: skips stages that hold, resumes work in progress, redoes stages with changed settings.

    With several workers, the chief does so, and calls the others to the stages that train.

    Args:
      config: the configuration.
      run: its directory; held by a lock meanwhile.
      until: last stage to do; None: all.
      redo: stage to do again even if it holds (and so every stage that its new output invalidates).
      others: runs whose committed stages are taken over where the fingerprint is the same.
    """
    check_feasible(config)
    stages = stages_of(config)
    names = [stage.name for stage in stages]
    asked = stages if until is None else stages[: names.index(until) + 1]
    if any(stage.name == "export" for stage in asked):
        check_runtimes(config)
    cluster = workers_of(config.train.strategy)
    if cluster is not None and not any(stage.trains for stage in asked):
        if not cluster.is_chief:
            say(f"{cluster}: nothing to train; the chief does the rest")
            return
        cluster = None
    if cluster is None:
        _bring_up_to_date(config, run, until, redo, others, training=lambda stage, inputs: nullcontext())
        return
    from tfpipe.devices import workers

    say(f"{cluster}{': the chief' if cluster.is_chief else ''}")
    with workers.loss_of_a_worker_said(cluster):
        team = workers.join(config, cluster)
        if cluster.is_chief:
            with team.released():
                _bring_up_to_date(config, run, until, redo, others, training=team.training)
        else:
            for stage, inputs in team.calls():
                say(f"{stage}: as a worker")
                _help(config, stage, {name: _as_the_chief_has_it(run, name, digest) for name, digest in inputs.items()})


@dataclass(frozen=True)
class Status:
    """A stage of a run: up to date, or why not."""

    stage: str
    reason: str | None
    """why it would be done; None: it is up to date"""
    seconds: float | None
    """that it took the last time; None: it is not committed"""


def status(config: Config, run: RunDirectory, *, until: str | None = None, redo: str | None = None) -> list[Status]:
    """Tells which stages of a run hold, without doing any. For a run on a store, it brings the records here.

    A stage counts as one to do if its input would be done again: only the work tells whether the new input differs.

    Args:
      config: the configuration.
      run: its directory.
      until: last stage; None: all.
      redo: stage that would be done again even if it holds.
    """
    check_feasible(config)
    stages = stages_of(config)
    names, found = [stage.name for stage in stages], []
    for stage in stages[: 1 + names.index(until or names[-1])]:
        record = run.record(stage.name)
        again = [each.stage for each in found if each.reason is not None and each.stage in stage.inputs]
        if stage.name == redo:
            reason = ASKED
        elif again:
            reason = "not done yet" if record is None else f"{' and '.join(again)} would be done before it"
        else:
            reason = _why_redo(config, run, stage.name, _fingerprint(config, run, stage, names))
        found.append(Status(stage.name, reason, record and record.seconds))
    return found


def _help(config: Config, name: str, inputs: dict[str, Path]) -> None:
    """Does a worker's part of a stage that trains; its files are thrown away."""
    stage = next(stage for stage in stages_of(config) if stage.name == name)
    with tempfile.TemporaryDirectory(prefix="tfpipe-worker-") as scratch:
        importlib.import_module(stage.module).run(stage.view(config), StageDirectory(stage.name, Path(scratch), inputs))


def _as_the_chief_has_it(run: RunDirectory, name: str, output: str) -> Path:
    record = run.record(name)
    if record is None or record.output != output:
        raise InputError(
            f"{run.path}: stage {name} is not there as the chief has it; give all workers one --run-dir that each can "
            "see: on a shared disk, or gs://BUCKET/RUN"
        )
    return run.verified(name)


def _bring_up_to_date(
    config: Config,
    run: RunDirectory,
    until: str | None,
    redo: str | None,
    others: Sequence[RunDirectory],
    training: Callable[[str, dict[str, str]], AbstractContextManager[None]],
) -> None:
    with run.lock(), _earlier_results_named(config, run):
        write_text(run.path / "config.yaml", dump_config(config))
        stages = stages_of(config)
        names = [stage.name for stage in stages]
        for number, stage in enumerate(stages, start=1):
            fingerprint = _fingerprint(config, run, stage, names)
            reason = ASKED if stage.name == redo else _why_redo(config, run, stage.name, fingerprint)
            taken = reason and stage.name != redo and not stage.publishes
            if reason is None:
                say(f"[{number}/{len(stages)}] {stage.name}: up to date")
                _warn_of_other_versions(config, run, stage)
            elif taken and (other := _adopted(config, run, stage.name, fingerprint, others)):
                say(f"[{number}/{len(stages)}] {stage.name}: as in {other}")
                _warn_of_other_versions(config, run, stage)
            else:
                say(f"[{number}/{len(stages)}] {stage.name}: {reason}")
                with suppress(InputError):  # a stage that reads the encoder says what is wrong with it
                    return_freed(shape_of(config.encoder.source)[0].size)
                work = importlib.import_module(stage.module)
                together = training(stage.name, fingerprint.inputs) if stage.trains else nullcontext()
                with run.stage(stage.name, fingerprint) as directory, together:
                    work.run(stage.view(config), directory)
                give_back()
                record = run.record(stage.name)
                say(f"[{number}/{len(stages)}] {stage.name}: done in {record.seconds:.0f} s")
            if stage.name == until:
                return


@contextmanager
def _earlier_results_named(config: Config, run: RunDirectory) -> Iterator[None]:
    """Warns, however the block ends, of committed stages whose inputs have changed since."""
    try:
        yield
    finally:
        with suppress(InputError):  # of a store that can't be reached: that has been said
            records = {stage.name: run.committed(stage.name) for stage in stages_of(config)}
            outputs = {name: record and record.output for name, record in records.items()}
            earlier = [
                f"{name}/"
                for name, record in records.items()
                if record and any(outputs.get(other) != output for other, output in record.inputs.items())
            ]
            if earlier:
                say(f"warning: {', '.join(earlier)} {'are' if earlier[1:] else 'is'} of an earlier run")


def _why_redo(config: Config, run: RunDirectory, name: str, fingerprint: Fingerprint) -> str | None:
    """Returns None where a stage holds, else the reason why it must be done.

    `train.nonfinite` is not in the fingerprint: it changes nothing where all goes well, and a training that stopped may
    resume under another value. If it took effect, the record says so, and the result holds for that value alone.
    """
    reason = run.why_redo(name, fingerprint)
    helped = None if reason else run.record(name).notes.get("nonfinite")
    if helped in (None, config.train.nonfinite):
        return reason
    return f"train.nonfinite: {helped} -> {config.train.nonfinite}, and a loss or gradient was not finite"


def _adopted(
    config: Config, run: RunDirectory, name: str, fingerprint: Fingerprint, others: Sequence[RunDirectory]
) -> Path | None:
    hold = (other for other in others if _why_redo(config, other, name, fingerprint) is None)
    return next((other.path for other in hold if run.adopt(name, fingerprint, other)), None)


def _warn_of_other_versions(config: Config, run: RunDirectory, stage: Stage) -> None:
    """Warns if a stage that holds was made with other versions of its libraries than are installed."""
    others = other_versions(run.record(stage.name).versions, stage.libraries_used(config))
    both = [(name, old, new) for name, (old, new) in others.items() if old is not None and new is not None]
    if both:
        made = " and ".join(f"{name} {old}" for name, old, _ in both)
        here = " and ".join(new for _, _, new in both) + (" is" if len(both) == 1 else " are") + " installed"
        say(printable(f"warning: {stage.name} was made with {made}, {here}; --redo {stage.name} makes it again"))


def _fingerprint(config: Config, run: RunDirectory, stage: Stage, names: list[str]) -> Fingerprint:
    return Fingerprint(
        settings={path: setting(config, path) for path in stage.recorded(config)},
        files=stage.files(config),
        inputs={name: run.record(name).output for name in stage.inputs if name in names},
        code={"tfpipe": RELEASE, "stage": stage.version, **stage.code(config)},
    )
