"""Plots: texts stay texts, colors are the page's, and one page holds several."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from made_up_report import HOSTILE

from tfpipe.evaluate.page import figures
from tfpipe.evaluate.page.svg import drawn

BINS = [{"confidence": 0.6, "accuracy": 0.5}, {"confidence": 0.9, "accuracy": 0.95}]


@pytest.fixture(scope="module")
def plot():
    return drawn("a-plot", "T <&\"'", 'D "]]>', lambda: figures.reliability(dict.fromkeys(HOSTILE, BINS)))


def test_it_is_one_element_that_a_page_may_hold(plot):
    root = ElementTree.fromstring(str(plot.svg))
    assert root.tag == "svg" and root.attrib["role"] == "img" and "width" not in root.attrib
    assert root.attrib["aria-labelledby"] == "a-plot-title a-plot-description"
    assert (root.find("title").text, root.find("desc").text) == ("T <&\"'", 'D "]]>')
    for element in root.iter():
        assert element.tag not in ("style", "script", "image", "metadata", "a", "foreignObject")
        assert not {"style", "onload", "href"} & {name for name in element.attrib if element.tag != "use"}
        assert element.attrib.get("href", "#a-plot-").startswith("#a-plot-")
        assert element.attrib.get("id", "a-plot-").startswith("a-plot-")


def test_labels_are_texts_and_no_formulas(plot):
    texts = [element.text for element in ElementTree.fromstring(str(plot.svg)).iter("text")]
    for each in HOSTILE:
        assert any(figures.short(each) == text for text in texts), each


def test_no_color_is_fixed(plot):
    fixed = {color for color in re.findall(r'(?:fill|stroke)="([^"]+)"', plot.svg) if color != "none"}
    assert all(color == "currentColor" or color.startswith("var(--") for color in fixed), fixed
    assert "var(--series-1)" in fixed and "var(--line)" in fixed


def test_the_same_numbers_are_the_same_bytes(plot):
    again = drawn("a-plot", "T <&\"'", 'D "]]>', lambda: figures.reliability(dict.fromkeys(HOSTILE, BINS)))
    assert again == plot and again.png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", "a b"), ("x" * 30, "x" * 23 + "…"), ("a\u202eb", "a\ufffdb"), ("\ud800", "\ufffd"), ("$x$", "$x$")],
)
def test_names_are_one_line_that_fits(text, shown):
    assert figures.short(text) == shown
