import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data.preparing import SPLITS, files_in, film_rows, read_json, read_lines, rows_of, split_of, tables

from tfpipe import pipeline
from tfpipe.config.data import Data
from tfpipe.config.file import parse_config
from tfpipe.config.rows import Split
from tfpipe.data import block as block_module
from tfpipe.data.files.source_file import SourceFile
from tfpipe.data.files.sources import identity
from tfpipe.errors import InputError
from tfpipe.files import sha256_of_file
from tfpipe.rundir.directory import RunDirectory
from tfpipe.rundir.stage import StageDirectory
from tfpipe.stages import prepare
from tfpipe.tokens.table import TokenTable
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings


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
            row_id -= 2  # its line is its number; the header is line 1
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
    files, again = files_in(first), files_in(second)
    assert files == again
    assert len(files) == 16
    for file in files:
        assert sha256_of_file(first / file) == sha256_of_file(second / file), file
        assert str(first).encode() not in (first / file).read_bytes()


def test_duplicates_and_conflicts(prepared, tmp_path):
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
        "identical_rows_dropped_from_train": 2,
        "rows_with_a_held_out_twin": 0,
        "rows_near_a_held_out_one": 0,
        "across_splits": "remove",
    }
    found = tables(directory)
    repeated = found["train"].texts(range(found["train"].num_rows)).count(texts["train"][0])
    assert repeated == 2  # once with each label
    assert found["test"].texts(range(found["test"].num_rows)).count(texts["test"][0]) == 2
    row_ids = np.concatenate([table.row_ids for table in found.values()])
    assert sorted(row_ids - 2) == [*range(200), 202, 203]  # of identical rows, the first
    assert (
        "duplicates: 2 repeated training rows removed; 0 exact and 0 near duplicates of held-out rows removed"
        in printed
    )
    first = rows.index(texts["train"]) + 2
    source = str(tmp_path / "rows.csv")
    assert read_lines(directory / "duplicates.jsonl") == [
        {
            "file": source,
            "line": line,
            "reason": "same tokens and label as an earlier training row",
            "other": {"file": source, "line": first},
            "removed": True,
        }
        for line in (202, 203)
    ]
    assert read_lines(directory / "conflicting_labels.jsonl") == [
        {"rows": [{"file": source, "line": line} for line in (first, 202, 203, 205)]}
    ]
    assert "warning: 1 texts occur with different labels" in printed


def test_rejected_rows_are_listed(prepared, tmp_path):
    rows = film_rows()
    content = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
    bad = b"caf\xe9,1\n,1\nno such label,7\nx,1,1\n"
    names = {"0": "negative", "1": "positive"}
    directory, printed = prepared(content.encode() + bad, max_rejected_fraction=0.02, label_names=names)
    listed = [json.loads(line) for line in (directory / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    source = str(tmp_path / "rows.csv")
    assert listed == [
        {
            "file": source,
            "line": 202,
            "reason": "undecodable bytes in the text (not UTF-8)",
            "excerpt": r"caf\xe9",
            "label": "1",
        },
        {"file": source, "line": 203, "reason": "empty text", "excerpt": "", "label": "1"},
        {
            "file": source,
            "line": 204,
            "reason": "unknown label '7' (expected one of 0, 1)",
            "excerpt": "no such label",
            "label": "7",
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
    assert "8 × empty text; 2 × empty label; data.missing: [''] leaves rows out that have no label; correct" in message
    assert "raise the fraction; first: line 92 ''" in message
    assert f"every row is listed in {tmp_path / 'prepare' / 'rejected.jsonl'}" in message and "\n" not in message
    assert len((tmp_path / "prepare" / "rejected.jsonl").read_text().splitlines()) == 10


def test_the_encoding_of_rejected_rows_is_guessed(prepared):
    content = "text,label\n" + "".join(f"{text} £5,{label}\n" for text, label in film_rows(100))
    hint = "it looks like cp1252 (a guess): set data.encoding: cp1252, and look at the texts"
    with pytest.raises(InputError) as caught:
        prepared(content.encode("cp1252"))
    assert f"; {hint}; correct the file" in str(caught.value)
    _, printed = prepared(content.encode("cp1252"), name="told", encoding="cp1252")
    assert "0 rejected" in printed and "guess" not in printed
    few = "text,label\n" + "".join(f"{text},{label}\n" for text, label in film_rows(200)) + "win £5,1\n"
    _, printed = prepared(few.encode("cp1252"), name="few")
    assert f"some rows are not UTF-8 and are left out: {hint}" in printed
    mixed = few.encode() + "win £6,1\n".encode("cp1252")
    _, printed = prepared(mixed, name="mixed")
    assert "it has lines of UTF-8 and others that look like cp1252 (a guess): write these again as UTF-8" in printed


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
            assert table.labels[n].tolist() == vectors[cells[(row_id - 2) % 4]]


def test_blocks_and_processes_change_nothing(prepared, monkeypatch):
    rows = [*film_rows(), *film_rows(20), ("", "1")]
    whole, _ = prepared(rows, name="whole")
    monkeypatch.setattr(block_module, "BLOCK_BYTES", 700)
    cut, _ = prepared(rows, name="cut")
    assert len(list((cut / "train").glob("*.arrow"))) > 5
    for split in SPLITS:
        assert rows_of(cut, split) == rows_of(whole, split)
    names = ("statistics.json", "rejected.jsonl", "duplicates.jsonl", "conflicting_labels.jsonl", "labels.json")
    for name in names:
        assert (cut / name).read_text() == (whole / name).read_text()
    several, _ = prepared(rows, name="several", workers=2)
    for file in files_in(cut):
        assert sha256_of_file(several / file) == sha256_of_file(cut / file), file


def test_a_killed_run_goes_on_after_the_last_block(prepared, monkeypatch, tmp_path):
    from tfpipe.data import tables

    monkeypatch.setattr(block_module, "BLOCK_BYTES", 700)
    whole, _ = prepared(film_rows(), name="whole")
    calls = []

    class Killed(tables.TableMaker):
        def __call__(self, block):
            if len(calls) == 4:
                raise KeyboardInterrupt
            calls.append(block.name)
            return super().__call__(block)

    with monkeypatch.context() as patch:
        patch.setattr(tables, "TableMaker", Killed)
        with pytest.raises(KeyboardInterrupt):
            prepared(film_rows(), name="killed")
    (half_written,) = (tmp_path / "killed" / "checkpoints").glob("tables-*/train")
    (half_written / ".part-00000-00004.arrow.temporary").write_bytes(b"x")
    stage = StageDirectory("prepare", tmp_path / "killed", {})
    stage.clear_output()
    done = []

    class Noting(tables.TableMaker):
        def __call__(self, block):
            done.append(block.name)
            return super().__call__(block)

    monkeypatch.setattr(tables, "TableMaker", Noting)
    again, printed = prepared(film_rows(), name="killed", resume=True)
    assert "goes on after 4 of" in printed and not set(done) & set(calls) and done
    for split in SPLITS:
        assert rows_of(again, split) == rows_of(whole, split)
    assert (again / "statistics.json").read_text() == (whole / "statistics.json").read_text()


def test_the_seed_moves_rows(prepared):
    first, _ = prepared(film_rows(), name="first")
    second, _ = prepared(film_rows(), name="second", seed=1)
    assert tables(first)["test"].row_ids.tolist() != tables(second)["test"].row_ids.tolist()


BEAM = {
    "runner": "DirectRunner",
    "runner_options": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
}


@pytest.mark.parametrize(("stratified", "beam"), [(False, {"runner": "DirectRunner"}), (True, BEAM)])
def test_beam_makes_the_same(prepared, monkeypatch, stratified, beam):
    """By the DirectRunner, in this process or with two others: rows, splits, rejections, duplicates and ids."""
    rows = [*film_rows(), *film_rows(30), ("this film 7 is good", "0"), ("", "1"), ("x", "")]
    settings = {"max_rejected_fraction": 0.1, "split": {"stratified": stratified}}
    # Two files: Beam's processes cut them into blocks of the usual size.
    local, _ = prepared(rows, name="local", **settings)
    beam, _ = prepared(rows, name="beam", **settings, **beam)
    for split in SPLITS:
        assert rows_of(beam, split) == rows_of(local, split)
    for file in files_in(local):
        assert sha256_of_file(beam / file) == sha256_of_file(local / file), file
    assert files_in(beam) == files_in(local)


def test_beam_says_what_is_wrong_with_the_input(prepared):
    with pytest.raises(
        InputError, match=r"^\S*rows\.csv: no column 'label' \(data.label_column\); columns .* one of them$"
    ):
        prepared(film_rows(), columns=("text", "tag"), **BEAM)
    with pytest.raises(InputError, match=r"DataflowRunner needs scratch space .*--temp_location=gs://"):
        prepared(film_rows(), name="dataflow", runner="DataflowRunner", duplicates={"near": False})
    with pytest.raises(InputError, match=r"set data\.duplicates\.near: false"):
        prepared(film_rows(), name="near", runner="DataflowRunner")


def test_near_duplicates_are_removed_from_what_is_judged(prepared, capsys):
    long = "a long review of this very good film with a warm story and a funny plot, and it goes on and on, number {}"
    rows = [*film_rows(), *((long.format(n) + " of many" * (n % 3), "1") for n in range(60))]
    directory, printed = prepared(rows, name="removed", max_length=64)
    assert len(read_lines(directory / "duplicates.jsonl")) > 20
    kept, _ = prepared(rows, name="kept", duplicates={"across_splits": "keep"}, max_length=64)
    off, _ = prepared(rows, name="off", duplicates={"near": False}, max_length=64)
    listed = read_lines(directory / "duplicates.jsonl")
    found = {split: {line for *_, line in rows_of(off, split)} for split in SPLITS}
    splits = {line: split for split, lines in found.items() for line in lines}
    for entry in listed:
        assert entry["reason"] == "nearly the text of a held-out row"
        assert entry["removed"] and entry["similarity"] >= 0.8
        assert SPLITS.index(splits[entry["line"]]) < SPLITS.index(splits[entry["other"]["line"]])
    removed = {entry["line"] for entry in listed}
    for split in SPLITS:
        assert rows_of(directory, split) == [row for row in rows_of(off, split) if row[-1] not in removed]
        assert rows_of(kept, split) == rows_of(off, split)
    assert rows_of(directory, "test") == rows_of(off, "test")
    assert not any(entry["removed"] for entry in read_lines(kept / "duplicates.jsonl"))
    assert f"and {len(listed)} near duplicates of held-out rows removed" in printed


def test_given_splits_are_kept_and_twins_go(prepared, tmp_path):
    rows = [(text, label, ("train", "Test", "")[n % 3]) for n, (text, label) in enumerate(film_rows(240))]
    rows += [(rows[1][0], rows[1][1], "train"), ("another good film", "1", "nonsense")]
    directory, _ = prepared(rows, ("text", "label", "part"), split={"column": "part"})
    found = {split: {line - 2 for *_, line in rows_of(directory, split)} for split in SPLITS}
    assert set(range(0, 240, 3)) <= found["train"] | found["validation"]  # validation is taken from train
    assert set(range(1, 240, 3)) <= found["test"]
    assert found["validation"] and 240 not in found["train"] | found["validation"]
    (twin,) = [entry for entry in read_lines(directory / "duplicates.jsonl") if entry["line"] == 242]
    assert twin["reason"] == "same tokens as a held-out row" and twin["other"]["line"] == 3 and twin["removed"]
    (rejected,) = read_lines(directory / "rejected.jsonl")
    assert rejected["reason"] == "unknown split 'nonsense' (expected train, validation or test)"
    with pytest.raises(InputError, match=r"1 rows have exactly the tokens of a held-out row, and .* is refuse"):
        settings = {"split": {"column": "part"}, "duplicates": {"across_splits": "refuse"}}
        prepared(rows, ("text", "label", "part"), name="refused", **settings)
    assert [entry["line"] for entry in read_lines(tmp_path / "refused" / "duplicates.jsonl")] == [242]


def test_groups_stay_together_and_folds_cover_all(prepared):
    rows = [(text, label, f"user {n % 25}") for n, (text, label) in enumerate(film_rows(250))]
    directory, _ = prepared(rows, ("text", "label", "user"), split={"group_column": "user"})
    users = {split: {rows[line - 2][2] for *_, line in rows_of(directory, split)} for split in SPLITS}
    assert not users["train"] & users["test"] and not users["train"] & users["validation"]
    assert sum(map(len, users.values())) == 25
    tested = []
    for fold in range(3):
        directory, _ = prepared(rows, ("text", "label", "user"), name=f"fold{fold}", split={"folds": 3, "fold": fold})
        tested += [line for *_, line in rows_of(directory, "test")]
    assert sorted(tested) == list(range(2, 252))


def test_stratified_shares_are_exact(prepared):
    rows = [(f"this film {n} is good", "rare" if n % 10 == 0 else "common") for n in range(400)]
    directory, _ = prepared(rows, split={"train": 0.5, "validation": 0.25, "test": 0.25, "stratified": True})
    counts = read_json(directory / "statistics.json")["rows_per_label"]
    assert counts == {
        "train": {"common": 180, "rare": 20},
        "validation": {"common": 90, "rare": 10},
        "test": {"common": 90, "rare": 10},
    }


def test_augmented_rows_point_to_their_parents_and_stay_in_training(prepared):
    plain, _ = prepared(film_rows(), name="plain")
    settings = {"augmentation": {"copies": 2, "swap": 0.3, "deletion": 0.2}}
    directory, printed = prepared(film_rows(), name="augmented", **settings)
    for split in ("validation", "test"):
        assert rows_of(directory, split) == rows_of(plain, split)
    rows = rows_of(directory, "train")
    assert [row for row in rows if row[1] == 0] == rows_of(plain, "train")
    originals = {row[0]: row for row in rows if row[1] == 0}
    copies = [row for row in rows if row[1]]
    assert len(copies) > len(originals)
    for row_id, copy, text, _, label, line in copies:
        parent = originals[row_id]
        assert text != parent[2] and set(text.split()) <= set(parent[2].split())
        assert label == parent[4] and line == parent[5] and copy in (1, 2)
    made = read_json(directory / "statistics.json")["augmentation"]
    assert made["augmented"] == len(copies) and made["augmented"] + made["unchanged"] == 2 * len(originals)
    assert f"augmentation: {made['augmented']} altered copies" in printed
    again, _ = prepared(film_rows(), name="again", **settings)
    assert rows_of(again, "train") == rows
    other, _ = prepared(film_rows(), name="other", seed=1, **settings)
    assert {row[2] for row in rows_of(other, "train") if row[1]} != {row[2] for row in copies}


def test_oversampling_balances_training_alone(prepared):
    rows = [(f"this film {n} is good", "rare" if n % 7 == 0 else "common") for n in range(600)]
    plain, _ = prepared(rows, name="plain")
    directory, _ = prepared(rows, name="balanced", balance="oversample")
    counts = read_json(directory / "statistics.json")["rows_per_label"]
    assert abs(counts["train"]["rare"] / counts["train"]["common"] - 1) < 0.1
    before = read_json(plain / "statistics.json")["rows_per_label"]
    assert counts["train"]["common"] == before["train"]["common"] and counts["test"] == before["test"]
    texts = [row[2] for row in rows_of(directory, "train")]
    assert {row[2] for row in rows_of(plain, "train")} == set(texts)


def test_several_files_of_several_formats(prepared, tmp_path):
    rows = film_rows()
    whole, _ = prepared(rows, name="whole")
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": text, "label": int(label)}) for text, label in rows[100:])
    )
    with open(tmp_path / "b.tsv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("label", "text"), *((label, text) for text, label in rows[:100])])
    parts, _ = prepared([], name="parts", source=[str(tmp_path / "a.jsonl"), str(tmp_path / "b.tsv")])
    for split in SPLITS:  # however many files hold the rows, and in which order
        assert sorted(row[2:5] for row in rows_of(parts, split)) == sorted(row[2:5] for row in rows_of(whole, split))


def test_scripts_and_unknown_tokens_are_told(prepared):
    rows = [(f"фильм {n} 好电影 good" if n % 2 else f"good {n}", str(n % 3)) for n in range(400)]
    directory, printed = prepared(rows)
    scripts = read_json(directory / "statistics.json")["scripts"]
    assert set(scripts) == {"Cyrillic", "Latin", "Han"} and sum(scripts.values()) == pytest.approx(1, abs=1e-3)
    assert "of the tokens are [UNK]; the text is mostly Latin: is the encoder's vocabulary" in printed


def test_rare_labels_are_told(prepared):
    _, printed = prepared([(f"film {n}", "rare" if n % 40 == 0 else "common") for n in range(2000)])
    assert "of label common and" in printed and "consider train.class_weights: balanced, or data.balance" in printed


def test_tables_that_were_moved_are_made_again(prepared, monkeypatch, tmp_path):
    """Whatever fails after the last block: what a later try commits is whole."""
    whole, _ = prepared(film_rows(), name="whole")
    for failing in ("write_duplicates", "announce"):
        with monkeypatch.context() as patch:
            patch.setattr(prepare, failing, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                prepared(film_rows(), name=failing)
        StageDirectory("prepare", tmp_path / failing, {}).clear_output()
        again, _ = prepared(film_rows(), name=failing, resume=True)
        assert files_in(again) == files_in(whole)
        for split in SPLITS:
            assert rows_of(again, split) == rows_of(whole, split)


def test_swapped_files_are_other_data(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name},1\n")
    source = {"train": str(tmp_path / "a.csv"), "test": str(tmp_path / "b.csv")}
    before = sorted(identity(Data(source=source)).values())
    (tmp_path / "a.csv").write_text("text,label\nb,1\n")
    (tmp_path / "b.csv").write_text("text,label\na,1\n")
    assert sorted(identity(Data(source=source)).values()) != before


def test_every_try_of_an_augmentation_has_a_seed_of_its_own(prepared):
    directory, _ = prepared(film_rows(), augmentation={"copies": 10, "deletion": 0.05})
    made = read_json(directory / "statistics.json")
    per_row = made["augmentation"]["augmented"] / (made["rows"]["train"] - made["augmentation"]["augmented"])
    assert 1.5 < per_row < 3.5  # of ten tries over five or so words


@pytest.mark.parametrize("setting", [{"folds": 3}, {"group_column": "label"}, {"stratified": True}])
def test_settings_without_effect_where_the_source_gives_the_splits(prepared, monkeypatch, setting):
    """As a hub's dataset does, of which the configuration does not know it."""
    files = [SourceFile(n, f"{split}.csv", "", "csv", split) for n, split in enumerate(SPLITS)]
    monkeypatch.setattr(prepare, "source_files", lambda data: [replace(file, path=data.source) for file in files])
    with pytest.raises(InputError, match=f"gives the splits, so data.split.{next(iter(setting))} has no effect"):
        prepared(film_rows(), split=setting)


def test_nothing_that_can_be_used(prepared):
    with pytest.raises(InputError, match=r"no row can be used; see .*rejected\.jsonl"):
        prepared([("", "1")] * 5, max_rejected_fraction=1.0, label_names={"0": "a", "1": "b"})
    content = b"text,label,user\nhello,1,caf\xe9\n" + b"".join(b"film %d,%d,u\n" % (n, n % 2) for n in range(200))
    directory, _ = prepared(content, name="groups", filter={"label": ["0", "1"]})
    assert (directory / "rejected.jsonl").read_text() == ""
    with pytest.raises(
        InputError, match="none of the 200 usable rows falls into"
    ):  # one group; the bad one is rejected
        prepared(content, name="group", split={"group_column": "user"})


def test_a_given_split_without_a_usable_row_is_not_cut_from_training(prepared, tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in film_rows()))
    (tmp_path / "test.csv").write_text("text,label\n,1\n")
    source = {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv")}
    with pytest.raises(InputError, match=r"test\.csv: no row for test can be used; correct the file, or leave it out"):
        prepared([], source=source, max_rejected_fraction=0.5)


def test_a_row_that_is_removed_judges_nothing(prepared):
    """A validation row with a twin in test goes; a training row near to both is near to the test row."""
    long = "this film has a warm story and a funny plot and very good acting and a great cast"
    rows = [(text, label, "validation" if n % 5 == 0 else "train") for n, (text, label) in enumerate(film_rows())]
    rows += [(long, "1", "test"), (long, "1", "validation")]
    directory, _ = prepared([*rows, (f"{long}.", "1", "train")], ("text", "label", "part"), split={"column": "part"})
    found = {entry["line"]: entry["other"]["line"] for entry in read_lines(directory / "duplicates.jsonl")}
    assert found == {203: 202, 204: 202}


def test_the_output_does_not_name_where_the_files_lie(prepared, tmp_path, tiny_encoder):
    """The digest of a stage's output, by which later stages are up to date, leaves out `stage.listings`."""
    rows = [*film_rows(), *film_rows(5), ("", "1")]
    content = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
    outputs, messages = [], []
    for place in ("here", "elsewhere"):
        (tmp_path / place).mkdir()
        (tmp_path / place / f"{place}.csv").write_text(content)
        tree = {"source": str(tmp_path / place / f"{place}.csv"), "max_length": 32, "max_rejected_fraction": 0.1}
        tree = {"name": "x", "data": tree, "encoder": {"source": str(tiny_encoder)}}
        run = RunDirectory(tmp_path / f"run-{place}")
        pipeline.run(parse_config(tree, where="test"), run, until="prepare")
        outputs.append(run.record("prepare").output)
        messages.append(TokenTable.open(run.verified("prepare") / "train").locations([0])[0])
        assert {"rejected.jsonl", "sources.json"} < set(run.record("prepare").files_written)
    assert outputs[0] == outputs[1]
    assert messages[1] == messages[0].replace("here/here.csv", "elsewhere/elsewhere.csv")


def test_a_row_of_a_folder_names_its_file(prepared, tmp_path):
    for label in ("good", "bad"):
        (tmp_path / "films" / label).mkdir(parents=True)
    for n, (text, label) in enumerate(film_rows(60)):
        (tmp_path / "films" / ("bad", "good")[int(label)] / f"{n}.txt").write_text(text)
    directory, _ = prepared([], source=f"{tmp_path / 'films'}/")
    table = TokenTable.open(directory / "train")
    for n in range(table.num_rows):
        path = Path(table.locations([n])[0].partition("(")[2].removesuffix(":1)"))
        assert path.read_text(encoding="utf-8") == table.texts([n])[0]


def test_multi_label_null_is_no_label_and_an_empty_list_is_none_of_them(prepared, tmp_path):
    path = tmp_path / "rows.jsonl"
    labels = [None, [], ["a"], "", ["b", "a"], [None]]
    lines = [{"text": text, "label": labels[n % 6]} for n, (text, _) in enumerate(film_rows(240))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    directory, _ = prepared([], source=str(path), task="multi_label", max_rejected_fraction=0.5)
    assert read_json(directory / "statistics.json")["rejected"] == {
        "no label (null); a row that has none of the labels has an empty list or an empty text": 40,
        "a label in the list is null": 40,
    }
    for table in tables(directory).values():
        for n in range(table.num_rows):
            assert table.labels[n].sum() == [0, 1, 0, 2][(table.lines[n] - 2) % 6]
