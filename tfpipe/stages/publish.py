"""The stage `publish`: artifacts that passed `verify` become new versions, with the files that their users need.

Enters: the artifacts of `export`, the variants that `verify` found within the budget, and its latency curve. Leaves, in
the run, `serving/<variant>/<integer>/` for TF Serving, `serving/<format>/<variant>/<integer>/` for each other format,
`models.config`, `batching_parameters.txt` and `README.md`; in the stage's directory `published.json`, version ->
SHA-256. A version is never overwritten.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tfpipe.artifacts import Format, formats_named
from tfpipe.config.export import BASIS
from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.evaluate.serving_files import SERVING_FILES, write_serving_files
from tfpipe.files import sha256_of_directory, versions, write_json
from tfpipe.rundir.record import SERVING, Published
from tfpipe.rundir.remote import files_below
from tfpipe.rundir.stage import StageDirectory
from tfpipe.tokens.table import TokenTable


def run(config: Config, stage: StageDirectory) -> None:
    """Publishes dense, and each compressed variant within the budget."""
    parity = json.loads((stage.inputs["verify"] / "parity.json").read_text(encoding="utf-8"))
    run_path, exported = stage.path.parent, stage.inputs["export"]
    serving = run_path / SERVING
    published = {
        (variant, each.name): publish(exported / variant / each.path, serving / directory_of(each, variant))
        for each in formats_named(config.export.formats)
        for variant in dict.fromkeys(("dense", *parity["within_budget"]))
    }
    test = TokenTable.open(stage.inputs["prepare"] / "test")
    shown, pairs = test.sample(2, config.seed), config.data.text_pair_column is not None
    texts = {"text": test.texts(shown)} | ({"text_pair": test.text_pairs(shown)} if pairs else {})
    curve = {int(size): latency for size, latency in parity["latency_ms_by_batch_size"].items()}
    paths = {key: path for key, (path, _) in published.items()}
    write_serving_files(serving, config.name, config.export.serving_version, paths, texts, curve)
    for path, sha256 in published.values():
        entry = Published(sha256=sha256, size_bytes=sum(files_below(path).values()))
        stage.published[str(path.relative_to(run_path))] = entry
    write_json(stage.path / "published.json", {name: entry.sha256 for name, entry in stage.published.items()})
    for name in SERVING_FILES:
        stage.published[f"{SERVING}/{name}"] = Published(sha256=None, size_bytes=None)


def directory_of(format: Format, variant: str) -> str:
    """Names the directory of a variant's versions, below `serving/`: TF Serving watches those of SavedModels."""
    return variant if format.name == BASIS else f"{format.name}/{variant}"


def publish(artifact: Path, directory: Path) -> tuple[Path, str]:
    """Copies an artifact to the next free integer below `directory`, so that TF Serving sees all of it or nothing.

    If the newest version holds the same files already, it stays as it is.

    Returns:
      The version's directory, and the SHA-256 of its content.
    """
    directory.mkdir(parents=True, exist_ok=True)
    sha256 = sha256_of_directory(artifact)
    newest = max(versions(child.name for child in directory.iterdir()), default=0)
    if newest and sha256_of_directory(directory / str(newest)) == sha256:
        say(f"  published already: {directory / str(newest)}")
        return directory / str(newest), sha256
    target = directory / str(newest + 1)
    temporary = directory / f".{target.name}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(artifact, temporary)
    temporary.rename(target)
    say(f"  published {target}")
    return target, sha256
