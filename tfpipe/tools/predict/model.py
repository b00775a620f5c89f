"""The artifact that answers: the one that is named, or the fastest that `verify` has measured on this machine.

Enters: a run, a published version, the folder of an artifact, here or on a store. Leaves: a source of answers.
TensorFlow is imported only where a SavedModel answers.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfpipe.artifacts import FORMATS, Format, format_in, format_named
from tfpipe.console import say
from tfpipe.devices.processor import cpu_flags, sums_overflow
from tfpipe.errors import InputError
from tfpipe.files import sha256_of_directory
from tfpipe.provenance import machine
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.published import SAVED_MODELS, Version, find_artifact, is_artifact
from tfpipe.rundir.record import GOLDEN
from tfpipe.tools.predict.answers import Answerer
from tfpipe.tools.predict.options import Options
from tfpipe.variants import VARIANTS

_PROBES = ("a small gem", "it never ends, and nothing happens", "7 of 9", "the the the")
"""texts whose answers tell whether a server's model is the same"""
ONE, MANY = "b1_s32", "b32_s64"
"""the shapes at which latencies are compared: for a few texts, for a file"""
_BY_ITSELF = ("onnx", SAVED_MODELS, "openvino", "litert")
"""formats that are chosen where none is named; of those without a measurement, the first that there is"""
_TAKE_TEXTS = (SAVED_MODELS, "saved_model_tokens", "onnx_text")
"""formats that texts are given to; `saved_model_tokens` is refused there, with the reason"""
_AS_FAST = 1.1
"""who takes so many times as long as the fastest counts as fast: of these, the variant answers that was made first"""


class Model(NamedTuple):
    """A source of answers, and its artifact."""

    answerer: Answerer
    directory: Path | None = None
    """of the artifact, here; None: a server answers"""
    variant: str | None = None
    artifact: str | None = None
    """these two name the artifact of a run that was chosen; None: the model is one artifact"""

    def identity(self) -> dict[str, Any]:
        """Gives the facts that decide its answers, as JSON: the content of its files, and its runtime."""
        from tfpipe.provenance import package_versions

        if self.directory is None:
            # A server tells its address and version; what it answers tells whether the same model is behind them.
            probe = self.answerer.prepare(list(_PROBES), list(_PROBES) if self.answerer.pairs else None)
            answers = self.answerer.answer(probe).probabilities
            return {"server": self.answerer.name, "probes": np.asarray(answers, np.float64).round(6).tolist()}
        versions = package_versions()
        packages = ("tfpipe", "tokenizers", *format_in(self.directory).run_with)
        about = {"name": str(self.directory), "content": sha256_of_directory(self.directory)}
        return about | {each: versions.get(each) for each in packages}


def opened(model: str | None, options: Options, *, many: bool) -> Model:
    """Opens the source of answers.

    Args:
      model: as `open_model` has it; None: the server answers.
      options: of the command.
      many: see `open_model`.

    Raises:
      InputError: see `open_model`; options have no effect.
    """
    if options.server is not None:
        from tfpipe.tools.predict.server import open_server

        for name, value in (("--variant", options.variant), ("--artifact", options.artifact)):
            if value is not None:
                raise InputError(f"{name}: has no effect with --server, whose address names the model; leave it out")
        found = Model(open_server(options.server))
    else:
        found = open_model(model, options.variant, options.artifact, options.allowed, many=many)
    say(f"{found.answerer.name} answers")
    return found


def open_model(
    model: str, variant: str | None, artifact: str | None, allowed: Collection[str] = (), *, many: bool
) -> Model:
    """Opens the artifact that a path or an address stands for.

    Args:
      model: directory of a run, of a tree of published versions, or of an artifact; or its `gs://` address.
      variant: of a run; None: the fastest.
      artifact: a format; None: the fastest.
      allowed: operators that a SavedModel may have although they reach beyond the model; only SavedModels answer then.
      many: whether many texts follow, or a few, for which starting takes longer than answering.

    Raises:
      InputError: there is no artifact, or it can't answer here.
    """
    run = RunDirectory(model)
    chosen = partial(_fastest, run, many=many)
    if allowed and artifact is None and not is_artifact(run):
        artifact = SAVED_MODELS
    if artifact is not None and artifact not in {each.name for each in FORMATS}:
        raise InputError(f"--artifact {artifact}: expected one of {', '.join(each.name for each in FORMATS)}")
    directory = find_artifact(model, variant, artifact, chosen)
    found = format_in(directory)
    if found is None:
        raise InputError(f"{directory}: no artifact that tfpipe knows is there; export it again")
    if is_artifact(run):
        given = {"--artifact": artifact not in (None, found.name) and artifact, "--variant": variant}
        for option, value in given.items():
            if value:
                raise InputError(
                    f"{option} {value}: {run.location} is the directory of one artifact ({found.name}), so the option "
                    "has no effect; leave it out, or give the directory of the run"
                )
    if found.name != SAVED_MODELS and not is_artifact(run) and (reason := _cannot_tokenize(found, directory)):
        if artifact is None:
            say(f"  {directory}: {reason}, so the SavedModel answers")
            directory = find_artifact(model, _variant_of(directory), SAVED_MODELS)
            found = format_named(SAVED_MODELS)
        else:
            say(f"  {directory}: {reason}, so TensorFlow makes its token ids")
    if allowed and found.name != SAVED_MODELS:
        raise InputError(
            f"--allow-operator: {directory} is no SavedModel ({found.name}), so it has no effect; leave it out"
        )
    if clips(found, directory):
        say(
            f"warning: {directory}: this processor clips sums of 8-bit products, so answers may be others than "
            "verify has measured elsewhere (README, Older processors)"
        )
    answerer = _opened(found, directory, allowed)
    if is_artifact(run):
        return Model(answerer, directory)
    return Model(answerer, directory, _variant_of(directory), found.name)


def _opened(format: Format, directory: Path, allowed: Collection[str]) -> Answerer:
    if format.name in _TAKE_TEXTS:
        from tfpipe.tools.predict import by_text

        return (
            by_text.open_onnx_text(directory)
            if format.name == "onnx_text"
            else by_text.open_saved_model(directory, allowed)
        )
    from tfpipe.tools.predict import by_tokens

    return by_tokens.open_folder(directory)


def _cannot_tokenize(format: Format, directory: Path) -> str | None:
    """Tells why an artifact's texts can't be tokenized outside a SavedModel; None where they can, or need not be."""
    from tfpipe.tools.predict import by_tokens

    return None if format.name in _TAKE_TEXTS else by_tokens.cannot_tokenize(directory)


def _variant_of(version: Path) -> str:
    return version.parent.name  # serving/<format>/<variant>/<n>


def _fastest(run: RunDirectory, found: list[Version], *, many: bool) -> Version:
    """Chooses among published versions: see the module's docstring.

    Of artifacts that answer in about the same time, it prefers the variant that was made first. For a few texts, it
    prefers an ONNX file over a SavedModel, as TensorFlow alone takes seconds to start.
    """
    known = [each for each in found if each.format in _BY_ITSELF]
    clipped = [each for each in known if _is_clipped(run, each)]
    if clipped:
        shown = " and ".join(f"{each.variant} as {each.format}" for each in clipped)
        say(
            f"  {shown}: passed over, as this processor clips sums of 8-bit products (README, Older processors); "
            "--variant and --artifact together take one"
        )
    usable = [each for each in known if each not in clipped and _runs_here(each)]
    if not usable:
        return found[0]
    if not many and (quick := [each for each in usable if each.format != SAVED_MODELS]):
        usable = [each for each in quick if each.format == "onnx"] or quick
    place = dict.fromkeys((each.variant for each in usable), 0) | {each.name: at for at, each in enumerate(VARIANTS)}
    measured = _latencies(run, MANY if many else ONE)
    times = {each: measured[each.variant, each.format] for each in usable if (each.variant, each.format) in measured}
    if times:
        least = min(times.values())
        fast = [each for each in times if times[each] <= _AS_FAST * least]
        chosen = min(fast, key=lambda each: place[each.variant])
        if len(times) > 1:
            shown = f"{chosen.variant} as {chosen.format}"
            say(f"  {shown}: of {len(times)} artifacts the fastest that verify measured here ({times[chosen]:.2f} ms)")
        return chosen
    # What was made last is what the run was for.
    return min(usable, key=lambda each: (_BY_ITSELF.index(each.format), -place[each.variant]))


def _runs_here(version: Version) -> bool:
    """Tells whether a version's runtime is installed."""
    try:
        format_named(version.format).check_runtime()
    except InputError:
        return False
    return True


def _is_clipped(run: RunDirectory, version: Version) -> bool:
    """Tells whether this processor clips sums of a version's 8-bit products, or may, where no facts are known."""
    return version.variant == "int8" and clips(format_named(version.format), run.location / version.path)


def clips(format: Format, artifact: Path) -> bool:
    """Tells whether this processor clips sums of the 8-bit products of an int8 artifact, or may."""
    if not format.adds_in_16_bits or not sums_overflow(cpu_flags()):
        return False
    try:
        head = json.loads((artifact / GOLDEN).read_bytes().split(b"\n", 1)[0])
        return head["variant"] == "int8" and bool(head.get("saturating_sums"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return True


def _latencies(run: RunDirectory, shape: str) -> dict[tuple[str, str], float]:
    """Reads latencies of `verify` on this machine: (variant, format) -> milliseconds; empty where there are none."""
    record = run.committed("verify")
    if record is None or record.machine != machine():
        return {}
    try:
        rows = json.loads((run.location / "verify" / "parity.json").read_bytes())["artifacts"]
        found = {(row["variant"], row["artifact"]): row["latency_ms"][shape] for row in rows}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float)}
