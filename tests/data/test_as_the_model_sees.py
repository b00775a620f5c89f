"""Duplicates, copies and balance go by what the model sees of a row, and by the rows that are left in the end."""

import itertools
import random

import numpy as np
import pytest
from data.preparing import SPLITS, film_rows, read_json, read_lines, rows_of, tables, tokens_of

from tfpipe.data.seen_text import SeenText
from tfpipe.errors import InputError
from tfpipe.tokens.tokenizer import Tokenizer
from tfpipe.tokens.tokenizer_settings import TokenizerSettings

CONTENT = "film movie story plot good great bad awful dull cast acting scene weak warm funny lovely".split()
STOP = "the this it is was and of on but as".split()


def words(seed, count, among=(*CONTENT, *STOP)):
    chance = random.Random(seed)
    return " ".join(chance.choice(among) for _ in range(count))


def stop_word_rows():
    """Texts that differ in their stop words alone, twelve of each kind."""
    rows, chance = {}, random.Random(0)
    for noun, verdict in itertools.product(["film", "movie", "story", "plot"], ["good", "great", "bad", "awful"]):
        for _ in range(12):
            stop = [chance.choice(STOP) for _ in range(6)]
            text = f"{stop[0]} {stop[1]} {noun} {stop[2]} {stop[3]} {stop[4]} {verdict} {stop[5]}"
            rows[text] = (text, "01"[verdict in ("good", "great")])
    return list(rows.values())


CASES = {
    "stop words": (stop_word_rows(), {"cleaning": {"stop_words": "english"}}),
    "cut": ([(f"{words(n % 40, 30)} {words(1000 + n, 40)}", "01"[n % 2]) for n in range(300)], {"max_length": 24}),
    "case and accents": (
        [(t.upper() if n % 2 else f"{t}\u0301", "01"[n % 3 % 2]) for n, (t, _) in enumerate(film_rows(41) * 6)],
        {},
    ),
    "html": (
        [(f"{words(n % 51, 8)}{'<br />' if n % 2 else ' '}{n % 51} &amp; co", "01"[n % 2]) for n in range(200)],
        {"cleaning": {"html": True}},
    ),
    "unknown words": ([(f"{words(n % 60, 6)} {chr(0x4E00 + n)}", "01"[n % 2]) for n in range(240)], {}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("near", [False, "auto"])
def test_no_row_is_in_two_splits_token_for_token(prepared, case, near):
    rows, settings = CASES[case]
    directory, _ = prepared(rows, duplicates={"near": near}, **settings)
    seen = {split: set(tokens_of(directory, split)) for split in SPLITS}
    for first, second in itertools.combinations(SPLITS, 2):
        assert not seen[first] & seen[second], (first, second)
    labels = [tuple(row) for row in tables(directory)["train"].labels.tolist()]
    assert len(set(zip(tokens_of(directory, "train"), labels, strict=True))) == len(labels)
    assert read_json(directory / "statistics.json")["duplicates"]["rows_with_a_held_out_twin"] > 0


def test_seen_text_is_the_text_without_what_the_model_does_not_see(tiny_encoder):
    settings = TokenizerSettings.read(tiny_encoder)
    texts = ["  This film,\n it IS good-", "x" * 200 + " film", "", "élan film42", "中 film " * 40]
    ids, _ = Tokenizer(settings, 16).encode(np.array(texts))
    content, lengths = SeenText(settings)(ids.values.numpy(), ids.row_splits.numpy())
    parts = np.split(content, np.cumsum(lengths)[:-1])
    found = [part.tobytes().decode() for part in parts]
    assert found[:4] == ["this film , it is good -", "[unk] film", "", "elan film42"]
    assert found[4] == " ".join(["[unk] film"] * 7)
    pairs, _ = Tokenizer(settings, 16).encode(np.array(["a film"]), np.array(["the plot"]))
    content, lengths = SeenText(settings)(pairs.values.numpy(), pairs.row_splits.numpy())
    assert content.tobytes() == b"a film the plot" and lengths.tolist() == [15]


ALTERED = [
    {"copies": 2, "deletion": 0.15},
    {"copies": 2, "swap": 0.15},
    {"copies": 1, "deletion": 0.05, "swap": 0.02},
]


@pytest.mark.parametrize("augmentation", ALTERED)
@pytest.mark.parametrize("balance", ["none", "oversample"])
def test_copies_differ_to_the_model_from_their_row_and_from_held_out_rows(prepared, augmentation, balance):
    rows = stop_word_rows()
    rows += [(f"{words(n, 40)} {words(n + 999, 40)}", "0") for n in range(150)]
    settings = {"cleaning": {"stop_words": "english"}, "max_length": 24, "augmentation": augmentation}
    directory, printed = prepared(rows, balance=balance, duplicates={"near": False}, **settings)
    table, tokens = tables(directory)["train"], tokens_of(directory, "train")
    parents = {row_id: ids for row_id, copy, ids in zip(table.row_ids, table.copies, tokens, strict=True) if not copy}
    texts = {
        row_id: text
        for row_id, copy, text in zip(table.row_ids, table.copies, table.texts(range(table.num_rows)), strict=True)
        if not copy
    }
    held_out = {*tokens_of(directory, "validation"), *tokens_of(directory, "test")}
    altered = 0
    for n in range(table.num_rows):
        assert tokens[n] not in held_out
        if table.copies[n] and table.texts([n])[0] != texts[table.row_ids[n]]:
            altered += 1
            assert tokens[n] != parents[table.row_ids[n]]
    made = read_json(directory / "statistics.json")["augmentation"]
    assert altered == made["augmented"] > 0 and f"{altered:,} altered copies" in printed


def test_a_copy_that_is_a_held_out_row_is_left_out(prepared):
    """Of five words one is deleted: a copy is a row of four words, all of which are held out."""
    rows = [(" ".join(five), "01"[n % 2], "train") for n, five in enumerate(itertools.combinations(CONTENT[:7], 5))]
    rows += [
        (" ".join(four), "01"[n % 2], ("test", "validation")[n % 2])
        for n, four in enumerate(itertools.combinations(CONTENT[:7], 4))
    ]
    settings = {"split": {"column": "part"}, "duplicates": {"near": False}}
    directory, printed = prepared(
        rows, ("text", "label", "part"), augmentation={"copies": 10, "deletion": 0.1}, **settings
    )
    assert not {*tokens_of(directory, "train")} & {*tokens_of(directory, "test"), *tokens_of(directory, "validation")}
    made = read_json(directory / "statistics.json")["augmentation"]
    assert made["equal_to_held_out"] > 20 and f"{made['equal_to_held_out']} as equal to a held-out row" in printed


@pytest.mark.parametrize("augmentation", ALTERED)
def test_html_does_not_come_apart_in_copies(prepared, tiny_encoder, augmentation):
    rows = [
        (f"{words(n, 6)} <br /> {words(n + 500, 6)}<br>{words(n + 900, 6)} &amp;lt; co", "01"[n % 2]) for n in range(80)
    ]
    settings = {"cleaning": {"html": True}, "max_length": 64, "duplicates": {"near": False}}
    directory, _ = prepared(rows, augmentation=augmentation, **settings)
    vocabulary = TokenizerSettings.read(tiny_encoder).vocabulary
    pieces = [[vocabulary[token] for token in row] for row in tokens_of(directory, "train")]
    assert not any("<" in row or ">" in row for row in pieces)
    assert len(pieces) > 80
    for row in pieces:  # what `&amp;lt;` stands for is the text `&lt;`, in copies as well
        assert row.count("&") in (0, 1) and ("&" not in row or "".join(row).count("&l##t;") == 1)


def test_the_texts_of_a_pair_are_altered_independently(prepared):
    rows = [(words(n, 10, CONTENT), words(n + 999, 10, CONTENT), "01"[n % 2]) for n in range(300)]
    settings = {"text_pair_column": "other", "augmentation": {"copies": 1, "deletion": 0.3}}
    directory, _ = prepared(rows, ("text", "other", "label"), duplicates={"near": False}, **settings)
    table = tables(directory)["train"]
    every = range(table.num_rows)
    lengths = [
        (len(first.split()), len(second.split()))
        for first, second, copy in zip(table.texts(every), table.text_pairs(every), table.copies, strict=True)
        if copy
    ]
    share = sum(first == second for first, second in lengths) / len(lengths)
    assert abs(share - 0.19) < 0.08  # two draws of binomial(10, 0.7) are equal so often


@pytest.mark.parametrize("max_length", [12, 25])
def test_only_what_is_seen_of_a_long_text_is_altered(prepared, max_length):
    rows = [(words(n, 60, CONTENT), words(n + 999, 40, CONTENT), "01"[n % 2]) for n in range(60)]
    settings = {"text_pair_column": "other", "max_length": max_length, "augmentation": {"copies": 3, "swap": 0.05}}
    directory, _ = prepared(rows, ("text", "other", "label"), duplicates={"near": False}, **settings)
    table = tables(directory)["train"]
    seen = {}
    for n in range(table.num_rows):
        texts = (*table.texts([n]), *table.text_pairs([n]))
        if not table.copies[n]:
            seen[table.row_ids[n]] = texts
        else:
            room = (max_length - 3 + 1) // 2
            for text, parent in zip(texts, seen[table.row_ids[n]], strict=True):
                assert text.split()[room:] == parent.split()[room:]


def template(n):
    return f"{words('template', 30)} {n}"


def test_labels_are_balanced_over_the_rows_that_are_left(prepared):
    rows = [(words(n, 12), "a") for n in range(400)]
    rows += [(template(1000 + n), "b") for n in range(80)] + [(words(100000 + n, 12), "b") for n in range(20)]
    directory, _ = prepared(rows, balance="oversample", max_length=64)
    statistics = read_json(directory / "statistics.json")
    assert statistics["duplicates"]["rows_near_a_held_out_one"] > 30
    counts = statistics["rows_per_label"]["train"]
    assert abs(counts["a"] / counts["b"] - 1) < 0.15


@pytest.mark.parametrize("alike", [60, 100, 700])
def test_rows_that_may_not_be_compared_crowd_out_none(prepared, alike):
    """Validation rows that are alike among themselves have near ones in test."""
    rows = [(words(f"train {n}", 20), "01"[n % 2], "train") for n in range(50)]
    rows += [(template(1000 + n), "01"[n % 2], "validation") for n in range(alike)]
    rows += [(words(f"validation {n}", 20), "01"[n % 2], "validation") for n in range(20)]
    rows += [(template(5000 + n), "01"[n % 2], "test") for n in range(40)]
    directory, printed = prepared(rows, ("text", "label", "part"), split={"column": "part"}, max_length=64)
    statistics = read_json(directory / "statistics.json")
    assert statistics["rows"]["validation"] == 20 and "more held-out rows" not in printed
    assert statistics["duplicates"]["rows_near_a_held_out_one"] == alike
    assert all(entry["other"]["line"] > alike for entry in read_lines(directory / "duplicates.jsonl"))


def test_a_row_that_goes_takes_no_other_with_it(prepared):
    """A training row is near to a validation row; that one is near to a test row, and goes."""
    common = words("common", 22, CONTENT)
    rows = [(text, label, ("train", "validation", "test")[n % 3]) for n, (text, label) in enumerate(film_rows(60))]
    rows += [(f"{common} good film story acting", "1", "test")]
    rows += [(f"{common} good film movie weak", "1", "validation")]
    rows += [(f"{common} dull plot movie weak", "1", "train")]
    settings = {"split": {"column": "part"}, "max_length": 64}
    near = {"duplicates": {"near_similarity": 0.72}}
    found = {}
    for across_splits in ("remove", "keep"):
        near["duplicates"]["across_splits"] = across_splits
        directory, _ = prepared(rows, ("text", "label", "part"), name=across_splits, **settings, **near)
        listed = read_lines(directory / "duplicates.jsonl")
        found[across_splits] = {(entry["line"] - 62, entry["other"]["line"] - 62) for entry in listed}
    assert found == {"remove": {(1, 0)}, "keep": {(1, 0), (2, 1)}}


@pytest.mark.parametrize("frequent", [0, 60, 85, 95])
def test_a_frequent_text_does_not_turn_the_shares_around(prepared, frequent):
    rows = [(words(n, 12), "a") for n in range(600)]
    rows += [("thank you", "b")] * frequent + [(words(100000 + n, 12), "b") for n in range(100 - frequent)]
    random.Random(1).shuffle(rows)
    split = {"train": 0.6, "validation": 0.2, "test": 0.2, "stratified": True}
    if frequent == 95:  # six texts are too few to stratify
        rows += [(words(200000 + n, 12), "b") for n in range(20)]
    directory, _ = prepared(rows, split=split, duplicates={"near": False})
    texts = {name: len({text for _, _, text, _, label, _ in rows_of(directory, name) if label[1]}) for name in SPLITS}
    total = sum(texts.values())
    assert texts == {
        "train": round(0.6 * total),
        "validation": round(0.8 * total) - round(0.6 * total),
        "test": total - round(0.8 * total),
    }


def test_a_split_of_duplicates_alone_says_so(prepared):
    rows = [(f"{words(n, 6, STOP)} {CONTENT[n % 3]}", "01"[n % 2]) for n in range(200)]
    with pytest.raises(InputError, match=r"all \d+ rows of train have the tokens of a held-out row, .* data\.cleaning"):
        prepared(rows, cleaning={"stop_words": "english"})
