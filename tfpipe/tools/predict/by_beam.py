"""Files answered by Apache Beam's RunInference: Dataflow, Flink, Spark, or its DirectRunner on this machine.

Each worker loads the model once, and answers whole blocks, as one machine does: the same rows come out. The parts are
written to the runner's scratch space, and this process puts them together when the pipeline has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import ModelHandler, RunInference

from tfpipe.data.block import Block
from tfpipe.data.runners.beam import Pipeline, pipeline_options, results, write_result
from tfpipe.tools.predict import scoring
from tfpipe.tools.predict.answers import Answerer
from tfpipe.tools.predict.model import opened
from tfpipe.tools.predict.options import Options
from tfpipe.tools.predict.rows import Input
from tfpipe.tools.predict.scoring import Part
from tfpipe.tools.predict.written import Layout


def work_of(model: str | None, options: Options, scratch: Path) -> Callable[..., Iterator[tuple[Block, Part]]]:
    """Returns the argument `run` of `scoring.score`.

    Args:
      model: as `opened` takes it, at a place where the pipeline's machines find it too.
      options: of the command; they name one artifact.
      scratch: directory for the results of the DirectRunner.
    """

    def run(source: Input, layout: Layout, done: frozenset[str]) -> Iterator[tuple[Block, Part]]:
        settings, place = pipeline_options(options.runner, options.runner_options, scratch)
        with Pipeline(settings) as pipeline:
            _ = (
                pipeline
                | beam.Create(list(source.files))
                | beam.FlatMap(_blocks, source, done)
                | beam.Reshuffle()
                | RunInference(_Answering(model, options, source, layout))
                | beam.Map(_keep, place)
            )
        for _, (number, at, first, size, content, rejections, rows) in results(place):
            block = Block(source.files[number], at, first, None, size)
            yield block, Part(content.tobytes(), rejections, rows)

    return run


def _blocks(file: Any, source: Input, done: frozenset[str]) -> Iterator[Block]:
    return (block for block in source.blocks_of(file) if block.name not in done)


def _keep(result: tuple[Block, Part], place: str) -> None:
    block, part = result
    content = np.frombuffer(part.content, np.uint8)
    found = (block.file.number, block.number, block.first, block.size_bytes, content, part.rejections, part.rows)
    write_result(place, block.name, found)


class _Answering(ModelHandler[Block, tuple, Answerer]):
    """A model handler of Beam: loads a model and asks it."""

    def __init__(self, model: str | None, options: Options, source: Input, layout: Layout):
        super().__init__()
        self._model, self._options, self._source, self._layout = model, options, source, layout

    def load_model(self) -> Answerer:
        """Loads the model: once in each process."""
        return opened(self._model, self._options, many=True).answerer

    def run_inference(
        self, batch: Sequence[Block], model: Answerer, inference_args: dict[str, Any] | None = None
    ) -> Iterator[tuple[Block, Part]]:
        """Answers blocks."""
        for block in batch:
            rows = self._source.read(block)
            answers = model.answer(model.prepare(rows.texts, rows.text_pairs))
            yield block, scoring.part_of(block, rows, answers, self._layout)

    def batch_elements_kwargs(self) -> dict[str, int]:
        """Makes each block a batch: it has thousands of rows."""
        return {"min_batch_size": 1, "max_batch_size": 1}
