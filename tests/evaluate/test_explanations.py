"""Explanations: words of the text as given, what they sum to, which labels, and pages that run nothing."""

import re

import numpy as np
import pytest
from explained_texts import Page, explanation_of
from test_attributions import PAIRS, TEXTS, classifier_of

from tfpipe.evaluate import explained_html
from tfpipe.evaluate.explanations import Explainer
from tfpipe.model.classifier import load_classifier
from tfpipe.tokens.tokenizer_settings import TokenizerSettings


@pytest.fixture(scope="module")
def settings(tiny_run):
    return TokenizerSettings.read(tiny_run[1] / "train")


def sum_of_words(explanation):
    return sum(word.attribution for word in explanation.words)


def assert_sound(explanation, texts):
    assert [each.text for each in explanation.texts] == texts
    for each in explanation.texts:
        assert "".join(part.text for part in each.segments()) == each.text
        assert all(each.text[word.start : word.end] == word.text for word in each.words)
    assert explanation.completeness_error < 0.01
    assert sum_of_words(explanation) + explanation.remainder == pytest.approx(explanation.difference, abs=1e-9)


@pytest.mark.parametrize("stage", ["prune", "quantize"])
def test_words_that_the_model_learned_carry_the_answer(tiny_run, stage):
    directory = tiny_run[1] / stage
    explainer = Explainer(load_classifier(directory), TokenizerSettings.read(directory))
    texts = ["This film is very GOOD and lovely", "this film is very bad and awful"]
    for text, label, words, (explanation,) in zip(
        texts, ("positive", "negative"), ({"GOOD", "lovely"}, {"bad", "awful"}), explainer.explain(texts), strict=True
    ):
        assert_sound(explanation, [text])
        assert explanation.answer == explanation.label == label and explanation.is_answer
        assert explanation.difference > 0.01 and explanation.probability > 0.5
        assert {word.text for word in explanation.strongest(3)[0]} >= words
        assert (explanation.rounding is None) == (stage == "prune")


def test_another_label_than_the_answer_is_explained_where_it_is_asked_for(tiny_run, settings):
    """Of two labels, what speaks for one speaks against the other."""
    explainer = Explainer(load_classifier(tiny_run[1] / "train"), settings)
    (both,) = explainer.explain(TEXTS[:1], labels=[[0, 1]])
    assert [each.label for each in both] == ["negative", "positive"]
    assert [each.is_answer for each in both] == [False, True] and both[0].answer == "positive"
    assert sum(each.probability for each in both) == pytest.approx(1.0)
    for one, other in zip(both[0].words, both[1].words, strict=True):
        assert one.attribution == pytest.approx(-other.attribution, abs=1e-4)


def test_pairs_have_words_in_both_texts(settings):
    explainer = Explainer(classifier_of(3), settings)
    for text, pair, (explanation,) in zip(TEXTS, PAIRS, explainer.explain(TEXTS, PAIRS), strict=True):
        assert_sound(explanation, [text, pair])
        assert all(each.words for each in explanation.texts)


def test_of_several_labels_each_of_the_answer_is_explained(settings):
    classifier = classifier_of(5, "multi_label")
    chosen = [each for each in Explainer(classifier, settings).explain(TEXTS) if len(each) > 1]
    assert chosen
    for explanations in chosen:
        assert explanations[0].answer == "|".join(each.label for each in explanations)
        for each in explanations:
            assert_sound(each, [each.texts[0].text])
            assert each.is_answer and each.probability > 0.5


def test_where_no_label_is_given_the_nearest_is_explained(settings):
    bias = np.array([-50.0, -40.0, -60.0], np.float32)
    explainer = Explainer(classifier_of(3, "multi_label", **{"classifier.bias": bias}), settings)
    for (explanation,) in explainer.explain(TEXTS):
        assert explanation.answer == "" and explanation.label == "label 1" and not explanation.is_answer


def test_what_the_model_does_not_read_is_told(settings):
    explainer = Explainer(classifier_of(2), settings)
    long = "good film " * 40
    ((explanation,), (other,)) = explainer.explain([long, "a film"])
    assert_sound(explanation, [long])
    assert explanation.texts[0].read_to == len("good film " * 15) - 1  # 30 words and two special tokens
    assert [part.is_read for part in explanation.texts[0].segments()][-2:] == [True, False]
    assert other.texts[0].read_to == len("a film")
    ((pair,),) = explainer.explain([long], ["bad"])
    assert [text.read_to == len(text.text) for text in pair.texts] == [False, True]


def test_a_text_without_words_has_an_explanation_without_words(settings):
    ((explanation,),) = Explainer(classifier_of(2), settings).explain(["\u200b "])
    assert explanation.words == [] and explanation.difference == pytest.approx(0.0, abs=1e-5)
    assert explained_html.fragment(explanation).count("<mark") == 0


def test_texts_and_labels_are_text_in_a_page_wherever_they_stand():
    hostile = """<script>alert(1)</script> "onmouseover="x <img/src=x> &amp; ' {{7*7}}"""
    label = '<b>"good"</b>\u202e\x00'
    page = Page(explained_html.fragment(explanation_of(hostile, 1.0, -0.5, 0.3, 0.2, -0.1, 0.4, label=label)))
    assert {name for name, _ in page.elements} <= set(
        "article h2 small p mark table caption thead tbody tr th td".split()
    )
    assert hostile in page.text and '<b>"good"</b>\ufffd\ufffd' in page.text
    assert {name for _, attributes in page.elements for name in attributes} <= {
        *("class", "title", "lang", "dir", "scope", "colspan"),
    }
    marks = page.named("mark")
    assert marks[0] == {"class": "for-5", "title": '+1.00 for <b>"good"</b>\ufffd\ufffd'}
    assert [mark["class"] for mark in marks] == ["for-5", "against-3", "for-2", "for-1", "against-1", "for-2"]


def test_words_of_little_part_are_not_marked_and_the_strongest_are_in_a_table():
    page = Page(explained_html.fragment(explanation_of("a small gem of film", 0.02, -0.3, 1.0, 0.0, 0.2)))
    assert [mark["title"] for mark in page.named("mark")] == [
        "-0.30 against positive",
        "+1.00 for positive",
        "+0.20 for positive",
    ]
    assert "for positive|against|gem|+1.00|small|-0.30|film|+0.20|" in page.cells
    said = "Words sum to +0.92 of a difference of +0.92 from the baseline; completeness error 0.00 %, 32 steps."
    assert said in page.text


def test_colors_can_be_read():
    """Contrast of words with their backgrounds, by the formula of WCAG 2.1, in light and dark."""

    def luminance(color):
        color = "".join(2 * digit for digit in color) if len(color) == 3 else color
        channels = np.array([int(color[at : at + 2], 16) for at in (0, 2, 4)]) / 255
        linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    def contrast(one, other):
        low, high = sorted([luminance(one), luminance(other)])
        return (high + 0.05) / (low + 0.05)

    light, dark = explained_html.STYLE.split("@media")
    for style in (light, dark):
        own = re.search(r"mark \{ color: #(\w+)", style)[1]
        for name, rule in re.findall(r"((?:for|against)-\d) \{ ([^}]*)\}", style):
            color = re.search(r"; color: #(\w+)", rule)
            background = re.search(r"background: #(\w+)", rule)[1]
            assert contrast(color[1] if color else own, background) >= 4.5, (name, rule)
    assert len(re.findall(r"(?:for|against)-\d \{", explained_html.STYLE)) == 20


def test_numbers_have_as_many_digits_as_their_words_need():
    large, small = explanation_of("good film", 1.0, -0.001), explanation_of("good film", 0.01, -0.001)
    assert [large.signed(word.attribution) for word in large.words] == ["+1.00", "0.00"]
    assert [small.signed(word.attribution) for word in small.words] == ["+0.0100", "-0.0010"]


def test_an_approximation_says_so():
    said = explained_html.sum_of(
        explanation_of("good", 0.5, method="gradient_x_input", completeness_error=0.6, difference=1.25, remainder=0.75)
    )
    assert said == (
        "gradient × input, a local approximation that need not add up: words sum to +0.50 of a difference of +1.25 "
        "from the baseline; completeness error 60.00 %"
    )
