"""Templates of Markdown files, by Jinja."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources.abc import Traversable
from typing import Any

import jinja2

from tfpipe import escaping


def render(file: Traversable, filters: dict[str, Callable[..., str]] | None = None, /, **values: Any) -> str:
    """Renders a template, in which `markdown` and `code` make any text harmless.

    Args:
      file: the template.
      filters: more filters, by name.
      **values: what the template names; a name that is missing is an error.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"markdown": escaping.markdown, "code": escaping.code} | (filters or {})
    return environment.from_string(file.read_text(encoding="utf-8")).render(**values)
