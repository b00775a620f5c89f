import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfpipe.data.duplicates import ROW, Verdict, duplicates_among


def records_of(rows):
    """(text, label, split) -> `[rows] ROW`; the row's id is its place."""
    records = np.zeros(len(rows), ROW)
    for place, (text, label, split) in enumerate(rows):
        records[place] = ((text * 7 + 1, text), place, label, 9, split)
    return records


def test_who_goes_and_why():
    rows = [
        (1, 0, 0), (1, 0, 0), (1, 1, 0),  # training alone: the first of each label stays
        (2, 0, 0), (2, 0, 2), (2, 0, 2), (2, 1, 1),  # test judges: its own rows stay
        (3, 0, 1), (3, 0, 1), (3, 0, 0),  # validation judges training
        (4, 0, 0),
    ]  # fmt: skip
    verdict = duplicates_among(records_of(rows))
    assert verdict.identical.tolist() == [[1, 0]]
    assert sorted(verdict.twins.tolist()) == [[3, 4], [6, 4], [9, 7]]
    assert verdict.conflicts == [[0, 1, 2], [3, 4, 5, 6]]
    assert verdict.texts_that_repeat == 3


def test_nothing_repeats():
    for rows in ([], [(1, 0, 0)], [(1, 0, 0), (2, 0, 1), (3, 0, 2)]):
        verdict = duplicates_among(records_of(rows))
        assert not len(verdict.identical) and not len(verdict.twins) and not verdict.texts_that_repeat


ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(0, 2)), max_size=40)


@given(ROWS, st.randoms(use_true_random=False))
def test_what_stays_is_clean_whatever_the_order(rows, random):
    records = records_of(rows)
    verdict = duplicates_among(records)
    gone = {*verdict.identical[:, 0].tolist(), *verdict.twins[:, 0].tolist()}
    assert len(gone) == len(verdict.identical) + len(verdict.twins)
    left = [place for place in range(len(rows)) if place not in gone]
    judged = {}
    for place in left:
        judged.setdefault(rows[place][0], set()).add(rows[place][2])
    assert all(len(splits) == 1 for splits in judged.values())  # no text in two splits
    trained = [rows[place][:2] for place in left if rows[place][2] == 0]
    assert len(trained) == len(set(trained))
    assert {rows[place][0] for place in left} == {text for text, *_ in rows}  # no text is lost
    for place in gone:
        assert rows[place][2] < 2  # a test row is never removed
    for row, other in verdict.twins.tolist():
        assert rows[row][0] == rows[other][0] and rows[row][2] < rows[other][2] and other not in gone
    order = list(range(len(rows)))
    random.shuffle(order)
    again = duplicates_among(records[order])
    assert again.identical.tolist() == verdict.identical.tolist() and again.twins.tolist() == verdict.twins.tolist()


@given(ROWS)
def test_texts_apart_from_each_other_are_judged_apart(rows):
    """A bucket holds all rows of a text: it must not matter which other texts it holds."""
    records = records_of(rows)
    whole = duplicates_among(records)
    joined = Verdict.joined([duplicates_among(records[records["digest"][:, 1] == n]) for n in range(7)])
    assert joined.identical.tolist() == whole.identical.tolist() and joined.twins.tolist() == whole.twins.tolist()
    assert joined.conflicts == sorted(whole.conflicts) and joined.texts_that_repeat == whole.texts_that_repeat
