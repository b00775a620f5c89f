"""Plots as SVG inside a page, which take its colors in light and dark, and as PNG files.

Enters: a figure that is drawn in the colors of `ink.py`. Leaves: SVG without styles, scripts and references, its text
as text; and the bytes of a PNG file in light colors. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from xml.etree import ElementTree

import markupsafe
import matplotlib
from matplotlib.figure import Figure

from tfpipe.evaluate.page.ink import INKS

_RULES = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")} | {
    "svg.fonttype": "none",
    "svg.hashsalt": "tfpipe",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "path.simplify": True,
    "font.size": 10.0,
    "figure.dpi": 100.0,
}
_REFERENCE = re.compile(r"(?:url\()?#([\w.-]+)\)?")
_DOTS_PER_INCH = 144


class Plot(NamedTuple):
    """A plot of a page."""

    name: str
    """of its PNG file, and of its identifiers in the page"""
    title: str
    description: str
    """what the plot shows, for readers who do not see it"""
    svg: markupsafe.Markup
    png: bytes


def drawn(name: str, title: str, description: str, draw: Callable[[], Figure]) -> Plot:
    """Draws a plot.

    Args:
      name: letters and hyphens, once in a page.
      title: of the plot.
      description: of the plot, in a sentence or two.
      draw: makes the figure; its texts are plain.
    """
    with _settings():
        figure, vector, pixels = draw(), io.BytesIO(), io.BytesIO()
        figure.savefig(vector, format="svg", facecolor="none", metadata={"Date": None})
        figure.savefig(pixels, format="png", facecolor="white", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return Plot(name, title, description, inlined(vector.getvalue(), name, title, description), pixels.getvalue())


def inlined(source: bytes, name: str, title: str, description: str) -> markupsafe.Markup:
    """Turns a file of matplotlib's into an element for a page.

    Args:
      source: the file.
      name: that its identifiers begin with.
      title: of the plot, any text.
      description: any text.
    """
    root = ElementTree.fromstring(source)
    used = {found for element in root.iter() for value in element.attrib.values() for found in _referred(value)}
    used &= {element.attrib.get("id") for element in root.iter()}
    _clean(root, name, used)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-description",
        "class": "plot",
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }
    for tag, text in (("desc", description), ("title", title)):
        element = ElementTree.Element(tag, {"id": f"{name}-{'title' if tag == 'title' else 'description'}"})
        element.text = text
        root.insert(0, element)
    return markupsafe.Markup(ElementTree.tostring(root, encoding="unicode"))


@contextmanager
def _settings() -> Iterator[None]:
    with matplotlib.rc_context(_RULES), warnings.catch_warnings():
        # The font that measures texts lacks many scripts; a browser has others.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        yield


def _referred(value: str) -> list[str]:
    return _REFERENCE.findall(value) if "#" in value else []


def _clean(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Removes parts that a page has no place for: styles, metadata, namespaces, identifiers that nothing refers to."""
    element.tag = _local(element.tag)
    for child in list(element):
        if _local(child.tag) in ("metadata", "style"):
            element.remove(child)
        else:
            _clean(child, name, used)
    attributes = {_local(key): value for key, value in element.attrib.items()}
    attributes |= _of_style(attributes.pop("style", ""))
    identifier = attributes.pop("id", None)
    attributes = {key: _colored(_renamed(value, name, used)) for key, value in attributes.items()}
    if identifier in used:
        attributes["id"] = f"{name}-{identifier}"
    element.attrib.clear()
    element.attrib.update(attributes)


def _of_style(style: str) -> dict[str, str]:
    """Turns declarations into attributes, as the page's policy allows no `style`; the font's family is the page's."""
    found = {}
    for declaration in filter(None, map(str.strip, style.split(";"))):
        key, _, value = declaration.partition(":")
        if key == "font":
            found["font-size"] = next(part for part in value.split() if part.endswith("px")).removesuffix("px")
        elif key != "font-family":
            found[key] = value.strip()
    return found


def _renamed(value: str, name: str, used: set[str]) -> str:
    if not any(found in used for found in _referred(value)):
        return value
    return value.replace("#", f"#{name}-")


def _colored(value: str) -> str:
    return INKS.get(value.lower(), value)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
