"""Rejected rows: their list, and the error where there are too many."""

from __future__ import annotations

import json
from pathlib import Path

from tfpipe.config.run import Config
from tfpipe.console import say
from tfpipe.data.block import Rejection
from tfpipe.data.files.encodings import not_utf8
from tfpipe.data.files.sniff import TEXT_FORMATS
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.labels.cells import WITHOUT_LABEL
from tfpipe.data.rows import UNDECODABLE
from tfpipe.data.survey import Survey
from tfpipe.errors import InputError

SHOWN = 5
"""reasons and rows in an error; the rest is in rejected.jsonl"""


def rejection_line(rejection: Rejection) -> str:
    """Writes a rejected row as a line of rejected.jsonl."""
    entry = {"file": rejection.name, "line": rejection.line, "reason": rejection.reason, "excerpt": rejection.excerpt}
    entry |= {} if rejection.label is None else {"label": rejection.label}
    return json.dumps(entry, ensure_ascii=False) + "\n"


def shown(rejection: Rejection, several: bool) -> str:
    """Names a rejected row in an error, with its file where there are several."""
    where = f"{rejection.name}, " if several else ""
    return f"{where}{rejection.unit} {rejection.line} {rejection.excerpt!r}"


def check_rejected(
    config: Config, files: list[SourceFile], survey: Survey, first: list[str], rejected_path: Path
) -> None:
    """Checks that few enough rows are rejected; the error suggests settings that may help.

    Raises:
      InputError: there are too many; counts the reasons, and shows the first rows.
    """
    unusable, total = survey.rejected.total(), survey.accepted + survey.rejected.total()
    undecodable = any(reason.startswith(UNDECODABLE) for reason in survey.rejected)
    encoding = not_utf8([file for file in files if file.format in TEXT_FORMATS], config.data) if undecodable else ""
    if unusable > config.data.max_rejected_fraction * total:
        listed = f"{', '.join(first)}{', …' if unusable > SHOWN else ''}"
        reasons = "; ".join(f"{count} × {reason}" for reason, count in survey.rejected.most_common(SHOWN))
        hints = "".join(f"{hint}; " for hint in (*_in_common(survey), encoding) if hint)
        raise InputError(
            f"{config.data.source}: {unusable} of {total} rows ({unusable / total:.1%}) can't be used, more than "
            f"data.max_rejected_fraction ({config.data.max_rejected_fraction:.1%}): {reasons}"
            f"{'; …' if len(survey.rejected) > SHOWN else ''}; {hints}correct the file or the data settings, or raise "
            f"the fraction; first: {listed}; every row is listed in {rejected_path}"
        )
    if encoding:
        say(f"  some rows are not UTF-8 and are left out: {encoding}")
    if unusable > 1 and (label := _only_label(survey)) is not None:
        say(f"warning: all {unusable:,} rejected rows have the label {label!r} (rejected.jsonl)")


def _only_label(survey: Survey) -> str | None:
    """Returns the label that all rejected rows have; None where they have several, or where a label is unknown."""
    return next(iter(survey.rejected_labels)) if len(survey.rejected_labels) == 1 else None


def _in_common(survey: Survey) -> list[str]:
    """Describes the property that all rejected rows share, and a setting that may help."""
    found = []
    if (label := _only_label(survey)) is not None:
        found.append(f"all of them have the label {label!r}")
    if any(survey.rejected[reason] for reason in WITHOUT_LABEL):
        found.append("data.missing: [''] leaves rows out that have no label")
    return found
