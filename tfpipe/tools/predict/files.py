"""`tfpipe predict MODEL --input FILE`: the columns of the texts, and the place of the answered rows."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from tfpipe.config.data import Data
from tfpipe.config.file import parse_config, read_yaml
from tfpipe.console import say
from tfpipe.data.block import Rejection
from tfpipe.errors import InputError
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tools.predict import scoring, written
from tfpipe.tools.predict.answers import Answerer
from tfpipe.tools.predict.model import opened
from tfpipe.tools.predict.options import Options
from tfpipe.tools.predict.parts import Parts
from tfpipe.tools.predict.rows import Columns, Input, open_input
from tfpipe.tools.predict.shown import answers_of, print_answers

_UP_TO_THE_RUN = 5  # serving/<format>/<variant>/<n> lies so deep in its run


def run(model: str | None, options: Options) -> None:
    """Answers files.

    Args:
      model: as `command.run` has it.
      options: of the command.

    Raises:
      InputError: see `scoring.score`.
    """
    output = options.output
    try:
        to_file = output is not None and str(output) != "-" and (not output.exists() or output.is_file())
    except OSError as error:
        raise InputError(f"--output {output}: can't be written ({error.strerror}); give another path") from None
    if output is not None and not to_file and output.is_dir():
        raise InputError(f"--output {output}: a directory; give the name of a file")
    if not to_file and (option := "--runner" if options.runner else "--overwrite" if options.overwrite else None):
        raise InputError(f"{option}: has no effect without --output FILE; leave it out, or name a file")
    if to_file:
        check_apart(output, options.input)
        written.format_of(output)
        Parts(output).check(overwrite=options.overwrite)
    columns, said_by = columns_of(model, options)
    try:
        _answer(model, options, columns, to_file=to_file)
    except InputError as error:
        raise InputError(in_options(str(error), said_by)) from error


def check_apart(output: Path, source: tuple[str, ...]) -> None:
    """Checks that an output is not among the inputs, where the next scoring would read it.

    Raises:
      InputError: it is.
    """
    there = os.path.realpath(output)
    for each in filter(lambda each: "://" not in each, source):
        given = os.path.realpath(os.path.expanduser(each))
        if given == there:
            raise InputError(f"--output {output}: the same file as --input; give another name")
        if os.path.isdir(given) and there.startswith(given.rstrip("/") + "/"):
            raise InputError(f"--output {output}: lies in the folder --input {each}; give a path elsewhere")
        # `**` stands for any number of folders, none too; Python 3.11's `match` knows no `**`.
        deep = "**/" in given and fnmatch.fnmatchcase(there, given.replace("**/", "*"))
        if glob.has_magic(each) and (deep or PurePath(there).match(given)):
            raise InputError(
                f"--output {output}: is one of --input {each}; give a name that the pattern does not match"
            )


def _answer(model: str | None, options: Options, columns: Columns, *, to_file: bool) -> None:
    source, output = open_input(list(options.input), columns, list(options.overrides)), options.output
    found = opened(model, options, many=True)
    _check_pairs(found.answerer, columns)
    if not to_file:
        _stream(source, found.answerer, output, options)
        return
    work = None
    if options.runner is not None:
        from tfpipe.tools.predict.by_beam import work_of

        # Every worker answers with what was chosen here, whatever is faster there.
        work = work_of(model, replace(options, variant=found.variant, artifact=found.artifact), Parts(output).directory)
    scoring.score(
        source,
        found.answerer,
        found.identity(),
        output,
        probabilities=options.probabilities,
        overwrite=options.overwrite,
        run=work,
    )


def columns_of(model: str | None, options: Options) -> tuple[Columns, str]:
    """Tells the columns of the texts, and their origin: the options, or the run that the model is of."""
    template = next((each for each in options.overrides if each.startswith("data.text=")), None)
    if template is not None and options.text_column is not None:
        raise InputError(f"--text-column {options.text_column}: beside --set {template}; give one of them")
    if options.text_column is not None or model is None:
        return Columns(options.text_column or "text", None, options.text_pair_column), "--text-column"
    data = data_of_run(model)
    if data is None:
        return Columns("text", None, options.text_pair_column), "by default"
    pair = options.text_pair_column or data.text_pair_column
    return Columns(data.text_column, data.text, pair), f"as in the run of {model}"


def data_of_run(model: str) -> Data | None:
    """Reads the settings of the run that a model lies in; None where it lies in no run."""
    scheme, _, path = model.rpartition("://")
    path = PurePosixPath(path) if scheme else Path(path).absolute()
    above = [path, *list(path.parents)[: _UP_TO_THE_RUN - 1]]
    for place in (RunDirectory(f"{scheme}://{each}" if scheme else each) for each in above if each.name):
        if place.has_file("config.yaml") and place.has_file("prepare/stage.json"):
            where = str(place.location / "config.yaml")
            tree = read_yaml((place.location / "config.yaml").read_bytes().decode("utf-8"), where=f"{where}: ")
            return parse_config(tree, where).data
    return None


def in_options(message: str, said_by: str) -> str:
    """Rewords an error of the readers for the options of this command."""
    for setting, option in (
        ("expected at least one row of each label", "expected at least one row"),
        ("set data.text_column to one of them", "name one of them with --text-column"),
        ("set data.text_pair_column to one of them", "name one of them with --text-pair-column"),
        ("(data.text_column)", f"({said_by})"),
        ("(data.text)", f"({said_by})"),
        ("(data.text_pair_column)", "(--text-pair-column)"),
        ("(data.label_column)", "(carried through)"),
        ("data.source", "--input"),
    ):
        message = message.replace(setting, option)
    message = re.sub(r"\bwrite data\.text_column: (\S+)", r"give --text-column \1", message)
    message = re.sub(r"(?<!--set )(?<![\w.])data\.text_column\b", "--text-column", message)
    message = re.sub(r"(?<!-)\bset (data\.\w+): (\S+(?<![,;.]))", r"give --set '\1=\2'", message)
    message = re.sub(r"(?<!-)\bset (data\.\w+)\b(?!=)", r"set \1 (--set \1=VALUE)", message)
    message = re.sub(r"\bdata\.columns: (\[[^\]]*\])", r"--set 'data.columns=\1'", message)
    message = re.sub(r"such as: SELECT .* FROM (.+) ORDER BY 1", r"such as: SELECT * FROM \1", message)
    if one := re.search(r"columns in the file: ('[^']*'); ", message):  # which may be a text, and not a header
        message += f"; or, if {one[1]} is a text, give --set 'data.columns=[text]'"
    return message


def _check_pairs(answerer: Answerer, columns: Columns) -> None:
    if answerer.pairs and columns.text_pair_column is None:
        raise InputError(f"{answerer.name}: a model of text pairs; name the second column with --text-pair-column")
    if not answerer.pairs and columns.text_pair_column is not None:
        raise InputError(
            f"--text-pair-column {columns.text_pair_column}: {answerer.name} takes single texts; leave it out"
        )


def _stream(source: Input, answerer: Answerer, output: Path | None, options: Options) -> None:
    """Writes the answered rows of files to standard output: as JSON Lines, or a table of labels and texts."""
    if output is None:
        print_answers(_shown(source, answerer), None)
        return
    layout = scoring.layout_of(source, answerer, Path("rows.jsonl"), options.probabilities)
    with open(sys.stdout.fileno() if str(output) == "-" else output, "wb", closefd=str(output) != "-") as file:
        for _, part in scoring.parts_of(source, answerer, layout):
            _say(part.rejections)
            file.write(part.content)
            file.flush()


def _shown(source: Input, answerer: Answerer) -> Iterator[dict[str, Any]]:
    for _, rows, answers in scoring.answered(source, answerer):
        _say(rows.rejections)
        for text, answer in zip(rows.texts, answers_of(answerer, answers), strict=True):
            yield {"text": text} | answer


def _say(rejections: list[Rejection]) -> None:
    for each in rejections:
        say(f"warning: {each.name}, {each.unit} {each.line}: not answered: {each.reason}")
