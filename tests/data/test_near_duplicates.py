import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfpipe.data import near_duplicates
from tfpipe.data.near_duplicates import PERMUTATIONS, PIECE_BYTES, NearIndex

WORDS = [
    f"{first}{second}" for first in ("ba", "ko", "le", "mi", "ru") for second in ("nt", "st", "ck", "ld", "ve", "gh")
]


def signatures(texts):
    rows = [text.encode() for text in texts]
    lengths = np.array([len(row) for row in rows], np.int64)
    return near_duplicates.signatures(np.frombuffer(b"".join(rows), np.uint8), lengths)


def nearest(index, signed, split):
    *found, undecided = index.nearest(signed, split)
    assert undecided == 0
    return found


def pieces(text):
    content = text.encode().ljust(PIECE_BYTES, b"\0")
    return {content[at : at + PIECE_BYTES] for at in range(len(content) - PIECE_BYTES + 1)}


def jaccard(first, second):
    one, other = pieces(first), pieces(second)
    return len(one & other) / len(one | other)


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
def test_a_signature_depends_on_its_text_alone(texts):
    together = signatures(texts)
    assert together.shape == (len(texts), PERMUTATIONS)
    for text, signature in zip(texts, together, strict=True):
        assert (signatures([text])[0] == signature).all()


def test_the_estimate_is_near_the_similarity():
    chance = random.Random(0)
    for changed in (1, 3, 6, 12):
        errors = []
        for _ in range(40):
            words = [chance.choice(WORDS) for _ in range(40)]
            other = list(words)
            for place in chance.sample(range(40), changed):
                other[place] = chance.choice(WORDS)
            first, second = " ".join(words), " ".join(other)
            one, two = signatures([first, second])
            errors.append(float(np.mean(one == two)) - jaccard(first, second))
        assert abs(np.mean(errors)) < 0.02 and np.std(errors) < 0.07


@pytest.mark.parametrize("limit", [0.6, 0.8, 0.95])
def test_banding_finds_what_is_near(tmp_path, limit):
    chance = random.Random(1)
    texts = [" ".join(chance.choice(WORDS) for _ in range(30)) for _ in range(300)]
    changed = [
        text.replace(chance.choice(text.split()), "xyzzy", 1) if n % 2 else text + "." for n, text in enumerate(texts)
    ]
    stored = signatures(texts)
    row_ids, split = np.arange(300) + 1000, np.full(300, 2, np.int8)
    NearIndex.write(tmp_path, limit, row_ids, split, stored)
    asked = signatures(changed)
    rows, others, similarity = nearest(NearIndex(tmp_path, limit), asked, np.zeros(300, np.int8))
    found = dict(zip(rows.tolist(), others.tolist(), strict=True))
    expected = {n for n in range(300) if np.mean(asked[n] == stored[n]) >= limit}
    assert set(found) == expected and len(expected) > 100
    assert all(other == row + 1000 for row, other in found.items())
    assert (similarity >= limit).all()


def test_only_a_split_above_judges(tmp_path):
    text = "the quick brown fox jumps over the lazy dog"
    stored = signatures([text, f"{text}s"])
    NearIndex.write(tmp_path, 0.8, np.array([7, 8]), np.array([1, 2], np.int8), stored)
    index = NearIndex(tmp_path, 0.8)
    asked = signatures([text, text, text, "something else entirely"])
    rows, others, _ = nearest(index, asked, np.array([0, 1, 2, 0], np.int8))
    assert rows.tolist() == [0, 1] and others.tolist() == [7, 8]  # the equal one; validation is judged by test alone


def test_short_texts_and_none(tmp_path):
    assert not (signatures(["a"]) == signatures(["b"])).all()
    assert (signatures(["", "a", ""])[1] == signatures(["a"])[0]).all()
    NearIndex.write(tmp_path, 0.8, np.empty(0, np.int64), np.empty(0, np.int8), signatures([]))
    index = NearIndex(tmp_path, 0.8)
    for asked in ([], ["a"]):
        rows, _, _ = nearest(index, signatures(asked), np.zeros(len(asked), np.int8))
        assert rows.tolist() == []


def test_thousands_that_are_alike_stay_within_memory(tmp_path):
    texts = [f"this is one of very many rows that were made from one and the same template, {n}" for n in range(3000)]
    stored = signatures(texts)
    NearIndex.write(tmp_path, 0.8, np.arange(3000), np.full(3000, 2, np.int8), stored)
    tracemalloc.start()
    rows, _, similarity = nearest(NearIndex(tmp_path, 0.8), signatures(texts), np.zeros(3000, np.int8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == 3000 and (similarity >= 0.8).all()
    assert peak < 200e6, f"{peak / 1e6:.0f} MB"


def test_rows_that_may_not_be_compared_leave_none_undecided(tmp_path):
    """Of 600 rows that share bands and are not near, validation's are not compared with each other."""
    texts = [f"thank you for your order number {n} of {WORDS[n % 30]} and {WORDS[n // 20]}" for n in range(600)]
    stored = signatures(texts)
    NearIndex.write(tmp_path, 0.97, np.arange(600), np.full(600, 1, np.int8), stored)
    *_, undecided = NearIndex(tmp_path, 0.97).nearest(stored, np.full(600, 1, np.int8))
    assert undecided == 0
