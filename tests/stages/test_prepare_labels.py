"""Labels from end to end: classes that files declare, rows and splits without a label, labels that train lacks."""

import itertools
import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from data.preparing import SPLITS, film_rows, read_json, rows_of

from tfpipe.errors import InputError

SETTINGS = {"duplicates": {"near": False}}
_numbers = itertools.count()


@pytest.fixture
def prepare(prepared):
    """A function that prepares rows, or the file that `source` names, without near duplicates, as often as asked."""
    return lambda rows=(), **settings: prepared(rows, name=f"prepare{next(_numbers)}", **SETTINGS | settings)


def class_label(names):
    """What Hugging Face datasets 5.0 writes into the schema of a file with a ClassLabel."""
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": list(names), "_type": "ClassLabel"},
    }
    return {"huggingface": json.dumps({"info": {"features": features}})}


def write_parquet(path, rows, names=("neg", "pos")):
    columns = {"text": [text for text, _ in rows], "label": pa.array([label for _, label in rows], pa.int64())}
    parquet.write_table(pa.table(columns).replace_schema_metadata(names and class_label(names)), path)
    return str(path)


def labels_of(directory):
    """Text -> label vector, of all splits."""
    return {row[2]: row[4] for split in SPLITS for row in rows_of(directory, split)}


def numbered(first, last):
    return [(f"film {n} is {'good' if n % 2 else 'bad'}", n % 2) for n in range(first, last)]


def test_parquet_of_a_hub_has_names_in_their_order(prepare, tmp_path):
    path = write_parquet(tmp_path / "x.parquet", numbered(0, 100) + [("not labeled", -1)] * 3, ("pos", "neg"))
    directory, printed = prepare(source=path)
    assert read_json(directory / "labels.json")["names"] == ["pos", "neg"]
    assert "3 without a label, 0 rejected" in printed
    assert read_json(directory / "statistics.json")["unlabeled"] == 3
    found = labels_of(directory)
    assert found["film 1 is good"] == [0, 1]


def test_a_declared_class_without_a_row_is_left_out(prepare, tmp_path):
    path = write_parquet(tmp_path / "x.parquet", numbered(0, 100), ("neg", "pos", "neutral"))
    directory, printed = prepare(source=path)
    assert read_json(directory / "labels.json")["names"] == ["neg", "pos"]
    assert "no row has neutral, which the files declare; left out" in printed


def test_files_that_declare_other_classes(prepare, tmp_path):
    first = write_parquet(tmp_path / "a.parquet", numbered(0, 50), ("neg", "pos"))
    second = write_parquet(tmp_path / "b.parquet", numbered(50, 100), ("pos", "neg"))
    message = r"b.parquet: column 'label' has the classes pos, neg, and in .*a.parquet neg, pos; set data.label_names"
    with pytest.raises(InputError, match=message):
        prepare(source=[first, second])
    names = {"neg": "bad", "pos": "good"}
    directory, _ = prepare(source=[first, second], label_names=names)
    found = labels_of(directory)
    assert found["film 0 is bad"] == [1, 0] and found["film 50 is bad"] == [0, 1]  # by name, not by number


def test_a_class_outside_the_declared_ones(prepare, tmp_path):
    path = write_parquet(tmp_path / "x.parquet", [("a", 0), ("b", 2)])
    with pytest.raises(InputError, match=r"x.parquet: class 2 in a column that declares 2 classes, from 0 on"):
        prepare(source=path)


@pytest.mark.parametrize("names", [("neg", "pos"), None])
def test_a_split_without_labels_is_named(prepare, tmp_path, names):
    splits = {"train": numbered(0, 60), "validation": numbered(60, 80), "test": [(f"text {n}", -1) for n in range(20)]}
    source = {split: write_parquet(tmp_path / f"{split}.parquet", rows, names) for split, rows in splits.items()}
    with pytest.raises(InputError) as caught:
        prepare(source=source)
    message = str(caught.value)
    if names is None:
        assert "test has rows of labels that no row of train has: '-1' (20); set data.missing: ['-1']" in message
        with pytest.raises(InputError) as caught:
            prepare(source=source, missing=["-1"])
        message = str(caught.value)
    kept = ", ".join(f'{split}: "{source[split]}"' for split in SPLITS[:2])
    assert "none of the 20 rows of test has a label; leave test out with data.source: {" + kept + "}" in message
    directory, _ = prepare(source={split: source[split] for split in SPLITS[:2]})
    assert all(rows_of(directory, split) for split in SPLITS)


def test_a_split_of_a_column_without_labels(prepare):
    rows = [(*row, ("train", "dev", "test")[n % 3]) for n, row in enumerate(film_rows(120))]
    rows = [(text, "" if split == "test" else label, split) for text, label, split in rows]
    content = "text,label,part\n" + "".join(f"{','.join(row)}\n" for row in rows)
    message = r"leave test out with data.filter: {part: \[train, validation\]}, in the words of that column"
    with pytest.raises(InputError, match=message):
        prepare(content.encode(), split={"column": "part"}, max_rejected_fraction=0.5)


def test_a_label_that_train_lacks_is_refused(prepare, tmp_path):
    def write(name, rows):
        path = tmp_path / f"{name}.csv"
        path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
        return str(path)

    rows = film_rows(120)
    source = {"train": write("train", rows[:100]), "test": write("test", [*rows[100:], ("new", "2"), ("newer", "2")])}
    message = r"test has rows of labels that no row of train has: '2' \(2\); correct the data or its splits, or set"
    with pytest.raises(InputError, match=message):
        prepare(source=source)
    directory, printed = prepare(source=source, untrained_labels="keep")
    assert read_json(directory / "labels.json")["names"] == ["0", "1", "2"]
    assert "warning: train has no row of label 2" in printed


def test_a_rare_label_that_falls_to_a_held_out_split(prepare):
    def rows(n):
        return [*film_rows(60), (f"something else {n}", "2")]

    def outcome(n):
        try:
            directory, _ = prepare(rows(n))
        except InputError as error:
            assert "no row of train has: '2' (1); add rows of these labels, set data.split.stratified: true" in str(
                error
            )
            return "refused"
        assert read_json(directory / "statistics.json")["rows_per_label"]["train"]["2"] == 1
        return "trained"

    assert {outcome(n) for n in range(12)} == {"refused", "trained"}


def test_folds_are_not_advised_to_be_stratified(prepare):
    rows = [*film_rows(60), ("something else", "2")]
    refused = set()
    for fold in range(3):
        try:
            prepare(rows, split={"folds": 3, "fold": fold})
        except InputError as error:
            refused.add(str(error).partition("(1); ")[2])
    assert refused == {"add rows of these labels, or set data.untrained_labels: keep"}


def test_spellings_of_one_label_across_files(prepare, tmp_path):
    rows = film_rows(200)
    paths = [tmp_path / "a.csv", tmp_path / "b.jsonl"]
    paths[0].write_text("text,label\n" + "".join(f"{text},{label}.0\n" for text, label in rows[:100]))
    paths[1].write_text("".join(json.dumps({"text": text, "label": int(label)}) + "\n" for text, label in rows[100:]))
    settings = {"source": list(map(str, paths)), "split": {"stratified": True}}
    directory, _ = prepare(**settings)
    assert read_json(directory / "labels.json")["names"] == ["0", "1"]
    labels = read_json(directory / "statistics.json")["rows_per_label"]
    assert labels["validation"] == labels["test"] == {"0": 10, "1": 10}  # stratified over all spellings


def test_columns_of_zeros_and_ones(prepare):
    content = "text,toxic,insult\n" + "".join(f"text {n},{n % 2},{n // 2 % 2}\n" for n in range(100))
    content += "not judged,-1,-1\n"
    settings = {"task": "multi_label", "label_column": ["toxic", "insult"], "max_rejected_fraction": 0.1}
    directory, printed = prepare(content.encode(), **settings)
    assert read_json(directory / "labels.json")["names"] == ["toxic", "insult"]
    found = labels_of(directory)
    assert [found[f"text {n}"] for n in range(4)] == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert "1 without a label" in printed


def test_all_rejected_rows_of_one_label_are_said_to_be(prepare):
    with pytest.raises(InputError, match=r"3 × empty text; all of them have the label '1'"):
        prepare([*film_rows(20), *[("", "1")] * 3])
    _, printed = prepare([*film_rows(60), *[("", "1")] * 3], max_rejected_fraction=0.5)
    assert "warning: all 3 rejected rows have the label '1'" in printed
