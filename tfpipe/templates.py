"""Templates of Markdown files and pages of HTML, by Jinja."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from importlib.resources.abc import Traversable
from typing import Any

import jinja2
import markupsafe

from tfpipe import escaping

_OPTIONS: dict[str, Any] = {
    "undefined": jinja2.StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
}


def render(file: Traversable, filters: dict[str, Callable[..., str]] | None = None, /, **values: Any) -> str:
    """Renders a template of Markdown, in which `markdown` and `code` make any text harmless.

    Args:
      file: the template.
      filters: more filters, by name.
      **values: what the template names; a name that is missing is an error.
    """
    environment = jinja2.Environment(**_OPTIONS)
    environment.filters |= {"markdown": escaping.markdown, "code": escaping.code} | (filters or {})
    return environment.from_string(file.read_text(encoding="utf-8")).render(**values)


def render_html(file: Traversable, **values: Any) -> markupsafe.Markup:
    """Renders a template of HTML, in which every text is escaped: see `stream_html`."""
    return markupsafe.Markup("".join(stream_html(file, **values)))


def stream_html(file: Traversable, **values: Any) -> Iterator[str]:
    """Renders a template of HTML part by part, as the items of its loops come.

    Every text is escaped, in attributes too. `visible` replaces the characters that a page can't show.

    Args:
      file: the template.
      **values: what the template names; a name that is missing is an error.
    """
    return _page(file).generate(**values)


@functools.cache
def _page(file: Traversable) -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, **_OPTIONS)
    environment.filters["visible"] = escaping.visible
    return environment.from_string(file.read_text(encoding="utf-8"))
