from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfpipe.config.data import SPLITS
from tfpipe.config.rows import Split
from tfpipe.data.split import assign, borders, content_digest, digests, positions, stratified_borders, turned

TEXTS = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20)
PAIRS = st.one_of(st.none(), TEXTS)


def split_all(texts, seed=0, split=None, given=()):
    split = split or Split()
    position = turned(positions(digests(texts, None, seed)), split)
    codes = assign(position, np.full(len(texts), -1, np.int8), borders(split, set(given)), False)
    return [SPLITS[code] for code in codes]


@given(st.lists(TEXTS, min_size=1, max_size=20), st.randoms(use_true_random=False), st.integers(0, 2**31 - 1))
def test_neither_order_nor_other_rows_matter(rows, random, seed):
    alone = {row: split_all([row], seed)[0] for row in rows}
    shuffled = rows[: len(rows) // 2] * 2 + rows
    random.shuffle(shuffled)
    assert split_all(shuffled, seed) == [alone[row] for row in shuffled]


@given(st.tuples(TEXTS, PAIRS), st.tuples(TEXTS, PAIRS))
def test_only_equal_rows_have_equal_digests(first, second):
    assert (content_digest(*first) == content_digest(*second)) == (first == second)


def test_where_one_text_ends_matters():
    rows = [("ab", "c"), ("a", "bc"), ("abc", None), ("abc", ""), ("", "abc"), ("ab\x01c", None)]
    assert len({content_digest(*row) for row in rows}) == len(rows)


def test_shares_are_met():
    counts = Counter(split_all([f"text {n}" for n in range(20_000)], split=Split(train=0.7, validation=0.1, test=0.2)))
    assert abs(counts["train"] - 14_000) < 300
    assert abs(counts["validation"] - 2_000) < 200
    assert abs(counts["test"] - 4_000) < 250


def test_the_seed_deals_anew_and_moving_a_border_moves_few():
    texts = [f"text {n}" for n in range(2000)]
    before = split_all(texts)
    assert before != split_all(texts, seed=1)
    after = split_all(texts, split=Split(train=0.85, validation=0.1, test=0.05))
    assert all(new == "train" for old, new in zip(before, after, strict=True) if old == "train")


def test_splits_stay_what_they_were():
    # Golden: a change here would move the rows of every user's data between training and test.
    names = split_all([str(number) for number in range(20)], seed=7)
    assert "".join(name[:2] for name in names) == "trtrvatrtrtrtrtrtrtrtrtrtrvatrtrvatrtetr"
    assert content_digest("good film", "great story").hex() == "37ba97be9e8630c56c7cdbc298d84aa4"


def test_every_row_is_tested_in_one_fold():
    texts = [f"text {n}" for n in range(3000)]
    folds = [split_all(texts, split=Split(folds=5, fold=fold)) for fold in range(5)]
    for names in zip(*folds, strict=True):
        assert names.count("test") == 1
    for fold in folds:
        counts = Counter(fold)
        assert abs(counts["test"] - 600) < 90 and abs(counts["validation"] - 2400 / 9) < 60


@pytest.mark.parametrize(
    ("given", "expected"),
    [(set(), (0.8, 0.9)), ({0, 2}, (0.9, 1.0)), ({0, 1}, (0.9, 0.9)), ({0}, (0.8, 0.9)), ({0, 1, 2}, (1.0, 1.0))],
)
def test_a_split_that_is_not_given_is_taken_from_train(given, expected):
    assert borders(Split(), given) == pytest.approx(expected)


def test_given_splits_hold():
    given = np.array([0, 0, 1, 2, -1], np.int8)
    position = np.array([0.1, 0.95, 0.1, 0.1, 0.95])
    assert assign(position, given, (0.9, 1.0), False).tolist() == [0, 0, 1, 2, 1]
    assert assign(position, given, (0.9, 1.0), True).tolist() == [0, 1, 1, 2, 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), min_size=1, max_size=200))
def test_stratified_shares_are_exact_to_a_text(rows):
    label = np.array([label for label, _ in rows], np.uint64)
    position = np.array([position / 51 for _, position in rows])
    own = stratified_borders(position, label, (0.6, 0.8))
    for value in np.unique(label).tolist():
        mine = np.unique(position[label == value])  # rows of one position, which are of one text, stay together
        if len(mine) < 10:
            assert value not in own
            continue
        first, second = own[value]
        for border, share in ((first, 0.6), (second, 0.8)):
            assert int((mine < border).sum()) == round(share * len(mine))
