"""Blocks worked on by Apache Beam: Dataflow, Flink, Spark, or its DirectRunner on this machine.

Enters: files and the same functions of one block that `local.py` gets. Leaves: the same results, in the order of the
blocks. A pipeline writes each result to a file of the runner's scratch space (`--temp_location`, or the stage's
checkpoints for the DirectRunner). This process reads them one by one, in the form of `transport.py`.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfpipe.config.data import Data
from tfpipe.data import readers
from tfpipe.data.block import Block
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.runners.local import LocalRunner, Work
from tfpipe.data.runners.transport import from_bytes, to_bytes
from tfpipe.errors import InputError

try:
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
except ModuleNotFoundError:
    raise InputError("Beam's runners need Apache Beam; install it with: pip install 'tfpipe[beam]'") from None


class BeamRunner(LocalRunner):
    """Files read by a pipeline; the tables are on this machine, so its processes work on them."""

    def __init__(self, data: Data, scratch: Path):
        super().__init__(data)
        self._scratch = scratch

    def _work_on(self, files: list[SourceFile], work: Work, done: frozenset[str], module: str | None) -> Iterator[Any]:
        """Does the work of `map_blocks`; stores results when they have come here.

        Raises:
          InputError: a function raised it, or the pipeline has no scratch space.
        """
        data = self._data
        options, scratch = pipeline_options(data.runner, data.runner_options, self._scratch)
        with Pipeline(options) as pipeline:
            _ = (
                pipeline
                | beam.Create(files)
                | beam.FlatMap(readers.blocks, self._data)
                | beam.Filter(lambda block: block.name not in done)
                | beam.Reshuffle()
                | beam.ParDo(_Call(replace(work, store=None), scratch))
            )
        for name, result in results(scratch):
            yield result if work.store is None else work.store(name, result)


class _Call(beam.DoFn):
    """A step of a pipeline that calls the function for a block and writes its result."""

    def __init__(self, work: Work, scratch: str):
        self._work, self._scratch = work, scratch

    def setup(self) -> None:
        self._function = self._work.function()

    def process(self, block: Block) -> None:
        write_result(self._scratch, block.name, self._function(block.name, block))


class Pipeline:
    """A pipeline; if a function of tfpipe raises an `InputError`, the error is raised again without Beam's trace."""

    def __init__(self, options: PipelineOptions):
        self._pipeline = beam.Pipeline(options=options)

    def __enter__(self) -> beam.Pipeline:
        return self._pipeline.__enter__()

    def __exit__(self, *raised: Any) -> None:
        try:
            self._pipeline.__exit__(*raised)
        except Exception as error:
            found = re.search(r"(?:InputError|MissingColumn|NoRows): (.+?)(?: \[while running|\n|$)", str(error))
            if found is None:
                raise
            raise InputError(found[1]) from None


def pipeline_options(runner: str, given: Sequence[str], scratch: Path) -> tuple[PipelineOptions, str]:
    """Returns a pipeline's options, and a directory of its own for its results.

    Args:
      runner: as Beam names it.
      given: Beam's own options.
      scratch: directory for results on this machine.

    Raises:
      InputError: the pipeline's machines have no place for results.
    """
    options = PipelineOptions([f"--runner={runner}", *given])
    location = options.view_as(GoogleCloudOptions).temp_location
    if location is None and runner != "DirectRunner":
        raise InputError(
            f"{runner} needs scratch space that its machines can write; give it the option "
            "--temp_location=gs://BUCKET/PATH (data.runner_options, or --runner-option of predict)"
        )
    return options, f"{location or scratch / 'beam'}/tfpipe-{uuid.uuid4().hex}"


def write_result(scratch: str, name: str, result: Any) -> None:
    """Writes the result of a block to a pipeline's scratch space; see `transport.py`."""
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


def results(scratch: str) -> Iterator[tuple[str, Any]]:
    """Yields the results, in the order of their names, and removes each after it was read."""
    (match,) = FileSystems.match([f"{scratch}/*.result"])
    for path in sorted(entry.path for entry in match.metadata_list):
        with FileSystems.open(path) as file:
            yield path.rsplit("/", 1)[1].removesuffix(".result"), from_bytes(file.read())
        FileSystems.delete([path])
