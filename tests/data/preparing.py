"""What is read of prepared data, and rows to prepare."""

import json

import numpy as np

from tfpipe.data.split import assign, borders, digests, positions
from tfpipe.tokens.table import TokenTable

SPLITS = ("train", "validation", "test")


def split_of(text, pair, seed, split):
    position = positions(digests([text], None if pair is None else [pair], seed))
    return SPLITS[assign(position, np.array([-1], np.int8), borders(split, set()), False)[0]]


def film_rows(count=200):
    opinions = [("good", "1"), ("great and warm", "1"), ("bad", "0"), ("awful but funny", "0")]
    return [(f"this film {n} is {opinions[n % 4][0]}", opinions[n % 4][1]) for n in range(count)]


def tables(directory):
    return {split: TokenTable.open(directory / split) for split in SPLITS}


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def files_in(directory):
    """What the stage leaves; the checkpoints go when it is committed."""
    files = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return sorted(file for file in files if file.parts[0] != "checkpoints")


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows_of(directory, split):
    """Every column of a split's table, row by row, in the order of the rows' ids."""
    table = TokenTable.open(directory / split)
    batch = table.batch(np.arange(table.num_rows)[:, None], 64)
    columns = zip(
        table.row_ids.tolist(),
        table.copies.tolist(),
        table.texts(range(table.num_rows)),
        batch["input_ids"].tolist(),
        table.labels.tolist(),
        table.lines.tolist(),
        strict=True,
    )
    return sorted(columns)


def tokens_of(directory, split):
    """The tokens of each row of a split, in the order of the table."""
    table = TokenTable.open(directory / split)
    return [tuple(table.padded(np.array([row]))["input_ids"][0].tolist()) for row in range(table.num_rows)]
