"""`tfpipe inspect`: the data as `prepare` would read them, before there is a configuration.

Enters: data as `data.source` names it. Leaves: only its print on standard output: the files and their format, the
columns with examples, the labels, the rows that can't be used, and the settings to start with. It reads the first rows
of some files, by the same readers as `prepare`.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

import rich.box
import yaml
from rich.console import Console
from rich.table import Table

from tfpipe.config.file import config_of
from tfpipe.config.run import Config
from tfpipe.data import readers
from tfpipe.data.block import NoRows
from tfpipe.data.columns import Column, columns_of, label_column_of, text_column_of
from tfpipe.data.files.encodings import not_utf8
from tfpipe.data.files.sniff import TEXT_FORMATS
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.sources import size_bytes, source_files
from tfpipe.data.labels.survey import announce_first, before_reading
from tfpipe.data.rows import UNDECODABLE, read_rows
from tfpipe.errors import InputError
from tfpipe.escaping import printable, without_commands
from tfpipe.tasks import TASKS

_FILES, _ROWS = 8, 20_000  # that are read, about
_LABELS, _REASONS = 20, 5  # that are shown


def run(source: list[str], overrides: list[str], *, as_json: bool = False) -> None:
    """Inspects data.

    Args:
      source: as `data.source` has it.
      overrides: `data.a=VALUE`.
      as_json: an object instead of tables.

    Raises:
      InputError: there are no data, or none that can be read.
    """
    if wrong := next((each for each in overrides if not each.startswith("data.")), None):
        raise InputError(f"--set {wrong}: expected a setting of data, such as data.separator=';'")
    given: dict[str, Any] = {"source": source[0] if len(source) == 1 else source}
    tree = {"name": "inspect", "data": given, "encoder": {"source": "none"}}
    config = config_of(tree, overrides, where="inspect")  # puts the overrides into `given`
    files = source_files(config.data)
    columns = _first_columns(files, config)
    chosen = _chosen(columns, {override.partition("=")[0] for override in overrides})
    found: dict[str, Any] = {
        "files": [file.name for file in files[:_FILES]],
        "count": len(files),
        "format": files[0].tool or files[0].format,
        "size_bytes": _size(files),
        "columns": [asdict(column) for column in columns],
        "settings": chosen,
    }
    found |= _first_rows(files, _with(config, chosen))
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print(found)
        _print_settings(given, found["settings"])


def _first_columns(files: list[SourceFile], config: Config) -> list[Column]:
    """Returns the columns of the first rows of some files."""
    names = _names(files, config)
    everything = config.data.model_copy(
        update={"text_column": names[0], "label_column": tuple(names[1:]) or names[0], "text": None, "filter": {}}
    )
    cells: dict[str, list[Any]] = {name: [] for name in names}
    for file in files[:: max(1, len(files) // _FILES)]:
        block = next(iter(readers.blocks(file, everything)), None)
        read = {} if block is None else readers.cells(block, everything).columns
        for name in names:
            cells[name] += read.get(name, ())
        if len(cells[names[0]]) >= _ROWS:
            break
    return columns_of(cells)


def _names(files: list[SourceFile], config: Config) -> list[str]:
    """Lists the columns of the first file that has a row.

    Raises:
      InputError: no file has a row, or its columns have no names.
    """
    for file in files:
        try:
            names = readers.columns(file, config.data)
        except NoRows as error:
            nothing = error
            continue
        if not names:
            advice = "set data.columns" if file.format in ("csv", "tsv") else "expected records with fields"
            raise InputError(f"{file.name}: no column has a name; {advice}")
        return names
    raise nothing


def _chosen(columns: list[Column], given: set[str]) -> dict[str, Any]:
    """Returns the settings to start with, without those that are given: columns of text and label, and the task."""
    text, (label, several) = text_column_of(columns), label_column_of(columns)
    chosen: dict[str, Any] = {}
    if text is not None and not given & {"data.text_column", "data.text"}:
        chosen["text_column"] = text
    if label is not None and "data.label_column" not in given:
        chosen["label_column"] = label
    task = next(name for name, task in TASKS.items() if task.one_label != several)
    return {"task": task, "data": chosen}


def _with(config: Config, chosen: dict[str, Any]) -> Config:
    data = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen["data"].items()}
    return config.model_copy(update={"task": chosen["task"], "data": config.data.model_copy(update=data)})


def _first_rows(files: list[SourceFile], config: Config) -> dict[str, Any]:
    """Reads the first rows as `prepare` does: labels, unusable rows, and the error that would end it."""
    found: dict[str, Any] = {"rows": 0, "labels": {}, "unlabeled": 0, "rejected": {}, "problem": None}
    rejected, values = Counter(), Counter()
    try:
        form, labels = before_reading(config, files)
        for file in files[:: max(1, len(files) // _FILES)]:
            for block in readers.blocks(file, config.data):
                rows = read_rows(block, config, form, labels)
                found["rows"] += len(rows)
                found["unlabeled"] += rows.unlabeled
                rejected.update(rejection.reason for rejection in rows.rejections)
                values.update(value for each in rows.labels for value in each)
                break
            if found["rows"] >= _ROWS:
                break
        found["rejected"] = dict(rejected.most_common(_REASONS))
        found["problem"] = _too_many_rejected(found["rows"], rejected, files, config)
        labels = announce_first(values, form, labels, files, config)
        counts = Counter()
        for value, rows_of_it in values.items():
            counts[labels.names[labels.of((value,))[0]]] += rows_of_it
        found["labels"] = {name: counts[name] for name in labels.names}
    except InputError as error:
        found["problem"] = found["problem"] or str(error)
    return found


def _too_many_rejected(rows: int, rejected: Counter[str], files: list[SourceFile], config: Config) -> str | None:
    """Explains that too many of the first rows are rejected; None where they are few."""
    unusable, most = rejected.total(), config.data.max_rejected_fraction
    if unusable <= most * (rows + unusable):
        return None
    undecodable = any(reason.startswith(UNDECODABLE) for reason in rejected)
    encoding = not_utf8([file for file in files if file.format in TEXT_FORMATS], config.data) if undecodable else ""
    return (
        f"{unusable:,} of the first {rows + unusable:,} rows can't be used, more than data.max_rejected_fraction "
        f"({most:.1%}); {encoding or 'correct the file or the data settings'}"
    )


def _size(files: list[SourceFile]) -> int | None:
    sizes = [size_bytes(file) for file in files]
    return None if None in sizes else sum(sizes)


def _print(found: dict[str, Any]) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    more = f" and {found['count'] - 1:,} more" if found["count"] > 1 else ""
    size = "" if found["size_bytes"] is None else f", {found['size_bytes'] / 1e6:,.1f} MB"
    print(printable(f"{found['files'][0]}{more}: {found['format']}{size}"))
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for heading, options in {"column": {}, "values": {"justify": "right"}, "empty": {"justify": "right"}}.items():
        table.add_column(heading, overflow="fold", **options)
    table.add_column("examples", overflow="fold")
    for column in found["columns"]:
        values = f"{column['distinct']:,}", f"{column['empty']:,}", " · ".join(column["examples"])
        table.add_row(printable(column["name"]), *map(printable, values))
    console.print(table)
    names = list(found["labels"])
    if names:
        listed = ", ".join(f"{name} {found['labels'][name]:,}" for name in names[:_LABELS])
        more = f", … ({len(names):,} in all)" if len(names) > _LABELS else ""
        print(printable(f"labels of the first {found['rows']:,} rows, in their order: {listed}{more}"))
    if found["unlabeled"]:
        print(f"rows without a label, left out: {found['unlabeled']:,}")
    for reason, count in found["rejected"].items():
        print(printable(f"rejected: {count:,} × {reason}"))
    if found["problem"]:
        print(printable(f"prepare would stop: {found['problem']}"))


def _print_settings(given: dict[str, Any], chosen: dict[str, Any]) -> None:
    task = {} if chosen["task"] == next(iter(TASKS)) else {"task": chosen["task"]}
    start = task | {"data": given | chosen["data"]}
    print("\nto start with:")
    for line in yaml.safe_dump(start, sort_keys=False, allow_unicode=True).splitlines():
        print(without_commands(line))
