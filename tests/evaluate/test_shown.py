"""Numbers as they are shown: they claim no more than they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfpipe import metrics
from tfpipe.evaluate.shown import amount, change_with_interval, percent, rows_measured, with_interval


@given(st.integers(1, 10**7).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(0, 3))
def test_all_and_none_are_exact(counts, digits):
    some, n = counts
    text = percent(some / n, digits)
    assert (text == f"{100:.{digits}f}") == (some == n) and (text == f"{0:.{digits}f}") == (some == 0)
    bound = float(text.lstrip("<>"))
    exact = some / n * 100
    if text[0] in "<>":
        assert exact > bound if text[0] == ">" else 0 < exact < bound
    else:
        assert abs(exact - bound) <= 0.5 * 10**-digits + 1e-9


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_is_shown_as_it_is(counts):
    """Within the rounding of two decimals; at the ends it is one-sided."""
    rate, interval = counts[0] / counts[1], metrics.wilson_interval(counts[0] / counts[1], counts[1])
    low, high = map(float, with_interval(rate, interval).split("(")[1].strip(")").split(" to "))
    assert low == pytest.approx(interval[0] * 100, abs=0.0051) and high == pytest.approx(interval[1] * 100, abs=0.0051)
    assert 0.0 <= low <= rate * 100 + 0.0051 and rate * 100 - 0.0051 <= high <= 100.0


def test_forms():
    assert with_interval(0.8255, (0.80640, 0.84301)) == "82.55 (80.64 to 84.30)"
    assert with_interval(1.0, (0.9795, 1.0)) == "100.00 (97.95 to 100.00)"
    assert change_with_interval(-0.0073, (-0.0196, 0.005)) == "-0.73 (-1.96 to +0.50)"
    assert [percent(share) for share in (1.0, 0.99996, 0.5, 0.00004, 0.0)] == [
        "100.00",
        ">99.99",
        "50.00",
        "<0.01",
        "0.00",
    ]
    assert percent(0.9999, 1) == ">99.9" and percent(0.0, 1) == "0.0" and percent(float("nan")) == "nan"
    assert [amount(value) for value in (300.0, 1.26, 0.043, 0.96, 0.0)] == ["300.0", "1.3", "0.043", "0.96", "0.0"]
    assert rows_measured(1650, 1650) == "all 1,650 test rows"
    assert rows_measured(1000, 2412) == "a random sample of 1,000 of 2,412 test rows"
