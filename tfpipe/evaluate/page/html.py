"""The frame of a page: its policy and style, its head, and sections with anchors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import markupsafe

from tfpipe.evaluate.explained_html import STYLE as EXPLAINED
from tfpipe.evaluate.explained_html import content_policy
from tfpipe.evaluate.page.tables import TEMPLATES
from tfpipe.templates import render_html

_STYLE = (TEMPLATES / "page.css").read_text(encoding="utf-8") + EXPLAINED


class Content(NamedTuple):
    """A section with its content."""

    name: str
    title: str
    content: markupsafe.Markup


def framed(title: str, head: markupsafe.Markup, sections: Sequence[Content], foot: str) -> str:
    """Makes a page: one file without scripts, whose policy allows its own style and forbids all else.

    Args:
      title: of the page, any text.
      head: beginning of the page.
      sections: in their order.
      foot: end of the page, any text.
    """
    return str(
        render_html(
            TEMPLATES / "page.html.jinja",
            title=title,
            head=head,
            sections=sections,
            foot=foot,
            policy=content_policy(_STYLE),
            style=markupsafe.Markup(_STYLE),
        )
    )
