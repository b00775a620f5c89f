from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tfpipe.config import Split
from tfpipe.data.split import Duplicates, content_digest, split_of

TEXTS = st.text(max_size=20)
PAIRS = st.one_of(st.none(), TEXTS)


@given(st.lists(st.tuples(TEXTS, PAIRS), max_size=20), st.randoms(use_true_random=False), st.integers(0, 2**31 - 1))
def test_neither_order_nor_other_rows_matter(rows, random, seed):
    split = Split()
    alone = {row: split_of(*row, seed, split) for row in rows}
    shuffled = rows[: len(rows) // 2] * 2 + rows
    random.shuffle(shuffled)
    assert all(split_of(*row, seed, split) == alone[row] for row in shuffled)


@given(st.tuples(TEXTS, PAIRS), st.tuples(TEXTS, PAIRS))
def test_only_equal_rows_have_equal_digests(first, second):
    assert (content_digest(*first) == content_digest(*second)) == (first == second)


def test_where_one_text_ends_matters():
    rows = [("ab", "c"), ("a", "bc"), ("abc", None), ("abc", ""), ("", "abc"), ("ab\x01c", None)]
    assert len({content_digest(*row) for row in rows}) == len(rows)


def test_shares_are_met():
    counts = Counter(split_of(f"text {n}", None, 0, Split(train=0.7, validation=0.1, test=0.2)) for n in range(20_000))
    assert abs(counts["train"] - 14_000) < 300
    assert abs(counts["validation"] - 2_000) < 200
    assert abs(counts["test"] - 4_000) < 250


def test_the_seed_deals_anew_and_moving_a_border_moves_few():
    texts = [f"text {n}" for n in range(2000)]
    shares, wider = Split(), Split(train=0.85, validation=0.1, test=0.05)
    before = [split_of(text, None, 0, shares) for text in texts]
    assert before != [split_of(text, None, 1, shares) for text in texts]
    after = [split_of(text, None, 0, wider) for text in texts]
    assert all(new == "train" for old, new in zip(before, after, strict=True) if old == "train")


def test_splits_stay_what_they_were():
    # Golden: a change here would move the rows of every user's data between training and test.
    names = [split_of(str(number), None, 7, Split()) for number in range(20)]
    assert "".join(name[:2] for name in names) == "trtrvatrtrtrtrtrtrtrtrtrtrvatrtrvatrtetr"
    assert content_digest("good film", "great story").hex() == "37ba97be9e8630c56c7cdbc298d84aa4"


def test_duplicates_and_conflicts():
    duplicates = Duplicates()
    assert not duplicates.seen("a", None, b"0")
    assert not duplicates.seen("b", None, b"0")
    assert not duplicates.repeated
    assert duplicates.seen("a", None, b"0")
    assert len(duplicates.repeated) == 1 and not duplicates.conflicting
    assert not duplicates.seen("a", "", b"0")  # a pair is another text
    assert not duplicates.seen("b", None, b"1")
    assert duplicates.seen("b", None, b"0")
    assert len(duplicates.repeated) == 2 and len(duplicates.conflicting) == 1
