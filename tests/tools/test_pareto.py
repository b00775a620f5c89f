"""Fronts against their definition, the table, the plot."""

import xml.etree.ElementTree

from hypothesis import given
from hypothesis import strategies as st

from tfpipe.tools.pareto import cells, front, markdown_table, marked, plot, print_table

ROW = {
    "point": "prune.sparsity=0.5",
    "variant": "int8",
    "validation_accuracy": 0.82,
    "accuracy": 0.815,
    "accuracy_change": -0.005,
    "accuracy_change_95": [-0.013, 0.003],
    "size_bytes": 23_000_000,
    "latency_ms": 74.04,
    "speedup": 2.7,
    "within_budget": True,
    "agrees": True,
    "on_speed_front": True,
    "on_size_front": False,
}
DENSE = ROW | {"variant": "dense", "speedup": 1.0, "latency_ms": 200.0, "size_bytes": 91_000_000}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_on_the_front_nothing_is_better(points):
    found = front(points)
    for index, (x, y) in enumerate(points):
        beaten = any(a >= x and b >= y and (a > x or b > y) for a, b in points)
        assert (index in found) != beaten


def test_what_was_not_measured_is_on_no_front():
    assert front([(None, 1.0), (0.5, 0.5), (0.4, 0.4)]) == {1}
    assert front([]) == set()


def test_cells():
    assert cells(ROW, [DENSE, ROW]) == [
        "prune.sparsity=0.5", "int8", "82.00", "81.50", "-0.50 (-1.30 to +0.30)", "23.0", "74.0", "2.70", "speed",
    ]  # fmt: skip
    assert cells(DENSE, [DENSE, ROW])[0] == "" and cells(DENSE, [DENSE, ROW])[4] == ""
    outside = cells(ROW | {"within_budget": False, "latency_ms": None, "speedup": None, "on_speed_front": False}, [])
    assert outside[-3:] == ["-", "-", "outside the budget"]


def test_what_does_not_answer_like_its_model_is_on_no_front():
    good, bad = ROW, ROW | {"agrees": False, "validation_accuracy": 0.99}
    assert [row["on_speed_front"] for row in marked([good, bad])] == [True, False]
    assert cells(marked([bad])[0], [bad])[-1] == "does not agree with Keras"


def test_one_of_several_dense_models_is_named_by_its_point():
    other = DENSE | {"point": "encoder.source=b"}
    assert [cells(row, [DENSE, other])[0] for row in (DENSE, other)] == ["prune.sparsity=0.5", "encoder.source=b"]


def test_tables(capsys):
    lines = markdown_table([DENSE, ROW]).splitlines()
    assert len(lines) == 4 and {line.count("|") for line in lines} == {10}
    print_table([DENSE, ROW])
    assert "prune.sparsity=0.5" in capsys.readouterr().out


def test_the_plot_is_an_image_of_all_points(tmp_path):
    rows = [DENSE, ROW, ROW | {"point": "prune.sparsity=0.8", "latency_ms": None, "speedup": None}]
    plot(rows, tmp_path / "pareto.svg")
    tree = xml.etree.ElementTree.parse(tmp_path / "pareto.svg")
    assert tree.getroot().tag.endswith("svg")
    text = (tmp_path / "pareto.svg").read_text()
    assert "prune.sparsity=0.8" in text and "accuracy on validation rows" in text
    before = (tmp_path / "pareto.svg").read_bytes()
    plot(rows, tmp_path / "pareto.svg")
    assert (tmp_path / "pareto.svg").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["pareto.svg"]
