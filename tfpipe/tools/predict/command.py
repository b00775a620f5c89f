"""`tfpipe predict`: labels texts, or every row of a file, with an artifact of a run or by a server.

Enters: texts, from the command line or standard input, or files of any form that `prepare` reads. Leaves: a table on
standard output, JSON Lines, or the rows of the files with their answers. Texts from a pipe are answered as they come: a
batch is all texts that have arrived while the batch before was answered.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tfpipe.errors import InputError
from tfpipe.tools.predict import lines
from tfpipe.tools.predict.answers import Answerer
from tfpipe.tools.predict.model import opened
from tfpipe.tools.predict.options import Options, exists_already
from tfpipe.tools.predict.shown import answers_of, print_answers

RUNNERS = ("DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner")
"""of Apache Beam"""


def run(model: str | None, texts: list[str], options: Options) -> None:
    """Answers texts, or files.

    Args:
      model: directory of a run or of an artifact, or its `gs://` address; None: the server answers.
      texts: from the command line.
      options: the rest.

    Raises:
      InputError: there is no model, nothing to answer, options have no effect, or a row can't be answered.
    """
    _check(texts, options)
    if options.input and not _streams(options):
        from tfpipe.tools.predict import files  # pyarrow and the settings take a while to import

        files.run(model, options)
        return
    waiting = lines.open_lines(Path(options.input[0])) if options.input else ()
    answerer = opened(model, options, many=False).answerer
    if answerer.pairs and options.input:
        raise InputError(f"--input {options.input[0]}: a model of text pairs; give a file with two columns")
    if answerer.pairs != bool(options.text_pairs):
        raise InputError(
            "predict: a model of text pairs; give --text-pair TEXT once for each text"
            if answerer.pairs
            else "--text-pair: the model takes single texts, so it has no effect; leave it out"
        )
    pairs = options.text_pairs or itertools.repeat(None)
    every = itertools.chain(zip(texts, pairs, strict=False), ((text, None) for text in waiting))
    print_answers(answers(answerer, every), options.output)


def _streams(options: Options) -> bool:
    return len(options.input) == 1 and lines.is_stream(options.input[0])


def _check(texts: list[str], options: Options) -> None:
    """Checks the options before anything is opened."""
    files = bool(options.input) and not _streams(options)
    if options.server is not None and texts and os.path.isdir(texts[0]):
        raise InputError(f"{texts[0]}: a directory, and with --server the server has the model; leave one of them out")
    if not options.input and not texts:
        raise InputError('predict: no texts; give them as arguments ("a small gem") or with --input FILE')
    if files and texts:
        raise InputError("predict: texts and --input FILE; give the texts in another call, or in the file")
    if len(options.input) > 1 and (stream := next(filter(lines.is_stream, options.input), None)):
        raise InputError(f"--input {stream}: a stream comes alone; give the files in another call")
    of_files = {
        "--text-column": options.text_column,
        "--text-pair-column": options.text_pair_column,
        "--set": options.overrides,
        "--runner": options.runner,
        "--no-probabilities" if options.probabilities is False else "--probabilities": options.probabilities,
    }
    if not files and (option := next((name for name, value in of_files.items() if value not in (None, ())), None)):
        if options.input:
            raise InputError(
                f"{option}: has no effect on a stream, where each line is a text; put rows into a file, and name it"
            )
        raise InputError(f"{option}: has no effect without --input FILE; leave it out")
    if files and options.text_pairs:
        raise InputError("--text-pair: has no effect with --input FILE; name the column with --text-pair-column")
    if options.text_pairs and len(options.text_pairs) != len(texts):
        raise InputError(f"--text-pair: {len(options.text_pairs)} for {len(texts)} texts; give one for each text")
    for text in (*texts, *options.text_pairs):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(f"predict: the text {text!a} is not UTF-8; convert it") from None
    if options.runner is not None and options.runner not in RUNNERS:
        raise InputError(f"--runner {options.runner}: expected {', '.join(RUNNERS[:-1])} or {RUNNERS[-1]}")
    if options.runner_options and options.runner is None:
        raise InputError("--runner-option: has no effect without --runner; leave it out")
    output = options.output
    if output is not None and re.match(r"[a-z][a-z0-9+.-]+:/", str(output)):
        raise InputError(f"--output {output}: outputs are written on this machine; give a path here, and copy it then")
    if output is not None and output.suffix[1:] in lines.COMPRESSED.groupindex:
        raise InputError(f"--output {output}: answers are written as plain files; give a name without {output.suffix}")
    if not files and output is not None and not output.absolute().parent.is_dir():
        raise InputError(f"--output {output}: can't be written (no such directory); give another path")
    if not files and output is not None and output.suffix.lower() in (".csv", ".tsv", ".parquet"):
        raise InputError(
            f"--output {output}: answers to single texts are JSON Lines; give a name that ends in .jsonl, or the texts "
            "with --input FILE"
        )
    if options.overwrite and output is None:
        raise InputError("--overwrite: has no effect without --output FILE; leave it out, or name a file")
    if not files and output is not None and output.is_file() and not options.overwrite:
        raise exists_already(output)


def answers(answerer: Answerer, texts: Iterable[tuple[str, str | None]]) -> Iterator[dict[str, Any]]:
    """Answers texts, in order, a batch at a time: `{"text", "label", "probability", "probabilities"}` each.

    `answers.probability_of_answers` defines the probability. With several labels there is also the list `labels`.
    """
    for batch in lines.as_they_come(texts):
        first = [text for text, _ in batch]
        second = [pair for _, pair in batch] if answerer.pairs else None
        found = answerer.answer(answerer.prepare(first, second))
        for (text, pair), answer in zip(batch, answers_of(answerer, found), strict=True):
            yield {"text": text} | ({"text_pair": pair} if answerer.pairs else {}) | answer
