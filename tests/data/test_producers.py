"""Files as their producers write them: an example of each, which `docs/data.md` lists."""

from collections import Counter

import datasets
import pytest
import yaml
from data.producers.table import COMMAND, DOCUMENT, EXAMPLES, document, settings_of

from tfpipe.config.data import SPLITS
from tfpipe.config.file import parse_config
from tfpipe.data import readers
from tfpipe.data.files.sources import source_files
from tfpipe.data.labels.survey import announce_first, before_reading
from tfpipe.data.rows import read_rows
from tfpipe.errors import InputError


def read(example, folder):
    """Rows of each block and the labels, as `prepare` finds them."""
    data = {"source": example.source_below(folder), **example.settings}
    tree = {"name": "x", "task": example.task, "data": data, "encoder": {"source": "x"}}
    config = parse_config(tree, where="test")
    files = source_files(config.data)
    form, labels = before_reading(config, files)
    found = [read_rows(block, config, form, labels) for file in files for block in readers.blocks(file, config.data)]
    counts = Counter(value for rows in found for values in rows.labels for value in values)
    return found, announce_first(counts, form, labels, files, config) if counts else None


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.id)
def test_producer(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    example.write(tmp_path / "files")
    capsys.readouterr()  # what the writers print
    if example.refused is not None:
        with pytest.raises(InputError) as caught:
            read(example, tmp_path / "files")
        assert example.refused in str(caught.value) and "\n" not in str(caught.value)
        return
    found, labels = read(example, tmp_path / "files")
    said = " ".join(capsys.readouterr().err.split())
    read_as = []
    for rows in found:
        for text, pair, values in zip(rows.texts, rows.text_pairs or [None] * len(rows), rows.labels, strict=True):
            names = [labels.names[index] for value in values for index in labels.of((value,))]
            read_as.append((text if pair is None else (text, pair), *names))
    assert read_as == example.rows
    reasons = [rejection.reason for rows in found for rejection in rows.rejections]
    assert len(reasons) == example.rejected, reasons
    assert sum(rows.unlabeled for rows in found) == example.unlabeled
    assert example.names in (None, labels and labels.names)
    splits = tuple(None if split == -1 else SPLITS[split] for rows in found for split in rows.given)
    assert splits == (example.splits or (None,) * len(read_as))
    assert (example.says or "") in said


def test_the_document_is_what_the_examples_and_the_settings_give():
    written = DOCUMENT.read_text(encoding="utf-8")
    assert written == document(written), f"docs/data.md differs from the examples; write it anew with: {COMMAND}"


def test_settings_are_shown_as_a_configuration_has_them():
    for example in EXAMPLES:
        shown = [
            yaml.safe_load(f"{{{setting}}}") for setting in settings_of(example).strip("`").split("`, `") if setting
        ]
        expected = {} if example.refused else example.settings
        assert {
            name: value for each in shown for name, value in each.items() if name not in ("task", "source")
        } == expected


def test_each_example_has_a_name_of_its_own():
    assert [name for name, count in Counter(example.id for example in EXAMPLES).items() if count > 1] == []
