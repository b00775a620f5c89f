"""Explanations that are made up, and pages as a browser takes them apart."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from tfpipe.evaluate.explained import ExplainedText, ExplainedWord, Explanation


def explanation_of(text, *shares, label="positive", **changed):
    """Words of a text, split at white space, with their attributions."""
    words = [
        ExplainedWord(match[0], match.start(), match.end(), share)
        for match, share in zip(re.finditer(r"\S+", text), shares, strict=True)
    ]
    values = {
        "texts": (ExplainedText(text, tuple(words), len(text)),),
        "answer": label,
        "label": label,
        "is_answer": True,
        "probability": 0.75,
        "difference": sum(shares),
        "remainder": 0.0,
        "completeness_error": 0.0,
        "rounding": None,
        "steps": 32,
        "method": "integrated_gradients",
    }
    return Explanation(**(values | changed))


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self.cells = [], "", ""
        self.feed(str(page))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data
        self.cells += data.strip()

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cells += "|"

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]
