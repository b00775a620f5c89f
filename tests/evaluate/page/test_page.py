"""The page of made-up runs: every text is text, every number is one of the dictionary, the same bytes each time."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from made_up_report import HOSTILE, make_rows, make_summary, render, with_slices_and_label_errors

from tfpipe.evaluate.page.page import write_page
from tfpipe.evaluate.page.sections import SECTIONS
from tfpipe.evaluate.shown import percent

ALLOWED = set(
    "html head meta title style body a div header nav main section footer ul ol li h1 h2 h3 p code strong b bdi small "
    "dl dt dd table caption thead tbody tr th td figure figcaption details summary span mark s pre svg g path use defs "
    "clippath rect text desc".split()
)
ATTRIBUTES = set(
    "lang charset http-equiv content name class href id tabindex aria-label aria-labelledby role scope dir title open "
    "viewbox d x y width height transform fill stroke stroke-width stroke-linecap stroke-linejoin stroke-dasharray "
    "stroke-dashoffset stroke-opacity fill-opacity opacity clip-path font-size text-anchor stroke-miterlimit".split()
)


UNSEEN = "\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ufffe\uffff"


class _Parsed(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.elements, self.text, self.plots, self.identifiers, self._open = [], [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)
        self.identifiers += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self._open:
            self.text.append(data)
        if "svg" in self._open:
            self.plots.append(data)


def parsed(page: str) -> _Parsed:
    found = _Parsed(page)
    for tag, attributes in found.elements:
        assert tag in ALLOWED, tag
        assert attributes.keys() <= ATTRIBUTES, (tag, attributes)
        assert attributes.get("href", "#").startswith("#")
    assert len(found.identifiers) == len(set(found.identifiers))
    return found


@pytest.fixture(scope="module")
def summary():
    return make_summary()


@pytest.fixture(scope="module")
def plain(summary):
    return render(summary, make_rows(summary))


def test_elements_attributes_and_identifiers_are_the_expected_ones(plain):
    found = parsed(plain)
    anchors = {attributes["href"][1:] for tag, attributes in found.elements if tag == "a"}
    assert anchors <= set(found.identifiers)
    (policy,) = [attributes["content"] for tag, attributes in found.elements if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    assert "http" not in plain.replace("http-equiv", "")


def test_regions_that_scroll_are_reached_and_have_names_of_their_own(plain):
    regions = [attributes for _, attributes in parsed(plain).elements if attributes.get("role") == "region"]
    names = [each["aria-label"] for each in regions]
    assert len(regions) > 10 and all(each["tabindex"] == "0" for each in regions) and len(set(names)) == len(names)


def test_plots_have_titles_and_descriptions(plain):
    found = parsed(plain)
    plots = [attributes for tag, attributes in found.elements if tag == "svg"]
    assert len(plots) == 7
    for each in plots:
        assert each["role"] == "img" and set(each["aria-labelledby"].split()) <= set(found.identifiers)


def test_numbers_are_those_of_the_dictionary(summary, plain):
    text = " ".join("".join(parsed(plain).text).split())
    for variant, measured in summary["measures"].items():
        for name in ("accuracy", "macro_f1", "weighted_recall"):
            assert percent(measured["scores"][name]["value"]) in text
        assert f"{measured['scores']['loss']['value']:.4f}" in text
        assert f"{summary['calibration'][variant]['temperature']:g}" in text
    verdict = summary["artifacts"][-1]
    assert f"It has {percent(verdict['accuracy'])} % of all 120 test rows right" in text


def test_another_number_is_another_page(summary, plain):
    changed = summary | {"artifacts": [row | {"accuracy": 0.123456} for row in summary["artifacts"]]}
    assert "12.35" not in plain and "12.35" in render(changed, make_rows(summary))


def test_the_same_numbers_are_the_same_bytes(summary, plain, tmp_path):
    assert render(summary, make_rows(summary)) == plain
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_page(tmp_path / name, summary, make_rows(summary), [], [])
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 8
    assert all((tmp_path / "a" / each).read_bytes() == (tmp_path / "b" / each).read_bytes() for each in files)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_hostile_texts_are_text(task):
    everything = "\n".join(HOSTILE)
    summary = make_summary(labels=HOSTILE, task=task) | {
        "encoder": everything, "source": list(HOSTILE), "machine": everything, "settings": {"name": everything},
        "published": list(HOSTILE), "name": everything,
    }  # fmt: skip
    page = render(with_slices_and_label_errors(summary, everything), make_rows(summary, everything, everything))
    found = parsed(page)
    text = "".join(found.text)
    assert not re.search(f"[{UNSEEN}]", page)
    for each in HOSTILE:
        assert re.sub(f"[{UNSEEN}]", "\ufffd", each) in text
        if "<" in each:
            assert each not in page
    titles = [value for _, attributes in found.elements if (value := attributes.get("aria-label"))]
    assert titles and "$x^2_{y}$" in "".join(found.plots)


@pytest.mark.parametrize("key", ["slices", "label_errors"])
def test_a_section_appears_where_its_key_is(summary, plain, key):
    full = with_slices_and_label_errors(summary)
    page = render({name: value for name, value in full.items() if name != key}, make_rows(summary))
    other = "label_errors" if key == "slices" else "slices"
    assert f'id="{key}"' not in page and f'id="{other}"' in page and f'id="{key}"' not in plain
    assert f'id="{key}"' in render(full, make_rows(summary))


def test_slices_and_label_errors_are_shown(summary):
    text = "".join(parsed(render(with_slices_and_label_errors(summary), make_rows(summary))).text)
    assert "1 to 9 tokens" in text and "25.00 to 75.00" in text and "0.01 worse" in text
    assert "1 of 120 rows look wrong" in text and "1 of 500 rows look wrong. The model was trained on them" in text


def test_a_run_of_dense_alone(summary):
    alone = make_summary(variants=("dense",)) | {"history": {}, "published": []}
    page = render(alone, make_rows(alone) | {"mistakes": {"variant": "dense", "count": 0, "shown": [], "method": None}})
    shown = set(re.findall(r'<h2 id="([\w]+)"', page))
    assert shown == {each.name for each in SECTIONS} - {
        "compression", "mistakes", "slices", "label_errors", "training",
    }  # fmt: skip
    assert "Nothing was published" in page and "Against dense" not in page


def test_a_label_without_rows_has_dashes(summary):
    rare = make_summary(labels=("a", "b", "never"), never=(2,))
    page = render(rare, make_rows(rare))
    row = re.search(r"<tr><th[^>]*>never</th>(.*?)</tr>", page, re.DOTALL)
    assert "–" in row[1] and "nan" not in page.lower().replace("nanum", "")


def test_many_labels_have_pairs_and_one_curve():
    many = make_summary(labels=tuple(f"label {at}" for at in range(150)), rows=600)
    page = render(many, make_rows(many))
    parsed(page)
    assert "confuses most" in page and "one curve counts all of them together" in page and len(page) < 1_500_000


def test_several_labels_have_thresholds_and_a_confusion_of_each():
    several = make_summary(labels=("a", "b", "c"), task="multi_label")
    page = render(several, make_rows(several))
    assert "Thresholds of each label" in page and "has it not, given" in page and "Coverage and precision" not in page


def test_an_abstaining_model_says_how_much_it_answers():
    sure = make_summary(precision=0.9)
    page = render(sure, make_rows(sure))
    assert "of these answers are right" in page


def test_latencies_that_were_not_measured_leave_no_hole(summary):
    none = [row | {"latency_ms": dict.fromkeys(row["latency_ms"])} for row in summary["artifacts"]]
    page = render(summary | {"artifacts": none}, make_rows(summary))
    assert "<dt>Latency</dt>" not in page and "None" not in page


def test_logits_that_are_not_finite_are_said(summary):
    spoilt = [row | {"max_abs_logit_diff": None} for row in summary["artifacts"]]
    assert "not finite" in render(summary | {"artifacts": spoilt}, make_rows(summary))
