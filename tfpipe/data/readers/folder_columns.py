"""Columns that the names of folders give, as `label=pos/part-0.json` does: the same value for each row of a file."""

from __future__ import annotations

from tfpipe.config.data import Data
from tfpipe.config.template import parse_template
from tfpipe.data.block import Cells, Rejection, as_text, excerpt, label_columns, wanted_columns
from tfpipe.data.files.source_file import SourceFile
from tfpipe.errors import InputError


def inside(file: SourceFile, data: Data) -> Data:
    """Returns the settings for the content of a file: without the columns that the names of its folders give.

    Raises:
      InputError: the text column is such a column.
    """
    outside = {name for name, _ in file.columns} - set(file.repeated)
    if not outside & set(wanted_columns(data)):
        return data
    texts = (data.text_column, data.text_pair_column) if data.text is None else parse_template(data.text).columns
    if outside & set(texts):
        raise InputError(
            f"{file.name}: the name of its folder is a column of the text; set data.text_column to another"
        )
    labels = tuple(name for name in label_columns(data) if name not in outside)
    if not labels and (file.tool or file.format == "fasttext"):
        raise InputError(
            f"{file.name}: its folder gives the label, and so do its records; set data.format: json_lines or lines to "
            "take the folder's"
        )
    inside = {name: getattr(data.split, name) for name in ("column", "group_column")}
    inside = {name: None if column in outside else column for name, column in inside.items()}
    return data.model_copy(
        update={
            "label_column": labels or texts[0],
            "split": data.split.model_copy(update=inside),
            "filter": {name: values for name, values in data.filter.items() if name not in outside},
        }
    )


def with_folder_columns(found: Cells, file: SourceFile, data: Data) -> Cells:
    """Adds the columns of the folders; rejects a row of the file that contradicts them."""
    given = {name: value for name, value in file.columns if name in wanted_columns(data)}
    differing: dict[int, str] = {}
    for name in file.repeated:
        for at, cell in enumerate(found.columns[name]):
            if as_text(cell) != as_text(given[name]):
                own, folder = excerpt(as_text(cell)), excerpt(as_text(given[name]))
                differing.setdefault(at, f"column {name!r} holds {own!r}, and the name of its folder says {folder!r}")
    if differing:
        kept = [at for at in range(len(found.numbers)) if at not in differing]
        found.rejections += [
            Rejection(file.name, found.numbers[at], reason, "", found.unit) for at, reason in differing.items()
        ]
        found.columns = {name: [cells[at] for at in kept] for name, cells in found.columns.items()}
        found.numbers = [found.numbers[at] for at in kept]
    found.columns |= {name: [value] * len(found.numbers) for name, value in given.items()}
    return found
