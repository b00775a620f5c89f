"""`tfpipe explain`: the words of a text that speak for the answer of a run's classifier, and those against it.

Enters: texts, from the command line or standard input, or files of any form that `prepare` reads. Leaves: marked texts
on a terminal, JSON Lines, or a page of HTML. `evaluate/attributions.py` has the method and its paper.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tfpipe.console import Bar, progress_bar, say
from tfpipe.errors import InputError
from tfpipe.evaluate.explained import INTEGRATED_GRADIENTS, METHODS
from tfpipe.tools.explain.model import find_stage, label_number, labels_of, open_explainer
from tfpipe.tools.explain.options import Options
from tfpipe.tools.explain.rows import Row, rows_of
from tfpipe.tools.predict import lines
from tfpipe.tools.predict.options import exists_already

_ON_A_PAGE = 1000
"""rows of a page, where no limit is given: a browser shows them, and they are more than anyone reads"""


def run(run: str, texts: list[str], options: Options) -> None:
    """Explains the answers to texts, or to the rows of files.

    Args:
      run: directory of a run, or its `gs://` address.
      texts: from the command line.
      options: the rest.

    Raises:
      InputError: there is no run, nothing to explain, or options have no effect.
    """
    _check(texts, options)
    stage = find_stage(run, options.variant)
    if options.label is not None:
        label_number(options.label, labels_of(stage))  # refused before the model is loaded
    batches = rows_of(run, texts, options, pairs=stage.pairs)
    from tfpipe.devices.strategy import float32_kept  # TensorFlow, which takes seconds to import

    with float32_kept():
        explaining = _Explaining(open_explainer(stage, options.method), options)
        if options.output is None:
            explaining.show(batches)
        else:
            explaining.write(batches, options.output, stage.name)


class _Explaining:
    """The explanations of one call, counted."""

    def __init__(self, explainer, options: Options):
        self._explainer = explainer
        self._limit = options.limit
        self._labels = None if options.label is None else [explainer.labels.index(options.label)]
        self._from_command_line = not options.input
        self._texts = self._rows = self._explanations = self._incomplete = 0

    def show(self, batches: Iterator[list[Row]]) -> None:
        """Prints explanations."""
        from tfpipe.tools.explain import terminal

        console = terminal.console()
        for _, explanations in self._explained(batches):
            for each in explanations:
                terminal.show(each, console)
        self._say_incomplete()

    def write(self, batches: Iterator[list[Row]], output: Path, name: str) -> None:
        """Writes explanations to a file, or as JSON Lines to standard output."""
        from tfpipe.tools.explain import written

        with progress_bar("explain", self._limit) as bar:
            is_page = written.writer_of(output) is written.page
            found = self._explained(batches, bar, _ON_A_PAGE if is_page and self._limit is None else None)
            if is_page:
                parts = written.page(found, name, self._explainer.method)
            else:
                parts = written.json_lines(found, one_label=self._explainer.one_label)
            written.write(parts, output)
        if str(output) != "-":
            say(f"{output}: {_counted(self._rows, 'row')} explained, {_counted(self._explanations, 'explanation')}")
        self._say_incomplete()

    def _explained(
        self, batches: Iterator[list[Row]], bar: Bar | None = None, most: int | None = None
    ) -> Iterator[tuple]:
        """Yields rows with their explanations, up to a number of them; rows without a word are left out."""
        from tfpipe.evaluate.attributions import LARGEST_ERROR

        for batch in batches:
            texts = [row.text for row in batch]
            pairs = None if batch[0].text_pair is None else [row.text_pair for row in batch]
            labels = None if self._labels is None else [self._labels] * len(batch)
            for row, explanations in zip(batch, self._explainer.explain(texts, pairs, labels), strict=True):
                self._texts += 1
                if not explanations[0].words:
                    self._leave_out(row)
                    continue
                if self._rows == most:
                    say(f"warning: a page shows the first {most:,} rows; --limit N for another number of them")
                    return
                self._rows += 1
                self._explanations += len(explanations)
                self._incomplete += sum(each.completeness_error > LARGEST_ERROR for each in explanations)
                yield row, explanations
            if bar is not None:
                bar.advance(len(batch))

    def _leave_out(self, row: Row) -> None:
        message = f"text {self._texts}, {row.text[:40]!r}, has no word that the model reads"
        if self._from_command_line:
            raise InputError(f"explain: {message}; leave it out")
        say(f"warning: {message}: not explained")

    def _say_incomplete(self) -> None:
        from tfpipe.evaluate.attributions import LARGEST_ERROR, MOST_STEPS

        if self._incomplete and self._explainer.method == INTEGRATED_GRADIENTS:
            say(
                f"warning: {_counted(self._incomplete, 'explanation')} did not come within {LARGEST_ERROR:.0%} of "
                f"completeness in {MOST_STEPS} steps; each says its error"
            )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _check(texts: list[str], options: Options) -> None:
    """Checks the options before anything is opened."""
    if options.method not in METHODS:
        raise InputError(f"--method {options.method}: expected {' or '.join(METHODS)}")
    if not options.input and not texts:
        raise InputError('explain: no texts; give them as arguments ("a small gem") or with --input FILE')
    if options.input and texts:
        raise InputError("explain: texts and --input FILE; give the texts in another call, or in the file")
    if len(options.input) > 1 and (stream := next(filter(lines.is_stream, options.input), None)):
        raise InputError(f"--input {stream}: a stream comes alone; give the files in another call")
    for name, value in {"--limit": options.limit, **_of_files(options)}.items():
        if not options.input and value not in (None, ()):
            raise InputError(f"{name}: has no effect without --input FILE; leave it out")
    for name, value in _of_files(options).items():
        if options.input and lines.is_stream(options.input[0]) and value not in (None, ()):
            raise InputError(f"{name}: has no effect on a stream, which holds a text a line; leave it out")
    if options.input and options.text_pairs:
        raise InputError("--text-pair: has no effect with --input FILE; name the column with --text-pair-column")
    if options.text_pairs and len(options.text_pairs) != len(texts):
        raise InputError(f"--text-pair: {len(options.text_pairs)} for {len(texts)} texts; give one for each text")
    for text in (*texts, *options.text_pairs):
        if not text.strip():
            raise InputError("explain: an empty text; give a text with a word in it")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(f"explain: the text {text!a} is not UTF-8; convert it") from None
    _check_output(options)


def _of_files(options: Options) -> dict[str, object]:
    return {
        "--text-column": options.text_column,
        "--text-pair-column": options.text_pair_column,
        "--set": options.overrides,
    }


def _check_output(options: Options) -> None:
    from tfpipe.tools.explain.written import writer_of
    from tfpipe.tools.predict.files import check_apart

    output = options.output
    if output is None:
        if options.overwrite:
            raise InputError("--overwrite: has no effect without --output FILE; leave it out, or name a file")
        return
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(output)):
        raise InputError(f"--output {output}: outputs are written on this machine; give a path here, and copy it then")
    if output.is_dir():
        raise InputError(f"--output {output}: a directory; give the name of a file")
    writer_of(output)
    if str(output) == "-":
        return
    if not output.absolute().parent.is_dir():
        raise InputError(f"--output {output}: can't be written (no such directory); give another path")
    check_apart(output, options.input)
    if output.is_file() and not options.overwrite:
        raise exists_already(output)
