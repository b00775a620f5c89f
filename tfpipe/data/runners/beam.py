"""Blocks worked on by Apache Beam: Dataflow, Flink, Spark, or its DirectRunner on this machine.

Enters: files and the same functions of one block that `local.py` is given. Leaves: the same results, in the order
of the blocks. A pipeline writes each result to a file of the runner's scratch space (`--temp_location`, or the
stage's checkpoints for the DirectRunner), and this process reads them one by one; `transport.py` says in which form.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfpipe.config.run import Config
from tfpipe.data import readers
from tfpipe.data.block import Block
from tfpipe.data.runners.transport import from_bytes, to_bytes
from tfpipe.data.sources import SourceFile
from tfpipe.errors import InputError

try:
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
except ModuleNotFoundError:
    raise InputError("data.runner: needs Apache Beam; install it with: pip install 'tfpipe[beam]'") from None


def map_blocks(
    work: Callable[[], Callable[[Block], Any]],
    files: list[SourceFile],
    config: Config,
    directory: Path,
    done: frozenset[str] = frozenset(),
) -> Iterator[tuple[str, Any]]:
    """Yields the name of each block and the function's result for it, in the order of the blocks.

    Args:
      work: called once in each of the runner's processes, gives the function; picklable.
      files: what the blocks are cut from.
      config: `data.runner` and its options.
      directory: scratch space on this machine.
      done: names of blocks to leave out.
    """
    options, scratch = _options(config, directory)
    with _Run(options) as pipeline:
        _ = (
            pipeline
            | beam.Create(files)
            | beam.FlatMap(readers.blocks, config.data)
            | beam.Filter(lambda block: block.name not in done)
            | beam.Reshuffle()
            | beam.ParDo(_Call(work, scratch))
        )
    yield from _results(scratch)


class _Call(beam.DoFn):
    """Calls the function for a block and writes what it returns."""

    def __init__(self, work: Callable[[], Callable[[Any], Any]], scratch: str):
        self._work, self._scratch = work, scratch

    def setup(self) -> None:
        self._function = self._work()

    def process(self, block: Any) -> None:
        _write(self._scratch, getattr(block, "name", "0"), self._function(block))


class _Run:
    """A pipeline; what a function of ours says is wrong with the input is said again without Beam's trace."""

    def __init__(self, options: PipelineOptions):
        self._pipeline = beam.Pipeline(options=options)

    def __enter__(self) -> beam.Pipeline:
        return self._pipeline.__enter__()

    def __exit__(self, *raised: Any) -> None:
        try:
            self._pipeline.__exit__(*raised)
        except Exception as error:
            found = re.search(r"InputError: (.+?)(?: \[while running|\n|$)", str(error))
            if found is None:
                raise
            raise InputError(found[1]) from None


def _options(config: Config, directory: Path) -> tuple[PipelineOptions, str]:
    """The pipeline's options, and a place of its own for its results."""
    options = PipelineOptions([f"--runner={config.data.runner}", *config.data.runner_options])
    place = options.view_as(GoogleCloudOptions).temp_location
    if place is None and config.data.runner != "DirectRunner":
        raise InputError(
            f"data.runner: {config.data.runner} needs scratch space that its machines can write, such as "
            "data.runner_options: [--temp_location=gs://BUCKET/PATH]"
        )
    return options, f"{place or directory / 'beam'}/tfpipe-{uuid.uuid4().hex}"


def _write(scratch: str, name: str, result: Any) -> None:
    if "://" not in scratch:
        os.makedirs(scratch, exist_ok=True)
    # A block may be done twice, by two machines: each writes a file of its own, and one takes the name.
    temporary = f"{scratch}/.{name}-{uuid.uuid4().hex}"
    with FileSystems.create(temporary, "application/octet-stream") as file:
        file.write(to_bytes(result))
    if FileSystems.exists(f"{scratch}/{name}.result"):
        FileSystems.delete([temporary])
    else:
        FileSystems.rename([temporary], [f"{scratch}/{name}.result"])


def _results(scratch: str) -> Iterator[tuple[str, Any]]:
    """The results, in the order of their names; each is removed when it was read."""
    (match,) = FileSystems.match([f"{scratch}/*.result"])
    for path in sorted(entry.path for entry in match.metadata_list):
        with FileSystems.open(path) as file:
            yield path.rsplit("/", 1)[1].removesuffix(".result"), from_bytes(file.read())
        FileSystems.delete([path])
