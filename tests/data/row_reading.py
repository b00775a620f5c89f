"""Reads a file as `prepare` does, block by block."""

from tfpipe.config.file import parse_config
from tfpipe.data import readers
from tfpipe.data.files.sources import source_files
from tfpipe.data.labels.survey import before_reading
from tfpipe.data.rows import read_rows


def rows_of(path, task="single_label", seed=0, **data):
    """Usable rows as (line, text, second text, labels), the others as (line, reason, excerpt), and the filtered.

    Several labels of a row are joined by a vertical line.
    """
    tree = {"name": "x", "task": task, "seed": seed, "data": {"source": path, **data}, "encoder": {"source": "x"}}
    config = parse_config(tree, where="test")
    usable, rejected, filtered = [], [], 0
    files = source_files(config.data)
    form, labels = before_reading(config, files)
    for file in files:
        for block in readers.blocks(file, config.data):
            rows = read_rows(block, config, form, labels)
            pairs = rows.text_pairs or [None] * len(rows)
            usable += zip(rows.lines, rows.texts, pairs, map("|".join, rows.labels), strict=True)
            rejected += [(rejection.line, rejection.reason, rejection.excerpt) for rejection in rows.rejections]
            filtered += rows.filtered
    return usable, rejected, filtered
