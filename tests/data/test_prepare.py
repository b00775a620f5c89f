import csv
import json

import numpy as np
import pytest

from tfpipe.config import Split
from tfpipe.config_file import parse_config
from tfpipe.data import prepare
from tfpipe.data.split import split_of
from tfpipe.data.token_table import TokenTable
from tfpipe.data.tokenizer import Tokenizer
from tfpipe.data.tokenizer_settings import TokenizerSettings
from tfpipe.errors import InputError
from tfpipe.rundir import StageDirectory, sha256_of_file

SPLITS = ("train", "validation", "test")


def film_rows(count=200):
    opinions = [("good", "1"), ("great and warm", "1"), ("bad", "0"), ("awful but funny", "0")]
    return [(f"this film {n} is {opinions[n % 4][0]}", opinions[n % 4][1]) for n in range(count)]


@pytest.fixture
def prepared(tmp_path, tiny_encoder, capsys):
    """A function that prepares rows and returns the stage's directory and what was printed."""

    def run(rows, columns=("text", "label"), name="prepare", task="single_label", seed=0, **data):
        path = tmp_path / "rows.csv"
        if isinstance(rows, bytes):
            path.write_bytes(rows)
        else:
            with open(path, "w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([columns, *rows])
        settings = {"source": str(path), "max_length": 32} | data
        tree = {"name": "x", "task": task, "seed": seed, "data": settings, "encoder": {"source": str(tiny_encoder)}}
        stage = StageDirectory("prepare", tmp_path / name, {})
        stage.path.mkdir()
        prepare.run(parse_config(tree, where="test"), stage)
        return stage.path, capsys.readouterr().err

    return run


def tables(directory):
    return {split: TokenTable.open(directory / split) for split in SPLITS}


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_row_is_in_its_split_with_its_tokens_and_its_line(prepared, tiny_encoder):
    rows = film_rows()
    directory, printed = prepared(rows, label_names={"1": "positive", "0": "negative"})
    found = {}
    tokenizer = Tokenizer(TokenizerSettings.read(tiny_encoder), 32)
    for split, table in tables(directory).items():
        assert table.num_rows > 0 and table.num_labels == 2
        texts = table.texts(range(table.num_rows))
        expected, _ = tokenizer.encode(np.array(texts))
        batch = table.batch(np.arange(table.num_rows)[:, None], 32)
        for n, text in enumerate(texts):
            row_id = int(table.row_ids[n])
            assert rows[row_id][0] == text and table.lines[n] == row_id + 2
            assert split_of(text, None, 0, Split()) == split
            assert batch["input_ids"][n, : table.lengths[n]].tolist() == expected[n].numpy().tolist()
            assert batch["labels"][n, 0].tolist() == ([1, 0] if rows[row_id][1] == "1" else [0, 1])
            found[row_id] = split
    assert sorted(found) == list(range(len(rows)))
    assert read_json(directory / "labels.json") == {"names": ["positive", "negative"], "task": "single_label"}
    assert TokenizerSettings.read(directory / "tokenizer") == TokenizerSettings.read(tiny_encoder)
    assert (directory / "rejected.jsonl").read_text() == ""
    counts = read_json(directory / "statistics.json")["rows"]
    assert f"rows: train {counts['train']}, validation {counts['validation']}, test {counts['test']};" in printed


def test_statistics_add_up(prepared, tiny_encoder):
    rows = [(*row, "x" if n % 2 else "y") for n, row in enumerate(film_rows(300))]
    directory, _ = prepared(rows, ("text", "label", "origin"), filter={"origin": "x"})
    statistics = read_json(directory / "statistics.json")
    assert sum(statistics["rows"].values()) == statistics["filtered"] == 150
    assert statistics["rejected"] == {}
    for split, table in tables(directory).items():
        assert statistics["rows"][split] == table.num_rows == sum(statistics["rows_per_label"][split].values())
        summary = statistics["tokens_per_row"][split]
        assert summary["max"] == table.lengths.max() and summary["p50"] <= summary["p90"] <= summary["p99"]
    assert statistics["cut"] == {"rows": 0, "row_fraction": 0, "token_fraction": 0}


def test_output_is_the_same_bytes_again_and_names_no_directory_of_the_run(prepared, tmp_path):
    rows = film_rows()
    first, _ = prepared(rows, name="first")
    second, _ = prepared(rows, name="second")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert len(files) == 9
    for file in files:
        assert sha256_of_file(first / file) == sha256_of_file(second / file), file
        assert str(first).encode() not in (first / file).read_bytes()


def test_duplicates_and_conflicts(prepared):
    rows = film_rows()
    texts = {split: next(row for row in rows if split_of(row[0], None, 0, Split()) == split) for split in SPLITS}
    more = [
        texts["train"],
        texts["train"],
        texts["test"],
        (texts["train"][0], "0" if texts["train"][1] == "1" else "1"),
    ]
    directory, printed = prepared(rows + more)
    statistics = read_json(directory / "statistics.json")
    assert statistics["duplicates"] == {
        "texts_that_repeat": 2,
        "texts_with_different_labels": 1,
        "rows_dropped_from_train": 2,
    }
    found = tables(directory)
    repeated = found["train"].texts(range(found["train"].num_rows)).count(texts["train"][0])
    assert repeated == 2  # once with each label
    assert found["test"].texts(range(found["test"].num_rows)).count(texts["test"][0]) == 2
    row_ids = np.concatenate([table.row_ids for table in found.values()])
    assert sorted(row_ids) == [*range(200), 202, 203]  # of identical rows, the first
    assert "2 duplicates dropped from train" in printed
    assert "warning: 1 texts occur with different labels" in printed


def test_rejected_rows_are_listed(prepared):
    rows = film_rows()
    content = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
    bad = b"caf\xe9,1\n,1\nno such label,7\nx,1,1\n"
    names = {"0": "negative", "1": "positive"}
    directory, printed = prepared(content.encode() + bad, max_rejected_fraction=0.02, label_names=names)
    listed = [json.loads(line) for line in (directory / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    source = read_json(directory / "statistics.json")["source"]
    assert listed == [
        {
            "file": source,
            "line": 202,
            "reason": "undecodable bytes in the text (not UTF-8)",
            "excerpt": r"caf\xe9",
        },
        {"file": source, "line": 203, "reason": "empty text", "excerpt": ""},
        {
            "file": source,
            "line": 204,
            "reason": "unknown label '7' (expected one of 0, 1)",
            "excerpt": "no such label",
        },
        {"file": source, "line": 205, "reason": "wrong number of columns (3, expected 2)", "excerpt": "x,1,1"},
    ]
    assert sum(read_json(directory / "statistics.json")["rejected"].values()) == 4
    assert sum(read_json(directory / "statistics.json")["rows"].values()) == 200
    assert "4 rejected" in printed


def test_too_many_rejected_rows(prepared, tmp_path):
    rows = [*film_rows(90), *[("", "1")] * 8, *[("good", "")] * 2]
    with pytest.raises(InputError) as caught:
        prepared(rows, max_rejected_fraction=0.05)
    message = str(caught.value)
    assert "rows.csv: 10 of 100 rows (10.0%) can't be used, more than data.max_rejected_fraction (5.0%)" in message
    assert "8 × empty text; 2 × empty label; first: line 92 ''" in message
    assert f"every row is listed in {tmp_path / 'prepare' / 'rejected.jsonl'}" in message and "\n" not in message
    assert len((tmp_path / "prepare" / "rejected.jsonl").read_text().splitlines()) == 10


def test_an_empty_split(prepared):
    with pytest.raises(InputError, match=r"none of the 4 usable rows falls into .* add rows or raise its share"):
        prepared(film_rows(4))


def test_one_label(prepared):
    with pytest.raises(InputError, match=r"holds only the label '1' .* needs at least two"):
        prepared([(text, "1") for text, _ in film_rows()])


def test_max_length_beyond_the_encoder(prepared):
    with pytest.raises(InputError, match=r"data.max_length is 65, but .* has 64 positions; set data.max_length to 64"):
        prepared(film_rows(), max_length=65)


def test_a_label_that_a_split_lacks_is_warned_about(prepared):
    rows = film_rows()
    rare = next(row[0] for row in rows if split_of(row[0], None, 0, Split()) == "train")
    rows = [(text, "rare" if text == rare else label) for text, label in rows]
    _, printed = prepared(rows)
    assert "warning: validation has no row of label rare" in printed
    assert "warning: test has no row of label rare" in printed and "train has no row" not in printed


def test_cut_and_unknown_tokens_are_counted(prepared):
    rows = [
        (text + " very" * 20 if n % 4 == 0 else text + " é中", label) for n, (text, label) in enumerate(film_rows())
    ]
    directory, printed = prepared(rows, max_length=16)
    statistics = read_json(directory / "statistics.json")
    assert statistics["cut"]["rows"] == 50 and statistics["cut"]["row_fraction"] == 0.25
    found = tables(directory)
    assert max(table.lengths.max() for table in found.values()) == 16
    written = sum(int(table.lengths.sum()) for table in found.values())
    whole, _ = prepared(rows, name="whole", max_length=64)
    total = sum(int(table.lengths.sum()) for table in tables(whole).values())
    assert statistics["cut"]["token_fraction"] == pytest.approx(1 - written / total, abs=1e-6)
    assert statistics["unknown_token_fraction"] == pytest.approx(150 / written, abs=1e-6)
    assert "warning: 25.0% of the rows are longer than data.max_length" in printed


def test_pairs(prepared):
    rows = [(text, "the plot", label) for text, label in film_rows()]
    rows[0] = ("very " * 40, "the plot", "1")
    directory, _ = prepared(rows, ("text", "about", "label"), text_pair_column="about")
    table = tables(directory)["train"]
    assert table.text_pairs([0, 1]) == ["the plot", "the plot"]
    batch = table.batch(np.arange(table.num_rows)[:, None], 32)
    for n, length in enumerate(table.lengths):
        assert batch["token_type_ids"][n, :length].tolist() == [0] * (length - 3) + [1] * 3  # the, plot, [SEP]
    assert read_json(directory / "statistics.json")["cut"]["rows"] == 1


def test_multi_label(prepared):
    cells = ["", "drama", "comedy|drama", "comedy"]
    rows = [(text, cells[n % 4]) for n, (text, _) in enumerate(film_rows())]
    directory, _ = prepared(rows, task="multi_label")
    assert read_json(directory / "labels.json") == {"names": ["comedy", "drama"], "task": "multi_label"}
    vectors = {"": [0, 0], "drama": [0, 1], "comedy|drama": [1, 1], "comedy": [1, 0]}
    for table in tables(directory).values():
        for n, row_id in enumerate(table.row_ids):
            assert table.labels[n].tolist() == vectors[cells[row_id % 4]]


def test_more_rows_than_one_call_of_the_tokenizer(prepared, monkeypatch):
    one, _ = prepared(film_rows(), name="one")
    monkeypatch.setattr(prepare, "ROWS_PER_CALL", 7)
    many, _ = prepared(film_rows(), name="many")
    for split in SPLITS:
        assert sha256_of_file(one / split / "part-00000.arrow") == sha256_of_file(many / split / "part-00000.arrow")


def test_the_seed_moves_rows(prepared):
    first, _ = prepared(film_rows(), name="first")
    second, _ = prepared(film_rows(), name="second", seed=1)
    assert tables(first)["test"].row_ids.tolist() != tables(second)["test"].row_ids.tolist()
