import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfpipe.data import near_index
from tfpipe.data.near_index import PERMUTATIONS, PIECE_BYTES, NearIndex

WORDS = [
    f"{first}{second}" for first in ("ba", "ko", "le", "mi", "ru") for second in ("nt", "st", "ck", "ld", "ve", "gh")
]


def signatures(texts):
    rows = [text.encode() for text in texts]
    lengths = np.array([len(row) for row in rows], np.int64)
    return near_index.signatures(np.frombuffer(b"".join(rows), np.uint8), lengths)


def nearest(index, signed):
    *found, undecided = index.nearest(signed)
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
    NearIndex.write(tmp_path, limit, np.arange(300) + 1000, stored)
    asked = signatures(changed)
    rows, others, similarity = nearest(NearIndex(tmp_path, limit), asked)
    found = dict(zip(rows.tolist(), others.tolist(), strict=True))
    expected = {n for n in range(300) if np.mean(asked[n] == stored[n]) >= limit}
    assert set(found) == expected and len(expected) > 100
    assert all(other == row + 1000 for row, other in found.items())
    assert (similarity >= limit).all()


def test_short_texts_and_none(tmp_path):
    assert not (signatures(["a"]) == signatures(["b"])).all()
    assert (signatures(["", "a", ""])[1] == signatures(["a"])[0]).all()
    NearIndex.write(tmp_path, 0.8, np.empty(0, np.int64), signatures([]))
    index = NearIndex(tmp_path, 0.8)
    for asked in ([], ["a"]):
        rows, _, _ = nearest(index, signatures(asked))
        assert rows.tolist() == []


def test_thousands_that_are_alike_stay_within_memory(tmp_path):
    texts = [f"this is one of very many rows that were made from one and the same template, {n}" for n in range(3000)]
    stored = signatures(texts)
    NearIndex.write(tmp_path, 0.8, np.arange(3000), stored)
    tracemalloc.start()
    rows, _, similarity = nearest(NearIndex(tmp_path, 0.8), signatures(texts))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == 3000 and (similarity >= 0.8).all()
    assert peak < 200e6, f"{peak / 1e6:.0f} MB"


def test_rows_that_are_near_to_none_of_too_many_are_counted(tmp_path):
    """All share six tenths of their pieces, and so bands: a row with more candidates than are compared is told."""
    chance = random.Random(0)
    common = "thank you for your order, which we have sent to you on this very day; yours"
    texts = [f"{common} {''.join(chance.choices('abcdefghij', k=20))}" for _ in range(3005)]
    stored, asked = signatures(texts[:3000]), signatures(texts[3000:])
    for count, undecided in ((3000, 5), (500, 0)):
        NearIndex.write(tmp_path / str(count), 0.8, np.arange(count), stored[:count])
        rows, _, _, more = NearIndex(tmp_path / str(count), 0.8).nearest(asked)
        assert not len(rows) and more == undecided
