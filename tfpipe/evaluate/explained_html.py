"""Explanations as HTML: a text whose words are marked, its strongest words, and their sum.

A page that shows them needs no script and no file beside it. It holds `STYLE` in its only `<style>` element, and
`content_policy` in a `<meta>` element, which forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

import markupsafe

from tfpipe.evaluate.explained import GRADIENT_X_INPUT, Explanation
from tfpipe.evaluate.shown import percent
from tfpipe.templates import render_html

_TEMPLATES = resources.files("tfpipe.evaluate") / "templates"
STYLE = (_TEMPLATES / "explained.css").read_text(encoding="utf-8")
"""of the elements that `fragment` makes, in light and dark"""


def fragment(explanation: Explanation) -> markupsafe.Markup:
    """Renders an explanation as an `<article>`, every text in it escaped."""
    return render_html(_TEMPLATES / "explained.html.jinja", e=explanation, sum=sum_of(explanation))


def sum_of(explanation: Explanation) -> str:
    """Writes the sum of the words of an explanation, and how far it is from the expected sum."""
    e = explanation
    total = e.signed(e.difference - e.remainder)
    said = (
        f"words sum to {total} of a difference of {e.signed(e.difference)} from the baseline; completeness error "
        f"{percent(e.completeness_error)} %"
    )
    if e.method == GRADIENT_X_INPUT:
        return f"gradient × input, a local approximation that need not add up: {said}"
    rounding = "" if e.rounding is None else f"; rounding adds {e.signed(e.rounding)}, which no word explains"
    return f"{said}, {e.steps} steps{rounding}"


def content_policy(style: str) -> str:
    """Gives the Content-Security-Policy of a page whose only resource is a style: nothing else is loaded or run.

    Args:
      style: the whole text of the page's `<style>` element.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
